"""Distributions in the plane with known density; nothing to download."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.datasets.dataset import Dataset, Samples, Split
from gan_runner.draws import seeded
from gan_runner.game.spec import Exact, Spec
from gan_runner.storage.untrusted import refuse_too_large

ROWS = 4096  # points whose density is computed at once: bounds the memory


class Mixture:
    """Equally likely normal distributions with centres `modes` (M D) and standard deviation `sigma` per axis."""

    modes: Tensor | None

    def __init__(self, modes: Tensor, sigma: float):
        self.modes = self.centres = modes
        self.sigma = sigma

    def log_prob(self, x: Tensor) -> Tensor:
        """Compute log 1/M sum_m N(x; mode_m, sigma^2 I), in nats: N for points N D."""
        squares = self._distances(x).square() / (2 * self.sigma**2)
        modes, dimensions = self.centres.shape
        return torch.logsumexp(-squares, 1) - math.log(modes) - dimensions / 2 * math.log(2 * math.pi * self.sigma**2)

    def support_distance(self, x: Tensor) -> Tensor:
        """Return the distance to the nearest mode."""
        return self._distances(x).amin(1)

    def _distances(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.centres.to(x), compute_mode="donot_use_mm_for_euclid_dist")


class Spiral:
    """The curve (t cos t, t sin t) / scale for t uniform on [first, last], with normal noise of standard deviation `sigma` per axis.

    The density is an integral over t, by Gauss-Legendre on panels with nodes less than half a sigma apart along the curve. For points
    beyond an end, where the integrand decays fast, the panels near the end are halved repeatedly. The error is only rounding.
    """

    modes: Tensor | None = None
    panels, halvings, nodes = 128, 14, 8

    def __init__(self, first: float, last: float, scale: float, sigma: float):
        self.sigma, self.scale = sigma, scale
        near = (last - first) / self.panels / 2.0 ** np.arange(1, self.halvings)
        edges = np.sort(np.concatenate([np.linspace(first, last, self.panels + 1), first + near, last - near]))
        node, weight = np.polynomial.legendre.leggauss(self.nodes)
        width = np.diff(edges)[:, None]
        self.curve = self.at(torch.from_numpy((edges[:-1, None] + width * (node + 1) / 2).ravel()))
        self.log_weight = torch.from_numpy(np.log(width / (last - first) * weight / 2).ravel())
        self.line = self.at(torch.linspace(first, last, 2049, dtype=torch.float64))

    def at(self, t: Tensor) -> Tensor:
        """Return points of the curve, N 2."""
        return torch.stack([t * t.cos(), t * t.sin()], 1) / self.scale

    def log_prob(self, x: Tensor) -> Tensor:
        """Compute the log of the integral over t of N(x; curve(t), sigma^2 I), in nats: N for points N 2, in their dtype."""
        curve, log_weight = self.curve.to(x), self.log_weight.to(x)
        squares = (torch.cdist(part, curve, compute_mode="donot_use_mm_for_euclid_dist").square() for part in x.split(ROWS))
        log_integral = torch.cat([torch.logsumexp(log_weight - square / (2 * self.sigma**2), 1) for square in squares])
        return log_integral - math.log(2 * math.pi * self.sigma**2)

    def support_distance(self, x: Tensor) -> Tensor:
        """Compute the distance to the curve, as that to the chords at the nearest of 2048 corners (at most 1e-5 from the arc)."""
        line = self.line.to(x)
        distances = []
        for part in x.split(ROWS):
            nearest = torch.cdist(part, line, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
            before, after = (nearest - 1).clamp(min=0), nearest.clamp(max=len(line) - 2)
            distances.append(torch.minimum(*(_to_segment(part, line[i], line[i + 1]) for i in (before, after))))
        return torch.cat(distances)


def _to_segment(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    along = b - a
    share = ((x - a) * along).sum(1) / along.square().sum(1)
    return (x - a - share.clamp(0, 1)[:, None] * along).norm(dim=1)


class Points(Dataset):
    """n points of each split, drawn from a seed; the splits are independent."""

    def __init__(self, n: Annotated[int, Gt(0)] = 25_000, seed: Annotated[int, Ge(0)] = 0):
        self.n, self.seed = n, seed

    @property
    def exact(self) -> Exact:
        """The distribution."""
        raise NotImplementedError

    @property
    def spec(self) -> Spec:
        modes = self.exact.modes
        return Spec((2,), None if modes is None else len(modes), self.exact)

    def prepare(self) -> None:
        refuse_too_large("dataset.n", self.n * 2 * torch.float32.itemsize)

    def load(self, split: Split) -> Samples:
        """Draw the modes in turn, so that their numbers of points differ by at most one; the label is the mode."""
        modes = self.exact.modes
        assert modes is not None
        y = torch.arange(self.n) % len(modes)
        return Samples(modes[y] + self.exact.sigma * torch.randn(self.n, 2, generator=self.generator(split)), y)

    def generator(self, split: Split) -> torch.Generator:
        return seeded(type(self).__name__, split, self.seed)


class Gaussians25(Points):
    """25 normal distributions on a grid: centres 2 {-2 ... 2}^2, sigma 0.05, all divided by 2.828. Gulrajani et al. 2017, section 3.2."""

    @cached_property
    def exact(self) -> Exact:
        axis = torch.linspace(-4, 4, 5)
        return Mixture(torch.cartesian_prod(axis, axis) / 2.828, 0.05 / 2.828)


class Ring8(Points):
    """8 normal distributions on a circle: radius 2, sigma 0.02, all divided by 1.414. Gulrajani et al. 2017, section 3.2."""

    @cached_property
    def exact(self) -> Exact:
        angle = torch.arange(8) * math.pi / 4
        return Mixture(2 / 1.414 * torch.stack([angle.cos(), angle.sin()], 1), 0.02 / 1.414)


class SwissRoll(Points):
    """A spiral: t = 1.5 pi (1 + 2u), (t cos t, t sin t) + N(0, 0.25^2), all divided by 7.5. Gulrajani et al. 2017, section 3.2."""

    @cached_property
    def exact(self) -> Exact:
        return Spiral(1.5 * math.pi, 4.5 * math.pi, scale=7.5, sigma=0.25 / 7.5)

    def load(self, split: Split) -> Samples:
        generator, spiral = self.generator(split), self.exact
        assert isinstance(spiral, Spiral)
        t = 1.5 * math.pi * (1 + 2 * torch.rand(self.n, generator=generator))
        return Samples(spiral.at(t) + spiral.sigma * torch.randn(self.n, 2, generator=generator))
