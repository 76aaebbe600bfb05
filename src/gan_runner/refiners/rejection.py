"""Rejection sampling: DRS, Azadi et al. 2019; OBRS, Verine et al. 2023 (arXiv 2311.00460)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from gan_runner.draws import Draws
from gan_runner.refinement.calibration import Kind
from gan_runner.refinement.ratio import Ratio
from gan_runner.refinement.refiner import Pool, Refiner, Start, Steps
from gan_runner.tree import Sample


class Rejection(Refiner):
    """Keep a sample with a probability that is a function of its log ratio, else make another, `steps` times; the last one stays.

    The function is fitted to fakes beforehand and does not change, so that a sample does not depend on others.
    """

    selects = True

    def fit(self, d: Tensor) -> None:
        """Fit the function to log ratios of fakes (M, float64)."""
        raise NotImplementedError

    def kept(self, d: Tensor) -> Tensor:
        """Return the probabilities that samples with these log ratios are kept, N, float64."""
        raise NotImplementedError

    def prepare(self, ratio: Ratio, pool: Pool) -> None:
        self.fit(torch.cat([ratio.at(part.e, part.y, "latent") for part in pool.fakes.split()]).double())

    @torch.no_grad()
    def __call__(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Sample]:
        z, proposal = start.e.clone(), start.e
        seeking = torch.ones(len(z), dtype=torch.bool, device=z.device)
        yield start.e
        while True:
            u = draws.uniform().to(z)
            if seeking.any():  # only these are evaluated
                rows = seeking.nonzero()[:, 0]
                z[rows] = proposal[rows]
                d = ratio.at(proposal[rows], None if start.y is None else start.y[rows], "latent")
                keep = u[rows] < self.kept(d).to(u)
                seeking[rows] = ~keep
            yield z
            proposal = ratio.latents(draws).to(z)


class DRS(Rejection):
    """Keep with probability sigmoid(F), F = d - M - log(1 - exp(d - M - 1e-6)) - gamma.

    M is the largest log ratio of the fakes beforehand, gamma the `percentile` of F; null: gamma = 0, exact rejection, which keeps exp(-M).
    """

    def __init__(
        self,
        steps: Steps = 100,
        percentile: Annotated[float, Ge(0), Lt(100)] | None = 80.0,
        calibration: Kind = "logistic",
        temperature: Annotated[float, Gt(0)] = 1.0,
    ):
        self.steps, self.percentile, self.calibration, self.temperature = steps, percentile, calibration, temperature
        self.largest = self.gamma = 0.0

    def fit(self, d: Tensor) -> None:
        self.largest = float(d.max())
        self.gamma = 0.0 if self.percentile is None else float(self.score(d).quantile(self.percentile / 100))

    def score(self, d: Tensor) -> Tensor:
        """Return F + gamma, N."""
        below = (d.double() - self.largest).clamp_max(0)
        return below - torch.log1p(-torch.exp(below - 1e-6))

    def kept(self, d: Tensor) -> Tensor:
        return torch.sigmoid(self.score(d) - self.gamma)


class OBRS(Rejection):
    """Keep with probability min(1, c exp(d)), c such that a share 1 / budget of all samples is kept.

    Of all functions that keep this share it is nearest to the data in every f-divergence: what is kept has at most budget times the density
    of G, and a convex function of its ratio to the data is least where that ratio is one constant wherever this bound leaves it free.
    budget: samples of G for one that is kept; from the largest exp(d) on, it is exact rejection.
    """

    def __init__(
        self,
        steps: Steps = 100,
        budget: Annotated[float, Gt(1)] = 4.0,
        calibration: Kind = "logistic",
        temperature: Annotated[float, Gt(0)] = 1.0,
    ):
        self.steps, self.budget, self.calibration, self.temperature = steps, budget, calibration, temperature
        self.log_c = 0.0

    def fit(self, d: Tensor) -> None:
        low, high = float(-d.max()), float(-d.min())  # nothing is cut off; everything is kept
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if float((d + middle).clamp_max(0).exp().mean()) < 1 / self.budget else (low, middle)
        self.log_c = low

    def kept(self, d: Tensor) -> Tensor:
        return (d.double() + self.log_c).clamp_max(0).exp()
