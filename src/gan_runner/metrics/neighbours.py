"""Distances between rows of features, in blocks.

A squared distance is computed as |x|^2 + |y|^2 - 2 xy of centred rows in float64, by one matrix product for each block. Its error is at
most F eps (|x|^2 + |y|^2). Where this error could change a result (the order of the nearest, a row at the edge of a ball), |x - y| is
computed directly. It is the same number for (x, y) as for (y, x), so copies have distance 0 and equal distances are found equal.

Memory: a few blocks of at most 16 MiB beside the rows, for any number of rows. Work: 2 N M F operations in float64, on the device of
`rows`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1024  # rows a side: 8 MiB of distances
NUMBERS = 1 << 21  # in a block of rows, 16 MiB
SPARE = 4  # candidates kept beyond those asked for, lest rounding pushed out the right ones


def nearest(rows: Tensor, others: Tensor | None = None, k: int = 1) -> tuple[Tensor, Tensor]:
    """Find the k nearest of others M F for each of rows N F: distances (N k, float64, ascending) and indices (N k).

    others None: the nearest among the rows, excluding the row itself but not its copies. Of equally far rows found, the one with the
    lowest index comes first. ValueError if there are fewer than k, or the sizes do not match.
    """
    among = rows if others is None else others
    _check(rows, among)
    if not 1 <= k <= len(among) - (others is None):
        raise ValueError(f"there are no {k} nearest of {len(among) - (others is None)} rows")
    keep, centre = min(k + SPARE, len(among)), _centre(among, rows.device)
    distances, indices = [], []
    for part in _slices(rows):
        best = torch.full((part.stop - part.start, keep), torch.inf, dtype=torch.float64, device=rows.device)
        place = torch.zeros_like(best, dtype=torch.int64)
        for other in _slices(among):
            squared, _ = _squared(rows[part], among[other], centre)
            if others is None:
                _diagonal(squared, part, other).fill_(torch.inf)
            near, at = squared.topk(min(keep, squared.shape[1]), dim=1, largest=False, sorted=False)
            best, order = torch.cat([best, near], 1).topk(keep, dim=1, largest=False, sorted=False)
            place = torch.cat([place, at + other.start], 1).gather(1, order)
        place, order = place.sort(1)
        masked = best.gather(1, order).isinf()  # the row itself, where there are no more others than were kept
        index = torch.arange(part.start, part.stop, device=rows.device).repeat_interleave(keep)
        exact = apart(rows, among, index, place.flatten()).view_as(best).masked_fill(masked, torch.inf)
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact[:, :k])
        indices.append(place.gather(1, order)[:, :k])
    return torch.cat(distances), torch.cat(indices)


def radii(rows: Tensor, k: int) -> Tensor:
    """Return the distance (N, float64) of each row to its k-th nearest other row."""
    return nearest(rows, k=k)[0][:, -1]


def held(rows: Tensor, centres: Tensor, radius: Tensor, *, closed: bool) -> tuple[Tensor, Tensor]:
    """Count the balls that contain each row (N), and the rows in each ball (M), int64.

    A ball contains the points less than `radius` (M) from its centre (M F) and, if closed, those at exactly that distance.
    """
    _check(rows, centres)
    centre, radius = _centre(centres, rows.device), radius.to(rows.device)
    balls = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    inside = torch.zeros(len(centres), dtype=torch.int64, device=rows.device)
    for part in _slices(rows):
        for other in _slices(centres):
            squared, error = _squared(rows[part], centres[other], centre)
            beyond = squared.sub_(radius[other].square())
            hit = beyond < -error
            i, j = (beyond.abs() <= error).nonzero(as_tuple=True)
            distance, edge = apart(rows, centres, i + part.start, j + other.start), radius[j + other.start]
            hit[i, j] = distance <= edge if closed else distance < edge
            balls[part] += hit.sum(1)
            inside[other] += hit.sum(0)
    return balls, inside


def close_pairs(rows: Tensor, threshold: float) -> Tensor:
    """Find the pairs of rows at most `threshold` apart: indices P 2, the lower first. Memory: 16 bytes for each pair beside the blocks."""
    _check(rows, rows)
    pairs, centre = [torch.zeros(0, 2, dtype=torch.int64, device=rows.device)], _centre(rows, rows.device)
    for part in _slices(rows):
        for other in _slices(rows):
            if other.start < part.start:
                continue
            squared, error = _squared(rows[part], rows[other], centre)
            beyond = squared.sub_(threshold**2)
            hit = beyond < -error
            i, j = (beyond.abs() <= error).nonzero(as_tuple=True)
            hit[i, j] = apart(rows, rows, i + part.start, j + other.start) <= threshold
            if part == other:
                hit.triu_(1)
            pairs.append(hit.nonzero() + torch.tensor([part.start, other.start], device=rows.device))
    return torch.cat(pairs)


def apart(rows: Tensor, others: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Compute |rows[i] - others[j]| (P, float64) directly from the differences."""
    found = [torch.zeros(0, dtype=torch.float64, device=rows.device)]
    size = max(1, NUMBERS // rows.shape[1])
    for a, b in zip(i.split(size), j.split(size), strict=True):
        difference = rows[a].double() - others[b.to(others.device)].to(rows.device).double()
        found.append(difference.square_().sum(1).sqrt_())
    return torch.cat(found)


def _squared(x: Tensor, y: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Compute squared distances (B C, float64) of rows x and y, and a bound on the error of each."""
    x, y = x - centre, y.to(x.device) - centre  # float64, as the centre is
    norms = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(norms, x, y.T, alpha=-2), norms.mul_(x.shape[1] * torch.finfo(torch.float64).eps)


def _centre(rows: Tensor, device: torch.device) -> Tensor:
    """Return the approximate mean of the rows (F), a float32 number: its difference to float32 rows has no rounding."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)
    for part in _slices(rows):
        total += rows[part].to(device).double().sum(0)
    return (total / len(rows)).float().double()


def _slices(rows: Tensor) -> Iterator[slice]:
    """Split the rows into blocks."""
    n, size = len(rows), max(1, min(BLOCK, NUMBERS // rows.shape[1]))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _diagonal(block: Tensor, part: slice, other: slice) -> Tensor:
    """Return a view of the entries whose row and column are the same row; blocks of one size overlap completely or not at all."""
    return block.diagonal() if part == other else block[:0, 0]


def _check(rows: Tensor, others: Tensor) -> None:
    if rows.ndim != 2 or others.ndim != 2 or rows.shape[1] != others.shape[1] or not rows.shape[1]:
        raise ValueError(f"features are rows of one width, N F and M F, not {tuple(rows.shape)} and {tuple(others.shape)}")
    if not len(rows) or not len(others):
        raise ValueError("there is no distance to no rows")
