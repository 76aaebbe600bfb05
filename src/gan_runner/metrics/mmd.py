"""The kernel distance between samples and real samples: KID with Inception's features. Gretton et al. 2012; Binkowski et al. 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.metrics.feature_sets import FeatureSets

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

SEED = 2020  # of the subsets, with NumPy's old generator: the choice of torch-fidelity, so that figures agree digit by digit


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Estimate the squared maximum mean discrepancy of rows x (M F) and y (N F), unbiased; a float64 scalar that may be below 0.

    sum_{i != j} k(x_i, x_j) / (M (M - 1)) + sum_{i != j} k(y_i, y_j) / (N (N - 1)) - 2 mean k(x_i, y_j), with k(x, y) = (x.y / F + 1)^3.
    Memory: a matrix M N of float64.
    """
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T).div_(a.shape[1]).add_(1).pow_(3)

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def kernel_distance(fake: Tensor, real: Tensor, subset_size: int = 1000, subsets: int = 100) -> Tensor:
    """Compute squared_mmd of `subsets` pairs of random subsets, each drawn without replacement from fake (M F) and real (N F); float64.

    ValueError for fewer rows than subset_size. In float64, because figures of good samples are as small as the rounding of sums in
    float32. Work: 6 subsets subset_size^2 F operations. Memory: a matrix subset_size^2.
    """
    if subset_size < 2 or min(len(fake), len(real)) < subset_size:
        raise ValueError(
            f"subset_size={subset_size} asks for at least as many samples (and 2): there are {len(fake)} and {len(real)} real ones"
        )
    random = np.random.RandomState(SEED)
    estimates = torch.empty(subsets, dtype=torch.float64, device=fake.device)
    for i in range(subsets):
        x, y = (rows[torch.from_numpy(random.choice(len(rows), subset_size, replace=False)).to(rows.device)] for rows in (fake, real))
        estimates[i] = squared_mmd(x, y)  # kept in one tensor: small ones between large ones that are freed keep their memory in use
    return estimates


class KernelDistance(FeatureSets):
    """Mean of the unbiased squared MMD over subsets, under kid/<extractor> or mmd/<extractor>, and /std over them (ddof 0).

    The number of samples causes no bias. If fakes are as good as real samples, the figure is below 0 as often as above. /std is that of one
    subset. Memory: the features of samples and real samples.
    """

    better = {"": "min"}

    def __init__(self, subset_size: Annotated[int, Ge(2)] = 1000, subsets: Annotated[int, Ge(1)] = 100):
        super().__init__()
        self.subset_size, self.subsets = subset_size, subsets

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return extractor.named("mmd", "kid")

    def compute(self) -> dict[str, Tensor]:
        try:
            estimates = kernel_distance(self.fake(1), self.real(1), self.subset_size, self.subsets)
        except ValueError as error:
            raise UserError(f"{error}; set metric.kernel_distance.subset_size") from error
        return {"": estimates.mean(), "std": estimates.std(correction=0)}
