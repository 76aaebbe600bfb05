"""Test whether the samples are nearer to the training data than new data would be. After Meehan, Chaudhuri and Dasgupta 2020."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from gan_runner.game.kind import grid, to_uint8
from gan_runner.metrics.feature_sets import FeatureSets, choice, last_part
from gan_runner.metrics.neighbours import held, nearest
from gan_runner.sampling.subjects import Subject

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor


ENUMERATED = 16  # rows whose every choice is counted; those that most fakes are nearest to


class Closeness(NamedTuple):
    """How close fakes are to training and to test data; float64 scalars."""

    share: Tensor  # of fakes whose nearest row is a training row; where several are equally near, the share of training rows among these
    z: Tensor
    p_value: Tensor
    ratio: Tensor  # median over fakes of the distance to the training rows over that to the test rows


def closeness(fake: Tensor, train: Tensor, test: Tensor) -> Closeness:
    """Compare the distances of fakes (N F) to training rows (M F) and to as many test rows (M F).

    Null hypothesis: training and test rows are exchangeable. Let c_i be the number of fakes whose nearest row is i (1/s for each of s
    equally near rows). Then N times the share is the sum of c over M of 2M rows, drawn without replacement: its expectation is N / 2, its
    variance M / 2 times the variance of c. z is in standard deviations. p_value is the probability of this sum or a larger one
    (`at_least`). Many fakes near few rows count for no more than those rows.
    ValueError for sets of different size.
    """
    m = len(train)
    if len(test) != m:
        raise ValueError(f"closeness compares as many training rows as test rows, not {m} and {len(test)}")
    (to_train, i), (to_test, j) = ((values.cpu() for values in nearest(fake, rows, k=min(2, m))) for rows in (train, test))
    distance = torch.minimum(to_train[:, 0], to_test[:, 0])
    alone = (torch.cat([to_train, to_test], 1) == distance[:, None]).sum(1) == 1  # one nearest row
    of_train = to_train[:, 0] < to_test[:, 0]
    counts = torch.cat([i[alone & of_train, 0].bincount(minlength=m), j[alone & ~of_train, 0].bincount(minlength=m)]).double()
    tied = fake[~alone.to(fake.device)]
    rows, radius = torch.cat([train, test]) if len(tied) else train, distance[~alone].to(fake.device)
    sizes = held(rows, tied, radius, closed=True)[1] if len(tied) else radius.long()
    for size in sizes.unique().tolist():
        counts += held(rows, tied[sizes == size], radius[sizes == size], closed=True)[0].cpu().double() / size
    step = 1 / math.lcm(*sizes.unique().tolist())
    excess, deviation = counts[:m].sum() - len(fake) / 2, (counts.var() * m / 2).sqrt()
    z = torch.where(excess.abs() <= 1e-9 * len(fake), 0, excess / deviation)
    ratio = torch.where(to_train == to_test, 1, to_train / to_test)[:, 0].median()
    return Closeness(counts[:m].sum() / len(fake), z, at_least(counts, counts[:m].sum(), step), ratio)


def at_least(weights: Tensor, total: Tensor, step: float) -> Tensor:
    """Compute P(S >= total), float64, for the sum S of half of the weights (2M, float64, multiples of `step`), without replacement.

    Exact if at most 16 weights are above 0. Otherwise every choice among the 16 largest is enumerated; the sum of the others, given how
    many are drawn, is approximated as normal, with half a step as continuity correction.
    """
    n, ordered = len(weights), weights.sort(descending=True).values
    large, rest = ordered[:ENUMERATED], ordered[ENUMERATED:]
    chosen = (torch.arange(2 ** len(large))[:, None] >> torch.arange(len(large)) & 1).double()
    drawn = n // 2 - chosen.sum(1)  # of the rest

    def log_choose(n: int, k: Tensor) -> Tensor:
        return math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)

    chance = (log_choose(len(rest), drawn) - log_choose(n, torch.tensor(n / 2, dtype=torch.float64))).exp()
    mean, variance = (value.nan_to_num(0) for value in (rest.mean(), rest.var() if len(rest) > 1 else rest.sum() * 0))
    deviation = (drawn * (1 - drawn / max(len(rest), 1)) * variance).clamp_min(0).sqrt()
    above = chosen @ large + drawn * mean - total + max(step / 2, 1e-9 * float(weights.sum()))
    reached = torch.where(deviation > 0, torch.special.ndtr(above / deviation), (above >= 0).double())
    return (chance * reached).sum().clamp(0, 1)


def usual_share(distance: Tensor, usual: Tensor, quantile: float) -> Tensor:
    """Return the share of distances (N) within the lowest `quantile` of the usual distances (M); scalar.

    Usual distances equal to the threshold fill a fraction of the quantile; a distance equal to it counts with that fraction.
    """
    limit = usual.quantile(quantile)
    at_limit = (usual == limit).double().mean()
    left = (quantile - (usual < limit).double().mean()) / at_limit.clamp_min(1 / len(usual))
    return (distance < limit).double().mean() + left.clamp(0, 1) * (distance == limit).double().mean()


class Memorisation(FeatureSets):
    """memorisation/<extractor>/closer_to_train, its /p_value, /distance_ratio and /near_duplicates, and pairs of images.

    closer_to_train: share of samples nearer to training than to test samples, 0.5 without memorisation; equally many of both are used (a
    fixed random choice of the larger set). p_value: probability of so large a share without memorisation. distance_ratio: median of
    distance to training over distance to test samples, 1 without memorisation. near_duplicates: share of samples as near to a training
    sample as the nearest share `quantile` of the test samples; about `quantile` without memorisation. Pictures: the samples nearest to a
    training sample, each with that sample on its right.
    """

    better = None  # best where they are what new data would have

    def __init__(self, quantile: Annotated[float, Gt(0), Lt(1)] = 0.01, pairs: Annotated[int, Ge(1)] = 16):
        super().__init__()
        self.quantile, self.pairs = quantile, pairs

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"memorisation/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        fake, train, test = self.fake(1), self.real(1, split="train"), self.real(1, split="test")
        m = min(len(train), len(test))
        found = closeness(fake, choice(train, m), choice(test, m))
        distance, index = (values[:, 0] for values in nearest(fake, train))
        usual = nearest(test, train)[0][:, 0]
        closest = distance.argsort(stable=True)[: self.pairs]
        self.closest, self.models = closest.cpu(), index[closest].cpu()
        return {
            "closer_to_train": found.share,
            "p_value": found.p_value,
            "distance_ratio": found.ratio,
            "near_duplicates": usual_share(distance, usual, self.quantile),
        }

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        if not subject.spec.kind.drawable:
            return {}
        fakes, models = subject.at(self.closest)[0].cpu(), self.reference.of("train").at(self.models).cpu()
        return {"pairs": grid(to_uint8(torch.stack([fakes, models], 1).flatten(0, 1)), columns=8)}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        share, p_value, duplicates = map(last_part(figures).get, ("closer_to_train", "p_value", "near_duplicates"))
        if share is None or p_value is None or duplicates is None:
            return super().sentence(figures)
        return f"{share:.1%} of the samples closer to training than to test data (p = {p_value:.2g}), {duplicates:.1%} near-duplicates"
