"""Priors that have a density."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import Draws
from gan_runner.game.prior import Prior, log_normal, supported


class Normal(Prior):
    """N(0, I)."""


class Uniform(Prior):
    """U(low, high) on every axis. ValueError unless low < high."""

    def __init__(self, low: float = -1.0, high: float = 1.0):
        super().__init__()
        if not low < high:
            raise ValueError(f"a uniform prior needs low < high, not {low} and {high}")
        self.low, self.high = low, high

    def draw(self, draws: Draws, n: int) -> Tensor:
        unit = 2 * draws.uniform(n) - 1
        z = unit * ((self.high - self.low) / 2) + (self.high + self.low) / 2
        return z.clamp(self.low, self.high)  # which rounding may leave

    def log_prob(self, z: Tensor) -> Tensor:
        return supported(torch.full_like(z, -math.log(self.high - self.low)), (z >= self.low) & (z <= self.high)).sum(1)


class Truncated(Prior):
    """N(0, 1) on every axis, between -limit and limit: the truncation of BigGAN (Brock et al. 2019), by the inverse of Phi."""

    def __init__(self, limit: Annotated[float, Gt(0)] = 2.0):
        super().__init__()
        self.limit = limit
        self.mass = math.erf(limit / math.sqrt(2))  # of N(0, 1) between the limits

    def draw(self, draws: Draws, n: int) -> Tensor:
        u = draws.uniform(n)
        below = (0.5 + self.mass * (u.double() - 0.5)).clamp(2.0**-54, 1 - 2.0**-53)  # Phi^-1 of 0 and 1 is not finite
        z = torch.special.ndtri(below)
        return z.to(u.dtype).clamp(-self.limit, self.limit)

    def log_prob(self, z: Tensor) -> Tensor:
        return supported(log_normal(z) - math.log(self.mass), z.abs() <= self.limit).sum(1)


class Mixture(Prior):
    """An equal mixture of k normals N(m_j, I), whose centres m_j are spread on a circle of this radius in the first two axes."""

    centres: Tensor

    def __init__(self, k: Annotated[int, Ge(1)] = 8, radius: Annotated[float, Ge(0)] = 4.0):
        super().__init__()
        angles = 2 * math.pi * torch.arange(k) / k
        self.register_buffer("centres", radius * torch.stack([angles.cos(), angles.sin()], 1), persistent=False)

    def check(self, n: int) -> None:
        if n < 2:
            raise ValueError(f"a mixture on a circle needs at least 2 latent dimensions, not {n}")

    def draw(self, draws: Draws, n: int) -> Tensor:
        noise = draws.normal(n)
        centre = self.centres[draws.integers(len(self.centres))]
        return noise + torch.nn.functional.pad(centre, (0, n - 2)).to(noise)

    def log_prob(self, z: Tensor) -> Tensor:
        plane = log_normal(z[:, None, :2] - self.centres.to(z)).sum(2)
        return torch.logsumexp(plane, 1) - math.log(len(self.centres)) + log_normal(z[:, 2:]).sum(1)
