"""The likelihood of new data under a kernel density of the samples: the feature likelihood divergence. Jiralerspong et al. 2023."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.metrics.feature_sets import FeatureSets, choice

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

STEPS = 100  # of expectation maximisation at most
GAIN = 1e-5  # nats a feature by which a step has to raise the mean log-likelihood
LEAST = 1e-6  # variance of a kernel; that of the features is 1. A kernel on a copy would shrink to nothing
SHORTER = 0.9  # so many times as far as they are, rows count for the broad normal, as in the authors' code
NUMBERS = 1 << 22  # in a block of distances, 32 MiB


class Kernels:
    """A mixture of N normal kernels N(c_j, s_j I) of equal weight, with a variance s_j of its own for each centre c_j (N F, float64)."""

    def __init__(self, centres: Tensor):
        self.centres, self.squares = centres, centres.square().sum(1)
        self.rows = max(1, NUMBERS // len(centres))
        self.variance, self.broad = torch.ones_like(self.squares), torch.ones((), dtype=centres.dtype, device=centres.device)

    def log_likelihood(self, rows: Tensor) -> Tensor:
        """Compute the log density of rows (M F), in nats: M, float64."""
        return torch.cat([self._terms(self._squared(part)).logsumexp(1) for part in rows.split(self.rows)])

    def fit(self, rows: Tensor) -> Kernels:
        """Fit the variances to rows (M F) by maximum likelihood, by expectation maximisation. Work: 2 M N F operations a step.

        It begins with the variance at which a kernel is best for the row nearest to it; no step lowers the likelihood, and it ends where
        one raises it by less than GAIN. A variance is at least LEAST. Rows that are far from all kernels are left to a broad normal at the
        mean of the rows, which has as much weight as all kernels and a variance of its own. Without it, kernels on copies of some rows
        would have to grow until they reach the others.
        """
        nearest = torch.full_like(self.variance, torch.inf)
        for part in rows.split(self.rows):
            nearest = torch.minimum(nearest, self._squared(part).amin(0))
        features = self.centres.shape[1]
        self.variance, before = (nearest / features).clamp_min(LEAST), -math.inf
        far = SHORTER**2 * (rows - rows.mean(0)).square().sum(1)
        for _ in range(STEPS):
            weight, spread = torch.zeros_like(self.variance), torch.zeros_like(self.variance)
            total, left, reach = 0.0, torch.zeros_like(self.broad), torch.zeros_like(self.broad)
            for part, beyond in zip(rows.split(self.rows), far.split(self.rows)):
                squared = self._squared(part)
                terms, other = self._terms(squared), -beyond / (2 * self.broad) - features / 2 * (2 * math.pi * self.broad).log()
                whole = torch.logaddexp(terms.logsumexp(1), other)
                total += float(whole.sum())
                share, missed = terms.sub_(whole[:, None]).exp_(), (other - whole).exp()
                weight += share.sum(0)
                spread += (share * squared).sum(0)
                left += missed.sum()
                reach += (missed * beyond).sum()
            if total / len(rows) - before < GAIN * features:
                break
            before = total / len(rows)
            self.variance = torch.where(weight > 0, spread / (features * weight), self.variance).clamp_min(LEAST)
            self.broad = torch.where(left > 0, reach / (features * left), self.broad).clamp_min(LEAST)
        return self

    def _squared(self, rows: Tensor) -> Tensor:
        """Compute squared distances, M N, of rows to the centres."""
        return torch.addmm(rows.square().sum(1)[:, None] + self.squares, rows, self.centres.T, alpha=-2).clamp_min_(0)

    def _terms(self, squared: Tensor) -> Tensor:
        """Compute the log density of each kernel, weighted, at squared distances from its centre."""
        normaliser = self.centres.shape[1] / 2 * (2 * math.pi * self.variance).log() + math.log(len(self.centres))
        return -squared / (2 * self.variance) - normaliser


def likelihood_divergence(fake: Tensor, test: Tensor, train: Tensor) -> Tensor:
    """Compute 100 / F (log p_train - log p_fake), means over test rows (M F); a float64 scalar: 0 where fakes (N F) are like training rows.

    Features are scaled to mean 0 and variance 1 over the test rows; constant ones are left out. p_fake is `Kernels` at the fakes, fitted to
    all training rows (L F); p_train is one at as many training rows as there are fakes, at most half of them and chosen at random, fitted
    to the others. A kernel at a copy of a training row shrinks upon it, and makes no test row likelier. ValueError for fewer than 2 test
    or training rows.
    """
    if len(test) < 2 or len(train) < 2:
        raise ValueError(f"a divergence of likelihoods needs 2 or more test and training rows, not {len(test)} and {len(train)}")
    mean, scale = test.double().mean(0), test.double().std(0)
    varies = scale > 0
    fake, test, train = (((rows.double() - mean) / scale)[:, varies] for rows in (fake, test, train))
    order = torch.randperm(len(train), generator=seeded("fld", "half")).to(train.device)
    held = min(len(fake), len(train) // 2)
    baseline = Kernels(train[order[:held]]).fit(train[order[held:]]).log_likelihood(test).mean()
    return 100 / test.shape[1] * (baseline - Kernels(fake).fit(train).log_likelihood(test).mean())


class FLD(FeatureSets):
    """The feature likelihood divergence, under fld/<extractor>: how much less likely test samples are under the samples than under data.

    It rises with noise, with copies of training samples and with missing modes; a generator that is as good as the data has about 0, and
    less where there are more fakes than half of the training samples. With nothing but copies it is huge. The kernels are those of the
    authors' code but for the optimiser, expectation maximisation in place of 50 epochs of Adam, so that its figures differ somewhat.

    n: maximum number of fakes, a fixed random choice; None: all. n_real: maximum number of training samples, and of test samples; None:
    all, without which copies of the others are missed. Work: about 20 passes of 2 N L F operations in float64, and as many exponentials,
    twice: use a GPU for 10,000 fakes and 50,000 training samples. Memory: the features in float64. UserError if there is no test split, or
    no feature varies.
    """

    better = "min"

    def __init__(self, n: Annotated[int, Ge(2)] | None = 10_000, n_real: Annotated[int, Ge(4)] | None = None):
        super().__init__()
        self.n, self.n_real = n, n_real

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"fld/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        fake = choice(self.fake(1), self.n)
        test, train = (self.real(2, self.n_real, split) for split in ("test", "train"))
        if bool((test == test[0]).all()):
            raise UserError("FLD: the test samples all have the same features, and there is no scale to compare them on")
        return {"": likelihood_divergence(fake, test, train)}
