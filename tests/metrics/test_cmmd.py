"""The kernel distance of unit-length features."""

import math

import pytest
import torch

from feature_rows import EXTRACTOR, Real, measured, normal
from gan_runner.errors import UserError
from gan_runner.metrics import CMMD
from gan_runner.metrics.cmmd import gaussian_mmd
from gan_runner.metrics.feature_sets import unit_rows


def by_pairs(x, y, sigma):
    """As it is published, from all pairs."""
    k = [(-(torch.cdist(a, b) ** 2) / (2 * sigma**2)).exp().mean() for a, b in ((x, x), (y, y), (x, y))]
    return float(k[0] + k[1] - 2 * k[2])


def at_distance(r, f=5):
    """Two rows of unit length."""
    angle = 2 * math.asin(r / 2)
    rows = torch.zeros(2, f, dtype=torch.float64)
    rows[0, 0], rows[1, 0], rows[1, 1] = 1, math.cos(angle), math.sin(angle)
    return rows[:1], rows[1:]


@pytest.mark.parametrize("r", [0, 1e-3, 0.5, 1, 2])
def test_two_points_have_the_figure_of_their_distance(r):
    x, y = at_distance(r)
    want = 1000 * 2 * -math.expm1(-(r**2) / 200)
    assert measured(CMMD(), Real(x), y) == {"": pytest.approx(want, rel=1e-9, abs=1e-12)}
    assert measured(CMMD(), Real(7 * x), 0.1 * y)[""] == pytest.approx(want, rel=1e-9, abs=1e-12), "their length does not count"
    for sigma in (0.5, 3.0):
        assert measured(CMMD(sigma), Real(x), y)[""] == pytest.approx(2000 * -math.expm1(-(r**2) / (2 * sigma**2)), rel=1e-9, abs=1e-12)


def test_identical_sets_have_0_in_any_order_and_any_number():
    rows = normal(500, 6)
    assert measured(CMMD(), Real(rows), rows.flip(0))[""] == pytest.approx(0, abs=1e-11)
    assert measured(CMMD(), Real(rows), rows.repeat(3, 1))[""] == pytest.approx(0, abs=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.3, 10.0])
def test_it_is_the_published_formula_over_blocks(sigma):
    x, y = unit_rows(normal(2500, 8)), unit_rows(normal(2100, 8, 1) + 0.3)
    assert float(gaussian_mmd(x, y, sigma)) == pytest.approx(by_pairs(x, y, sigma), rel=1e-7, abs=1e-13)
    assert float(gaussian_mmd(x, y, sigma)) > 0


def test_the_bias_of_equal_laws_is_that_of_the_diagonals():
    """E = mean(1 - k) (1/M + 1/N), as the unbiased estimate has the expectation 0."""
    got = torch.stack([gaussian_mmd(unit_rows(normal(30, 16, 2 * s)), unit_rows(normal(50, 16, 2 * s + 1))) for s in range(200)])
    far = unit_rows(normal(2000, 16, 999))
    gap = -(((far[:1000] @ far[1000:].T) - 1) / 100).expm1().mean()
    assert float(got.mean()) == pytest.approx(float(gap) * (1 / 30 + 1 / 50), abs=4 * float(got.std()) / math.sqrt(200))


def test_figures_do_not_depend_on_batches():
    fake, real = normal(300, 6, 1) + 1, Real(normal(400, 6))
    whole = measured(CMMD(), real, fake)
    assert whole == measured(CMMD(), real, *fake.split(77))
    assert whole[""] > 0.1
    assert CMMD().prefix(EXTRACTOR) == "cmmd/net"


def test_features_without_a_direction_are_refused():
    rows = normal(9)
    rows[3] = 0
    for fake, real in ((rows, normal(5)), (normal(5), rows)):
        with pytest.raises(UserError, match=r"all 0 cannot be scaled .* choose another extractor"):
            measured(CMMD(), Real(real), fake)
