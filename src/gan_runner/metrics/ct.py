"""The three-sample test of data copying, C_T. Meehan, Chaudhuri and Dasgupta 2020."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.metrics.feature_sets import FeatureSets, last_part
from gan_runner.metrics.neighbours import nearest
from gan_runner.metrics.prd import k_means

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

WIDTH = 64  # principal components that are kept
LEAST = 20  # fakes in a cell that counts


def mann_whitney(a: Tensor, b: Tensor) -> Tensor:
    """Compute the z-score of U = the number of pairs with a_i > b_j, equal ones half, for a (M) and b (N); float64 scalar.

    (U - M N / 2) / sqrt(M N (M + N + 1) / 12): near standard normal where a and b have one law. Mann and Whitney 1947. As in the test of
    data copying, the variance is not lowered for ties.
    """
    b, m, n = b.sort().values, len(a), len(b)
    below, up_to = (torch.searchsorted(b, a, right=right) for right in (False, True))
    u = (below.double() + up_to.double()).sum() / 2
    return (u - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12)


def principal(rows: Tensor, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Find the mean (F) and the first `width` principal axes (F width) of rows N F, float64; all axes if there are no more features."""
    moments = Moments.of(rows)
    if rows.shape[1] <= width:
        return moments.mean, torch.eye(rows.shape[1], dtype=torch.float64, device=rows.device)
    return moments.mean, torch.linalg.eigh(moments.covariance.cpu()).eigenvectors[:, -width:].to(rows.device)


def copying(fake: Tensor, test: Tensor, train: Tensor, cells: int, generator: torch.Generator) -> Tensor:
    """Compute C_T of fakes (L F), test rows (M F) and training rows (N F); float64 scalar, far below 0 where fakes copy training rows.

    Training rows are clustered by k-means. In each cell, `mann_whitney` compares the distances to the nearest training row of the cell: of
    the fakes in it, against those of the test rows in it. C_T is the mean of these z-scores, weighted by the number of test rows. Cells
    of no more than 20 fakes are left out; NaN where no cell is left.
    """
    label = k_means(train, cells, generator)
    centres = torch.stack([train[label == cell].mean(0) for cell in label.unique().tolist()])
    of_fake, of_test, of_train = (nearest(rows, centres)[1][:, 0] for rows in (fake, test, train))
    scores, weights = [], []
    for cell in range(len(centres)):
        fakes, tests, trains = fake[of_fake == cell], test[of_test == cell], train[of_train == cell]
        if len(fakes) > LEAST and len(tests) and len(trains):
            scores.append(mann_whitney(*(nearest(rows, trains)[0][:, 0] for rows in (fakes, tests))))
            weights.append(len(tests))
    share = torch.tensor(weights, dtype=torch.float64) / max(sum(weights), 1)
    return (share * torch.stack(scores).cpu()).sum() if scores else torch.tensor(math.nan, dtype=torch.float64)


class CT(FeatureSets):
    """The z-score by which samples are nearer to the training set (below 0), or farther (above 0), than test samples: ct/<extractor>.

    Near 0 without copying and without underfitting; below -3 for clear copying. It grows with the number of samples: compare only figures
    of the same numbers. Features are projected on the first 64 principal components of the training set, where there are more. With
    n_real, copies of training samples that were not chosen are missed. UserError if there is no test split, or if no cell has more than 20
    samples and a test sample. Work: 128 (L + M) N operations in float64, for L samples, M test and N training samples.
    """

    better = None  # best at 0

    def __init__(self, cells: Annotated[int, Ge(1)] = 3):
        super().__init__()
        self.cells = cells

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"ct/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        fake, test, train = self.fake(LEAST + 1), self.real(1, split="test"), self.real(2, split="train")
        mean, axes = principal(train)
        fake, test, train = ((rows.double() - mean) @ axes for rows in (fake, test, train))
        found = copying(fake, test, train, self.cells, seeded("ct"))
        if found.isnan():
            raise UserError(
                f"no cell of the training set has more than {LEAST} samples and a test sample; make more samples, or set metric.ct.cells=1"
            )
        return {"": found}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        (value,) = last_part(figures).values()
        if value is None:
            return super().sentence(figures)
        return f"{abs(value):.1f} standard deviations {'nearer to' if value < 0 else 'farther from'} the training set than test samples"
