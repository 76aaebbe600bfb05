"""Judge refined samples after the last round."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge
from torch import nn

from gan_runner import distributed
from gan_runner.datasets import Split
from gan_runner.errors import UserError
from gan_runner.evaluation.findings import evaluate, settings_of
from gan_runner.evaluation.reference import Reference
from gan_runner.refinement import Refiner
from gan_runner.refinement.comparison import Comparison, Judged, Networks, Row
from gan_runner.reporting import Countdown
from gan_runner.sampling.subjects import Generated
from gan_runner.storage import directory
from gan_runner.training.callback import Callback

if TYPE_CHECKING:
    from gan_runner.training.run import Run


class Refine(Callback):
    """Judge refined samples after the last round, as gan-eval 'refiner=[...]' does, by the metrics of the run that look at samples alone.

    Each refiner adds a line to metrics.jsonl, with the keys refined/NAME/KEY, and samples without one do as refined/none/KEY. n samples,
    also after every so many steps. UserError without a discriminator.
    """

    everywhere = True
    order = 1  # after the evaluation of the last round

    def __init__(
        self,
        refiners: dict[str, Refiner],
        n: Annotated[int, Ge(2)] = 2500,
        every: Annotated[int, Ge(1)] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        split: Split = "train",
    ):
        self.refiners, self.n, self.every, self.seed, self.split = refiners, n, every, seed, split

    def begin(self, run: Run) -> None:
        if run.game.D is None:
            raise UserError("callback.refine: refiners need a discriminator, and this architecture has none")

    def end(self, run: Run) -> None:
        if run.step != run.steps or not run.metrics:
            return
        assert run.game.D is not None
        distributed.copy_buffers(run.game.sampler)
        networks = Networks(still(run.game.sampler), still(run.game.D), centre=run.game.terms["loss"].shift_invariant)
        reference = Reference(run.dataset, self.split, device=run.device, tick=Countdown(run.reporter).at)
        comparison = Comparison(
            networks, run.dataset, run.spec, run.metrics, reference,
            n=self.n, seeds=[self.seed], every=self.every, reporter=run.reporter,
        )  # fmt: skip
        plain = Generated(networks.generator, self.n, run.spec, seed=self.seed, device=run.device, discriminator=networks.discriminator)
        found = evaluate(plain, comparison.metrics, reference)
        before = comparison.before(found.numbers)
        self.write(run, before, Judged([before], [], 0, found, {}, None, []), {})
        [own] = [name for name, each in run.callbacks.items() if each is self]
        for name, refiner in self.refiners.items():
            judged = comparison.judge(name, refiner)
            for said in (*judged.notes, *comparison.warnings(before, judged.rows[-1])):
                run.reporter.say(f"note: {name}: {said}")
            self.write(run, judged.rows[-1], judged, {"refiner": run.config["callback"][own]["refiners"][name]})

    def write(self, run: Run, row: Row, judged: Judged, said: dict[str, Any]) -> None:
        """Add the line of a refiner to metrics.jsonl, log its figures, and say them."""
        protocol = said | {"seed": self.seed, "metrics": settings_of(run.config.get("metric") or {})}
        line = distributed.shared(judged.line(run.step, run.images, protocol))
        if distributed.is_first():
            directory.add_evaluation(run.folder, line, {})
        run.write({key: value for key, value in line["metrics"].items() if value is not None})
        figures = "  ".join(f"{key} {value:.4g}" for key, value in row.figures.items() if value is not None)
        run.reporter.say(f"{row.name}: {figures}  ({row.cost.evaluations:.4g} evaluations of D a sample)")


def still(net: nn.Module) -> Any:
    """Return a copy in evaluation mode that does not train."""
    return copy.deepcopy(net).eval().requires_grad_(False)
