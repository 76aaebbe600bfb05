"""Loops are counted: a circle has one, a disc none."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.metrics.geometry_score import GeometryScore, geometry_score, living_times, loops, mean_living_times

EXTRACTOR = SimpleNamespace(name="x", standard=False)


def ring(n, seed, radius=1.0):
    angle = 2 * math.pi * torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def disc(n, seed):
    return ring(n, seed) * torch.rand(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1)).sqrt()


def small(rows):
    return mean_living_times(rows, draws=40, landmarks=32, gamma=1 / 8)


# ---- living times, by hand ------------------------------------------------------------------------------------------------------------


def test_living_times_are_shares_of_the_filtration():
    got = living_times(torch.tensor([[1.0, 4.0], [2.0, math.inf], [3.0, 4.0]]), 10.0)
    assert got[:5].tolist() == pytest.approx([0.1, 0.1 + 0.6, 0.1, 0.1, 0])  # 0-1: none, 1-2: one, 2-3: two, 3-4: three, 4-10: one
    assert got.shape == (100,)
    assert got.sum().item() == pytest.approx(1)


def test_without_a_hole_none_is_alive_all_the_time():
    assert living_times(torch.empty(0, 2), 3.0)[:2].tolist() == [1, 0]
    assert living_times(torch.tensor([[0.0, math.inf]]), 3.0)[:2].tolist() == [0, 1]


def test_more_than_99_holes_at_once_are_left_out():
    many = torch.tensor([[1.0, 2.0]]).expand(150, -1)
    assert living_times(many, 4.0).sum().item() == pytest.approx(0.75)


def test_the_score_is_a_squared_distance():
    a, b = torch.eye(100, dtype=torch.float64)[:2]
    assert geometry_score(a, a) == 0
    assert geometry_score(a, b) == 2


def test_without_gudhi_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gudhi", None)
    with pytest.raises(UserError, match=r"pip install gudhi"):
        GeometryScore()


# ---- with gudhi -----------------------------------------------------------------------------------------------------------------------


def test_an_even_circle_has_one_loop():
    pytest.importorskip("gudhi")
    angle = torch.arange(400, dtype=torch.float64) * (2 * math.pi / 400)
    assert small(torch.stack([angle.cos(), angle.sin()], 1))[1].item() >= 0.99


@pytest.mark.slow
def test_circle_and_disc_are_told_apart():
    """Over seeds, a circle of 400 random points has one loop for 0.955 ... 0.98 of the time, a disc none for 0.64 ... 0.72, and their
    score is 1.14 ... 1.34; two circles have one below 0.0012, two discs below 0.006."""
    pytest.importorskip("gudhi")
    circle, plane = small(ring(400, 0)), small(disc(400, 0))
    assert circle[1].item() == pytest.approx(0.97, abs=0.03)
    assert plane[0].item() == pytest.approx(0.68, abs=0.08)
    assert plane[1].item() == pytest.approx(0.09, abs=0.05)
    assert geometry_score(circle, plane).item() == pytest.approx(1.244, abs=0.2)
    assert geometry_score(circle, small(ring(400, 7, radius=3))).item() < 0.005  # and scale does not matter
    assert geometry_score(plane, small(disc(400, 9))).item() < 0.02


@pytest.mark.parametrize("gamma", [1 / 128, 1 / 8, 1.0])
def test_far_landmarks_change_no_hole(gamma):
    """Of the whole table of distances, too, the loops are the same."""
    gudhi = pytest.importorskip("gudhi")
    rows = torch.cat([disc(150, 0), ring(100, 3, radius=2)])
    landmarks = rows[torch.randperm(250, generator=torch.Generator().manual_seed(0))[:24]]
    intervals, end = loops(rows, landmarks, gamma)
    distance, index = torch.cdist(rows, landmarks).sort(1)
    table = [list(zip(i, d)) for i, d in zip(index.tolist(), distance.tolist())]
    tree = gudhi.WitnessComplex(table).create_simplex_tree(max_alpha_square=end, limit_dimension=2)
    tree.compute_persistence(homology_coeff_field=2)
    whole = torch.as_tensor(tree.persistence_intervals_in_dimension(1)).view(-1, 2)
    assert living_times(intervals, end).tolist() == pytest.approx(living_times(whole, end).tolist(), abs=1e-9)
    assert len(whole) > 0 or gamma < 0.1


def test_degenerate_sets():
    pytest.importorskip("gudhi")
    assert mean_living_times(torch.zeros(40, 3), draws=2, landmarks=8)[0] == 1  # a point has no hole
    with pytest.raises(ValueError, match="at least 64 samples"):
        mean_living_times(ring(63, 0))
    with pytest.raises(ValueError, match="finite"):
        mean_living_times(torch.full((70, 2), torch.nan))


def score(fake, real, batches=1, **settings):
    metric = GeometryScore(**({"draws": 5, "landmarks": 24} | settings))
    metric.reference = SimpleNamespace(features=lambda: real, split="train", n=len(real))
    for part in fake.chunk(batches):
        metric.update(part)
    (key,) = metric.figures(EXTRACTOR)
    assert key == "geometry/x"
    return metric.compute()[""].item()


def test_the_metric_does_not_depend_on_batches_or_torchs_random_state():
    pytest.importorskip("gudhi")
    state = torch.get_rng_state()
    fake, real = disc(900, 0).float(), ring(1100, 1).float()
    want = score(fake, real)
    assert score(fake, real, batches=4) == want
    assert torch.equal(torch.get_rng_state(), state)
    assert score(real, real) == 0
    assert want > 0


def test_it_tells_how_far_it_is():
    pytest.importorskip("gudhi")
    told = []
    mean_living_times(ring(100, 1), draws=3, landmarks=8, tick=lambda *said: told.append(said))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_metric_refuses_what_it_cannot_use():
    pytest.importorskip("gudhi")
    with pytest.raises(UserError, match="at least 24"):
        score(ring(20, 0).float(), ring(100, 1).float())
    with pytest.raises(ValueError, match="at least as large"):
        GeometryScore(landmarks=64, n=32)
