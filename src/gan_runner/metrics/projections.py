"""Optimal transport between sets of features along random directions."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_runner.draws import seeded

ROWS = 4096  # that are held in float64 at a time
DIRECTIONS = 64  # along which all rows are held at a time


def random_directions(n: int, features: int, *key: object) -> Tensor:
    """Draw n directions uniformly from the unit sphere (n F, float64, on the CPU), seeded by the key."""
    normal = torch.randn(n, features, generator=seeded(*key), dtype=torch.float64)
    return normal / normal.norm(dim=1, keepdim=True)


def squared_transport(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Compute the squared Wasserstein-2 distance of rows x (M F) and y (N F) projected on each of K directions (K F): K, float64.

    That of two sets of equal size is the mean squared difference of their sorted projections. Of sets of unequal size, it is the mean over
    levels in [0, 1] of the squared difference of their quantiles, which are constant between the multiples of 1 / M and 1 / N. Memory: 64
    projections of all rows.
    """
    m, n = len(x), len(y)
    ends = torch.cat([torch.arange(1, m + 1) * n, torch.arange(1, n + 1) * m]).unique()  # of the steps, in units of 1 / (M N)
    weight = (ends.diff(prepend=ends.new_zeros(1)).double() / (m * n)).to(x.device)
    at_x, at_y = (((ends - 1) // size).to(x.device) for size in (n, m))
    distances = []
    for part in directions.to(x.device).split(DIRECTIONS):
        in_x, in_y = (torch.cat([part @ some.double().T for some in rows.split(ROWS)], 1).sort(1).values for rows in (x, y))
        distances.append((in_x[:, at_x] - in_y[:, at_y]).square() @ weight)
    return torch.cat(distances)
