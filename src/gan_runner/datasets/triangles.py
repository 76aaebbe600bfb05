"""Images of filled triangles: data with a known manifold, and the distance to it. Lucic et al. 2018, section 5."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from gan_runner.datasets.dataset import Dataset, Samples, Split
from gan_runner.draws import seeded
from gan_runner.game.spec import Spec
from gan_runner.storage.untrusted import refuse_too_large

ROWS = 128  # images drawn at once: what they take fits a cache
BLOCK = 4096  # triangles proposed at once, a constant so that the first n are the same for every n


def areas(vertices: Tensor) -> Tensor:
    """Compute the areas (N) of triangles N 3 2."""
    (ax, ay), (bx, by) = ((vertices[:, i] - vertices[:, 0]).unbind(1) for i in (1, 2))
    return (ax * by - ay * bx).abs() / 2


def coverage(vertices: Tensor, resolution: int) -> Tensor:
    """Compute the share of each pixel (N R R, float64) covered by a triangle (N 3 2: x to the right, y down, frame [0, 1]^2).

    Exact to 1e-4, and differentiable in the vertices: a pixel's share is the signed sum over edges of its area on one side of the edge.
    For the part of an edge in a row of pixels, this is (height of the part) x (mean of clamp(x - i, 0, 1) over it): the difference at i
    and i + 1 of means of relu(x - i), which are differences of squares. Memory: 0.2 MB for an image of 28 x 28.
    """
    start = vertices.double() * resolution
    (x0, y0), (x1, y1) = (ends.unsqueeze(3).unbind(2) for ends in (start, start.roll(-1, 1)))  # N 3 1 each
    lines = torch.arange(resolution + 1, dtype=torch.float64, device=start.device)
    enter, leave = (torch.minimum(torch.maximum(y, lines[:-1]), lines[1:]) for y in (y0, y1))  # N 3 R
    height = y1 - y0
    slope = (x1 - x0) / torch.where(height.abs() < 1e-9, 1e-9, height)
    width = (leave - enter) * slope
    width = torch.where(width.abs() < 1e-4, 1e-4, width)  # a mean over nothing: 1e-4 pixels move it by as little, and divide well
    begin = x0 + (enter - y0) * slope
    first, last = ((x.unsqueeze(3) - lines).relu().square() for x in (begin, begin + width))  # N 3 R R+1
    beyond = (((leave - enter) / (2 * width)).unsqueeze(3) * (last - first)).sum(1)
    return (beyond[..., :-1] - beyond[..., 1:]).abs()


def propose(n: int, min_area: float, generator: torch.Generator) -> Tensor:
    """Draw triangles, N 3 2: vertices uniform on [0, 1]^2, given that the area is at least min_area."""
    kept: list[Tensor] = []
    while sum(map(len, kept)) < n:
        drawn = torch.rand(BLOCK, 3, 2, generator=generator, dtype=torch.float64)
        kept.append(drawn[areas(drawn) >= min_area])
    return torch.cat(kept)[:n]


def drawn(vertices: Tensor, resolution: int) -> Tensor:
    """Compute `coverage` in blocks: N R R."""
    return torch.cat([coverage(part, resolution) for part in vertices.split(ROWS)])


class TriangleManifold:
    """All images of a triangle inside the frame with area at least min_area: six parameters, no noise.

    There is no density in the space of images, so `log_prob` raises NotImplementedError.
    """

    modes: Tensor | None = None
    sigma: float = 0.0
    bank_size, turns, steps, rate = 10_000, 24, 80, 0.01

    def __init__(self, resolution: int, min_area: float, seed: int):
        self.resolution, self.min_area, self.seed = resolution, min_area, seed

    def log_prob(self, x: Tensor) -> Tensor:
        raise NotImplementedError("images of triangles lie on a surface: they have no density in the space of images")

    def support_distance(self, x: Tensor) -> Tensor:
        """Compute the Euclidean distance (N, float64) of images (N 1 R R or N R*R, in [-1, 1]) to the nearest image of a triangle.

        Found by gradient descent, so it is an upper bound. For real images it is 0.03 on average (0.02 of it by rounding to 256 levels),
        and below 0.4 for all of 300. For 6 % of images with one wrong pixel it is more than 0.6 too large. NaN if an image is not finite.
        """
        return torch.cat([2 * self.fit((part + 1) / 2)[1] for part in x.double().split(ROWS)])

    @cached_property
    def bank(self) -> tuple[Tensor, Tensor]:
        """Start candidates: vertices B 3 2 and images B R*R float32, the first of the training split; 31 MB at 28 x 28."""
        vertices = propose(self.bank_size, self.min_area, seeded("Triangles", "train", self.seed))
        return vertices, drawn(vertices, self.resolution).flatten(1).float()

    def fit(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest triangles (N 3 2) and their L2 distances (N), float64, for images (N ... of R*R pixels) in [0, 1].

        Starts from the best of: the nearest in a bank of training triangles, and triangles with the moments of the image or of its pixels
        above 1/2 (less sensitive to haze). Then Adam on the six coordinates. Steps that leave the manifold are rejected.
        """
        images = images.double().reshape(-1, self.resolution, self.resolution)
        vertices = self._start(images).requires_grad_()
        optimizer = torch.optim.Adam([vertices], self.rate, betas=(0.9, 0.99))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        best = torch.full((len(images),), math.inf, dtype=torch.float64, device=images.device)
        nearest = vertices.detach().clone()
        for _ in range(self.steps):
            with torch.enable_grad():
                squares = (coverage(vertices, self.resolution) - images).square().sum((1, 2))
                (vertices.grad,) = torch.autograd.grad(squares.sum(), vertices)
            before, distance = vertices.detach().clone(), squares.detach().sqrt()
            closer = ~(distance >= best)  # true of nan, too, which is to be seen
            best, nearest = torch.where(closer, distance, best), torch.where(closer[:, None, None], before, nearest)
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                vertices.clamp_(0, 1)
                vertices.copy_(torch.where((areas(vertices) >= self.min_area)[:, None, None], vertices, before))
        return nearest, best

    def _start(self, images: Tensor) -> Tensor:
        """Return the best of the candidates, N 3 2."""
        vertices, bank = (t.to(images.device) for t in self.bank)
        nearest = torch.cdist(images.flatten(1).float(), bank).argmin(1)  # only a start: its rounding does no harm
        turned = [self._large(with_moments(x, self.turns)) for x in (images, (images > 0.5).double())]
        candidates = torch.cat([vertices[nearest].unsqueeze(1), *turned], 1)  # N M 3 2
        flat = candidates.flatten(0, 1)
        distance = (drawn(flat, self.resolution).unflatten(0, candidates.shape[:2]) - images.unsqueeze(1)).square().sum((2, 3))
        allowed = (areas(flat) >= self.min_area).unflatten(0, candidates.shape[:2])
        choice = torch.where(allowed, distance, math.inf).argmin(1)
        return candidates[torch.arange(len(images), device=images.device), choice].clone()

    def _large(self, vertices: Tensor) -> Tensor:
        """Enlarge triangles N M 3 2 that are too small to min_area; all are moved inside the frame."""
        area = areas(vertices.flatten(0, 1)).unflatten(0, vertices.shape[:2])
        factor = (1.001 * self.min_area / area.clamp_min(1e-12)).sqrt().clamp_min(1)[..., None, None]
        centre = vertices.mean(2, keepdim=True)
        return (centre + factor * (vertices - centre)).clamp(0, 1)


