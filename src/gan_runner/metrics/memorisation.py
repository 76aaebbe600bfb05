"""Are the samples nearer to the training data than new data would be? After Meehan, Chaudhuri and Dasgupta 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from gan_runner.datasets import to_uint8
from gan_runner.datasets.pictures import grid
from gan_runner.metrics.feature_sets import FeatureSets, choice, last_part
from gan_runner.metrics.neighbours import nearest
from gan_runner.subjects import Subject

if TYPE_CHECKING:
    from gan_runner.extractors import Extractor


class Closeness(NamedTuple):
    """How fakes lie between two sets; float64 scalars."""

    share: Tensor  # of fakes nearer to the training rows; one that is as near to both counts half
    z: Tensor
    p_value: Tensor
    ratio: Tensor  # median over fakes of the distance to the training rows over that to the test rows


def closeness(fake: Tensor, train: Tensor, test: Tensor) -> Closeness:
    """Of fakes (N F) to training rows (M F) and as many test rows (M F).

    If the training rows are to the fakes what the test rows are, which of the 2M is which is a fair draw. So the share has expectation 1/2
    and, where c_i fakes are nearest to row i, N times it has variance M / 2 times the variance of c (M of 2M without replacement).
    z is in units of its root, and p_value = Phi(-z) is one-sided. Fakes that crowd around few rows count for no more than those rows.
    ValueError for sets of different size.
    """
    m = len(train)
    if len(test) != m:
        raise ValueError(f"closeness compares as many training rows as test rows, not {m} and {len(test)}")
    (to_train, i), (to_test, j) = ((values[:, 0].cpu() for values in nearest(fake, rows)) for rows in (train, test))
    nearer = (to_train < to_test).double() + (to_train == to_test).double() / 2
    counts = torch.cat([i.bincount(nearer, minlength=m), j.bincount(1 - nearer, minlength=m)])
    share = nearer.mean()
    excess, deviation = nearer.sum() - len(fake) / 2, (counts.var() * m / 2).sqrt()
    z = torch.where(excess == 0, 0, excess / deviation)
    ratio = torch.where(to_train == to_test, 1, to_train / to_test).median()
    return Closeness(share, z, torch.special.ndtr(-z), ratio)


class Memorisation(FeatureSets):
    """memorisation/<extractor>/closer_to_train, its /p_value, /distance_ratio and /near_duplicates, and pairs of images.

    closer_to_train: share of samples that are nearer to training than to test samples, 0.5 if nothing was memorised; from as many training
    as test samples (a fixed random choice of the larger set). distance_ratio: median of the two distances over each other, 1 then.
    near_duplicates: share of samples that are as near to any training sample as a share `quantile` of the test samples is; about
    `quantile` if nothing was memorised. Pictures: the samples nearest to a training sample, each left of that one.
    """

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
        usual = nearest(test, train)[0][:, 0].quantile(self.quantile)
        closest = distance.argsort(stable=True)[: self.pairs]
        self.closest, self.models = closest.cpu(), index[closest].cpu()
        return {
            "closer_to_train": found.share,
            "p_value": found.p_value,
            "distance_ratio": found.ratio,
            "near_duplicates": (distance <= usual).double().mean(),
        }

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        if not subject.spec.is_image:
            return {}
        fakes, models = subject.at(self.closest)[0].cpu(), self.reference.of("train").at(self.models).cpu()
        pairs = torch.stack([to_uint8(fakes), to_uint8(models)], 1).flatten(0, 1)
        return {"pairs": grid(pairs, columns=8)}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        share, p_value, duplicates = map(last_part(figures).get, ("closer_to_train", "p_value", "near_duplicates"))
        if share is None or p_value is None or duplicates is None:
            return super().sentence(figures)
        return f"{share:.1%} of the samples closer to training than to test data (p = {p_value:.2g}), {duplicates:.1%} near-duplicates"
