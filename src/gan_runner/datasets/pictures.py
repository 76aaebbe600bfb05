"""Pictures of samples, as uint8 tensors 3 H W."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gan_runner.game.spec import Exact

MESH = 160  # points a side at which a density is drawn


def scatter(points: Tensor, real: Tensor, exact: Exact | None = None) -> Tensor:
    """Plot points (N 2) over the real distribution: discs of 4 sigma around the modes, or the density, or else the real points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a fifth of a second that not every command needs
    from matplotlib.collections import EllipseCollection
    from matplotlib.figure import Figure

    shown = points.detach().float().cpu()
    limit = 1.15 * float(real.abs().max())
    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="0.45", labelsize=8)
    for spine in axes.spines.values():
        spine.set_color("0.8")
    if exact is None:
        axes.scatter(real[:, 0].numpy(), real[:, 1].numpy(), s=3, color="tab:orange", alpha=0.15, linewidths=0)
    elif exact.modes is not None:
        size = np.full(len(exact.modes), 8 * exact.sigma)
        discs = EllipseCollection(
            size,
            size,
            0 * size,
            units="xy",
            offsets=exact.modes.cpu().numpy(),
            offset_transform=axes.transData,
            alpha=0.35,
            color="tab:orange",
        )
        axes.add_collection(discs)
    else:
        axis, density = _density(exact, limit)  # type: ignore[arg-type]
        levels = np.linspace(0.02, 1, 12) * density.max()
        axes.contourf(axis, axis, density, levels=levels, cmap="Oranges", alpha=0.6)
    axes.scatter(shown[:, 0].numpy(), shown[:, 1].numpy(), s=4, color="tab:blue", alpha=0.35, linewidths=0)
    outside = int((~(shown.abs() <= limit).all(1)).sum())  # counts what is not finite, too
    axes.set_title(f"{len(shown):,} samples" + (f", {outside:,} outside" if outside else ""), fontsize=9, color="0.35")
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1).contiguous()


@lru_cache(maxsize=1)  # the same behind every picture of a run
def _density(exact: Exact, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return an axis, and the density on its square: rows are the second coordinate."""
    axis = torch.linspace(-limit, limit, MESH)
    return axis.numpy(), exact.log_prob(torch.cartesian_prod(axis, axis)).exp().view(MESH, MESH).T.numpy()
