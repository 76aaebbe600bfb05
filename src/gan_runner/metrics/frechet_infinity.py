"""The Frechet distance extrapolated to infinitely many samples. Chong and Forsyth 2020."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.datasets.pictures import pixels
from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.metrics.feature_sets import FeatureSets
from gan_runner.metrics.frechet_distance import distance_to_real, too_few

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor
    from gan_runner.sampling.subjects import Subject


class Line(NamedTuple):
    """distance = intercept + slope / N, and the standard error of the intercept; float64 scalars."""

    intercept: Tensor
    slope: Tensor
    standard_error: Tensor


def distances(fake: Tensor, real: Moments, sizes: Sequence[int]) -> Tensor:
    """Compute Frechet distances, float64, of random subsets of the fakes (N F) to the real samples: one fixed subset for each size."""
    chosen = (torch.randperm(len(fake), generator=seeded("frechet_infinity", size))[:size].to(fake.device) for size in sizes)
    return torch.stack([distance_to_real(Moments.of(fake[rows]), real) for rows in chosen])


def line(sizes: Sequence[int], values: Tensor) -> Line:
    """Fit a line to values over 1 / sizes by least squares. ValueError for fewer than 3 sizes."""
    if len(set(sizes)) < 3:
        raise ValueError(f"a line with a standard error needs at least 3 different sizes, not {sorted(set(sizes))}")
    x = 1 / torch.tensor(sizes, dtype=torch.float64)
    deviation = x - x.mean()
    spread = deviation.square().sum()
    slope = (deviation * (values - values.mean())).sum() / spread
    intercept = values.mean() - slope * x.mean()
    variance = (values - intercept - slope * x).square().sum() / (len(x) - 2)
    return Line(intercept, slope, (variance * (1 / len(x) + x.mean().square() / spread)).sqrt())


def picture(sizes: Sequence[int], values: Tensor, fit: Line) -> Tensor:
    """Plot the distances over 1 / N, and the line down to 1 / N = 0; uint8, 3 H W."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a fifth of a second that not every command needs
    from matplotlib.figure import Figure

    x = 1 / torch.tensor(sizes, dtype=torch.float64)
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="1 / N", ylabel="Frechet distance")
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="0.45", labelsize=8)
    for spine in axes.spines.values():
        spine.set_color("0.8")
    end = float(x.max())
    axes.plot([0, end], [float(fit.intercept), float(fit.intercept + fit.slope * end)], color="tab:orange")
    axes.scatter(x.numpy(), values.numpy(), s=14, color="tab:blue", zorder=3)
    axes.set_title(f"{float(fit.intercept):.4g} +- {float(fit.standard_error):.2g} for endless samples", fontsize=9, color="0.35")
    return pixels(canvas)


class FrechetInfinity(FeatureSets):
    """The Frechet distance extrapolated to infinitely many samples, under fid_infinity/<extractor> or fd_infinity/<extractor>.

    The bias of the distance is proportional to 1 / N. A line in 1 / N is fitted to the distances of `points` random subsets, of sizes
    evenly spaced from `smallest` to N; the figure is its intercept. /slope: of the line. /standard_error: of the intercept, as if the
    subsets shared no samples (they do: it measures the scatter about the line, not the variation between sets of samples). The bias from
    the number of real samples remains. Work: `points` Frechet distances. Memory: the features, and a few matrices F F of float64.
    """

    better = {"": "min"}

    def __init__(self, smallest: Annotated[int, Ge(2)] = 5000, points: Annotated[int, Ge(3)] = 15):
        super().__init__()
        self.smallest, self.points = smallest, points

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return extractor.named("fd_infinity", "fid_infinity")

    def compute(self) -> dict[str, Tensor]:
        fake = self.fake(1)
        if len(fake) < self.smallest + self.points:
            raise UserError(
                f"frechet_infinity looks at {self.points} numbers of samples from smallest={self.smallest} on, and there are {len(fake)}; "
                f"make more, or set metric.frechet_infinity.smallest to a fraction of them, such as {max(2, len(fake) // 4)}"
            )
        self.sizes = torch.linspace(self.smallest, len(fake), self.points, dtype=torch.float64).round().long().tolist()
        self.few = too_few(self.sizes[0], fake.shape[1], "samples in the smallest subset")
        self.distances = distances(fake, self.reference.moments(), self.sizes)
        self.line = line(self.sizes, self.distances)
        return {"": self.line.intercept, "slope": self.line.slope, "standard_error": self.line.standard_error}

    def notes(self) -> list[str]:
        return self.few

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        return {"fit": picture(self.sizes, self.distances, self.line)}