def with_moments(images: Tensor, turns: int) -> Tensor:
    """Return triangles (N turns 3 2) with the mean and the covariance of the brightness in images (N R R).

    One parameter is left: a rotation before the map that gives the covariance; `turns` values of it are used. An equilateral triangle
    with its corners at distance sqrt 8 from its centre has unit covariance.
    """
    resolution = images.shape[1]
    axis = (torch.arange(resolution, dtype=images.dtype, device=images.device) + 0.5) / resolution
    light = images / images.sum((1, 2), keepdim=True).clamp_min(1e-12)
    x, y = light.sum(1) @ axis, light.sum(2) @ axis
    dx, dy = axis - x[:, None], axis - y[:, None]
    pixel = 1 / (12 * resolution**2)  # the variance of a pixel's own extent
    xx, yy = ((light.sum(i) * d.square()).sum(1) - pixel for i, d in ((1, dx), (2, dy)))
    xy = torch.einsum("nij,ni,nj->n", light, dy, dx)
    across = xx.clamp_min(1e-6).sqrt()
    shear = xy / across
    along = (yy - shear.square()).clamp_min(1e-6).sqrt()
    angle = 2 * math.pi / 3 * (torch.arange(turns, dtype=x.dtype, device=x.device)[:, None] / turns + torch.arange(3, device=x.device))
    u, v = math.sqrt(8) * angle.cos(), math.sqrt(8) * angle.sin()  # turns 3
    x, y, across, shear, along = (t[:, None, None] for t in (x, y, across, shear, along))
    return torch.stack([x + across * u, y + shear * u + along * v], 3)


class Triangles(Dataset):
    """White triangles on black, one channel, no labels: vertices uniform on the frame, pixels are the covered share, in 256 levels.

    min_area: share of the frame; smaller triangles are drawn again. The splits are independent.
    """

    def __init__(
        self,
        n_train: Annotated[int, Gt(0)] = 60_000,
        n_test: Annotated[int, Gt(0)] = 10_000,
        resolution: Annotated[int, Ge(8)] = 28,
        min_area: Annotated[float, Ge(0), Le(0.25)] = 0.02,
        seed: Annotated[int, Ge(0)] = 0,
    ):
        self.sizes = {"train": n_train, "test": n_test}
        self.resolution, self.min_area, self.seed = resolution, min_area, seed

    @cached_property
    def exact(self) -> TriangleManifold:
        """The manifold."""
        return TriangleManifold(self.resolution, self.min_area, self.seed)

    @property
    def spec(self) -> Spec:
        return Spec((1, self.resolution, self.resolution), None, self.exact)

    def prepare(self) -> None:
        for split, n in self.sizes.items():
            refuse_too_large(f"dataset.n_{split}", n * self.resolution**2)

    def vertices(self, split: Split) -> Tensor:
        """Return the triangles of a split, N 3 2, float64."""
        return propose(self.sizes[split], self.min_area, seeded("Triangles", split, self.seed))

    def load(self, split: Split) -> Samples:
        """Draw the images: about two seconds for 70,000."""
        parts = self.vertices(split).split(ROWS)
        return Samples(torch.cat([(coverage(part, self.resolution) * 255).round().to(torch.uint8).unsqueeze(1) for part in parts]))
