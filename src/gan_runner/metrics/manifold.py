"""Fidelity and diversity as shares of samples within balls around samples. Kynkaanniemi et al. 2019; Naeem et al. 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.metrics.feature_sets import FeatureSets, last_part
from gan_runner.metrics.neighbours import held, radii

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Return the share of fakes (M F) in the ball of any real row (N F), and of real rows in the ball of any fake; float64 scalars.

    The radius of a ball is the distance to the k-th nearest other row of its set. Balls are closed, as in the paper. Identical sets have
    1, 1.
    """
    precise, _ = held(fake, real, radii(real, k), closed=True)
    recalled, _ = held(real, fake, radii(fake, k), closed=True)
    return (precise > 0).double().mean(), (recalled > 0).double().mean()


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Return density (mean number of real balls around a fake, over k) and coverage (share of real balls with a fake); float64 scalars.

    real: N F, fake: M F. The balls are open, as in the authors' code; identical sets have 1, 1. If fakes have the real distribution, the
    expectations are 1 and 1 - prod_{j=1..k} (N - j) / (N + M - j), about 1 - 2^-k for N = M. Density may exceed 1.
    """
    balls, fakes = held(fake, real, radii(real, k), closed=False)
    return balls.double().mean() / k, (fakes > 0).double().mean()


class PrecisionRecall(FeatureSets):
    """pr/<extractor>/precision and /recall. They depend on the number of samples: compare only figures of equal numbers.

    n_real: maximum number of real samples, None: all; a fixed random choice. Work: about 2 (N + M)^2 F operations in float64.
    """

    better = "max"
    coverage = ("recall",)

    def __init__(self, k: Annotated[int, Ge(1)] = 3, n_real: Annotated[int, Ge(2)] | None = 10_000):
        super().__init__()
        self.k, self.n_real = k, n_real

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"pr/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        precision, recall = precision_recall(self.real(self.k + 1, self.n_real), self.fake(self.k + 1), self.k)
        return {"precision": precision, "recall": recall}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        return _shares(figures)


class DensityCoverage(FeatureSets):
    """dc/<extractor>/density and /coverage. Coverage depends on the number of samples; the expectation of density does not.

    n_real: maximum number of real samples, None: all; a fixed random choice. Work: about 2 N (N + M) F operations in float64. The ball of a
    real sample that has k copies is empty, as in the authors' code; UserError if all real samples are equal.
    """

    better = {"coverage": "max"}  # density is 1 where fakes are as good as real samples, and may be larger
    coverage = ("coverage",)

    def __init__(self, k: Annotated[int, Ge(1)] = 5, n_real: Annotated[int, Ge(2)] | None = 10_000):
        super().__init__()
        self.k, self.n_real = k, n_real

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"dc/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        real = self.real(self.k + 1, self.n_real)
        if bool((real == real[0]).all()):
            raise UserError(f"{type(self).__name__}: the real samples all have the same features, and balls around them are empty")
        density, coverage = density_coverage(real, self.fake(1), self.k)
        return {"density": density, "coverage": coverage}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        return _shares(figures)


def _shares(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{key} {'null' if value is None else f'{value:.3f}'}" for key, value in last_part(figures).items())
