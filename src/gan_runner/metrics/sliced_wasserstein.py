"""The sliced Wasserstein-2 distance of features. Rabin et al. 2011; Bonneel et al. 2015."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge
from torch import Tensor

from gan_runner.metrics.feature_sets import FeatureSets
from gan_runner.metrics.projections import random_directions, squared_transport

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Compute the root of the mean over directions (K F) of the squared Wasserstein-2 distance of rows x (M F), y (N F); float64 scalar.

    A shift has its root mean square along the directions, about |shift| / sqrt F for many of them.
    """
    return squared_transport(x, y, directions).mean().sqrt()


class SlicedWasserstein(FeatureSets):
    """The sliced Wasserstein-2 distance to the real samples, in units of the features, under swd/<extractor>.

    The directions are the same for every figure of as many features. Finite samples are apart even if they have one law: compare only
    figures of the same numbers. Work: 2 (M + N) F operations for each direction, and a sort. Memory: 64 projections of all rows in float64.
    """

    better = "min"

    def __init__(self, directions: Annotated[int, Ge(1)] = 256):
        super().__init__()
        self.directions = directions

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"swd/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        fake, real = self.fake(1), self.real(1)
        return {"": sliced_wasserstein(fake, real, random_directions(self.directions, fake.shape[1], "sliced_wasserstein", "directions"))}
