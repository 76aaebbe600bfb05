"""The Metropolis-Hastings GAN. Turner et al. 2019, "Metropolis-Hastings Generative Adversarial Networks"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from gan_runner.draws import Draws
from gan_runner.refinement.calibration import Kind
from gan_runner.refinement.ratio import Ratio
from gan_runner.refinement.refiner import Pool, Refiner, Start, Steps, along
from gan_runner.tree import Sample


class MHGAN(Refiner):
    """Replace a sample x by a fresh one x' of G with probability min(1, exp(d(x') - d(x))), `steps` times.

    begin: "real" begins with the ratio of a real sample, of the same class, which spares the burn-in. The real sample is never returned: a
    chain that accepts nothing ends where the chain from the first sample of G ends, which has the same proposals. "fake" begins there.
    """

    selects = True

    def __init__(
        self,
        steps: Steps = 100,
        begin: Literal["real", "fake"] = "real",
        calibration: Kind = "logistic",
        temperature: Annotated[float, Gt(0)] = 1.0,
    ):
        self.steps, self.calibration, self.temperature, self.wants_real = steps, calibration, temperature, begin == "real"
        self.real: Tensor | None = None
        self.by_class: dict[int, Tensor] = {}

    def prepare(self, ratio: Ratio, pool: Pool) -> None:
        if self.wants_real:
            assert pool.real is not None
            self.real = pool.real
            if isinstance(pool.fakes.y, Tensor) and pool.real_labels is not None:
                self.by_class = {int(k): pool.real[pool.real_labels == k] for k in pool.real_labels.unique()}

    def beginning(self, start: Start, draws: Draws) -> Tensor:
        """Return log ratios of real samples, of the class that is asked for where there are classes, N."""
        assert self.real is not None
        u = draws.uniform().to(start.e)
        if not self.by_class:
            return self.real.to(start.e)[(u * len(self.real)).long()]
        sets = [self.by_class.get(k, self.real) for k in start.y.tolist()]
        return torch.stack([own.to(start.e)[int(x * len(own))] for own, x in zip(sets, u.tolist())])

    @torch.no_grad()
    def __call__(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Sample]:
        yield start.e
        own, z, point = start.e.clone(), start.e.clone(), start.e.clone()  # of the chain from the first sample of G, from a real one
        own_d = ratio.at(own, start.y, "latent")
        d = self.beginning(start, draws).to(own_d) if self.wants_real else own_d.clone()
        moved = torch.full_like(d, not self.wants_real, dtype=torch.bool)
        while True:
            proposal = ratio.latents(draws).to(z)
            there, log_u = ratio.at(proposal, start.y, "latent"), draws.uniform().to(own_d).log()
            taken, own_taken = log_u < there - d, log_u < there - own_d
            for mine, which, other in ((z, taken, proposal), (d, taken, there), (own, own_taken, proposal), (own_d, own_taken, there)):
                mine.copy_(torch.where(along(which, mine), other, mine))
            moved |= taken
            yield point.copy_(torch.where(moved[:, None], z, own))
