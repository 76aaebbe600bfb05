"""The mean squared transport distance of features along random directions: MIND, as torch-fidelity defines it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge
from torch import Tensor

from gan_runner.metrics.feature_sets import FeatureSets
from gan_runner.metrics.projections import random_directions, squared_transport

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor


def mind(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Compute 3 F times the mean over directions (K F) of the squared Wasserstein-2 distance of rows x (M F) and y (N F); float64 scalar.

    For M = N this is 3 F / (N K) sum over u, i of (sort(X u) - sort(Y u))_i^2. A shift by mu has 3 F mean (u mu)^2, in expectation
    3 |mu|^2 over directions.
    """
    return 3 * x.shape[1] * squared_transport(x, y, directions).mean()


class MIND(FeatureSets):
    """3 F times the mean squared transport distance to the real samples along random directions, under mind/<extractor>.

    The directions are the same for every figure of as many features. Unlike a Frechet distance, it assumes no normal law, and has a figure
    for fewer samples than features; the bias from M fakes and N real samples is about proportional to 1/M + 1/N, so compare only figures of
    the same numbers. Work: 2 (M + N) F operations for each direction, and a sort. Memory: 64 projections of all rows in float64.
    """

    better = "min"

    def __init__(self, directions: Annotated[int, Ge(1)] = 1000):
        super().__init__()
        self.directions = directions

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"mind/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        fake, real = self.fake(1), self.real(1)
        return {"": mind(fake, real, random_directions(self.directions, fake.shape[1], "mind", "directions"))}
