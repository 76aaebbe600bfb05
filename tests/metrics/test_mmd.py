"""The kernel distance against closed forms and another library."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.metrics.mmd import KernelDistance, kernel_distance, of_all_pairs, squared_mmd


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def figures(metric, real, *batches, standard=False):
    metric.reference = SimpleNamespace(features=lambda: real, split="train")
    for batch in batches:
        metric.update(batch)
    extractor = SimpleNamespace(named=lambda own, published: f"{published if standard else own}/net")
    return {key: value.item() for key, value in metric.figures(extractor).items()}


def mean_kernel(a, b, d):
    """E (x.y / d + 1)^3 for x from N(a, I), y from N(b, I), independent, from the moments of t = x.y."""
    ab, lengths = float(a @ b), float(a @ a + b @ b)
    t1, t2 = ab, ab**2 + lengths + d
    t3 = ab**3 + 3 * ab * lengths + (3 * d + 6) * ab
    return t3 / d**3 + 3 * t2 / d**2 + 3 * t1 / d + 1


def exact(shift, d):
    """The squared MMD of N(0, I) and N(shift, I)."""
    zero = torch.zeros_like(shift)
    return mean_kernel(zero, zero, d) + mean_kernel(shift, shift, d) - 2 * mean_kernel(zero, shift, d)


def test_by_hand():
    """x = 0, 1 and y = 2, 3 in one dimension: k(0, .) = 1, k(2, 3) = 7^3, k(1, 2) = 27, k(1, 3) = 64."""
    got = squared_mmd(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]]))
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4, rel=1e-15)


def test_unequal_sets_by_hand():
    x, y = normal(5, 3), normal(8, 3, seed=1)
    k = [[[float((a @ b) / 3 + 1) ** 3 for b in right] for a in left] for left, right in ((x, x), (y, y), (x, y))]
    within = [sum(v for i, row in enumerate(m) for j, v in enumerate(row) if i != j) / (len(m) * (len(m) - 1)) for m in k[:2]]
    assert squared_mmd(x, y).item() == pytest.approx(sum(within) - 2 * np.mean(k[2]), rel=1e-12)


@pytest.mark.slow
def test_shifted_normal_distributions():
    assert exact(torch.ones(1), 1) == 22
    assert exact(torch.full((16,), 0.5), 16) == pytest.approx(1.029297, abs=1e-6)
    for shift, n in ((torch.ones(1), 1500), (torch.full((16,), 0.5), 1000)):
        d = len(shift)
        got = [squared_mmd(normal(n, d, seed=i), normal(n, d, seed=100 + i) + shift).item() for i in range(6)]
        error = np.std(got, ddof=1) / math.sqrt(len(got))
        assert np.mean(got) == pytest.approx(exact(shift, d), abs=4 * error)
        assert error < 0.1 * exact(shift, d)


def test_no_bias_where_the_distributions_are_the_same():
    got = np.array([squared_mmd(*normal(2, 60, 4, seed=i)).item() for i in range(400)])
    assert abs(got.mean()) < 3 * got.std(ddof=1) / 20
    assert 0.3 < (got < 0).mean() < 0.8  # below 0 is as good a figure as any


def test_torch_fidelity_says_the_same():
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = normal(450, 24), normal(300, 24, seed=1) * 1.1 + 0.1
    want = kid.kid_features_to_metric(x, y, kid_subsets=10, kid_subset_size=100, verbose=False)
    got = kernel_distance(x, y, subset_size=100, subsets=10)
    assert got.shape == (10,)
    assert got.mean().item() == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-9)
    assert got.std(correction=0).item() == pytest.approx(want["kernel_inception_distance_std"], rel=1e-9)


def test_the_figure_does_not_depend_on_batches_and_draws_from_nobody():
    x, y = normal(450, 6).float(), normal(300, 6, seed=1).float()
    mine, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    metric = KernelDistance(subset_size=50, subsets=5)
    want = figures(metric, y, x)
    estimates = kernel_distance(x, y, 50, 5)
    assert want == {"mmd/net": estimates.mean().item(), "mmd/net/std": estimates.std(correction=0).item()}
    metric.reset()
    assert figures(metric, y, *x.split(7)) == want
    assert list(figures(metric, y, standard=True)) == ["kid/net", "kid/net/std"]
    assert torch.equal(mine, torch.get_rng_state())
    assert (numpys == np.random.get_state()[1]).all()


def test_float32_features_are_compared_in_float64():
    x, y = normal(300, 8).float(), normal(300, 8, seed=1).float()
    assert torch.equal(squared_mmd(x, y), squared_mmd(x.double(), y.double()))
    values = [(a @ b.T / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    single = sum((v.sum() - v.trace()) / (300 * 299) for v in values[:2]) - 2 * values[2].mean()
    assert squared_mmd(x, y).item() != pytest.approx(single.item(), rel=1e-9)  # which float32 would not reach


@pytest.mark.parametrize("numbers", [(90, 60), (60, 90), (25, 25)])
def test_one_kernel_matrix_of_all_pairs_gives_the_estimates_of_the_subsets(numbers):
    x, y = normal(numbers[0], 24), normal(numbers[1], 24, seed=1) * 1.1 + 0.1
    g = torch.Generator().manual_seed(0)
    chosen = [torch.stack([torch.randperm(n, generator=g)[:20] for _ in range(7)]) for n in numbers]
    expected = torch.stack([squared_mmd(x[a], y[b]) for a, b in zip(*chosen)])
    torch.testing.assert_close(of_all_pairs(x, y, *chosen), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("subsets", [4, 50])  # 90^2 pairs of rows, and 40^2 of each subset: less of the latter, and of the former
def test_the_cheaper_way_gives_the_same_figure(subsets):
    x, y = normal(90, 24), normal(60, 24, seed=1) * 1.1 + 0.1
    random = np.random.RandomState(2020)
    expected = [
        squared_mmd(*(rows[torch.from_numpy(random.choice(len(rows), 40, replace=False))] for rows in (x, y))).item()
        for _ in range(subsets)
    ]
    assert kernel_distance(x, y, 40, subsets).tolist() == pytest.approx(expected, rel=1e-9)


def test_the_whole_set_may_be_a_subset():
    x, y = normal(40, 3), normal(40, 3, seed=1)
    assert kernel_distance(x, y, 40, 3).tolist() == pytest.approx([squared_mmd(x, y).item()] * 3, rel=1e-12)


def test_too_few_samples_and_bad_ones_are_refused():
    with pytest.raises(ValueError, match=r"subset_size=50 asks for at least as many samples .*: there are 60 and 40 real ones"):
        kernel_distance(normal(60, 3), normal(40, 3), 50)
    with pytest.raises(UserError, match=r"subset_size=1000 .* there are 60 and 40 real ones; set metric.kernel_distance.subset_size"):
        figures(KernelDistance(), normal(40, 3), normal(60, 3))
    bad = normal(60, 3)
    bad[5] = math.nan
    with pytest.raises(UserError, match="NaN or infinite"):
        figures(KernelDistance(subset_size=10), normal(60, 3), bad)
