"""Discriminator optimal transport. Tanaka 2019, "Discriminator optimal transport"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from gan_runner import tree
from gan_runner.draws import Draws
from gan_runner.refinement.calibration import Kind
from gan_runner.refinement.ratio import Ratio, Space
from gan_runner.refinement.refiner import Pool, Refiner, Start, Steps, along
from gan_runner.tree import Sample

TINY = 1e-12  # below the root of a distance, so that it has a slope at 0
GROUPS, POINTS = 10, 15  # whose pairs measure how steep the log ratio is


class DOT(Refiner):
    """Move x to the minimum of |x - y| - d(x) / K, by Adam from the sample y; latents likewise.

    K: how steep d is; None: the largest slope among the 105 pairs of 15 generated samples, averaged over 10 such groups (more pairs give
    a larger K, with which samples move less). In latent space the gradient is projected on the sphere through z.
    """

    def __init__(
        self,
        space: Space = "latent",
        steps: Steps = 100,
        lr: Annotated[float, Gt(0)] = 0.01,
        K: Annotated[float, Gt(0)] | None = None,
        calibration: Kind = "none",
        temperature: Annotated[float, Gt(0)] = 1.0,
    ):
        self.space, self.steps, self.lr, self.K = space, steps, lr, K
        self.calibration, self.temperature = calibration, temperature
        self.steepness = K or 1.0

    def prepare(self, ratio: Ratio, pool: Pool) -> None:
        if self.K is None:
            start = pool.fakes.first(GROUPS * POINTS)
            point = self.origin(ratio, start)
            self.steepness = float(largest_slope(ratio.at(point, start.y, self.space), point))
            self.measured = f"K={self.steepness:.4g}"

    def __call__(self, ratio: Ratio, start: Start, draws: Draws) -> Iterator[Sample]:
        origin = self.origin(ratio, start)
        point = tree.map(torch.clone, origin)
        graphed = tree.leaves(point)[0].is_cuda
        optimizer = torch.optim.Adam(tree.leaves(point), lr=self.lr, betas=(0.0, 0.9), fused=True, capturable=graphed)
        while True:
            yield point
            _, slopes = ratio.slopes(point, start.y, self.space)
            apart = distance(point, origin)
            for x, y, slope in zip(tree.leaves(point), tree.leaves(origin), tree.leaves(slopes)):
                gradient = (x - y) / along(apart, x) - slope / self.steepness
                x.grad = tangential(x, gradient) if self.space == "latent" else gradient
            optimizer.step()


def largest_slope(log_ratio: Tensor, points: Sample, size: int = POINTS) -> Tensor:
    """Return max |d_i - d_j| / |x_i - x_j| over the pairs of each group of `size` points, averaged over the groups."""
    rows = torch.cat([leaf.flatten(1) for leaf in tree.leaves(points)], 1).double()
    largest = []
    for d, x in zip(log_ratio.double().split(size), rows.split(size)):
        apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        largest.append(((d[:, None] - d).abs() / apart)[apart > 0].max())
    return torch.stack(largest).mean()


def distance(a: Sample, b: Sample) -> Tensor:
    """Return Euclidean distances, N, at least sqrt(TINY)."""
    squares = [(x - y).flatten(1).square().sum(1) for x, y in zip(tree.leaves(a), tree.leaves(b))]
    return (torch.stack(squares).sum(0) + TINY).sqrt()


def tangential(z: Tensor, gradient: Tensor) -> Tensor:
    """Return the part of a gradient (N E) that does not change |z|."""
    return gradient - along((gradient * z).sum(1) / z.square().sum(1).clamp_min(TINY), z) * z
