"""Priors with discrete entries."""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.draws import Draws
from gan_runner.game.network import one_hot
from gan_runner.game.prior import Prior, log_normal, supported


class Signs(Prior):
    """Entries +1 and -1, all combinations in turn: sample i has +1 on axis j where bit j of i is 0. A batch of 2^n has each of them once.

    So a batch has no sampling noise, as analyses of convergence assume.
    """

    def draw(self, draws: Draws, n: int) -> Tensor:
        number = draws.number()[:, None]
        return 1.0 - 2.0 * ((number >> torch.arange(n, device=number.device)) & 1)

    def log_prob(self, z: Tensor) -> Tensor:
        return supported(torch.full_like(z, -math.log(2)), z.abs() == 1).sum(1)


class Codes(Prior):
    """Normal noise, then a one-hot code for each of `categories` (their sizes), then `continuous` codes U(-1, 1). Chen et al. 2016."""

    def __init__(self, categories: list[Annotated[int, Ge(2)]] = [], continuous: Annotated[int, Ge(0)] = 0):  # noqa: B006
        super().__init__()
        self.categories, self.continuous = list(categories), continuous

    @property
    def width(self) -> int:
        """Number of entries that are codes: the last ones."""
        return sum(self.categories) + self.continuous

    def check(self, n: int) -> None:
        if n < self.width:
            raise ValueError(f"these codes take {self.width} latent dimensions, and there are {n}")

    def draw(self, draws: Draws, n: int) -> Tensor:
        noise = draws.normal(n - self.width)
        codes = [one_hot(draws.integers(k), k) for k in self.categories]
        return torch.cat([noise, *codes, 2 * draws.uniform(self.continuous) - 1], 1)

    def log_prob(self, z: Tensor) -> Tensor:
        noise, *codes, numbers = z.split([z.shape[1] - self.width, *self.categories, self.continuous], 1)
        found = log_normal(noise).sum(1) + supported(torch.full_like(numbers, -math.log(2)), numbers.abs() <= 1).sum(1)
        for code in codes:
            is_code = (code.sum(1) == 1) & ((code == 0) | (code == 1)).all(1)
            found = supported(found - math.log(code.shape[1]), is_code)
        return found
