"""Judge refined samples of a run beside those of its generator: figures, costs, and after how many steps they no longer improve."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gan_runner.assembly import parts
from gan_runner.commands import refining
from gan_runner.commands.settings import Evaluate
from gan_runner.datasets import Samples
from gan_runner.errors import UserError
from gan_runner.evaluation import seeds
from gan_runner.evaluation.findings import Findings, aim, evaluate, prefix_of, settings_of
from gan_runner.evaluation.metric import Direction, Metric
from gan_runner.evaluation.reference import Reference
from gan_runner.inventory.curves import blank
from gan_runner.refinement import Cost, Diagnosis, Refinement, Refiner
from gan_runner.reporting import Countdown, Reporter
from gan_runner.sampling.subjects import Collected
from gan_runner.trained import TrainedRun

LOOKS = frozenset({"generator", "log_prob", "encoder", "discriminator", "snapshots", "clock"})  # needs that samples alone do not meet
LOST = 0.05  # share of a coverage figure from which its loss is a warning
PILOT = 1_000_003  # added to the seed of a pilot
PILOTS, OF_PILOT = 4, 500  # evaluations of a pilot, and samples of each
LADDER = (1, 2, 3, 5, 7, 10, 15, 20, 25, 35, 50, 70, 100)  # numbers of steps that a pilot compares


class Row(NamedTuple):
    """Figures of samples after some steps of a refiner, by key, and what one sample costs; of the generator alone, nothing."""

    name: str
    figures: dict[str, float | None]
    cost: Cost


class Judged(NamedTuple):
    """The samples of one refiner: a line for metrics.jsonl, and the rows of the table that it says the same as."""

    line: dict[str, Any]
    rows: list[Row]
    pilot: list[Row]  # by which the number of steps was chosen
    diagnosis: Diagnosis | None  # of D on held-out samples


class Comparison:
    """The refiners of a line beside the samples of one checkpoint of a run, judged by the same metrics. UserError where they cannot be."""

    def __init__(
        self, run: TrainedRun, settings: Evaluate, metrics: Mapping[str, Metric], reference: Reference | None, reporter: Reporter
    ):  # fmt: skip
        self.run, self.settings, self.reference, self.reporter = run, settings, reference, reporter
        self.networks = refining.networks(run, settings)
        self.metrics = {name: metric for name, metric in metrics.items() if not metric.needs & LOOKS}
        if not self.metrics:
            raise UserError("no chosen metric judges samples alone: say 'metric=[...]'")
        if left := [name for name in metrics if name not in self.metrics]:
            reporter.say(f"note: {', '.join(left)} looks at networks, which refiners do not change: left out for refined samples")
        self.followed, self.better = self.aim()

    def aim(self) -> tuple[str, Direction | None]:
        """Return the figure that a number of steps is chosen by, and which way it is better: that of best.pt, where it is measured."""
        followed = ((self.run.config.get("callback") or {}).get("evaluate") or {}).get("best") or {}
        names = filter(None, (followed.get("metric"), *self.metrics))
        found = (aim(name, self.metrics) for name in names)
        first = prefix_of(*next(iter(self.metrics.items())))
        return next((each for each in found if each is not None and each[1] is not None), (first, None))

    def before(self, line: dict[str, Any]) -> Row:
        """Return the row of the samples that are not refined, whose line of metrics.jsonl this is."""
        known = {prefix_of(name, metric) for name, metric in self.metrics.items()}
        own = {key: value for key, value in line["metrics"].items() if key in known or any(key.startswith(f"{p}/") for p in known)}
        return Row("none", own, Cost(0, 0, 0))

    def judge(self, name: str, refiner: Refiner, before: dict[str, Any]) -> Judged:
        """Judge samples after the steps of a refiner, and after every so many of them, for each seed.

        before: the line of metrics.jsonl of samples that are not refined.
        """
        settings, pilot, found, costs = self.settings, list[Row](), list[dict[int, Findings]](), list[dict[int, Cost]]()
        for seed in range(settings.seed, settings.seed + settings.seeds):
            fitted = self.fitted(refiner, seed)
            if fitted.refiner.steps == "auto":
                steps, pilot = self.piloted(name, self.fitted(refiner, settings.seed + PILOT))
                refiner = copy.deepcopy(refiner)
                refiner.steps = fitted.refiner.steps = steps
            steps = int(fitted.refiner.steps)
            at = [*range(settings.every, steps, settings.every), steps] if settings.every else [steps]
            tick = Countdown(self.reporter, f"round {self.run.step}, {name}: ").at
            made = refining.refined(self.run, fitted, settings.n, at, tick, settings.batch_size)
            found.append({step: self.measured(made.x[step], made.y, seed) for step in at})
            costs.append(made.costs)
        for note in fitted.notes:
            self.reporter.say(f"note: {name}: {note}")
        rows, intervals = list[Row](), dict[str, list[float]]()
        for step in at:
            means, spread = seeds.over_seeds([each[step] for each in found])
            own = name if step == steps else f"{name}@{step}"
            rows.append(Row(own, means, Cost(*map(statistics.fmean, zip(*(each[step] for each in costs))))))
            intervals |= {key_of(own, key): value for key, value in spread.items()}
        for loss in losses(self.metrics, before["metrics"], rows[-1].figures):
            self.reporter.say(f"warning: {name} covers less of the data: {loss}")
        line = self.line_of(name, fitted, rows, found[0][steps], intervals, before)
        return Judged(line, rows, pilot, fitted.diagnosis)

    def fitted(self, refiner: Refiner, seed: int) -> Refinement:
        return refining.refinement(self.run, refiner, self.networks, seed, reference=self.reference)

    def measured(self, x: Tensor, y: Tensor | None, seed: int) -> Findings:
        """Compute the figures of refined samples (n ...)."""
        spec = self.run.spec if y is not None else self.run.spec._replace(classes=None, class_names=None)
        subject = Collected(Samples(spec.kind.as_bytes(x), y), spec, None, self.run.device, seed, self.run.dataset.to_float)
        return evaluate(subject, self.metrics, self.reference, batch_size=self.settings.batch_size)

    def piloted(self, name: str, fitted: Refinement) -> tuple[int, list[Row]]:
        """Choose a number of steps; returns it, and a row for each number that was tried.

        It is the first after which the figure of `aim`, or where this is undefined the next one that has a direction, is worse than the
        best one by no more than the standard error of their difference, over parts of samples of their own.
        """
        n = PILOTS * OF_PILOT
        made = refining.refined(self.run, fitted, n, LADDER, Countdown(self.reporter, f"pilot of {name}: ").at)
        parts: dict[int, list[Findings]] = {}
        for step in LADDER:
            labels = [None] * PILOTS if made.y is None else made.y.split(OF_PILOT)
            parts[step] = [self.measured(x, y, fitted.seed) for x, y in zip(made.x[step].split(OF_PILOT), labels)]
        rows = [Row(f"{name} pilot@{step}", seeds.over_seeds(parts[step])[0], made.costs[step]) for step in LADDER]
        ways = {self.followed: self.better} | parts[LADDER[0]][0].better
        for key, way in ways.items():
            sign = -1.0 if way == "min" else 1.0
            values = {step: [sign * value for each in parts[step] if (value := each.numbers.get(key)) is not None] for step in LADDER}
            if way is not None and all(len(each) == PILOTS for each in values.values()):
                best = max(LADDER, key=lambda step: statistics.fmean(values[step]))
                steps = next(step for step in LADDER if not surely_below(values[step], values[best]))
                self.reporter.say(f"{name}: steps={steps}, chosen by {key} of {n:,} samples of a pilot")
                return steps, rows
        raise UserError(f"refiner.{name}.steps=auto: no chosen metric tells which samples are better: say steps=NUMBER")

    def line_of(
        self, name: str, fitted: Refinement, rows: Sequence[Row], last: Findings, intervals: Mapping[str, list[float]],
        before: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        """Make the line of metrics.jsonl of a refiner; its keys are refined/NAME/KEY, so that no figure of the run changes."""
        own = {key: value for key, value in before["protocol"].items() if key in ("checkpoint", "generator", "seeds")}
        settings = {
            key: node for key, node in (self.settings.metric or {}).items() if any(key == n.partition(".")[0] for n in self.metrics)
        }
        keys = {key_of(row.name, key): about for row in rows for key, about in last.protocol["keys"].items()}
        protocol = last.protocol | own | self.networks.protocol | {"metrics": settings_of(settings), "keys": keys}
        protocol["seed"] = self.settings.seed
        protocol["refiner"] = self.settings.refiner[name] | {"steps": fitted.refiner.steps}
        protocol |= {"intervals_95": dict(intervals)} if intervals else {}
        line = {"step": before["step"], "images": before["images"]}
        line["metrics"] = {key_of(row.name, key): value for row in rows for key, value in row.figures.items()}
        line["better"] = {key_of(row.name, key): way for row in rows for key, way in last.better.items()}
        line |= {"protocol": protocol, "cost": {row.name: row.cost._asdict() for row in rows}}
        return line | ({} if fitted.diagnosis is None else {"diagnosis": fitted.diagnosis._asdict()})

    def plot(self, every: Sequence[Judged], before: dict[str, Any]) -> Tensor:
        """Draw the followed figure against evaluations of D a sample, a line for each refiner; returns pixels, 3 H W."""
        with blank(6, 4) as figure:
            axes = figure.subplots()
            for judged in every:
                rows = [self.before(before), *judged.rows]
                axes.plot(
                    [row.cost.evaluations for row in rows], [nan(row.figures.get(self.followed)) for row in rows], label=rows[-1].name
                )
            axes.set_xlabel("evaluations of D a sample")
            axes.set_ylabel(f"{self.followed} ({self.better} is best)")
            axes.legend(frameon=False)
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def with_coverage(config: dict[str, Any], packages: Sequence[str], bounded: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Add a measure of how much of the data is covered, which refiners may lose, where none is chosen. bounded: for images."""
    chosen: list[Any] = [parts.locate(node["_target_"], Metric, f"metric.{name}", packages) for name, node in config["metric"].items()]
    if any(kind.coverage for kind in chosen):
        return config
    networks = config.get("extractor") or ({} if bounded else {"identity": {"_target_": "gan_runner.extractors.Identity"}})
    if not networks:
        say("note: nothing says how much of the data is covered, which refiners may lose: 'extractor=[NAME]' adds density and coverage")
        return config
    metric = {"density_coverage": {"_target_": "gan_runner.metrics.DensityCoverage"}}
    return config | {"metric": config["metric"] | metric, "extractor": networks}


def losses(metrics: Mapping[str, Metric], before: Mapping[str, float | None], after: Mapping[str, float | None]) -> Iterator[str]:
    """Describe the figures of coverage that are lower by more than the share LOST."""
    for name, metric in metrics.items():
        for rest in metric.coverage:
            key = "/".join(filter(None, (prefix_of(name, metric), rest)))
            was, now = before.get(key), after.get(key)
            if was and now is not None and now < (1 - LOST) * was:
                yield f"{key} falls from {was:.4g} to {now:.4g}"


def key_of(name: str, key: str) -> str:
    """Return the key of a figure of refined samples."""
    return f"refined/{name}/{key}"


def surely_below(values: Sequence[float], best: Sequence[float]) -> bool:
    """Return whether the mean of values is below that of the best ones by more than the standard error of the difference."""
    apart = [b - a for a, b in zip(values, best)]
    return statistics.fmean(apart) > statistics.stdev(apart) / math.sqrt(len(apart))


def nan(value: float | None) -> float:
    return math.nan if value is None else value
