"""Test whether samples are nearer to training samples than these are to each other. Alaa et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.metrics.feature_sets import FeatureSets, last_part
from gan_runner.metrics.neighbours import nearest

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor


def authentic(fake: Tensor, train: Tensor) -> Tensor:
    """Find which fakes (N F) are farther from their nearest training row (M F) than that row is from its nearest other row; N, bool.

    ValueError for fewer than 2 training rows. Work: at most 4 N M F operations in float64.
    """
    distance, index = (values[:, 0] for values in nearest(fake, train))
    found, place = index.unique(return_inverse=True)
    radius = nearest(train[found], train, k=2)[0][:, 1]  # the nearest is the row itself, or a copy of it
    return distance > radius[place]


class Authenticity(FeatureSets):
    """Share of samples farther from their nearest training sample than that one is from its own nearest, under authenticity/<extractor>.

    Copies of training samples have 0, samples far from all data 1; new data have something between, 1/2 or more: best is neither. Of
    equally near training samples, the first counts. n_real: maximum number of training samples, a fixed random choice; None: all, without
    which copies of the others are missed.
    """

    better = None  # best where it is what new data have; samples that are far off have 1

    def __init__(self, n_real: Annotated[int, Ge(2)] | None = None):
        super().__init__()
        self.n_real = n_real

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"authenticity/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        return {"": authentic(self.fake(1), self.real(2, self.n_real, "train")).to(torch.float64).mean()}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        (value,) = last_part(figures).values()
        return super().sentence(figures) if value is None else f"{value:.1%} of the samples are no near copies of training samples"
