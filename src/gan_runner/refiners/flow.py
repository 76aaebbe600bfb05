"""Discriminator gradient flow. Ansari, Ang & Soh 2021, "Refining Deep Generative Models via Discriminator Gradient Flow"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner import tree
from gan_runner.draws import Draws
from gan_runner.refinement.calibration import Kind
from gan_runner.refinement.ratio import Ratio, Space
from gan_runner.refinement.refiner import Pool, Refiner, Start, Steps, along, standard_normal
from gan_runner.tree import Sample

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {  # r f''(r) at r = exp(-d)
    "kl": torch.ones_like,
    "js": torch.sigmoid,
    "log_d": lambda d: torch.sigmoid(-d),
}


class DGflow(Refiner):
    """Move x by eta s(d) grad d + sqrt(2 eta gamma) noise, d the log ratio: the flow of D_f(data || model) - gamma entropy(model).

    s(d) is 1 for divergence kl, sigmoid(d) for js and sigmoid(-d) for log_d. space: latents move, by d(G(z)), or samples. until: "real"
    stops a sample once its ratio reaches that of the median real one, since the ratio is not estimated again on the way. relative_step
    replaces eta by the one with which the first step has this mean length, as a share of sqrt(E) for points of E numbers.
    """

    def __init__(
        self,
        divergence: Literal["kl", "js", "log_d"] = "kl",
        space: Space = "latent",
        steps: Steps = 25,
        eta: Annotated[float, Gt(0)] = 0.01,
        relative_step: Annotated[float, Gt(0)] | None = None,
        gamma: Annotated[float, Ge(0)] = 0.01,
        until: Literal["end", "real"] = "end",
        calibration: Kind = "none",
        temperature: Annotated[float, Gt(0)] = 1.0,
    ):
        self.weight, self.space, self.steps, self.eta, self.gamma = WEIGHTS[divergence], space, steps, eta, gamma
        self.relative_step, self.calibration, self.temperature = relative_step, calibration, temperature
        self.wants_real, self.needs_zero = until == "real", divergence != "kl"
        self.enough = math.inf

    def prepare(self, ratio: Ratio, pool: Pool) -> None:
        if self.wants_real:
            assert pool.real is not None
            self.enough = float(pool.real.median())
        if self.relative_step is not None:
            start = pool.fakes.first(500)
            d, slopes = ratio.slopes(self.origin(ratio, start), start.y, self.space)
            rows = torch.cat([leaf.flatten(1) for leaf in tree.leaves(slopes)], 1)
            length = float((self.weight(d)[:, None] * rows).norm(dim=1).mean())
            self.eta = self.relative_step * math.sqrt(rows.shape[1]) / max(length, 1e-12)
            self.measured = f"eta={self.eta:.4g}, of relative_step={self.relative_step:g}"

    def __call__(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Sample]:
        point, deviation = tree.map(torch.clone, self.origin(ratio, start)), math.sqrt(2 * self.eta * self.gamma)
        while True:
            yield point
            d, slopes = ratio.slopes(point, start.y, self.space)
            moves = (d < self.enough).to(d)
            rate = self.eta * self.weight(d) * moves
            for x, slope, noise in zip(*map(tree.leaves, (point, slopes, standard_normal(point, draws)))):
                x.add_(along(rate, x) * slope).add_(along(moves * deviation, x) * noise)
