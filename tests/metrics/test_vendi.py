"""The effective number of different samples."""

import math

import pytest
import torch

from feature_rows import EXTRACTOR, Real, measured, normal
from gan_runner.errors import UserError
from gan_runner.metrics import Vendi
from gan_runner.metrics.feature_sets import unit_rows
from gan_runner.metrics.vendi import vendi

ORDERS = [0.5, 1.0, 2.0, math.inf]


def by_kernel(rows, q):
    """From the kernel matrix of all pairs, as it is defined."""
    p = torch.linalg.eigvalsh(rows @ rows.T / len(rows))
    p = p[p > 1e-12]
    if q == 1:
        return float((-(p * p.log()).sum()).exp())
    return float(1 / p.max()) if math.isinf(q) else float((p**q).sum() ** (1 / (1 - q)))


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize("n", [1, 5, 40])
def test_equal_samples_are_one_and_orthogonal_ones_are_all(q, n):
    one = normal(1, 8).expand(n, 8)
    assert measured(Vendi(q), None, one) == {"": pytest.approx(1, abs=1e-5 if q < 1 else 1e-12)}  # the root of a rounding error
    assert measured(Vendi(q), None, 3 * torch.eye(40)[:n]) == {"": pytest.approx(n, rel=1e-9)}


@pytest.mark.parametrize("q", ORDERS)
def test_kinds_count_by_their_shares(q):
    """Of samples that are equal or orthogonal, p are the shares of the kinds."""
    shares = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    rows = torch.eye(4).repeat_interleave((shares * 16).long(), 0)
    want = {0.5: float(shares.sqrt().sum() ** 2), 1.0: 2**1.75, 2.0: 1 / float(shares.square().sum()), math.inf: 2.0}[q]
    assert measured(Vendi(q), None, rows)[""] == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("q", [1.0, 2.0, math.inf])
@pytest.mark.parametrize(("n", "f"), [(30, 100), (100, 30), (900, 6)])
def test_both_matrices_have_the_eigenvalues_of_the_kernel(q, n, f):
    rows = unit_rows(normal(n, f) + 0.5)
    assert float(vendi(rows, q)) == pytest.approx(by_kernel(rows, q), rel=1e-8)


def test_it_falls_with_the_order():
    rows = unit_rows(normal(50, 10) + 0.5)
    found = [float(vendi(rows, q)) for q in (0.2, 0.999999, 1.0, 1.000001, 3.0, math.inf)]
    assert found == sorted(found, reverse=True)
    assert found[1] == pytest.approx(found[2], rel=1e-5)
    assert found[3] == pytest.approx(found[2], rel=1e-5)


def test_figures_do_not_depend_on_batches_and_need_no_real_samples():
    fake = normal(300, 6, 1) + 1
    assert measured(Vendi(), None, fake) == measured(Vendi(), None, *fake.split(77))
    assert Vendi.needs == frozenset()
    assert Vendi().prefix(EXTRACTOR) == "vendi/net"
    assert "as 2.5 samples" in Vendi().sentence({"vendi/net": 2.5})
    fake[3] = 0
    with pytest.raises(UserError, match="all 0 cannot be scaled"):
        measured(Vendi(), Real(fake), fake)
