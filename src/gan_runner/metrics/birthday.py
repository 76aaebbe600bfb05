"""How many different samples a generator can produce: the birthday paradox test, Arora and Zhang 2017."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from gan_runner.draws import seeded
from gan_runner.metrics.feature_sets import FeatureSets, last_part
from gan_runner.metrics.neighbours import close_pairs, nearest

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

ORDERS = 1000  # orders in which the samples are gone through
CROWD = 20  # pairs a sample: with so many, a fraction of the samples decides
CONFIDENCE = 0.95  # of the bound where there was no pair


def collision_probability(support: float, batch: int) -> float:
    """Return 1 - prod_{i<s} (1 - i / N): the probability that s draws from N equally likely values are not all different."""
    if batch > support + 1:
        return 1.0
    i = torch.arange(batch, dtype=torch.float64)
    return -math.expm1(float(torch.log1p(-i / support).sum()))


def support_size(batch: int, probability: float) -> float:
    """Invert collision_probability for N: about s^2 / (2 ln 2) at 1/2. Infinite at 0, s - 1 at 1 (the greatest N)."""
    if batch < 2 or not 0 <= probability <= 1:
        raise ValueError(f"there is no support with probability {probability} of a collision in batches of {batch}")
    if probability in (0, 1):
        return math.inf if probability == 0 else batch - 1.0
    low = batch * (batch - 1) / (-2 * math.log1p(-probability))  # from -log(1 - i/N) >= i/N, and the other bound from <= i / (N - i)
    low, high = max(low, batch - 1.0), low + batch - 1
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if collision_probability(middle, batch) > probability else (low, middle)
    return (low + high) / 2


def first_collisions(n: int, pairs: Tensor, generator: torch.Generator, orders: int = ORDERS) -> Tensor:
    """Count the samples taken, in each of `orders` random orders of n, until both of a pair (P 2, indices) are in; int64, n + 1: never."""
    if not len(pairs):
        return torch.full((orders,), n + 1)
    left, right = pairs.cpu().unbind(1)
    first = []
    for _ in range(orders):
        rank = torch.randperm(n, generator=generator)
        first.append(torch.maximum(rank[left], rank[right]).min() + 1)
    return torch.stack(first)


def duplicates(rows: Tensor, threshold: float, generator: torch.Generator) -> tuple[int, Tensor]:
    """Draw n of the rows N F, and return n and the pairs (indices below n) that are at most `threshold` apart.

    n is N where pairs are rare. If there are more than CROWD pairs for each row, far more than the estimate needs, n is smaller.
    """
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    n = min(32, len(rows))
    while True:
        pairs = close_pairs(rows[order[:n]], threshold)
        if n == len(rows) or len(pairs) > CROWD * n:
            return n, pairs
        n = min(2 * n, len(rows))


class Birthday(FeatureSets):
    """birthday/<extractor>/support: how many equally likely samples would collide as often; /batch, /at_least, /threshold.

    Two samples collide if they are at most `threshold` apart. None: the `quantile` of the distances of real samples to the nearest of
    other real samples, n_real / 2 each. Then real samples have a support of about n_real / (2 quantile), and so has a generator that is as
    diverse. batch: the smallest batch that contains a collision with probability 1/2 or more, over random subsets of the samples.
    If no two samples collide, support and batch are null, and at_least is the support that would have shown a pair with probability 0.95.
    Memory: 16 bytes for each pair; there are no more than some tens of pairs for each sample.
    """

    better = {"support": "max", "batch": "max", "at_least": "max"}

    def __init__(
        self,
        threshold: Annotated[float, Ge(0)] | None = None,
        quantile: Annotated[float, Gt(0), Lt(1)] = 0.01,
        n_real: Annotated[int, Ge(4)] | None = 10_000,
    ):
        super().__init__()
        self.threshold, self.quantile, self.n_real = threshold, quantile, n_real
        if threshold is not None:
            self.needs = frozenset()

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"birthday/{extractor.name}"

    def usual(self) -> float:
        """Return the threshold computed from real samples."""
        real = self.real(4, self.n_real)
        order = torch.randperm(len(real), generator=seeded("birthday", "real")).to(real.device)
        one, other = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]
        return float(nearest(one, other)[0][:, 0].quantile(self.quantile))

    def compute(self) -> dict[str, Tensor]:
        fake = self.fake(2)
        threshold = self.usual() if self.threshold is None else self.threshold
        generator = seeded("birthday", "fake")
        n, pairs = duplicates(fake, threshold, generator)
        support, batch, at_least = math.nan, math.nan, math.nan
        if len(pairs):
            first = first_collisions(n, pairs, generator)
            batch = float(first.median())
            support = support_size(int(batch), float((first <= batch).double().mean()))
        else:
            at_least = support_size(n, CONFIDENCE)
        figures = {"support": support, "batch": batch, "at_least": at_least, "threshold": threshold}
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in figures.items()}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        support, batch, at_least = map(last_part(figures).get, ("support", "batch", "at_least"))
        if support is not None and batch is not None:
            return f"a pair of near-duplicates in every other batch of {batch:,.0f}: a support of about {support:,.0f}"
        return super().sentence(figures) if at_least is None else f"no near-duplicates: a support of at least {at_least:,.0f}"
