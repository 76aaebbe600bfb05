"""Distances a block at a time against all of them at once."""

import math
import os
import subprocess
import sys

import pytest
import torch

from gan_runner.metrics import neighbours
from gan_runner.metrics.neighbours import apart, close_pairs, held, nearest, radii


def rows(n, f=7, seed=0, shift=0.0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed)) + shift


def all_distances(x, y):
    """By differences, float64."""
    return (x.double()[:, None] - y.double()).square().sum(2).sqrt()


@pytest.fixture(params=[5, 64, 2048])
def block(request, monkeypatch):
    """So many rows in a block, less than there are as well as more."""
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_the_nearest_are_those_of_all_distances(block, shift):
    x, y = rows(130, shift=shift), rows(101, seed=1, shift=shift)
    want, index = all_distances(x, y).sort(1)
    distance, place = nearest(x, y, k=4)
    assert torch.equal(place, index[:, :4])
    assert torch.allclose(distance, want[:, :4], rtol=1e-14, atol=0)
    assert torch.allclose(apart(x, y, torch.arange(101), place[:101, 0]), want[:101, 0], rtol=1e-14, atol=0)


def test_a_row_is_no_neighbour_of_itself_but_its_copy_is(block):
    x = rows(60)
    x[40:50] = x[:10]
    want = all_distances(x, x).fill_diagonal_(torch.inf).sort(1).values
    distance, place = nearest(x, k=3)
    assert torch.allclose(distance, want[:, :3], rtol=1e-14, atol=0)
    assert place[:10, 0].tolist() == list(range(40, 50))
    assert place[40:50, 0].tolist() == list(range(10))
    assert (distance[:10, 0] == 0).all()
    assert not (place == torch.arange(60)[:, None]).any()
    assert torch.equal(radii(x, 3), distance[:, 2])


def test_as_many_neighbours_as_there_are_others(block):
    x = rows(6)
    _, place = nearest(x, k=5)
    assert place.sort(1).values.tolist() == [[j for j in range(6) if j != i] for i in range(6)]
    assert nearest(x, x, k=6)[0][:, 0].tolist() == [0.0] * 6
    for k, others in ((6, None), (0, None), (7, x)):
        with pytest.raises(ValueError, match="there are no"):
            nearest(x, others, k)


def test_balls_hold_what_all_distances_say(block):
    x, y = rows(90), rows(120, seed=1)
    radius = radii(y, 3)
    inside = all_distances(x, y) <= radius
    assert 0 < inside.sum() < inside.numel() / 2
    balls, fakes = held(x, y, radius, closed=True)
    assert torch.equal(balls, inside.sum(1))
    assert torch.equal(fakes, inside.sum(0))


def test_the_edge_of_a_ball_is_decided_exactly(block):
    """The k-th neighbours of y lie on the edges of its balls, far from the origin and in the company of larger rows."""
    y = torch.cat([rows(100, f=300, shift=1e3), 1e6 * rows(3, f=300, seed=2)])
    radius, _ = nearest(y, k=3)
    closed, open_ = (held(y, y, radius[:, 2], closed=closed)[1] for closed in (True, False))
    assert closed.tolist() == [4] * 103  # itself, two within and the third
    assert open_.tolist() == [3] * 103
    lattice = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)) / 3
    distances = all_distances(lattice, lattice)
    for k in (1, 4):
        radius = radii(lattice, k)
        assert torch.equal(held(lattice, lattice, radius, closed=True)[0], (distances <= radius).sum(1))
        assert torch.equal(held(lattice, lattice, radius, closed=False)[0], (distances < radius).sum(1))


def test_close_pairs_are_those_of_all_distances(block):
    x = torch.cat([rows(150, f=2), rows(1, f=2).expand(4, 2)])
    for threshold in (0.0, 0.1, 0.5):
        want = (all_distances(x, x) <= threshold).triu(1).nonzero()
        found = close_pairs(x, threshold)
        assert sorted(found.tolist()) == want.tolist()
        assert len(want) >= math.comb(4, 2)
    assert close_pairs(x[:150], 0.0).shape == (0, 2)


def test_near_copies_keep_their_distance_far_from_the_origin():
    """|x|^2 is 1e12 times the squared distance here: a float32 product would see nothing of it."""
    x = rows(20, f=50, shift=1e3)
    y = x.clone()
    y[:, 0] += 2**-10
    distance, place = nearest(x, y)
    assert place[:, 0].tolist() == list(range(20))
    assert torch.allclose(distance[:, 0], (y - x)[:, 0].double().abs(), rtol=1e-14, atol=0)


def test_rows_that_do_not_fit_are_refused():
    for x, y in ((rows(3), rows(3, f=2)), (rows(3)[0], rows(3)), (rows(3, f=0), rows(3, f=0))):
        with pytest.raises(ValueError, match="rows of one width"):
            nearest(x, y)
    for x, y in ((rows(0), rows(3)), (rows(3), rows(0))):
        with pytest.raises(ValueError, match="no distance to no rows"):
            nearest(x, y)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pairs():
    script = """
import resource, torch
from gan_runner.metrics import neighbours
neighbours.BLOCK = 256
x = torch.randn(5000, 4)
neighbours.radii(x[:300], 3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
neighbours.held(x, x, neighbours.radii(x, 3), closed=True)
neighbours.close_pairs(x, 0.01)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once, however blocks happen to lie
    grown = int(subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout)
    assert grown < 50_000  # KiB; a matrix of all distances has 195,000
