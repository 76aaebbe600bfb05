"""The curve of precision and recall against closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.metrics.prd import PRD, best_f, k_means, prd, prd_curve


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def ring(n, modes, seed=0, sigma=0.02):
    angle = 2 * math.pi * (torch.arange(n) % modes) / 8
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + sigma * torch.randn(n, 2, generator=seeded(seed))


def scores(precision, recall):
    return [float(best_f(precision, recall, beta)) for beta in (8, 1 / 8)]


def figures(metric, real, *batches):
    metric.reference = SimpleNamespace(features=lambda: real, split="train")
    for batch in batches:
        metric.update(batch)
    return {key: float(value) for key, value in metric.figures(SimpleNamespace(name="net")).items()}


FOUR_OF_EIGHT = [65 * 0.5 / 64.5, (1 + 1 / 64) * 0.5 / (1 / 64 + 0.5)]  # F_beta at precision 1, recall 1/2


def test_four_modes_of_eight_have_all_precision_and_half_the_recall():
    real, fake = torch.full((8,), 1 / 8), torch.tensor([1 / 4] * 4 + [0] * 4)
    precision, recall = prd_curve(real, fake)
    assert len(precision) == len(recall) == 1001
    assert float(precision.max()) == 1
    assert float(recall.max()) == 0.5
    assert pytest.approx([0.5039, 0.9848], abs=5e-5) == FOUR_OF_EIGHT
    assert scores(precision, recall) == pytest.approx(FOUR_OF_EIGHT, rel=1e-3)  # the corner, slope 2, is not among the angles
    assert scores(*prd_curve(fake, real)) == pytest.approx(FOUR_OF_EIGHT[::-1], rel=1e-3)


def test_the_curve_is_the_one_that_two_bins_have():
    p, q = torch.tensor([0.75, 0.25]), torch.tensor([0.25, 0.75])
    precision, recall = prd_curve(p, q, angles=3)  # slopes 0, 1, infinity
    assert precision.tolist() == pytest.approx([0, 0.5, 1], abs=1e-9)
    assert recall.tolist() == pytest.approx([1, 0.5, 0], abs=1e-9)


def test_swapping_the_histograms_swaps_precision_and_recall():
    p, q = torch.rand(2, 20, generator=seeded(0), dtype=torch.float64)
    p, q = p / p.sum(), q / q.sum()
    there, back = torch.stack(prd_curve(p, q)), torch.stack(prd_curve(q, p))
    assert torch.allclose(there, back.flip(0, 1), atol=1e-9)
    assert scores(*there) == pytest.approx(scores(*back)[::-1])
    assert float((there - back).abs().max()) > 0.01


def test_equal_histograms_have_all_and_disjoint_ones_nothing():
    p = torch.tensor([0.5, 0.5, 0, 0])
    assert scores(*prd_curve(p, p)) == pytest.approx([1, 1], abs=1e-12)
    assert scores(*prd_curve(p, p.flip(0))) == [0, 0]


def test_no_histograms_are_refused():
    p = torch.full((4,), 0.25)
    for q in (torch.full((5,), 0.2), 2 * p, torch.tensor([1.5, -0.5, 0, 0]), p * math.nan):
        with pytest.raises(ValueError, match="histogram"):
            prd_curve(p, q)


def test_k_means_finds_clusters_that_are_apart():
    x = ring(800, 8)
    found = 0
    for seed in range(10):
        label = k_means(x, 8, seeded(seed))
        assert torch.equal(label, k_means(x, 8, seeded(seed)))
        assert label.min() >= 0
        assert label.max() < 8
        found += len(torch.stack([label, torch.arange(800) % 8]).unique(dim=1)[0]) == 8
    assert found >= 8  # k-means++ misses a mode now and then, and Lloyd's algorithm does not mend it


def test_k_means_of_few_different_rows_leaves_clusters_empty():
    x = torch.tensor([[0.0], [1.0], [5.0]]).repeat(10, 1)
    label = k_means(x, 20, seeded(0)).view(10, 3)
    assert (label == label[0]).all()
    assert len(label[0].unique()) == 3
    assert k_means(torch.zeros(7, 2), 3, seeded(0)).tolist() == [0] * 7


def test_k_means_takes_the_sum_of_squares_below_that_of_any_start():
    x = torch.rand(500, 2, generator=seeded(0))

    def spread(label):
        return sum(float((x[label == i] - x[label == i].mean(0)).square().sum()) for i in range(20) if (label == i).any())

    first = (x[:, None] - x[:20]).square().sum(2).argmin(1)
    assert max(spread(k_means(x, 20, seeded(seed))) for seed in range(5)) < 0.85 * spread(first)


def test_samples_of_four_modes_of_eight():
    real, fake = ring(2000, 8), ring(2000, 4, seed=1)
    precision, recall = prd(real, fake, clusters=8, runs=1)
    assert scores(precision, recall) == pytest.approx(FOUR_OF_EIGHT, rel=1e-3)
    precision, recall = prd(real, fake)  # clusters within modes are small samples: not quite 1
    assert float(recall.max()) == pytest.approx(0.5, abs=1e-3)
    assert float(precision.max()) == pytest.approx(1, abs=1e-9)
    assert scores(precision, recall)[1] == pytest.approx(FOUR_OF_EIGHT[1], abs=0.05)


def test_identical_sets_have_all_of_it_and_equal_distributions_nearly():
    x = ring(1000, 8, sigma=0.5)
    assert scores(*prd(x, x.flip(0))) == pytest.approx([1, 1], abs=1e-9)
    both = scores(*prd(x, ring(1000, 8, seed=1, sigma=0.5)))
    assert 0.9 < min(both) <= max(both) < 1


def test_the_larger_set_is_cut_to_the_smaller():
    real, fake = ring(1600, 8), ring(400, 8, seed=1)
    got = figures(PRD(clusters=8), real, fake)
    assert set(got) == {"prd/net/f8", "prd/net/f1_8"}
    assert got == figures(PRD(clusters=8), real, *fake.split(33))
    assert got == figures(PRD(clusters=8, n=400), real, fake)
    assert got != figures(PRD(clusters=8, n=200), real, fake)
    assert min(got.values()) > 0.9
    whole = scores(*prd(real[torch.randperm(1600, generator=seeded(0))[:400]], fake, clusters=8))
    assert list(got.values()) == pytest.approx(whole, abs=0.1)


def test_the_picture_is_the_curve():
    metric, real = PRD(), ring(400, 8)
    figures(metric, real, ring(400, 8, seed=1))
    picture = metric.pictures(None)["curve"]
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 400, 400)
    figures(metric, real, ring(400, 8, seed=1) + 100)
    assert not torch.equal(picture, metric.pictures(None)["curve"])


def test_too_few_samples_are_refused():
    with pytest.raises(UserError, match="needs at least 20 samples, and there are 19"):
        figures(PRD(), ring(100, 8), ring(19, 8))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    figures(PRD(runs=1), ring(100, 8), ring(50, 8))
    assert torch.equal(before, torch.get_rng_state())
