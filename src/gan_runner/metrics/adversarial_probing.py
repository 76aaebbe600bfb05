"""How small a change fools a discriminator: of a sample, or of the generator that made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from gan_runner.draws import NumberedDraws, seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.metric import COUPLED, Metric
from gan_runner.game.network import Discriminator, Generator
from gan_runner.sampling.subjects import Subject, evaluating

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

Judge = Callable[[Tensor], Tensor]  # samples N ... -> logits N
Norm = Literal["l2", "linf"]

REACH = 64.0  # how far a search goes, in the step that would do if everything were linear
HALVINGS = 10  # of the interval that a search ends in
KEYS = ("fgsm_l2", "fgsm_linf", "pgd_l2", "pgd_linf", "step_l2", "cosine", "nearest_real")  # one number a rejected fake
ROWS = 500  # real samples that are compared at once: bounds the memory


def slope(judge: Judge, x: Tensor) -> Tensor:
    """Return the gradient of the logits with respect to x, N ..."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(judge(x).sum(), x)[0]


def size(p: Tensor, norm: Norm) -> Tensor:
    """Return the norms (N) of the perturbations p (N ...)."""
    rows = p.flatten(1)
    return rows.norm(dim=1) if norm == "l2" else rows.abs().amax(1)


def steepest(g: Tensor, norm: Norm) -> Tensor:
    """Return the directions of norm 1 of steepest ascent for gradients g (N ...): g / |g|_2, or the sign of g; 0 where g is 0."""
    if norm == "linf":
        return g.sign()
    return g / size(g, "l2").clamp_min(torch.finfo(g.dtype).tiny).view(-1, *[1] * (g.ndim - 1))


def linear_radius(logits: Tensor, g: Tensor, norm: Norm) -> Tensor:
    """Return the norm (N) of the smallest perturbation with logit 0, for a linear D with gradients g: |d| / |g|_2, or |d| / |g|_1."""
    return logits.abs() / g.flatten(1).norm(p=2 if norm == "l2" else 1, dim=1)


@torch.no_grad()
def fgsm(judge: Judge, x: Tensor, norm: Norm) -> Tensor:
    """Return the smallest radius (N) at which one step of steepest ascent from x makes the logit positive; inf where none is found.

    Fast gradient (sign) method, Goodfellow et al. 2015. The line search goes up to 64 linear radii by factors of sqrt 2, then bisects.
    """
    g = slope(judge, x)
    unit = linear_radius(judge(x), g, norm)
    direction, along = steepest(g, norm), (-1, *[1] * (x.ndim - 1))

    def fools(radius: Tensor) -> Tensor:
        return judge(x + radius.view(along) * direction) > 0

    low, high = torch.zeros_like(unit), torch.full_like(unit, torch.inf)
    for factor in _factors(2**0.5):
        searching = high.isinf() & unit.isfinite()
        if not searching.any():
            break
        fooled = fools(torch.where(unit.isfinite(), factor * unit, 0))
        high = torch.where(searching & fooled, factor * unit, high)
        low = torch.where(searching & ~fooled, factor * unit, low)
    return _halve(fools, low, high)


@torch.no_grad()
def pgd(judge: Judge, x: Tensor, radius: Tensor, norm: Norm, steps: int = 40) -> Tensor:
    """Test whether projected gradient ascent from x within `radius` (N) reaches a positive logit: N, bool. Madry et al. 2018.

    It starts at x. Its step size is 2.5 radius / steps, so that it can reach the edge and move along it.
    """
    along = (-1, *[1] * (x.ndim - 1))
    edge = radius.view(along)
    p, fooled = torch.zeros_like(x), judge(x) > 0
    for _ in range(steps):
        if fooled.all():
            break
        p = p + 2.5 / steps * edge * steepest(slope(judge, x + p), norm)
        excess = (size(p, norm) / radius.clamp_min(torch.finfo(x.dtype).tiny)).clamp_min(1) if norm == "l2" else None
        p = p.clamp(-edge, edge) if excess is None else p / excess.view(along)
        fooled = fooled | (judge(x + p) > 0)
    return fooled


