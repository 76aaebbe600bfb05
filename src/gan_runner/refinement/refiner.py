"""The interface of refiners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner import tree
from gan_runner.draws import Draws
from gan_runner.refinement.calibration import Diagnosis, Kind
from gan_runner.refinement.ratio import Ratio, Space
from gan_runner.tree import Sample

Steps = Annotated[int, Ge(1)] | Literal["auto"]  # auto: chosen on a pilot, by figures


class Start(NamedTuple):
    """Latents (N E) and labels (N, or None) of samples before they are refined."""

    e: Tensor
    y: Any

    def first(self, n: int) -> Start:
        """Return the first n of them."""
        return Start(self.e[:n], None if self.y is None else self.y[:n])

    def split(self, size: int = 500) -> list[Start]:
        """Return all of them, `size` at a time."""
        rows = [slice(i, i + size) for i in range(0, len(self.e), size)]
        return [Start(self.e[each], None if self.y is None else self.y[each]) for each in rows]


class Pool(NamedTuple):
    """What `prepare` may look at: latents of fresh fakes, and log ratios of held-out real samples."""

    fakes: Start
    real: Tensor | None  # R; None where the refiner asked for none
    real_labels: Tensor | None = None  # R


class Refiner:
    """Improve samples of a generator by the density ratio that its discriminator knows.

    `prepare` is called once; then the refiner is called with the start of some samples and yields their points before the first step and
    after each one, without end. Row i of a point depends on row i of the start and of the draws alone, and every row draws in every step,
    whether it moves or not: so a sample does not depend on the batch it is in. A refiner may yield the same tensors after every step,
    changed in place, but leaves its start as it is. Steps with the same operations on the same memory are captured on a GPU, and replayed.
    """

    steps: Steps
    """How many steps are meant."""

    space: Space = "latent"
    """Where its points are."""

    calibration: Kind = "none"
    temperature: float = 1.0
    wants_real: bool = False
    """Whether `prepare` needs log ratios of real samples."""

    needs_zero: bool = False
    """Whether the zero of the log ratio matters, so that the logit of a critic that is defined up to a constant is centred."""

    selects: bool = False
    """Whether it selects among samples of G instead of moving them: then no sample is between two of G."""

    measured: str | None = None
    """What `prepare` has measured, in words."""

    def chosen(self, diagnosis: Diagnosis | None) -> tuple[Refiner, str | None]:
        """Return the refiner that is used, itself unless overridden, and why. diagnosis: of held-out samples; None: there are none."""
        return self, None

    def prepare(self, ratio: Ratio, pool: Pool) -> None:
        """Set what depends on the networks, from a pool of samples that are not refined."""

    def __call__(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Sample]:
        """Yield the points before the first step, then after every step."""
        raise NotImplementedError

    def origin(self, ratio: Ratio, start: Start) -> Sample:
        """Return the points before the first step."""
        if self.space == "latent":
            return start.e
        with torch.no_grad():
            return ratio.generated(start.e, start.y)


def along(values: Tensor, leaf: Tensor) -> Tensor:
    """Shape one number a sample (N) so that it multiplies a leaf (N ...)."""
    return values.view(-1, *[1] * (leaf.ndim - 1))


def standard_normal(point: Sample, draws: Draws) -> Sample:
    """Draw standard normal noise of the shape of a point."""
    return tree.map(lambda leaf: draws.normal(*leaf.shape[1:]).to(leaf), point)
