"""Judge refined samples beside those of the generator: figures, costs, and after how many steps they no longer improve."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_runner.datasets import Dataset, Samples
from gan_runner.datasets.dataset import unheard
from gan_runner.errors import UserError
from gan_runner.evaluation import seeds
from gan_runner.evaluation.findings import Findings, aim, evaluate, prefix_of
from gan_runner.evaluation.metric import Direction, Metric
from gan_runner.evaluation.reference import Reference
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.spec import Spec
from gan_runner.refinement.calibration import Diagnosis
from gan_runner.refinement.ratio import Ratio
from gan_runner.refinement.refined import Cost, Logits, Refinement
from gan_runner.refinement.refiner import Refiner
from gan_runner.reporting import Countdown, Reporter, Tick
from gan_runner.sampling.subjects import Collected

LOOKS = frozenset({"generator", "log_prob", "encoder", "discriminator", "snapshots", "clock"})  # needs that samples alone do not meet
LOST = 0.05  # share of a coverage figure from which its loss is a warning
PILOT = 1_000_003  # added to the seed of a pilot
PILOTS, OF_PILOT = 4, 500  # evaluations of a pilot, and samples of each
LADDER = (1, 2, 3, 5, 7, 10, 15, 20, 25, 35, 50, 70, 100)  # numbers of steps that a pilot compares
PREFIX = "refined"  # of the keys of refined samples
EVALUATIONS = "evaluations"  # of D a sample: the key of a figure


class Networks(NamedTuple):
    """What a density ratio is made from, in evaluation mode. centre: whether the logit is that of a critic, defined up to a constant."""

    generator: Generator
    discriminator: Discriminator
    corrector: Discriminator | None = None
    centre: bool = False

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters(), torch.zeros(())).device

    def fitted(
        self, refiner: Refiner, seed: int, y: int | None = None, reference: Reference | None = None, logits: Logits | None = None
    ) -> Refinement:
        """Fit a copy of a refiner. reference: real samples, of which held-out ones are looked at; None: D is not diagnosed. logits: as of
        `Refinement`."""
        return Refinement(
            copy.deepcopy(refiner), Ratio(*self[:3]), reference=reference, seed=seed, y=y, centre=self.centre, device=self.device,
            logits=logits,
        )  # fmt: skip


class Made(NamedTuple):
    """Samples (n ...) as data after several numbers of steps, their labels, and the mean costs of one."""

    x: dict[int, Tensor]
    y: Tensor | None
    costs: dict[int, Cost]


def made(fitted: Refinement, n: int, at: Sequence[int], tick: Tick = unheard, batch_size: int = 500) -> Made:
    """Make n samples after so many steps each, all in one pass."""
    batches = list(fitted.batches(n, at, batch_size, tick))
    sizes = [len(batch.x[at[0]]) for batch in batches]
    costs = {step: mean_cost([batch.costs[step] for batch in batches], sizes) for step in at}
    labels = None if batches[0].y is None else torch.cat([batch.y for batch in batches])
    return Made({step: torch.cat([batch.x[step] for batch in batches]) for step in at}, labels, costs)


def mean_cost(costs: Sequence[Cost], weights: Sequence[float]) -> Cost:
    return Cost(*(statistics.fmean(values, weights) for values in zip(*costs)))


class Row(NamedTuple):
    """Figures of samples after some steps of a refiner, by key, and what one sample costs; of the generator alone, nothing."""

    name: str
    figures: dict[str, float | None]
    cost: Cost


class Judged(NamedTuple):
    """The samples of one refiner: a row for each number of steps, the last one being that of the refiner."""

    rows: list[Row]
    pilot: list[Row]  # by which the number of steps was chosen
    steps: int
    found: Findings  # of the last row and the first seed
    intervals: dict[str, list[float]]  # of means over seeds, 95 %, by key with the prefix
    diagnosis: Diagnosis | None  # of D on held-out samples
    notes: list[str]

    def line(self, step: int, images: int, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """Make the line of metrics.jsonl; its keys are refined/NAME/KEY, so that no figure of the run changes."""
        keys = {key_of(row.name, key): about for row in self.rows for key, about in self.found.protocol["keys"].items()}
        said = {**self.found.protocol, **protocol, "keys": keys} | ({"intervals_95": self.intervals} if self.intervals else {})
        metrics: dict[str, float | None] = {}
        for row in self.rows:
            metrics |= {key_of(row.name, key): value for key, value in row.figures.items()}
            metrics[key_of(row.name, EVALUATIONS)] = row.cost.evaluations
        better = {key_of(row.name, key): way for row in self.rows for key, way in self.found.better.items()}
        costs = {row.name: row.cost._asdict() for row in self.rows}
        diagnosis = {} if self.diagnosis is None else {"diagnosis": self.diagnosis._asdict()}
        return {"step": step, "images": images, "metrics": metrics, "better": better, "protocol": said, "cost": costs} | diagnosis


class Comparison:
    """Refiners of the same networks, whose samples are judged by the same metrics.

    n samples for each seed, also after `every` steps. followed: the metric, or key, by which a number of steps is chosen. UserError where
    no metric judges samples alone.
    """

    def __init__(
        self, networks: Networks, dataset: Dataset, spec: Spec, metrics: Mapping[str, Metric], reference: Reference | None, *,
        n: int, seeds: Sequence[int], every: int | None = None, batch_size: int = 500, followed: str | None = None, reporter: Reporter,
    ):  # fmt: skip
        self.networks, self.dataset, self.spec, self.reference = networks, dataset, spec, reference
        self.n, self.seeds, self.every, self.batch_size, self.reporter = n, seeds, every, batch_size, reporter
        self.logits: dict[int, Logits] = {}  # by seed
        self.metrics = {name: metric for name, metric in metrics.items() if not metric.needs & LOOKS}
        if not self.metrics:
            raise UserError("no chosen metric judges samples alone: say 'metric=[...]'")
        if left := [name for name in metrics if name not in self.metrics]:
            reporter.say(f"note: {', '.join(left)} looks at networks, which refiners do not change: left out for refined samples")
        self.followed, self.better = self.aim(followed)

    def aim(self, followed: str | None) -> tuple[str, Direction | None]:
        """Return the key that a number of steps is chosen by, and which way it is better."""
        found = (aim(name, self.metrics) for name in filter(None, (followed, *self.metrics)))
        first = prefix_of(*next(iter(self.metrics.items())))
        return next((each for each in found if each is not None and each[1] is not None), (first, None))

    def before(self, numbers: Mapping[str, float | None]) -> Row:
        """Return the row of samples that are not refined, of all that was measured of them."""
        known = [prefix_of(name, metric) for name, metric in self.metrics.items()]
        own = {key: value for key, value in numbers.items() if any(f"{key}/".startswith(f"{prefix}/") for prefix in known)}
        return Row("none", own, Cost(0, 0, 0))

    def judge(self, name: str, refiner: Refiner) -> Judged:
        """Judge samples after the steps of a refiner, and after every so many of them."""
        pilot, found, costs = list[Row](), list[dict[int, Findings]](), list[dict[int, Cost]]()
        for seed in self.seeds:
            fitted = self.fitted(refiner, seed)
            if fitted.refiner.steps == "auto":
                chosen, pilot = self.piloted(name, self.fitted(refiner, seed + PILOT))
                refiner = copy.deepcopy(refiner)
                refiner.steps = fitted.refiner.steps = chosen
            steps = int(fitted.refiner.steps)
            at = [*range(self.every, steps, self.every), steps] if self.every else [steps]
            samples = made(fitted, self.n, at, Countdown(self.reporter, f"{name}: ").at, self.batch_size)
            found.append({step: self.measured(samples.x[step], samples.y, seed) for step in at})
            costs.append(samples.costs)
        rows, intervals = list[Row](), dict[str, list[float]]()
        for step in at:
            means, spread = seeds.over_seeds([each[step] for each in found])
            own = name if step == steps else f"{name}@{step}"
            rows.append(Row(own, means, mean_cost([each[step] for each in costs], [1.0] * len(costs))))
            intervals |= {key_of(own, key): value for key, value in spread.items()}
        return Judged(rows, pilot, steps, found[0][steps], intervals, fitted.diagnosis, fitted.notes)

    def fitted(self, refiner: Refiner, seed: int) -> Refinement:
        """Fit a refiner; the logits of held-out samples are computed once for all refiners."""
        fitted = self.networks.fitted(refiner, seed, reference=self.reference, logits=self.logits.get(seed))
        if fitted.logits is not None:
            self.logits[seed] = fitted.logits
        return fitted

    def measured(self, x: Tensor, y: Tensor | None, seed: int) -> Findings:
        """Compute the figures of refined samples (n ...)."""
        spec = self.spec if y is not None else self.spec._replace(classes=None, class_names=None)
        subject = Collected(Samples(spec.kind.as_bytes(x), y), spec, None, self.networks.device, seed, self.dataset.to_float)
        return evaluate(subject, self.metrics, self.reference, batch_size=self.batch_size)

    def piloted(self, name: str, fitted: Refinement) -> tuple[int, list[Row]]:
        """Choose a number of steps; returns it, and a row for each number that was tried.

        It is the first after which the figure of `aim`, or where this is undefined the next one that has a direction, is worse than the
        best one by no more than the standard error of their difference, over parts of samples of their own.
        """
        n = PILOTS * OF_PILOT
        samples = made(fitted, n, LADDER, Countdown(self.reporter, f"pilot of {name}: ").at)
        parts: dict[int, list[Findings]] = {}
        for step in LADDER:
            labels = [None] * PILOTS if samples.y is None else samples.y.split(OF_PILOT)
            parts[step] = [self.measured(x, y, fitted.seed) for x, y in zip(samples.x[step].split(OF_PILOT), labels)]
        rows = [Row(f"{name} pilot@{step}", seeds.over_seeds(parts[step])[0], samples.costs[step]) for step in LADDER]
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

    def warnings(self, before: Row, after: Row) -> Iterable[str]:
        """Yield what is lost by a refiner."""
        return (f"{after.name} covers less of the data: {loss}" for loss in losses(self.metrics, before.figures, after.figures))


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
    return f"{PREFIX}/{name}/{key}"


def surely_below(values: Sequence[float], best: Sequence[float]) -> bool:
    """Return whether the mean of values is below that of the best ones by more than the standard error of the difference."""
    apart = [b - a for a, b in zip(values, best)]
    return statistics.fmean(apart) > statistics.stdev(apart) / math.sqrt(len(apart))
