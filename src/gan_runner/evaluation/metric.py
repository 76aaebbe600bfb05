"""What every metric promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torchmetrics
from torch import Tensor

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor
    from gan_runner.evaluation.reference import Reference
    from gan_runner.sampling.subjects import Subject


Told = Callable[[int, int], None]  # how many are done, of how many
Field = Literal["samples", "y", "features", "logits"]
Need = Literal["reference", "labels", "generator", "discriminator", "snapshots"]


def told_nobody(done: int, n: int) -> None:
    """Where nobody wants to know how far the work is."""


class Metric(torchmetrics.Metric):
    """A figure of merit, fed in batches; states are float64, or rows in the order of the samples, and are joined over processes.

    A subclass says in `reads` what it is fed for N samples, in the order in which `update` takes it: `samples` as data (N ...; images in
    [-1, 1], quantised to 256 levels), their labels `y` (N), the `features` (N F) or `logits` (N K) that the extractor gives. It says in
    `needs` what else there must be: the real samples to compare with (`reference`), labels of real and fake samples, a generator, a
    discriminator, or the snapshots of a run; what is missing makes its figures null, and the reason is told. A metric that needs to know
    the data takes `spec` first in its constructor.
    """

    reads: tuple[Field, ...] = ()
    needs: frozenset[Need] = frozenset()
    full_state_update = False

    reference: Reference
    """The real samples; there while update, examine, compute and pictures are called, where `needs` names it."""

    tick: Told = staticmethod(told_nobody)
    """To be called in a long examine or compute: so many of n are done."""

    @property
    def extracts(self) -> bool:
        """Whether it looks through an extractor."""
        return bool({"features", "logits"} & set(self.reads))

    def prefix(self, extractor: Extractor | None) -> str:
        """The key of its figures in metrics.jsonl, given the extractor (None: it needs none): "modes", "cs/lenet"."""
        raise NotImplementedError

    def update(self, *values: Any, **none: Any) -> None:
        """Take in what `reads` names, of N samples."""

    def examine(self, subject: Subject) -> None:
        """Once, after the samples and before compute: a look at whatever is more than samples, such as the networks."""

    def compute(self) -> dict[str, Tensor]:
        """Figures, float64 scalars, by the rest of their key; "" is the one that has the prefix for its key. NaN: undefined here."""
        raise NotImplementedError

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        """Pictures (uint8, 3 H W) by the rest of their key, asked for after compute; by default none."""
        return {}

    def notes(self) -> list[str]:
        """Where its figures mean little, such as too few samples: half sentences, asked for after compute; by default none."""
        return []

    def figures(self, extractor: Extractor | None) -> dict[str, Tensor]:
        """What compute says, under its whole keys: {"modes/covered": ...}, {"cs/lenet": ..., "cs/lenet/std": ...}."""
        prefix = self.prefix(extractor)
        return {f"{prefix}/{key}" if key else prefix: value for key, value in self.compute().items()}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        """The figures, under their whole keys, as a reader wants them; None is one that could not be computed."""
        return "  ".join(f"{key} {'null' if value is None else f'{value:.4g}'}" for key, value in figures.items())
