"""A generator as a model that has a density: p(x|z) = N(x; G(z), sigma^2 I). Wu et al. 2017."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gan_runner.draws import Draws, Noise, noise_behind, seeded
from gan_runner.game.network import Generator

LogDensity = Callable[[Tensor], Tensor]  # C M Z -> C M: of M targets, each for C latents


class Decoder:
    """N(x; G(z), sigma^2 I): the density that defines the likelihood of a generator; images are scaled to [0, 1].

    Chains are float64. G computes in float32, which causes a relative error of some 1e-7 in log p(x|z).
    """

    def __init__(self, generator: Generator, sigma: float, bounded: bool, device: torch.device):
        self.generator, self.sigma, self.bounded, self.device = generator, sigma, bounded, device
        self.home = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self.noise = noise_behind(Draws(seeded("ais"), 1), generator.prior).shape[1]

    def rows(self, x: Tensor) -> Tensor:
        """Flatten samples (N ..., as data) to rows N D on the scale of sigma; float64."""
        rows = x.to(self.home).double().flatten(1)
        return (rows + 1) / 2 if self.bounded else rows

    def __call__(self, e: Tensor, y: Tensor | None) -> Tensor:
        """Generate samples (N D) from noise e (N E) and labels y (N)."""
        z = self.generator.prior(Noise(e.to(self.device, torch.float32)))
        return self.rows(self.generator.show(self.generator(z, None if y is None else y.to(self.device))))

    def log_likelihood(self, x: Tensor, y: Tensor | None) -> LogDensity:
        """Return the log-likelihood of M targets x (M D) with labels y (M): C M E -> C M."""
        constant = x.shape[1] / 2 * math.log(2 * math.pi * self.sigma**2)

        def density(e: Tensor) -> Tensor:
            made = self(e.flatten(0, 1), None if y is None else y.repeat(len(e))).unflatten(0, e.shape[:2])
            return -(x - made).square().sum(2) / (2 * self.sigma**2) - constant

        return density
