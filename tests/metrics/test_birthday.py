"""Collisions in batches against the birthday problem."""

import math
from types import SimpleNamespace

import pytest
import torch

from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.metrics.birthday import Birthday, collision_probability, duplicates, first_collisions, support_size


def normal(n, f=2, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def of_support(size, n, seed=0):
    """n samples of a generator that has so many different ones."""
    return normal(size, 5, seed=99)[torch.randint(size, (n,), generator=torch.Generator().manual_seed(seed))]


def figures(metric, real, *batches):
    metric.reference = SimpleNamespace(features=lambda: real, split="train")
    for batch in batches:
        metric.update(batch)
    return {key: float(value) for key, value in metric.figures(SimpleNamespace(name="net")).items()}


def test_the_birthday_problem():
    assert collision_probability(365, 23) == pytest.approx(0.507297, abs=1e-6)
    assert collision_probability(365, 22) == pytest.approx(0.475695, abs=1e-6)
    assert collision_probability(400, 24) == pytest.approx(0.505, abs=5e-4)
    assert collision_probability(400, 1) == 0
    assert collision_probability(5, 5) == pytest.approx(1 - math.factorial(5) / 5**5)
    assert collision_probability(5, 6) == collision_probability(5, 7) == 1


@pytest.mark.parametrize(("support", "batch"), [(365, 23), (400, 24), (2, 2), (1e6, 1178), (1e12, 2), (1e4, 400)])
def test_the_size_of_the_support_from_the_probability(support, batch):
    assert support_size(batch, collision_probability(support, batch)) == pytest.approx(support, rel=1e-6)


def test_the_size_of_the_support_is_about_the_square_of_the_batch():
    assert support_size(1000, 0.5) == pytest.approx(1000**2 / (2 * math.log(2)), rel=0.01)
    assert support_size(7, 0) == math.inf
    assert support_size(2, 1) == 1
    assert support_size(10, 1) == 9
    for batch, probability in ((1, 0.5), (5, 1.1), (5, math.nan)):
        with pytest.raises(ValueError, match="there is no support"):
            support_size(batch, probability)


def test_first_collisions_follow_their_distribution():
    """One pair among n: the batch of s has both with probability s (s - 1) / (n (n - 1)). Two pairs that share one: by counting."""
    first = first_collisions(10, torch.tensor([[2, 7]]), seeded("a"), orders=4000)
    assert first.min() >= 2
    assert first.max() <= 10
    for s in (2, 5, 8, 10):
        p = s * (s - 1) / 90
        assert (first <= s).double().mean() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 4000))
    first = first_collisions(3, torch.tensor([[0, 1], [1, 2]]), seeded("a"), orders=4000)
    assert (first == 2).double().mean() == pytest.approx(2 / 3, abs=0.03)
    assert first_collisions(10, torch.zeros(0, 2, dtype=torch.int64), seeded("a"), orders=3).tolist() == [11] * 3


def test_batches_of_24_of_400_collide_every_other_time():
    n, pairs = duplicates(of_support(400, 2000), 0.0, seeded("a"))
    share = (first_collisions(n, pairs, seeded("b"), orders=2000) <= 24).double().mean().item()
    assert share == pytest.approx(collision_probability(400, 24), abs=0.03)


@pytest.mark.parametrize(("support", "n"), [(1, 300), (2, 300), (20, 500), (400, 1000), (5000, 2000)])
def test_the_support_of_a_generator_is_found(support, n):
    got = figures(Birthday(threshold=0.0), None, of_support(support, n))
    pairs = n * n / 2 / support
    assert got["birthday/net/support"] == pytest.approx(support, rel=0.03 + 4 / math.sqrt(pairs))
    assert math.isnan(got["birthday/net/at_least"])
    batch = got["birthday/net/batch"]
    assert collision_probability(got["birthday/net/support"], int(batch)) >= 0.5 - 1e-6
    assert batch == 2 if support == 1 else batch > 1.1 * math.sqrt(support)


def test_crowded_samples_are_decided_by_a_fraction_of_them():
    n, pairs = duplicates(torch.zeros(1000, 3), 0.0, seeded("a"))
    assert n == 64
    assert len(pairs) == math.comb(64, 2)
    n, pairs = duplicates(of_support(20, 2000), 0.0, seeded("a"))
    assert n < 2000
    assert len(pairs) > 20 * n
    n, pairs = duplicates(of_support(1000, 2000), 0.0, seeded("a"))
    assert n == 2000


def test_without_a_collision_there_is_a_bound():
    got = figures(Birthday(threshold=1e-6), None, normal(500))
    assert math.isnan(got["birthday/net/support"])
    assert math.isnan(got["birthday/net/batch"])
    assert collision_probability(got["birthday/net/at_least"], 500) == pytest.approx(0.95)
    assert got["birthday/net/at_least"] == pytest.approx(500 * 499 / (2 * math.log(20)), rel=0.01)
    metric = Birthday()
    told = {key: None if math.isnan(value) else value for key, value in got.items()}
    assert metric.sentence(told).startswith("no near-duplicates: a support of at least 41,")


def test_the_threshold_is_a_quantile_of_real_distances():
    """Uniform on the line: P(no other of m rows within t) = exp(-2 m t) but at the ends."""
    real = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0))
    got = [figures(Birthday(quantile=q), real, real[:50])["birthday/net/threshold"] for q in (0.1, 0.5)]
    for threshold, q in zip(got, (0.1, 0.5)):
        assert threshold == pytest.approx(-math.log(1 - q) / 4000, rel=5 * math.sqrt(q / (1 - q) / 2000) / -math.log(1 - q))


def test_a_diverse_generator_has_the_support_of_real_samples():
    real, fake = normal(2000), normal(2000, seed=1)
    got = figures(Birthday(quantile=0.2), real, fake)  # 400 pairs; the threshold is the 200th distance of 1000
    assert got["birthday/net/support"] == pytest.approx(2000 / 2 / -math.log(1 - 0.2), rel=0.35)
    narrow = figures(Birthday(quantile=0.2), real, fake / 4)
    assert narrow["birthday/net/support"] == pytest.approx(got["birthday/net/support"] / 16, rel=0.3)


def test_figures_do_not_depend_on_batches():
    real, fake = normal(600), normal(500, seed=1)
    got = figures(Birthday(), real, fake)
    assert got == pytest.approx(figures(Birthday(), real, *fake.split(33)), rel=0, abs=0, nan_ok=True)
    assert {key.removeprefix("birthday/net/") for key in got} == {"support", "batch", "at_least", "threshold"}
    assert "near-duplicates in every other batch of" in Birthday().sentence(got)


def test_real_samples_are_needed_for_the_threshold_alone():
    assert Birthday().needs == {"reference"}
    assert Birthday(threshold=0.5).needs == set()
    with pytest.raises(UserError, match="needs at least 2 samples, and there are 1"):
        figures(Birthday(), normal(9), normal(1))
    with pytest.raises(UserError, match=r"needs at least 4 real samples \(train\), and there are 3"):
        figures(Birthday(), normal(3), normal(9))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    figures(Birthday(), normal(50), normal(50, seed=1))
    assert torch.equal(before, torch.get_rng_state())
