"""The kernel distance of unit-length features under a Gaussian kernel: CMMD with CLIP's features. Jayasumana et al. 2024."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from gan_runner.metrics.feature_sets import FeatureSets, unit_rows

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

SCALE = 1000  # of the published figure
BLOCK = 2048  # rows a side: 32 MiB of kernel values


def gaussian_mmd(x: Tensor, y: Tensor, sigma: float = 10.0) -> Tensor:
    """Compute the squared maximum mean discrepancy of rows x (M F) and y (N F) of unit length; a float64 scalar.

    mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j), over all pairs, also of a row with itself, with
    k(a, b) = exp(-|a - b|^2 / (2 sigma^2)). Identical sets have 0. The means are of k - 1: the 1 cancels from the sum, and digits are kept
    where sigma is large. Work: 2 (M + N)^2 F operations. Memory: a block of 32 MiB, and the rows in float64.
    """
    x, y = x.double(), y.double()

    def mean(a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=a.device)
        for rows in a.split(BLOCK):
            for others in b.split(BLOCK):
                total += ((rows @ others.T - 1).clamp_max(0) / sigma**2).expm1().sum()
        return total / (len(a) * len(b))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


class CMMD(FeatureSets):
    """1000 times the squared MMD of unit-length features under a Gaussian kernel, under cmmd/<extractor>.

    Published figures are of CLIP ViT-L/14 at 336 pixels with sigma 10. The diagonals are kept, so that the figure is never below 0, and is
    biased upwards by about 1000 mean(1 - k) (1/M + 1/N) for M fakes and N real samples. Work: 2 (M + N)^2 F operations in float64.
    UserError if features are all 0.
    """

    better = "min"

    def __init__(self, sigma: Annotated[float, Gt(0)] = 10.0):
        super().__init__()
        self.sigma = sigma

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"cmmd/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        return {"": SCALE * gaussian_mmd(unit_rows(self.fake(1)), unit_rows(self.real(1)), self.sigma)}
