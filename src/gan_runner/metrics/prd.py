"""Precision and recall of one distribution for another, as a curve over histograms. Sajjadi et al. 2018."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.datasets.pictures import pixels
from gan_runner.draws import seeded
from gan_runner.metrics.feature_sets import FeatureSets, choice
from gan_runner.sampling.subjects import Subject

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

ANGLES = 1001
PASSES = 100  # of Lloyd's algorithm at most
GAIN = 1e-4  # it ends when a pass takes a smaller share off the sum of squares


def prd_curve(real: Tensor, fake: Tensor, angles: int = ANGLES) -> tuple[Tensor, Tensor]:
    """Compute precision alpha = sum min(t P, Q) and recall beta = alpha / t (float64) for each t = tan of an angle in (0, pi/2).

    real: P, fake: Q: shares of the same bins, each with sum 1; ValueError otherwise.
    """
    p, q = real.double(), fake.double()
    if p.shape != q.shape or p.ndim != 1 or angles < 2:
        raise ValueError(f"a curve of 2 or more angles compares histograms over the same bins, not {tuple(p.shape)} and {tuple(q.shape)}")
    for histogram in (p, q):
        if not bool((histogram >= 0).all()) or not math.isclose(float(histogram.sum()), 1, rel_tol=1e-9):
            raise ValueError("a histogram is made of shares that sum to 1")
    angle = torch.linspace(1e-10, math.pi / 2 - 1e-10, angles, dtype=torch.float64, device=p.device)
    slope = angle.tan()[:, None]
    return torch.minimum(slope * p, q).sum(1).clamp(0, 1), torch.minimum(p, q / slope).sum(1).clamp(0, 1)


def best_f(precision: Tensor, recall: Tensor, beta: float) -> Tensor:
    """Return the greatest F_beta = (1 + beta^2) a b / (beta^2 a + b) on a curve of precision a and recall b; beta > 1 favours recall."""
    weighted = beta**2 * precision + recall
    return torch.where(weighted == 0, 0, (1 + beta**2) * precision * recall / weighted).max()


def k_means(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Cluster N rows by Lloyd's algorithm, initialised by k-means++ (Arthur and Vassilvitskii 2007). Returns labels below k (N, int64).

    Computed in the precision of the rows, which should be centred. With fewer than k different rows, some clusters are empty. Memory: N k.
    """
    squares = rows.square().sum(1)
    centres = _begin(rows, squares, k, generator)
    before, label = torch.inf, torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for _ in range(PASSES):
        distance, label = (centres.square().sum(1) - 2 * rows @ centres.T).min(1)
        total = float((squares + distance).clamp_min(0).sum(dtype=torch.float64))
        if total >= (1 - GAIN) * before:
            break
        before = total
        member = torch.nn.functional.one_hot(label, len(centres)).to(rows.dtype)
        size = member.sum(0)[:, None]
        centres = torch.where(size > 0, member.T @ rows / size.clamp_min(1), centres)
    return label


def _begin(rows: Tensor, squares: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose rows as first centres, each with probability proportional to the squared distance from the earlier centres."""
    centres: list[Tensor] = []
    weight = torch.ones_like(squares)
    for _ in range(k):
        reach = weight.double().cpu().cumsum(0)  # on a GPU the sum would depend on the run
        if not reach[-1] > 0:
            break
        point = torch.rand(1, generator=generator, dtype=torch.float64) * reach[-1]
        centre = rows[int(torch.searchsorted(reach, point, right=True).clamp_max(len(rows) - 1))]
        distance = (squares + centre.square().sum() - 2 * rows @ centre).clamp_min(0)
        weight = torch.minimum(weight, distance) if centres else distance
        centres.append(centre)
    return torch.stack(centres)


def prd(real: Tensor, fake: Tensor, clusters: int = 20, runs: int = 10) -> tuple[Tensor, Tensor]:
    """Compute the curve (precision, recall) of rows, N F each: the mean over `runs` clusterings of their union."""
    union = torch.cat([real, fake]).float()
    union -= union.mean(0)
    curves = []
    for run in range(runs):
        label = k_means(union, clusters, seeded("prd", run))
        p, q = (part.bincount(minlength=clusters).double() / len(part) for part in (label[: len(real)], label[len(real) :]))
        curves.append(torch.stack(prd_curve(p, q)))
    precision, recall = torch.stack(curves).mean(0)
    return precision, recall


class PRD(FeatureSets):
    """prd/<extractor>/f8 (recall) and /f1_8 (precision), each the best on the curve, and the curve as a picture.

    Equally many real and fake rows are clustered, at most n of each (None: all): a fixed random choice of the larger set. Clusters are
    small samples: equal distributions score somewhat below 1. Memory: a copy of both sets.
    """

    better = "max"
    coverage = ("f8",)

    def __init__(self, clusters: Annotated[int, Ge(2)] = 20, runs: Annotated[int, Ge(1)] = 10, n: Annotated[int, Ge(2)] | None = 10_000):
        super().__init__()
        self.clusters, self.runs, self.n = clusters, runs, n

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"prd/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        real, fake = self.real(self.clusters), self.fake(self.clusters)
        n = min(len(real), len(fake), self.n or len(real))
        self.curve = prd(choice(real, n), choice(fake, n), self.clusters, self.runs)
        return {"f8": best_f(*self.curve, 8), "f1_8": best_f(*self.curve, 1 / 8)}

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # a fifth of a second that not every command needs
        from matplotlib.figure import Figure

        precision, recall = (values.cpu().numpy() for values in self.curve)
        figure = Figure(figsize=(4, 4), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot(aspect="equal", xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.grid(color="0.92", linewidth=0.8)
        axes.plot(recall, precision, color="tab:blue", clip_on=False)
        return {"curve": pixels(canvas)}
