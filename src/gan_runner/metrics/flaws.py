"""An ordered list of the flaws of the fakes: directions of feature space, each tested on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from annotated_types import Gt, Le
from torch import Tensor

from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.game.kind import GAP, grid, to_uint8
from gan_runner.metrics.feature_sets import FeatureSets

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor
    from gan_runner.sampling.subjects import Subject

CHUNK = 8192  # rows in float64 at a time
FEWEST = 20  # of each kind, below which a test on half of them says nothing
CLEAR = 3.0  # standard errors
SHOWN = 8  # samples in a picture of a flaw


class Interval(NamedTuple):
    """Classifies an activation t as fake if low < t <= high, or (inside = False) if not."""

    low: Tensor
    high: Tensor
    inside: bool

    def __call__(self, t: Tensor) -> Tensor:
        return ((t > self.low) & (t <= self.high)) == self.inside


class Flaw(NamedTuple):
    """A direction in which fakes and real samples differ. The activation of x is direction . (x - mean of the real samples)."""

    direction: Tensor  # F, float64
    excess: float  # second moment of the fakes minus that of the real samples: above 0 too much, below 0 something is missing
    accuracy: float  # of telling the held-out samples apart, fakes and real ones counting alike
    p_value: float  # how likely so good a rule is by chance
    fakes: Tensor  # indices of the fakes of largest activation, in descending order
    reals: Tensor  # and of the real samples


def best_rule(fake: Tensor, real: Tensor) -> Interval:
    """Find the interval, or its complement, that best separates activations of fakes (N) from those of real samples (M).

    With D(t) = F_fake(t) - F_real(t), its ends are where D is least and greatest, and its balanced accuracy is 1/2 + (max D - min D) / 2
    (Kuiper 1960). A shift gives a half-line, too much spread two tails, too little an inner interval.
    """
    values, order = torch.cat([fake, real]).sort()
    steps = torch.cat([torch.full_like(fake, 1 / len(fake)), torch.full_like(real, -1 / len(real))])[order].cumsum(0)
    last = torch.cat([values[1:] != values[:-1], torch.ones_like(values[:1], dtype=torch.bool)])  # no cut between equal values
    difference = torch.nn.functional.pad(steps[last], (1, 0))
    levels = values[last]
    end = torch.full_like(levels[:1], torch.inf)
    cuts = torch.cat([-end, (levels[1:] + levels[:-1]) / 2, end])
    least, most = difference.argmin(), difference.argmax()
    return Interval(cuts[torch.minimum(least, most)], cuts[torch.maximum(least, most)], bool(least < most))


def chance(hits: int, fakes: int, alarms: int, reals: int) -> float:
    """Return the probability of `hits` or more among `fakes` fakes if hits + alarms samples were classified as fake at random.

    Fisher's exact test, one-sided. It is exact also for a handful of samples, where a normal approximation is not.
    """
    called = hits + alarms
    k = torch.arange(hits, min(called, fakes) + 1, dtype=torch.float64)

    def log_choose(n: int, m: Tensor) -> Tensor:
        return torch.lgamma(torch.tensor(n + 1.0, dtype=torch.float64)) - torch.lgamma(m + 1) - torch.lgamma(n - m + 1)

    whole = log_choose(fakes + reals, torch.tensor(float(called), dtype=torch.float64))
    return min(1.0, (log_choose(fakes, k) + log_choose(reals, called - k) - whole).logsumexp(0).exp().item())


class Side(NamedTuple):
    """Samples of one kind, N F, and the indices of two halves, for fitting and for testing: a fixed random choice."""

    rows: Tensor
    fitted: Tensor
    tested: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Side:
        order = torch.randperm(len(rows), generator=seeded("flaws")).to(rows.device)
        return cls(rows, *order.chunk(2))

    def moments(self) -> Moments:
        """Return the moments of the half for fitting."""
        total = Moments.zero(self.rows.shape[1], self.rows.device)
        for part in self.fitted.split(CHUNK):
            total = total.merged(Moments.of(self.rows[part]))
        return total

    def activations(self, direction: Tensor, mean: Tensor) -> Tensor:
        """Return direction . (x - mean) of all rows, N, float64."""
        return torch.cat([(chunk.to(mean) - mean) @ direction for chunk in self.rows.split(CHUNK)])


def whitening(covariance: Tensor) -> Tensor:
    """Return F F: columns that scale each principal direction to unit variance, or to less where its variance is below the mean.

    Without scaling, sampling noise of the widest direction would hide flaws of narrower ones. With unit variance everywhere, noise of the
    narrowest would, and a singular covariance has no such scaling.
    """
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(values.mean()).rsqrt()


def flaws(fake: Tensor, real: Tensor, most: int = 10, significance: float = 1e-3, shown: int = SHOWN) -> list[Flaw]:
    """Find the flaws of fakes (N F) against real samples (M F), largest first; empty if none is significant.

    On a random half, features are whitened (see `whitening`), and the excess second moment is

        S = Cov(fake) - Cov(real) + (mean(fake) - mean(real)) (mean(fake) - mean(real))^T

    The direction is its eigenvector u of largest |eigenvalue|, and `best_rule` classifies along it. It counts if the accuracy of the rule
    on the other half is above 1/2 at this significance. It is then projected out of both sets, as in the Gram-Schmidt process, and the
    search continues. If u does not count, or its excess on the other half is below three standard errors, the difference of means is tried
    instead: when half of symmetric data is dropped, S stays 0. The search ends when that does not count either.

    An excess is in units of the real variance along its direction (or of the mean variance, if larger). The excess of missing spread is at
    least -1. Shifts common to all fakes are one flaw, along their sum: only flaws that occur separately in some fakes are separated.

    ValueError: not two tables of the same width, fewer than 20 rows, values that are not finite, real features without spread. Memory:
    six F F float64 and 8192 F float64; time: an eigendecomposition of F F for each flaw.
    """
    if fake.ndim != 2 or real.ndim != 2 or fake.shape[1] != real.shape[1]:
        raise ValueError(f"features are N F with the same F, not {tuple(fake.shape)} and {tuple(real.shape)}")
    if min(len(fake), len(real)) < FEWEST:
        raise ValueError(f"flaws need at least {FEWEST} fakes and {FEWEST} real samples, not {len(fake)} and {len(real)}")
    f, r = Side.of(fake), Side.of(real.to(fake.device))
    of_fake, of_real = f.moments(), r.moments()
    if not (of_fake.scatter.isfinite().all() and of_real.scatter.isfinite().all()):
        raise ValueError("flaws need finite features, and some are infinite or not a number")
    if of_real.covariance.trace() <= 1e-24 * of_real.mean.square().sum():  # rounding, far below what float32 can tell apart
        raise ValueError("the real samples all have the same features: there is no spread to compare with")
    white = whitening(of_real.covariance)
    shift = white.T @ (of_fake.mean - of_real.mean)
    excess = white.T @ (of_fake.covariance - of_real.covariance) @ white + torch.outer(shift, shift)
    free = torch.eye(len(shift), dtype=shift.dtype, device=shift.device)  # the projector on what is left
    found: list[Flaw] = []
    while len(found) < min(most, len(shift)):
        values, vectors = torch.linalg.eigh(free @ excess @ free)
        widest = values.abs().argmax()
        candidates = [free @ vectors[:, widest], free @ shift]
        if borne_out(f, r, white @ candidates[0]) * values[widest].sign() < CLEAR:
            del candidates[0]
        for u in map(unit, candidates):
            flaw = examined(f, r, white @ u, of_real.mean, (u @ excess @ u).item(), shown)
            if flaw.p_value <= significance:
                found.append(flaw)
                free = free - torch.outer(u, u)
                break
        else:
            break
    return found


def unit(v: Tensor) -> Tensor:
    """Normalise v to length 1; return 0 if v is only rounding."""
    length = v.norm()
    return v / length if length > 1e-9 else torch.zeros_like(v)


def borne_out(fake: Side, real: Side, direction: Tensor) -> Tensor:
    """Return the excess of the halves for testing along a direction, in standard errors; 0 if the standard error is 0.

    Moments are about the real mean of the half for testing. An error of a mean shared by both halves would confirm itself.
    """
    r = real.activations(direction, torch.zeros_like(direction))[real.tested]
    f = fake.activations(direction, torch.zeros_like(direction))[fake.tested] - r.mean()
    r = r - r.mean()
    influence = r.square() + 2 * f.mean() * r
    error = (f.square().var() / len(f) + influence.var() / len(r)).sqrt()
    return torch.nan_to_num((f.square().mean() - r.square().mean()) / error, nan=0.0)


def examined(fake: Side, real: Side, direction: Tensor, mean: Tensor, excess: float, shown: int) -> Flaw:
    """Evaluate a direction: fit a rule to one half, test it on the other, and set the sign of the direction towards the excess."""
    f, r = fake.activations(direction, mean), real.activations(direction, mean)
    if ((f * f.abs())[fake.fitted].mean() - (r * r.abs())[real.fitted].mean()) * excess < 0:
        direction, f, r = -direction, -f, -r
    rule = best_rule(f[fake.fitted], r[real.fitted])
    f_called, r_called = rule(f[fake.tested]), rule(r[real.tested])
    accuracy = (f_called.double().mean() + 1 - r_called.double().mean()) / 2
    p_value = chance(int(f_called.sum()), len(f_called), int(r_called.sum()), len(r_called))
    return Flaw(direction, excess, accuracy.item(), p_value, *(t.topk(min(shown, len(t))).indices.cpu() for t in (f, r)))


class FlawCritics(FeatureSets):
    """Number of significant separate flaws, and for flaw 1, 2, ... its excess, the accuracy of a critic on it, and its p-value.

    Keys: flaws/<extractor>/count, and flaws/<extractor>/1/excess, 1/accuracy, 1/p_value, 2/excess ... for as many as there are. Picture,
    for images: a row for each flaw, the fakes of largest activation on the left, the real samples of largest activation on the right.
    Memory: see `flaws`.
    """

    better = {"count": "min"}

    def __init__(self, most: Annotated[int, Gt(0)] = 10, significance: Annotated[float, Gt(0), Le(0.5)] = 1e-3):
        super().__init__()
        self.most, self.significance = most, significance
        self.found: list[Flaw] = []

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"flaws/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        fake, real = self.fake(FEWEST), self.real(FEWEST)
        try:
            self.found = flaws(fake, real, self.most, self.significance)
        except ValueError as error:
            raise UserError(f"FlawCritics: {error}") from error
        figures = {"count": float(len(self.found))}
        for rank, flaw in enumerate(self.found, 1):
            figures |= {f"{rank}/excess": flaw.excess, f"{rank}/accuracy": flaw.accuracy, f"{rank}/p_value": flaw.p_value}
        return {key: torch.tensor(figure, dtype=torch.float64) for key, figure in figures.items()}

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        if not self.found or not subject.spec.kind.drawable:
            return {}
        fakes = torch.cat([subject.at(flaw.fakes)[0].cpu() for flaw in self.found])
        reals = torch.cat([self.reference.at(flaw.reals).cpu() for flaw in self.found])
        left, right = (grid(to_uint8(side), len(side) // len(self.found)) for side in (fakes, reals))
        between = torch.full((3, left.shape[1], 4 * GAP), 255, dtype=torch.uint8)
        return {"": torch.cat([left, between, right], 2)}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        """Describe as many flaws as fit into a line."""
        told = [f"{flaw.excess:+.2g} (accuracy {flaw.accuracy:.3f})" for flaw in self.found[:3]]
        return f"{len(self.found)} flaws can be told from chance" + (f", of excess {', '.join(told)}" if told else "")
