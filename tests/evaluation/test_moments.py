"""Means and covariances that come in parts."""

from functools import reduce

import numpy as np
import pytest
import torch

from gan_runner.evaluation import moments as module
from gan_runner.evaluation.moments import Moments


def rows(n, features=6, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return torch.randn(n, features, generator=generator, dtype=torch.float64) @ mixing + offset


def same(a, b, tolerance):
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance * float(y.abs().max())) for x, y in zip(a, b, strict=True))


def of_parts(x, lengths):
    return reduce(Moments.merged, map(Moments.of, x.split(lengths)))


@pytest.mark.parametrize("lengths", [[500], [250, 250], [1, 499], [499, 1], [1] * 500, [7, 100, 1, 392]])
@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-12), (1e4, 1e-9)])
def test_parts_have_the_covariance_of_the_whole(lengths, offset, tolerance):
    x = rows(500, offset=offset)
    got = of_parts(x, lengths)
    assert got.n == 500
    assert np.allclose(got.mean, x.numpy().mean(0), rtol=1e-14, atol=1e-13)
    want = np.cov((x - offset).numpy().T)  # without the offset, which costs NumPy digits as well
    assert np.abs(got.covariance.numpy() - want).max() <= tolerance * np.abs(want).max()


def test_sums_of_squares_would_not_do():
    x = rows(500, offset=1e4)
    want = np.cov((x - 1e4).numpy().T)
    naive = (x.T @ x - len(x) * torch.outer(x.mean(0), x.mean(0))) / (len(x) - 1)
    assert np.abs(naive.numpy() - want).max() > 100 * np.abs(of_parts(x, [100] * 5).covariance.numpy() - want).max()


def test_the_order_of_merging_does_not_matter():
    a, b, c = (Moments.of(part) for part in rows(300, offset=5.0).split([17, 83, 200]))
    assert same(a.merged(b).merged(c), a.merged(b.merged(c)), 1e-13)
    assert same(a.merged(b), b.merged(a), 1e-13)


def test_zero_is_neutral():
    x = Moments.of(rows(9))
    for got in (Moments.zero(6).merged(x), x.merged(Moments.zero(6)), x.merged(Moments.of(torch.empty(0, 6)))):
        assert same(got, x, 0)
    assert same(Moments.zero(6).merged(Moments.zero(6)), Moments.zero(6), 0)


def test_many_rows_are_taken_in_chunks(monkeypatch):
    x = rows(1000)
    whole = Moments.of(x)
    seen = []
    few = Moments._of_few
    monkeypatch.setattr(module, "CHUNK", 64)
    monkeypatch.setattr(Moments, "_of_few", staticmethod(lambda part: seen.append(len(part)) or few(part)))
    assert same(Moments.of(x), whole, 1e-12)
    assert seen == [64] * 15 + [40]


def test_float32_rows_are_summed_in_float64():
    x = rows(200).float()
    assert {part.dtype for part in Moments.of(x)} == {torch.float64}
    assert same(Moments.of(x), Moments.of(x.double()), 0)


def test_packing_loses_nothing():
    x = Moments.of(rows(20))
    assert x.packed.shape == (7, 7)
    assert torch.equal(x.packed, x.packed.T)
    assert same(Moments.unpacked(x.packed), x, 0)


def test_what_has_no_moments_is_refused():
    with pytest.raises(ValueError, match=r"rows, N F, and these have the shape \(4,\)"):
        Moments.of(torch.ones(4))
    for n in (0, 1):
        with pytest.raises(ValueError, match=f"at least 2 samples, not {n}"):
            _ = Moments.of(torch.ones(n, 3)).covariance
