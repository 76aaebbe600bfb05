"""Precision and recall for data with a known support. Lucic et al. 2018, section 5."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import Noise, NumberedDraws, chosen, noise_behind
from gan_runner.evaluation.metric import Metric, Told, told_nobody
from gan_runner.game.network import Generator
from gan_runner.game.spec import Spec
from gan_runner.sampling.subjects import Subject, evaluating, finite

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

ROWS = 500  # samples made at once, as many as an evaluation makes


def reached(
    generator: Generator, x: Tensor, delta: float, *, restarts: int, steps: int, rate: float, seed: int, tick: Told = told_nobody
) -> Tensor:
    """Test whether min_z |G(z) - x| <= delta, bool N, for samples x (N ...) as data, by Adam on the noise behind z, from `restarts` draws.

    So no z leaves the support of its prior. UserError where the prior draws whole numbers. The result for a sample depends only on the
    seed, its index and the sample. G is in evaluation mode, and its weights get no gradients; labels are drawn with z and stay. A search
    ends once it has found one. Memory: one pass of G and back for 500 samples.
    """
    found, indices = [], torch.arange(len(x)).split(max(1, ROWS // restarts))
    with evaluating(generator), torch.enable_grad():
        for part, i in enumerate(indices):
            tell = partial(lambda before, step: tick(before + step, len(indices) * (steps + 1)), part * (steps + 1))
            found.append(_reached(generator, x, i, delta, restarts, steps, rate, seed, tell))
    return torch.cat(found)


def _reached(
    generator: Generator,
    x: Tensor,
    i: Tensor,
    delta: float,
    restarts: int,
    steps: int,
    rate: float,
    seed: int,
    tell: Callable[[int], None],
) -> Tensor:
    """Run the search for the samples with indices i."""
    draws = NumberedDraws("inversion", seed, indices=(i[:, None] * restarts + torch.arange(restarts)).flatten(), device=x.device)
    e, y = noise_behind(draws, generator.prior), generator.labels(draws)
    mean, square = torch.zeros_like(e), torch.zeros_like(e)
    target, of = x[i.to(x.device)].flatten(1), torch.arange(len(i), device=x.device).repeat_interleave(restarts)
    found = torch.zeros(len(i), dtype=torch.bool, device=x.device)
    for step in range(1, steps + 2):
        e = e.detach().requires_grad_()
        squares = (generator.show(generator(generator.prior(Noise(e)), y)).flatten(1) - target[of]).square().sum(1)
        found[of[squares.detach().sqrt() <= delta]] = True
        tell(step)
        slope = torch.autograd.grad(squares.sum(), e, allow_unused=True)[0] if squares.requires_grad else None
        if slope is None or step > steps or found.all():  # None: a G that does not look at z
            break
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope.square()
        e = e.detach() - rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        if found[of].any():
            left = ~found[of]
            e, mean, square, of = e[left], mean[left], square[left], of[left]
            y = None if y is None else y[left]
    return found


class SupportPrecisionRecall(Metric):
    """precision: share of fakes within delta of the support. recall: share of test samples within delta of some G(z). f1: of both.

    Distances are Euclidean over a whole sample, with images scaled to [0, 1]. Precision uses n_precision fakes; the data set computes the
    distance to the support (for images by gradient descent: an upper bound). Recall uses n_recall test samples and minimises by Adam over
    the noise behind z: a lower bound, which grows with restarts and steps; z stays in the support of its prior, and may become less likely
    than draws from it. A prior that draws whole numbers is refused. Fakes and test samples are a random choice that depends on nothing but
    their number (that of fakes also on the seed). Without a generator recall and f1 are NaN. Time, for triangles: 10 ms a fake on one core,
    and at most n_recall x restarts x steps passes of G there and back. Every process computes all of it.
    """

    needs = frozenset({"reference"})
    better = "max"
    coverage = ("recall",)

    def __init__(
        self,
        spec: Spec,
        delta: Annotated[float, Gt(0)] = 0.75,
        n_precision: Annotated[int, Ge(1)] = 1000,
        n_recall: Annotated[int, Ge(1)] = 100,
        restarts: Annotated[int, Ge(1)] = 10,
        steps: Annotated[int, Ge(1)] = 500,
        rate: Annotated[float, Gt(0)] = 0.05,
    ):
        super().__init__()
        if spec.exact is None:
            raise ValueError(
                "support_precision_recall needs data whose support is known, such as triangles or ring8, and this data set has none; "
                "take it out: ~metric.support_precision_recall"
            )
        self.exact = spec.exact
        self.delta = 2 * delta if spec.kind.bounded else delta  # in units of the data, where images have [-1, 1]
        self.n_precision, self.n_recall = n_precision, n_recall
        self.reached = partial(reached, restarts=restarts, steps=steps, rate=rate)
        self.precision = self.recall = math.nan

    def prefix(self, extractor: Extractor | None) -> str:
        return "support"

    def examine(self, subject: Subject) -> None:
        n = min(self.n_precision, subject.n)
        near = 0
        for i, indices in enumerate(chosen(n, subject.n, "support", "fakes", subject.seed).split(ROWS)):
            near += int((self.exact.support_distance(finite(subject.at(indices)[0]).to(self.device)) <= self.delta).sum())
            self.tick(i * ROWS + len(indices), n)
        self.precision = near / n
        self.recall = math.nan
        if subject.generator is not None:
            test = self.reference.of("test")
            x = test.at(chosen(self.n_recall, test.n, "support", "test")).to(subject.device)
            found = self.reached(subject.generator, x, self.delta, seed=subject.seed, tick=self.tick)
            self.recall = found.cpu().double().mean().item()

    def compute(self) -> dict[str, Tensor]:
        both = self.precision + self.recall
        figures = {
            "precision": self.precision,
            "recall": self.recall,
            "f1": 0.0 if both == 0 else 2 * self.precision * self.recall / both,
        }
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in figures.items()}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        precision, recall = figures["support/precision"], figures["support/recall"]
        if precision is None:
            return super().sentence(figures)
        made = "" if recall is None else f", {recall:.1%} of the test samples can be made"
        return f"{precision:.1%} of the samples on the support{made}"
