"""Base class of priors: the law of the latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gan_runner.draws import Draws


class Prior(nn.Module):
    """Standard normal, N(0, I), unless overridden: the law of n numbers a sample.

    A law is a function of random numbers (`Draws`), so that walks and refiners can move the noise behind it instead of the latents.
    """

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    def check(self, n: int) -> None:
        """Raise ValueError where the law cannot draw n numbers a sample."""

    def draw(self, draws: Draws, n: int) -> Tensor:
        """Draw latents, N n."""
        return draws.normal(n)

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log density of latents z (N n) in nats, N; of discrete entries the log probability. -inf outside the support."""
        return log_normal(z).sum(1)


def log_normal(x: Tensor) -> Tensor:
    """Compute the log density of N(0, 1) at every entry, in nats."""
    return -x.square() / 2 - math.log(2 * math.pi) / 2


def supported(log_density: Tensor, support: Tensor) -> Tensor:
    """Return the log density where `support` is True, and -inf elsewhere."""
    return log_density.masked_fill(~support, -torch.inf)
