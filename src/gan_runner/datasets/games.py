"""Data of games that are small enough to be solved by hand. They have one entry, and both splits are the same."""

from typing import Annotated

import torch
from annotated_types import Ge

from gan_runner.datasets.dataset import Dataset, Samples, Split
from gan_runner.game.spec import Spec


class Numbers(Dataset):
    """A list of numbers, N 1."""

    @property
    def numbers(self) -> list[float]:
        raise NotImplementedError

    @property
    def spec(self) -> Spec:
        return Spec((1,))

    def load(self, split: Split) -> Samples:
        return Samples(torch.tensor(self.numbers, dtype=torch.float32)[:, None])


class Dirac(Numbers):
    """Every sample is 0. With G a point and a linear D: the Dirac-GAN. Mescheder et al. 2018."""

    @property
    def numbers(self) -> list[float]:
        return [0.0] * 4096  # a batch of any size is read at once


class Bilinear(Numbers):
    """The points mean - 1 and mean + 1. A linear D under the Wasserstein loss sees their mean alone, and D raises slope (mean - E G(z)).

    That is the game x y, which G lowers and D raises, with x = E G(z) - mean and y = -slope. A batch of a multiple of 2 samples has this
    mean exactly.
    """

    def __init__(self, mean: float = 0.0):
        self.mean = mean

    @property
    def numbers(self) -> list[float]:
        return [self.mean - 1, self.mean + 1]


class LGQ(Numbers):
    """The points mu - sigma and mu + sigma for each mu of `means` and its sigma of `deviations`. Linear G, quadratic D: Feizi et al. 2017.

    They have the mean and the second moment of an equal mixture of normal distributions, which is all that a quadratic D sees. With
    batch_size = 2 len(means), every batch has them exactly.
    """

    def __init__(self, means: list[float] = [1.0], deviations: list[Annotated[float, Ge(0)]] = [2.0]):  # noqa: B006
        if not 0 < len(means) == len(deviations):
            raise ValueError(f"means and deviations are as many numbers, one or more, not {len(means)} and {len(deviations)}")
        self.components = list(zip(means, deviations))

    @property
    def numbers(self) -> list[float]:
        return [point for mu, sigma in self.components for point in (mu - sigma, mu + sigma)]
