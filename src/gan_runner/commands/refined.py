"""Compare refiners in gan-eval: judge the samples of each beside those of the generator, print, draw and keep the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from gan_runner.assembly import parts
from gan_runner.commands import refining
from gan_runner.commands.printed import Printed
from gan_runner.commands.settings import Evaluate
from gan_runner.datasets.pictures import pixels
from gan_runner.evaluation.findings import settings_of
from gan_runner.evaluation.metric import Metric
from gan_runner.evaluation.reference import Reference
from gan_runner.inventory.curves import blank
from gan_runner.refinement import Refiner
from gan_runner.refinement.comparison import Comparison, Judged, Row
from gan_runner.reporting import Reporter
from gan_runner.trained import TrainedRun

Keep = Callable[[dict[str, Any], dict[str, Tensor]], None]  # takes a line, and the pictures that belong to it by key


class RefinersOfRun:
    """The refiners of a line, and the checkpoint of a run that they refine. UserError where they cannot."""

    def __init__(self, run: TrainedRun, settings: Evaluate, metrics: Mapping[str, Metric], reference: Reference | None, reporter: Reporter):
        self.settings, self.reporter = settings, reporter
        networks, self.others = refining.networks(run, settings)
        followed = ((run.config.get("callback") or {}).get("evaluate") or {}).get("best") or {}
        self.comparison = Comparison(
            networks, run.dataset, run.spec, metrics, reference,
            n=settings.n, seeds=range(settings.seed, settings.seed + settings.seeds), every=settings.every,
            batch_size=settings.batch_size, followed=followed.get("metric"), reporter=reporter,
        )  # fmt: skip

    def compare(self, name: str, refiners: Mapping[str, Refiner], line: dict[str, Any], keep: Keep | None, printed: Printed) -> None:
        """Judge the samples of every refiner, print and keep the figures, and a plot of all of them with those of the last one.

        name: what is judged. line: that of metrics.jsonl of samples that are not refined.
        """
        before, every = self.comparison.before(line["metrics"]), list[Judged]()
        for each, refiner in refiners.items():
            every.append(judged := self.comparison.judge(each, refiner))
            for note in judged.notes:
                self.reporter.say(f"note: {each}: {note}")
            for warning in self.comparison.warnings(before, judged.rows[-1]):
                self.reporter.say(f"warning: {warning}")
            own = judged.line(line["step"], line["images"], self.protocol(each, judged, line["protocol"]))
            if keep is not None:
                keep(own, {"refined": self.plot(before, every)} if len(every) == len(refiners) else {})
            self.reporter.pause()
            printed.add(f"{name}, {each}", own)
        if (diagnosis := every[0].diagnosis) is not None:
            self.reporter.say(f"{name}: the discriminator on held-out samples: {diagnosis.said}")
        printed.compare(name, [before, *(row for one in every for row in (*one.pilot, *one.rows))])

    def protocol(self, name: str, judged: Judged, before: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the protocol of a refiner says besides how its samples were measured.

        before: that of samples that are not refined.
        """
        own = {key: value for key, value in before.items() if key in ("checkpoint", "generator", "seeds")}
        measured = {name.partition(".")[0] for name in self.comparison.metrics}
        metrics = settings_of({key: node for key, node in (self.settings.metric or {}).items() if key in measured})
        refiner = self.settings.refiner[name] | {"steps": judged.steps}
        return own | self.others | {"seed": self.settings.seed, "metrics": metrics, "refiner": refiner}

    def plot(self, before: Row, every: Sequence[Judged]) -> Tensor:
        """Draw the followed figure against evaluations of D a sample, a line for each refiner; returns pixels, 3 H W."""
        key, way = self.comparison.followed, self.comparison.better
        with blank(6, 4) as figure:
            axes = figure.subplots()
            for judged in every:
                rows = [before, *judged.rows]
                axes.plot([row.cost.evaluations for row in rows], [nan(row.figures.get(key)) for row in rows], label=rows[-1].name)
            axes.set_xlabel("evaluations of D a sample")
            axes.set_ylabel(key if way is None else f"{key} ({'lower' if way == 'min' else 'higher'} is better)")
            axes.legend(frameon=False)
            return pixels(figure.canvas)  # type: ignore[arg-type]


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


def nan(value: float | None) -> float:
    return math.nan if value is None else value
