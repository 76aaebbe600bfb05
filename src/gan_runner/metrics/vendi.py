"""The effective number of different samples. Friedman and Dieng 2023; of any order: Pasarkar and Dieng 2024."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from gan_runner.metrics.feature_sets import FeatureSets, last_part, unit_rows

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

BLOCK = 4096  # rows of which a product is added at a time


def vendi(rows: Tensor, q: float = 1.0) -> Tensor:
    """Compute the Vendi score of order q > 0 of rows of unit length (N F), from 1 (all equal) to N (all orthogonal); float64 scalar.

    With the eigenvalues p of the kernel matrix X X^T / N, which sum to 1: exp(-sum p log p) for q = 1, (sum p^q)^(1 / (1 - q)) for others,
    1 / max p for q infinite. X^T X / N has the same eigenvalues but for zeros, and the smaller of the two is used. Memory: a few matrices
    of min(N, F)^2.
    """
    rows = rows.double()
    n, features = rows.shape
    if n <= features:
        matrix = rows @ rows.T
    else:
        matrix = torch.zeros(features, features, dtype=torch.float64, device=rows.device)
        for part in rows.split(BLOCK):
            matrix += part.T @ part
    p = torch.linalg.eigvalsh(matrix.cpu()).clamp_min(0)  # below 0 by rounding alone
    p /= p.sum()
    if q == 1:
        return (-torch.special.xlogy(p, p).sum()).exp()
    if math.isinf(q):
        return 1 / p.max()
    return (p**q).sum() ** (1 / (1 - q))


class Vendi(FeatureSets):
    """The effective number of different samples by the similarity of their features (cosine), under vendi/<extractor>.

    It never looks at real samples, and noise may have more of it than data: read it beside a figure of quality. It grows with the number of
    samples, up to the number of features. q: order; a smaller one counts rare kinds of samples more, a larger one less. UserError if
    features are all 0. Work: 2 N F min(N, F) operations in float64, and the eigenvalues.
    """

    needs = frozenset()
    better = "max"
    coverage = ("",)

    def __init__(self, q: Annotated[float, Gt(0)] = 1.0):
        super().__init__()
        self.q = q

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"vendi/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        return {"": vendi(unit_rows(self.fake(1)), self.q)}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        (value,) = last_part(figures).values()
        return super().sentence(figures) if value is None else f"as diverse as {value:.4g} samples that share nothing"
