"""The Frechet distance as a multiple of that of held-out real samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.metrics.feature_sets import FeatureSets, choice, last_part
from gan_runner.metrics.frechet_distance import distance_to_real, too_few

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

NOTHING = 1e-10  # of the variance of the features: a distance that is rounding


class FrechetRatio(FeatureSets):
    """FD(fakes, training set) / FD(test set, training set), under fid_ratio/<extractor> or fd_ratio/<extractor>; /n samples on each side.

    Held-out real samples have 1, and so has a generator that is as good as the data. As many fakes as test samples are used, a fixed
    random choice of the larger set, so that the bias from their number is in both distances. Copies of training samples have 1 or less: the
    figure does not see memorisation. Compare only figures of the same n. UserError if there is no test split, or if it has the moments of
    the training set. Through several networks, their mean is fd_ratio/mean. Memory: the features of the samples, and a few matrices F F of
    float64.
    """

    better = {"": "min"}
    mean_key = "fd_ratio/mean"

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return extractor.named("fd_ratio", "fid_ratio")

    def compute(self) -> dict[str, Tensor]:
        fake, test, train = self.fake(2), self.real(2, split="test"), self.reference.of("train").moments()
        n = min(len(fake), len(test))
        self.few = too_few(n, fake.shape[1], "samples on each side")
        held_out = distance_to_real(Moments.of(choice(test, n)), train)
        if held_out <= NOTHING * train.covariance.trace().cpu():
            raise UserError("fd_ratio divides by the distance of the test split to the training set, which is 0: are they the same?")
        ratio = distance_to_real(Moments.of(choice(fake, n)), train) / held_out
        return {"": ratio, "n": torch.tensor(float(n), dtype=torch.float64)}

    def notes(self) -> list[str]:
        return self.few

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        n = last_part(figures).get("n")
        ratio = next((value for key, value in figures.items() if not key.endswith("/n")), None)
        if n is None or ratio is None:
            return super().sentence(figures)
        mean = figures.get(self.mean_key)
        said = f"{ratio:.3g} times as far from the training set as {n:,.0f} held-out samples are"
        return said if mean is None else f"{said}; {mean:.3g} times in the mean over the networks"
