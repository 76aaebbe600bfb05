"""The Frechet distance between samples and real samples, in total or for each class. Heusel et al. 2017; Miyato and Koyama 2018."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_runner.errors import UserError, printable
from gan_runner.evaluation.metric import Metric
from gan_runner.evaluation.moments import Moments

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

CHUNK = 512  # rows from which on a matrix product costs more than the merge of its result
EPSILON = torch.finfo(torch.float64).eps
PIVOT = 1e-10  # share of a feature's variance that is not explained by the features before it; with less, rounding may be all there is
TOLERANCE = 1e-6  # of the distance: the greatest bound on its error with which the quick route is taken; real errors are far below it
LOST = 1e-9  # of the distance: the greatest variance that a quick factor may lose to rounding; the error is about as large


def frechet(a: Moments, b: Moments) -> Tensor:
    """Compute |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), the squared Frechet distance of two normals; float64 scalar, CPU.

    Dowson and Landau 1982. With S = L L^T the last trace is the nuclear norm of L1^T L2, the sum of its singular values: exact for
    singular covariances (fewer samples than features, constant features), where square roots of eigenvalues of S1 S2 lose half of the
    digits. If those digits are not needed, the singular values are computed as square roots of eigenvalues of L1^T S2 L1, R R for a rank R
    of the side with fewer samples. This takes one factor instead of two and is several times as fast.

    ValueError for fewer than 2 rows on a side, values that are not finite, or different numbers of features. Memory: some 8 matrices F F.
    """
    a, b = (Moments(*(part.cpu() for part in each)) for each in (a, b))
    for name, each in (("first", a), ("second", b)):
        if each.n < 2:
            raise ValueError(f"a Frechet distance needs at least 2 samples on each side, and the {name} has {each.n:.0f}")
        if not (each.mean.isfinite().all() and each.scatter.isfinite().all()):
            raise ValueError(f"features of the {name} side are not finite (nan or inf, or too large to be squared)")
    if len(a.mean) != len(b.mean):
        raise ValueError(f"a Frechet distance compares features of the same kind, and there are {len(a.mean)} and {len(b.mean)} of them")
    a, b = sorted((a, b), key=lambda each: each.n.item())
    s1, s2 = a.covariance, b.covariance
    apart = (a.mean - b.mean).square().sum() + s1.trace() + s2.trace()
    lower = quick_factor(s1, int(a.n) - 1)
    lower = factor(s1) if lower is None else lower
    squares = torch.linalg.eigvalsh(lower.T @ (s2 @ lower))
    if (squares > 0).all():
        # An eigenvalue is off by about EPSILON times the largest one, its square root by that over twice the root, and signs are random.
        error = EPSILON * squares.amax() * squares.reciprocal().sum().sqrt() if len(squares) else 0
        distance = apart - 2 * squares.sqrt().sum()
        lost = (s1.diagonal() - lower.square().sum(1)).abs().sum()
        if error <= TOLERANCE * distance and lost <= LOST * distance:
            return distance
    return (apart - 2 * torch.linalg.svdvals(factor(s1).T @ factor(s2)).sum()).clamp_min(0)  # below 0 by rounding alone


def quick_factor(covariance: Tensor, rank: int) -> Tensor | None:
    """Factor covariance = L L^T, L F R, by Cholesky; None if it, or the block of its first R features, has not rank R = min(rank, F).

    Those features span the rest: with S = [A B; B^T C] and A = M M^T, L is M above B^T M^-T. The correlations are factored, so that
    features of very different scales keep their digits.
    """
    scale, correlation = correlations(covariance)
    lower, failed = torch.linalg.cholesky_ex(correlation[:rank, :rank])
    if failed or lower.diagonal().square().min() <= PIVOT:
        return None
    rest = torch.linalg.solve_triangular(lower, correlation[:rank, rank:], upper=False)
    return scale[:, None] * torch.cat([lower, rest.T])


def factor(covariance: Tensor) -> Tensor:
    """Factor covariance = L L^T, L F R, for any rank R; rows of constant features are 0.

    By Cholesky if it is regular, else by eigenvectors of the correlations. Eigenvalues below F epsilon times the largest are dropped as
    rounding (as in numpy's matrix_rank).
    """
    if (lower := quick_factor(covariance, len(covariance))) is not None:
        return lower
    scale, correlation = correlations(covariance)
    values, vectors = torch.linalg.eigh(correlation)
    kept = values > len(values) * EPSILON * values[-1]
    return scale[:, None] * vectors[:, kept] * values[kept].sqrt()


def correlations(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return standard deviations (F, 1 for constant features) and correlations (F F)."""
    scale = covariance.diagonal().sqrt()
    scale = torch.where(scale == 0, 1, scale)
    return scale, (covariance / scale).div_(scale[:, None])


def distance_to_real(fake: Moments, real: Moments) -> Tensor:
    """Compute frechet(fake, real); its ValueError becomes a UserError, as the user can correct the cause."""
    try:
        return frechet(fake, real)
    except ValueError as error:
        raise UserError(f"{error} (first: the samples that are judged; second: the real ones)") from error


def joined(moments: Tensor) -> Tensor:
    """Merge the packed moments of P processes, P F+1 F+1."""
    return reduce(Moments.merged, map(Moments.unpacked, moments)).packed


def too_few(n: float, features: int, what: str = "samples") -> list[str]:
    """Return a note if a covariance is singular because there are too few samples."""
    return [f"{n:.0f} {what} for {features} features: with no more samples than features, bias is most of the distance"] * (n <= features)


class FrechetDistance(Metric):
    """The Frechet distance to the real samples in the space of features, under fid/<extractor> or fd/<extractor>.

    Biased upwards by about (2 F + F (F + 1) / 2) / N for whitened features: compare only figures of the same N, and use N > F.
    Memory: a matrix F F of float64 and fewer than 512 rows of features, for any N; a few such matrices at the end.
    """

    reads = ("features",)
    needs = frozenset({"reference"})
    better = "min"
    moments: Tensor
    waiting: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("moments", torch.zeros(1, 1, dtype=torch.float64), dist_reduce_fx=joined)  # packed; the first batch gives the size
        self.add_state("waiting", [], dist_reduce_fx="cat")

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return extractor.named("fd", "fid")

    def update(self, *values: Tensor) -> None:
        (features,) = values
        moments = Moments.unpacked(self.moments) if self.waiting else Moments.zero(features.shape[1], features.device)
        rows = torch.cat([*self.waiting, features.detach()])
        whole = len(rows) // CHUNK * CHUNK  # the same chunks, and so the same bits, whatever the size of the batches
        for chunk in rows[:whole].split(CHUNK):
            moments = moments.merged(Moments.of(chunk))
        self.moments, self.waiting = moments.packed, [rows[whole:].clone()]

    def compute(self) -> dict[str, Tensor]:
        fake, real = Moments.unpacked(self.moments).merged(Moments.of(torch.cat(self.waiting))), self.reference.moments()
        self.few = too_few(float(fake.n), len(fake.mean)) + too_few(float(real.n), len(real.mean), "real samples")
        return {"": distance_to_real(fake, real)}

    def notes(self) -> list[str]:
        return self.few


class IntraClassFrechet(Metric):
    """Mean over classes of the Frechet distance between samples and real samples of a class; the distance of class k under ".../k".

    Named intra_fid/<extractor> or intra_fd/<extractor>. UserError for a class of fewer than 2 samples on a side. Memory: the features, N F
    float32, and a few matrices F F; moments for each class would need more memory from N / (2 F) classes on.
    """

    reads = ("features", "y")
    needs = frozenset({"reference", "labels"})
    better = "min"
    features: list[Tensor]
    y: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("y", [], dist_reduce_fx="cat")

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return extractor.named("intra_fd", "intra_fid")

    def update(self, *values: Tensor) -> None:
        features, y = values
        self.features.append(features.detach().float())
        self.y.append(y)

    def compute(self) -> dict[str, Tensor]:
        fake, fake_y = torch.cat(self.features), torch.cat(self.y)
        real, real_y = self.reference.features(), self.reference.labels
        assert real_y is not None  # `needs` says so
        classes = torch.cat([fake_y.cpu(), real_y.cpu()]).unique().tolist()
        names = self.reference.class_names
        few = [
            f"class {k if names is None else printable(names[k])}: {n} samples, {n_real} real ones"
            for k in classes
            if min(n := int((fake_y == k).sum()), n_real := int((real_y == k).sum())) < 2
        ]
        if few:
            raise UserError("a Frechet distance within classes needs at least 2 samples of each on both sides; " + "; ".join(few))
        least = min(int((y == k).sum()) for y in (fake_y, real_y) for k in classes)
        self.few = too_few(least, fake.shape[1], "samples of a class")
        by_class = {str(k): distance_to_real(Moments.of(fake[fake_y == k]), Moments.of(real[real_y == k])) for k in classes}
        return {"": torch.stack(list(by_class.values())).mean(), **by_class}

    def notes(self) -> list[str]:
        return self.few
