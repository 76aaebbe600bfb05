"""Pictures of samples, as uint8 tensors 3 H W."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gan_runner.game.spec import Exact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

MESH = 160  # points a side at which a density is drawn
BINS = 80  # of a histogram
DATA = "#e69f00"  # the colours of Okabe and Ito (2008): told apart by everybody
SAMPLES = ("#0072b2", "#009e73", "#cc79a7", "#000000")


def scatter(points: Tensor, real: Tensor, exact: Exact | None = None, title: str = "") -> Tensor:
    """Plot points (N 2) over the real distribution: discs of 4 sigma around the modes, or the density, or else the real points."""
    shown = points.detach().float().cpu()
    canvas, axes, limit = _plane(real, exact)
    axes.scatter(*_columns(shown), s=4, color=SAMPLES[0], alpha=0.35, linewidths=0)
    axes.scatter([], [], s=16, color=SAMPLES[0], label="samples")  # opaque, in the legend alone
    outside = int((~(shown.abs() <= limit).all(1)).sum())  # counts what is not finite, too
    return _finished(canvas, axes, title, f"{len(shown):,} samples" + (f", {outside:,} outside" if outside else ""))


def curves(walks: Tensor, real: Tensor, exact: Exact | None = None, title: str = "") -> Tensor:
    """Plot walks between latents (rows, columns, 2) as curves over the real distribution, with a dot at both ends of each."""
    shown = walks.detach().float().cpu()
    canvas, axes, _ = _plane(real, exact)
    for number, walk in enumerate(shown):
        colour = SAMPLES[number % len(SAMPLES)]
        axes.plot(*_columns(walk), color=colour, linewidth=1, alpha=0.8)
        axes.plot(*_columns(walk[[0, -1]]), "o", color=colour, markersize=4)
    axes.plot([], [], "o-", color=SAMPLES[0], linewidth=1, markersize=4, label="samples from one latent to another")
    return _finished(canvas, axes, title, f"{len(shown):,} interpolations")


def histogram(numbers: Tensor, real: Tensor, title: str = "") -> Tensor:
    """Draw numbers (N 1) as a histogram beside that of the real ones: shares of the samples. Those outside both ends are counted."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown, data = (each.detach().double().cpu().flatten() for each in (numbers, real))
    middle, half = float(data.mean()), 2 * float(data.max() - data.min()) + 1
    edges = np.linspace(middle - half, middle + half, BINS + 1)
    axes = (figure := Figure(figsize=(6, 6), dpi=100, layout="constrained")).add_subplot(xlim=(edges[0], edges[-1]), ylim=(0, 1))
    inside = shown[(shown >= edges[0]) & (shown <= edges[-1])]
    for each, of, colour, label in ((data, data, DATA, "real"), (inside, shown, SAMPLES[0], "samples")):
        axes.hist(each.numpy(), edges.tolist(), weights=np.full(len(each), 1 / max(len(of), 1)), color=colour, alpha=0.6, label=label)
    outside = len(shown) - len(inside)  # counts what is not finite, too
    return _finished(FigureCanvasAgg(figure), axes, title, f"{len(shown):,} samples" + (f", {outside:,} outside" if outside else ""))


def _plane(real: Tensor, exact: Exact | None) -> tuple[FigureCanvasAgg, Axes, float]:
    """Draw the real distribution. Returns what to draw on, and the limit of both coordinates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a fifth of a second that not every command needs
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    limit = 1.15 * float(real.abs().max())
    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="0.45", labelsize=9)
    for spine in axes.spines.values():
        spine.set_color("0.8")
    if exact is None:
        axes.scatter(*_columns(real), s=3, color=DATA, alpha=0.25, linewidths=0)
        axes.scatter([], [], s=16, color=DATA, label="real points")
    elif exact.modes is not None:
        size = np.full(len(exact.modes), 8 * exact.sigma)
        centres = exact.modes.cpu().numpy()
        discs = EllipseCollection(
            size, size, 0 * size, units="xy", offsets=centres, offset_transform=axes.transData, alpha=0.4, color=DATA
        )  # fmt: skip
        axes.add_collection(discs)
        axes.scatter([], [], s=80, color=DATA, alpha=0.4, label="4 sigma around a real mode")
    else:
        axis, density = _density(exact, limit)  # type: ignore[arg-type]
        levels = np.linspace(0.02, 1, 12) * density.max()
        axes.contourf(axis, axis, density, levels=levels, cmap=LinearSegmentedColormap.from_list("density", ["white", DATA]))
        axes.scatter([], [], s=80, marker="s", color=DATA, label="real density")
    return FigureCanvasAgg(figure), axes, limit


def _finished(canvas: FigureCanvasAgg, axes: Axes, *said: str) -> Tensor:
    """Add title and legend, and return the pixels."""
    axes.set_title(", ".join(filter(None, said)), fontsize=11, color="0.2")
    canvas.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor="0.2")
    return pixels(canvas)


def pixels(canvas: FigureCanvasAgg) -> Tensor:
    """Draw a figure; returns its pixels, 3 H W."""
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1).contiguous()


def _columns(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the two coordinates of points, N 2."""
    return points[:, 0].numpy(), points[:, 1].numpy()


@lru_cache(maxsize=1)  # the same behind every picture of a run
def _density(exact: Exact, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return an axis, and the density on its square: rows are the second coordinate."""
    axis = torch.linspace(-limit, limit, MESH)
    return axis.numpy(), exact.log_prob(torch.cartesian_prod(axis, axis)).exp().view(MESH, MESH).T.numpy()