@torch.no_grad()
def pgd_radius(judge: Judge, x: Tensor, norm: Norm, known: Tensor, steps: int = 40) -> Tensor:
    """Return the smallest radius (N) within which pgd fools D, found by bisection; inf where there is none.

    known: radii (N) from fgsm that fool D; where it is inf, the search starts at 64 linear radii. The result is never above `known`.
    """
    limit = REACH * linear_radius(judge(x), slope(judge, x), norm)

    def fools(radius: Tensor) -> Tensor:
        return pgd(judge, x, radius, norm, steps)

    trying = known.isinf() & limit.isfinite()
    if trying.any():
        known = torch.where(trying & fools(torch.where(trying, limit, 0)), limit, known)
    return _halve(fools, torch.zeros_like(known), known)


def _factors(ratio: float) -> list[float]:
    """Return powers of `ratio` from 1 / REACH to REACH."""
    count = round(math.log(REACH, ratio))
    return [ratio**i for i in range(-count, count + 1)]


def _halve(fools: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Bisect between radii that fail (low) and radii that fool D (high); inf stays inf."""
    there = high.isfinite()
    for _ in range(HALVINGS if there.any() else 0):
        middle = torch.where(there, (low + high) / 2, 0)
        fooled = fools(middle)
        high = torch.where(there & fooled, middle, high)
        low = torch.where(there & ~fooled, middle, low)
    return high


class Move(NamedTuple):
    """The effect of one step of the generator on its samples."""

    change: Tensor  # N ...: of the samples, at the smallest step that fools D
    fooled: Tensor  # N, bool: whether one does


@torch.no_grad()
def generator_step(generator: Generator, z: Tensor, y: Tensor | None, judge: Judge) -> Move:
    """Find the smallest gradient step of G on its objective E -D(G(z)), over all z (N Z), that makes the logit of a sample positive.

    All samples share one direction, as in training. The step size is found for each sample, by factors of 2^(1/4) (at most 19 % too
    large), up to 64 times the step that would suffice in a linear model. G itself is not changed.
    """
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in generator.named_parameters()}

    def samples(at: Mapping[str, Tensor]) -> Tensor:
        made = torch.func.functional_call(generator, dict(at), (z, y))
        assert isinstance(made, Tensor)
        return made

    with torch.enable_grad():
        before = samples(weights)
        logits = judge(before)
        slopes = torch.autograd.grad(logits.mean(), list(weights.values()), materialize_grads=True)
    before, logits = before.detach(), logits.detach()
    change, fooled = torch.zeros_like(before), torch.zeros_like(logits, dtype=torch.bool)
    steepness = torch.stack([s.square().sum() for s in slopes]).sum()
    unit = logits.clamp_max(0).mean().neg() / steepness
    for factor in _factors(2**0.25) if steepness > 0 else []:
        moved = samples({name: w + factor * unit * s for (name, w), s in zip(weights.items(), slopes)})
        newly = (judge(moved) > 0) & ~fooled
        change[newly] = (moved - before)[newly]
        fooled |= newly
        if fooled.all():
            break
    return Move(change, fooled)


def nearest(x: Tensor, real: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
    """Return the Euclidean distance (N, float64) from each sample x (N ...) to the nearest of the real samples at `indices`."""
    rows = x.detach().cpu().double().flatten(1)
    nearest = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    for part in indices.split(ROWS):
        nearest = nearest.minimum(torch.cdist(rows, real(part).to(rows).flatten(1)).amin(1))
    return nearest


class AdversarialProbing(Metric):
    """Size of the change that makes D accept a fake; probes those of the first `n` samples that D rejects (logit < 0).

    rejected: their share. fgsm_l2, fgsm_linf, pgd_l2, pgd_linf: the smallest perturbation p with D(G(z) + p) > 1/2, by one gradient step
    or by projected gradient ascent; images are not clamped to [-1, 1]. success: share of fakes for which pgd_l2 finds one. step_l2: the
    change of the sample when a step of G fools D instead; step_success: share of fakes for which one does. cosine: between that change
    and the gradient of D at the sample; 1 where G moves its samples as an adversary would. nearest_real: distance to the nearest of n_real
    real samples. All are medians over the fakes that succeed, in the units of the data; null where none does.

    A logit of 0 means 1/2 only for D trained with logistic losses. Networks are in evaluation mode, where a D with batch norm computes
    another function than in training. A D that compares samples with each other gets the rejected fakes as one batch. Memory: n samples,
    and G's weights twice.
    """

    needs = frozenset({"reference", "generator", "discriminator"})
    better = None  # each depends on how good D is

    def __init__(self, n: Annotated[int, Ge(1)] = 64, n_real: Annotated[int, Ge(1)] = 10000, steps: Annotated[int, Ge(1)] = 40):
        super().__init__()
        self.n, self.n_real, self.steps = n, n_real, steps

    def prefix(self, extractor: Extractor | None) -> str:
        return "probing"

    def examine(self, subject: Subject) -> None:
        G, D = subject.generator, subject.discriminator
        assert G is not None
        assert D is not None
        with evaluating(G), evaluating(D):
            indices = torch.arange(self.n)
            z, y = G.prior(NumberedDraws("evaluation", subject.seed, indices=indices, device=subject.device)), subject.at(indices)[1]
            with torch.no_grad():
                x = G(z, y)
                if not isinstance(x, Tensor):
                    raise UserError(
                        f"adversarial_probing perturbs samples of one tensor, and those of {type(G).__name__} have {len(x)} scales; "
                        "take it out: ~metric.adversarial_probing"
                    )
                logits = D(x, y).per_sample
            if not logits.isfinite().all():
                raise UserError("adversarial_probing: the discriminator's logits are not finite")
            self.couples = D.couples_in_evaluation
            rejected = logits < 0
            self.rejected = rejected.cpu().double().mean()
            self.found: dict[str, Tensor] = {}
            if rejected.any():
                self._probe(G, D, x[rejected], z[rejected], None if y is None else y[rejected])

    def _probe(self, G: Generator, D: Discriminator, x: Tensor, z: Tensor, y: Tensor | None) -> None:
        def judge(x: Tensor) -> Tensor:
            return D(x, y).per_sample

        found: dict[str, Tensor] = {}
        norms: tuple[Norm, ...] = ("l2", "linf")
        for done, norm in enumerate(norms, 1):
            found[f"fgsm_{norm}"] = fgsm(judge, x, norm)
            found[f"pgd_{norm}"] = pgd_radius(judge, x, norm, found[f"fgsm_{norm}"], self.steps)
            self.tick(done, len(norms))
        move = generator_step(G, z, y, judge)
        found["step_l2"] = size(move.change, "l2").where(move.fooled, torch.inf)
        cosine = F.cosine_similarity(move.change.flatten(1), slope(judge, x).flatten(1))
        found["cosine"] = cosine.where(move.fooled, torch.inf)
        indices = torch.randperm(self.reference.n, generator=seeded("probing", "real"))[: self.n_real]
        found["nearest_real"] = nearest(G.show(x), self.reference.at, indices)
        self.found = {key: values.cpu().double() for key, values in found.items()}

    def notes(self) -> list[str]:
        return [COUPLED] if self.couples else []

    def compute(self) -> dict[str, Tensor]:
        undefined = torch.tensor(torch.nan, dtype=torch.float64)
        figures = {"rejected": self.rejected}
        for key in KEYS:
            values = self.found.get(key, undefined[None])
            values = values[values.isfinite()]
            figures[key] = values.quantile(0.5) if len(values) else undefined
        for key, search in (("success", "pgd_l2"), ("step_success", "step_l2")):
            figures[key] = self.found[search].isfinite().double().mean() if self.found else undefined
        return figures

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        share, radius, step, real = (figures[f"probing/{key}"] for key in ("rejected", "pgd_l2", "step_l2", "nearest_real"))
        told = ["never" if value is None else f"at {value:.3g}" for value in (radius, step)]
        said = f"D rejects {share:.0%} of the fakes"
        return (
            said
            if not share
            else f"{said}; fooled by a perturbation {told[0]} (L2), by a step of G {told[1]}, nearest real sample at {real:.3g}"
        )
