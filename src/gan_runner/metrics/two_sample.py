"""Classifier two-sample tests: can a classifier separate samples from real samples? Lopez-Paz and Oquab 2017."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from gan_runner.draws import seeded
from gan_runner.metrics.feature_sets import FeatureSets, choice, last_part
from gan_runner.metrics.neighbours import held, nearest

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

Classifier = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(rows N F, whether each is fake N, other rows M F) -> M, float64: 1 for those that it calls fake, 0 real, 1/2 where it cannot tell."""

RIDGE = 1e-3  # lends a minimum to classes that can be separated
STEPS = 50  # of Newton's method at most; ten or so are usual
ROWS = 4096  # summed at once


def nearest_neighbour(rows: Tensor, fake: Tensor, others: Tensor) -> Tensor:
    """Classify each of the others (M F) like the nearest of the rows (N F); by majority if several are equally near."""
    radius = nearest(others, rows)[0][:, 0]
    none = torch.zeros_like(radius, dtype=torch.int64)
    real, fakes = (held(rows[kind], others, radius, closed=True)[1] if kind.any() else none for kind in (~fake, fake))
    return ((fakes - real).sign().double() + 1) / 2


def logistic(rows: Tensor, fake: Tensor, others: Tensor) -> Tensor:
    """Classify by logistic regression on features scaled to mean 0 and variance 1 over the rows; 1/2 if the logit is 0.

    It minimises mean log(1 + exp(-s f(x))) + RIDGE |w|^2 / 2 (s = 1 where fake, else -1; f(x) = w x + b) by Newton's method, in float64.
    """
    x = rows.double()
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1)
    x = F.pad((x - mean) / scale, (0, 1), value=1.0)
    sign, weight = fake.double() * 2 - 1, torch.zeros_like(x[0])
    penalty = torch.full_like(weight, RIDGE).index_fill(0, torch.tensor([len(weight) - 1], device=x.device), 0)  # none on b

    def objective(weight: Tensor) -> Tensor:
        return F.softplus(-sign * (x @ weight)).mean() + (penalty * weight.square()).sum() / 2

    value = objective(weight)
    for _ in range(STEPS):
        p = (x @ weight).sigmoid()
        slope = x.T @ (p - fake.double()) / len(x) + penalty * weight
        curvature = penalty.diag()
        for part, variance in zip(x.split(ROWS), (p * (1 - p) / len(x)).split(ROWS)):
            curvature += part.T @ (part * variance[:, None])
        curvature.diagonal().add_(1e-12)  # b's row may underflow to 0
        step = torch.linalg.solve(curvature, slope)
        if float(slope @ step) < 1e-10:  # twice what is left to gain
            break
        size = 1.0
        while (lower := objective(weight - size * step)) > value and size > 1e-6:
            size /= 2
        weight, value = weight - size * step, lower
    return ((((others.double() - mean) / scale) @ weight[:-1] + weight[-1]).sign() + 1) / 2


CLASSIFIERS: dict[str, Classifier] = {"nearest_neighbour": nearest_neighbour, "logistic": logistic}


def two_sample_test(real: Tensor, fake: Tensor, classifier: Classifier = logistic) -> tuple[Tensor, Tensor]:
    """Fit a classifier to one half. Returns its accuracy on the other half, and the p-value; float64 scalars. real, fake: N F each.

    A row for which the classifier is undecided counts half.

    Under the null hypothesis the accuracy has mean 1/2 and, with n rows held out, a variance of at most 1 / (4n), since the held-out rows
    are independent of the classifier. p = Phi((1/2 - accuracy) 2 sqrt n), one-sided. For normal distributions of unit variance at distance
    d no classifier exceeds Phi(d / 2). The accuracy of leave-one-out neighbours is not used: its terms depend on each other, and its
    mean is below 1/2. ValueError for sets of different size or fewer than 4 rows.
    """
    n = len(real)
    if len(fake) != n or n < 4:
        raise ValueError(f"a two-sample test takes 4 or more rows of each kind, equally many, not {n} and {len(fake)}")
    order = [torch.randperm(n, generator=seeded("two-sample test", kind)).to(real.device) for kind in ("real", "fake")]
    half = n // 2
    fitted, other = (torch.cat([real[order[0][part]], fake[order[1][part]]]) for part in (slice(half), slice(half, None)))
    is_fake = torch.arange(len(fitted), device=real.device) >= half
    wrong = (classifier(fitted, is_fake, other) - (torch.arange(len(other), device=real.device) >= n - half).double()).abs()
    accuracy = 1 - wrong.mean()
    return accuracy, torch.special.ndtr((0.5 - accuracy) * 2 * math.sqrt(len(other)))


class TwoSampleTest(FeatureSets):
    """c2st/<extractor>/accuracy, from 0.5 (no difference found) to 1, and /p_value.

    Equally many real and fake samples are used, at most n (None: all) of each: a fixed random choice of the larger set. More samples detect
    smaller differences. Memory: a copy of half of them in float64 (logistic).
    """

    better = {"accuracy": "min"}

    def __init__(self, classifier: Literal["logistic", "nearest_neighbour"] = "logistic", n: Annotated[int, Ge(4)] | None = 5000):
        super().__init__()
        self.classifier, self.n = classifier, n

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"c2st/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        real, fake = self.real(4), self.fake(4)
        n = min(len(real), len(fake), self.n or len(real))
        accuracy, p_value = two_sample_test(choice(real, n), choice(fake, n), CLASSIFIERS[self.classifier])
        return {"accuracy": accuracy, "p_value": p_value}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        accuracy, p_value = map(last_part(figures).get, ("accuracy", "p_value"))
        if accuracy is None or p_value is None:
            return super().sentence(figures)
        return f"a classifier tells {accuracy:.1%} of held-out samples and real ones apart (p = {p_value:.2g})"
