"""Optimal transport along random directions: MIND and the sliced Wasserstein distance."""

import math

import pytest
import torch

from feature_rows import EXTRACTOR, Real, measured, normal
from gan_runner.errors import UserError
from gan_runner.metrics import MIND, SlicedWasserstein
from gan_runner.metrics.projections import random_directions, squared_transport

DOUBLE = torch.float64


def drawn(n, f, name):
    """The directions of a figure."""
    return random_directions(n, f, name, "directions")


def test_directions_have_unit_length_and_no_preference():
    found = random_directions(20_000, 5, "test")
    assert torch.allclose(found.norm(dim=1), torch.ones(20_000, dtype=DOUBLE), atol=1e-15)
    assert torch.allclose(found.T @ found / 20_000, torch.eye(5, dtype=DOUBLE) / 5, atol=0.01)
    assert found.mean(0).abs().max() < 0.02
    assert torch.equal(found, random_directions(20_000, 5, "test"))
    assert not torch.equal(found, random_directions(20_000, 5, "other"))


def test_equal_sizes_are_paired_in_order():
    x, y, directions = normal(5000, 3), normal(5000, 3, 1), drawn(130, 3, "mind")
    want = ((directions @ x.double().T).sort(1).values - (directions @ y.double().T).sort(1).values).square().mean(1)
    assert torch.allclose(squared_transport(x, y, directions), want, rtol=1e-10)


@pytest.mark.parametrize(("m", "n"), [(4, 6), (5, 7), (1, 9), (300, 77)])
def test_unequal_sizes_have_the_distance_of_copies_of_equal_number(m, n):
    """A set whose every row is repeated is the same distribution: n copies of m rows, and m copies of n."""
    x, y, directions = normal(m, 3, dtype=DOUBLE), normal(n, 3, 1, DOUBLE) + 1, drawn(20, 3, "mind")
    same = squared_transport(x.repeat_interleave(n, 0), y.repeat_interleave(m, 0), directions)
    assert torch.allclose(squared_transport(x, y, directions), same, rtol=1e-10)
    assert torch.allclose(squared_transport(y, x, directions), same, rtol=1e-10)


def test_unequal_sizes_have_the_distance_of_the_optimal_plan():
    """Of all plans with the right margins, by linear programming."""
    optimize = pytest.importorskip("scipy.optimize")
    x, y = normal(5, 2, dtype=DOUBLE), normal(3, 2, 1, DOUBLE)
    directions = drawn(6, 2, "mind")
    margins = torch.cat([torch.eye(5).repeat_interleave(3, 1), torch.eye(3).repeat(1, 5)]).numpy()
    for direction, found in zip(directions, squared_transport(x, y, directions)):
        cost = ((x @ direction)[:, None] - (y @ direction)[None]).square().flatten()
        plan = optimize.linprog(cost.numpy(), A_eq=margins, b_eq=[1 / 5] * 5 + [1 / 3] * 3)
        assert float(found) == pytest.approx(plan.fun, rel=1e-9)


@pytest.mark.parametrize("sizes", [(400, 400), (400, 200)])
def test_a_shift_is_moved_as_a_whole(sizes):
    f = 12
    shift = torch.linspace(-1, 2, f, dtype=DOUBLE)
    x = normal(sizes[1], f, dtype=DOUBLE).repeat(sizes[0] // sizes[1], 1)
    real, fake = Real(x[: sizes[1]]), x + shift
    directions = drawn(256, f, "sliced_wasserstein")
    want = float((directions @ shift).square().mean().sqrt())
    assert measured(SlicedWasserstein(), real, fake)[""] == pytest.approx(want, abs=1e-5)
    assert measured(SlicedWasserstein(4096), real, fake)[""] == pytest.approx(float(shift.norm()) / math.sqrt(f), rel=0.05)
    directions = drawn(1000, f, "mind")
    got = measured(MIND(), real, fake)[""]
    assert got == pytest.approx(3 * f * float((directions @ shift).square().mean()), rel=1e-9)
    assert got == pytest.approx(3 * float(shift.square().sum()), rel=0.1), "in expectation"


def test_a_scaled_normal_law_has_the_distance_of_its_deviations():
    """|1 - s| along every direction, but for the sampling error of tails."""
    x = normal(50_000, 4)
    assert measured(SlicedWasserstein(16), Real(x), 1.5 * x.flip(0))[""] == pytest.approx(0.5, rel=0.01)
    assert measured(MIND(16), Real(x), 1.5 * x.flip(0))[""] == pytest.approx(3 * 4 * 0.25, rel=0.02)


@pytest.mark.parametrize("kind", [MIND, SlicedWasserstein])
def test_identical_sets_have_0(kind):
    x = normal(300, 7)
    assert measured(kind(), Real(x), x.flip(0)) == {"": pytest.approx(0, abs=1e-12)}
    assert measured(kind(), Real(x), x.repeat(2, 1)) == {"": pytest.approx(0, abs=1e-12)}


@pytest.mark.parametrize(("kind", "prefix"), [(MIND, "mind/net"), (SlicedWasserstein, "swd/net")])
def test_figures_do_not_depend_on_batches(kind, prefix):
    fake, real = normal(300, 6, 1) + 1, Real(normal(400, 6))
    assert measured(kind(), real, fake) == measured(kind(), real, *fake.split(77))
    assert kind().prefix(EXTRACTOR) == prefix
    with pytest.raises(UserError, match="NaN or infinite"):
        measured(kind(), real, fake / 0)
