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

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return (a.b / F + 1)^3 of all rows a (M F) and b (N F): M N."""
    return (a @ b.T).div_(a.shape[1]).add_(1).pow_(3)


def kernel_distance(fake: Tensor, real: Tensor, subset_size: int = 1000, subsets: int = 100) -> Tensor:
    """Compute squared_mmd of `subsets` pairs of random subsets, each drawn without replacement from fake (M F) and real (N F); float64.

    ValueError for fewer rows than subset_size. In float64, because figures of good samples are as small as the rounding of sums in
    float32. Work: 6 F operations for each pair of rows, or for each pair of rows of each subset, whichever is less. Memory: a matrix of
    subset_size rows, and as many columns as there are rows.
    """
    if subset_size < 2 or min(len(fake), len(real)) < subset_size:
        raise ValueError(
            f"subset_size={subset_size} asks for at least as many samples (and 2): there are {len(fake)} and {len(real)} real ones"
        )
    random = np.random.RandomState(SEED)
    drawn = (torch.from_numpy(random.choice(len(rows), subset_size, replace=False)) for _ in range(subsets) for rows in (fake, real))
    chosen = torch.stack(list(drawn)).view(subsets, 2, subset_size).unbind(1)
    if max(len(fake), len(real)) ** 2 <= subsets * subset_size**2:
        return of_all_pairs(fake.double(), real.double(), *chosen)
    estimates = torch.empty(subsets, dtype=torch.float64, device=fake.device)
    for i, (of_fake, of_real) in enumerate(zip(*chosen)):
        # kept in one tensor: small ones between large ones that are freed keep their memory in use
        estimates[i] = squared_mmd(fake[of_fake.to(fake.device)], real[of_real.to(real.device)])
    return estimates


def of_all_pairs(fake: Tensor, real: Tensor, of_fake: Tensor, of_real: Tensor) -> Tensor:
    """Compute squared_mmd of subsets (S m, indices of rows) from the kernel of all pairs of rows, each computed once; S."""
    m = of_fake.shape[1]
    x, y = (torch.zeros(len(chosen), len(rows), dtype=rows.dtype).scatter_(1, chosen, 1.0).to(rows.device)
            for rows, chosen in ((fake, of_fake), (real, of_real)))  # fmt: skip

    def sums(a: Tensor, b: Tensor, in_a: Tensor, in_b: Tensor) -> Tensor:
        """Sum the kernel over the pairs of each subset."""
        parts = (((of @ kernel(rows, b)) * in_b).sum(1) for rows, of in zip(a.split(m), in_a.split(m, dim=1)))
        return torch.stack(list(parts)).sum(0)

    def within(a: Tensor, in_a: Tensor) -> Tensor:
        diagonal = a.square().sum(1).div(a.shape[1]).add(1).pow(3)
        return (sums(a, a, in_a, in_a) - in_a @ diagonal) / (m * (m - 1))

    return within(fake, x) + within(real, y) - 2 * sums(fake, real, x, y) / m**2


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
