"""Mean and covariance of rows in batches."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 4096  # rows that are held in float64 at a time


class Moments(NamedTuple):
    """Number, mean and scatter of rows, float64, which can be merged without loss. Chan, Golub and LeVeque 1979.

    Sums of squares lose digits if the mean is much larger than the deviation; a merge of centred sums does not.
    """

    n: Tensor  # a scalar
    mean: Tensor  # F
    scatter: Tensor  # F F: sum of (x - mean)(x - mean)^T

    @classmethod
    def zero(cls, features: int, device: torch.device | str = "cpu") -> Moments:
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((), (features,), (features, features))))

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Compute the moments of rows, N F; ValueError for another shape. Memory: a few thousand rows in float64, a few matrices F F."""
        if rows.ndim != 2:
            raise ValueError(f"moments are of rows, N F, and these have the shape {tuple(rows.shape)}")
        if not len(rows):
            return cls.zero(rows.shape[1], rows.device)
        return reduce(cls.merged, map(cls._of_few, rows.split(CHUNK)))

    @classmethod
    def _of_few(cls, rows: Tensor) -> Moments:
        rows = rows.double()
        mean = rows.mean(0)
        centred = rows - mean
        return cls(torch.tensor(float(len(rows)), dtype=torch.float64, device=rows.device), mean, centred.T @ centred)

    def merged(self, other: Moments) -> Moments:
        """Return the moments of the rows of both."""
        n = self.n + other.n
        delta, share = other.mean - self.mean, other.n / n.clamp_min(1)
        scatter = (self.scatter + other.scatter).addr_(self.n * share * delta, delta)
        return Moments(n, self.mean + share * delta, scatter)

    @property
    def covariance(self) -> Tensor:
        """Return the covariance, F F, with N - 1 in the denominator; ValueError for fewer than 2 rows."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, not {self.n:.0f}")
        return self.scatter / (self.n - 1)

    @property
    def packed(self) -> Tensor:
        """Pack everything in one symmetric matrix, F + 1 F + 1: [[n, mean], [mean, scatter]]."""
        matrix = self.scatter.new_empty(2 * (len(self.mean) + 1,))
        matrix[0, 0], matrix[0, 1:], matrix[1:, 0], matrix[1:, 1:] = self.n, self.mean, self.mean, self.scatter
        return matrix

    @classmethod
    def unpacked(cls, matrix: Tensor) -> Moments:
        """Unpack the matrix of `packed`, as views of it."""
        return cls(matrix[0, 0], matrix[0, 1:], matrix[1:, 1:])
