"""Discriminator driven latent sampling. Che et al. 2020, "Your GAN is Secretly an Energy-based Model"."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import Draws
from gan_runner.errors import UserError
from gan_runner.refinement.calibration import Kind
from gan_runner.refinement.ratio import Ratio
from gan_runner.refinement.refiner import Refiner, Start, Steps, along, standard_normal
from gan_runner.tree import Sample


class Energy(NamedTuple):
    """A latent (N E), its negative energy -E(z) = log p0(z) + d(G(z)) up to a constant (N), and the gradient of that (N E)."""

    z: Tensor
    value: Tensor
    slope: Tensor


class DDLS(Refiner):
    """Sample latents from p0(z) exp(d(G(z))) by Langevin dynamics: z + epsilon / 2 slope + sqrt(epsilon) noise xi.

    adjust: take a step with the probability of Metropolis and Hastings (MALA); without it the length of the steps biases the result, and a
    steep ratio loses modes. noise: 1 is the method, less cools it. z is the noise behind the prior, so that log p0(z) = -|z|^2 / 2.
    """

    def __init__(
        self,
        steps: Steps = 100,
        epsilon: Annotated[float, Gt(0)] = 0.01,
        noise: Annotated[float, Ge(0)] = 1.0,
        adjust: bool = True,
        calibration: Kind = "none",
        temperature: Annotated[float, Gt(0)] = 1.0,
    ):
        if adjust and noise != 1:
            raise UserError(f"refiner.ddls.noise={noise}: adjust=true is for noise=1; say adjust=false to cool the chain")
        self.steps, self.epsilon, self.noise, self.adjust = steps, epsilon, noise, adjust
        self.calibration, self.temperature = calibration, temperature

    def energy(self, ratio: Ratio, z: Tensor, y: Any) -> Energy:
        d, slope = ratio.slopes(z, y, "latent")
        assert isinstance(slope, Tensor)
        return Energy(z, d - z.square().sum(1) / 2, slope - z)

    def __call__(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Sample]:
        yield start.e
        yield from self.adjusted(ratio, start, draws) if self.adjust else self.unadjusted(ratio, start, draws)

    def unadjusted(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Tensor]:
        z = start.e.clone()
        while True:
            slope = self.energy(ratio, z, start.y).slope
            z.add_(self.epsilon / 2 * slope).add_(math.sqrt(self.epsilon) * self.noise * noise_of(z, draws))
            yield z

    def adjusted(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Tensor]:
        here = self.energy(ratio, start.e.clone(), start.y)
        while True:
            xi = noise_of(here.z, draws)
            there = self.energy(ratio, here.z + self.epsilon / 2 * here.slope + math.sqrt(self.epsilon) * xi, start.y)
            back = -(here.z - there.z - self.epsilon / 2 * there.slope).square().sum(1) / (2 * self.epsilon)
            forth = -xi.square().sum(1) / 2
            taken = draws.uniform().to(xi).log() < there.value - here.value + back - forth
            for mine, other in zip(here, there):
                mine.copy_(torch.where(along(taken, mine), other, mine))
            yield here.z


def noise_of(z: Tensor, draws: Draws) -> Tensor:
    """Draw standard normal noise of the shape of latents."""
    noise = standard_normal(z, draws)
    assert isinstance(noise, Tensor)
    return noise
