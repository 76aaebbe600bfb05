"""Classifier two-sample tests against the accuracy of the best classifier and the distribution of p-values."""

import math
from types import SimpleNamespace

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.metrics.two_sample import CLASSIFIERS, TwoSampleTest, logistic, nearest_neighbour, two_sample_test


def normal(n, f=2, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def figures(metric, real, *batches):
    metric.reference = SimpleNamespace(features=lambda: real, split="train")
    for batch in batches:
        metric.update(batch)
    return {key: float(value) for key, value in metric.figures(SimpleNamespace(name="net")).items()}


@pytest.mark.parametrize(("shift", "accuracy"), [(0, 0.5), (1, 0.6915), (2, 0.8413)])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_logistic_regression_comes_up_to_the_best_classifier(shift, accuracy, scale):
    assert phi(shift / 2) == pytest.approx(accuracy, abs=5e-5)
    n = 20_000
    fake = normal(n, 3, seed=1) + shift * torch.tensor([0.6, 0.0, 0.8])
    got, p_value = two_sample_test(normal(n, 3) * scale + 7, fake * scale + 7)
    assert float(got) == pytest.approx(accuracy, abs=4 * math.sqrt(accuracy * (1 - accuracy) / n))
    assert (float(p_value) < 1e-100) if shift else (float(p_value) > 1e-4)
    assert float(p_value) == pytest.approx(phi((0.5 - float(got)) * 2 * math.sqrt(n)), rel=1e-6)


@pytest.mark.parametrize("shift", [0, 2])
def test_the_nearest_neighbour_is_as_accurate_as_theory_says(shift):
    """1 - 2 E[eta (1 - eta)] for many samples, eta the probability of a fake. Cover and Hart 1967."""
    n = 4000
    got, _ = two_sample_test(normal(n, 1), normal(n, 1, seed=1) + shift, nearest_neighbour)
    x = torch.linspace(-8, 10, 20_001, dtype=torch.float64)
    p, q = ((-0.5 * (x - mean) ** 2).exp() / math.sqrt(2 * math.pi) for mean in (0, shift))
    want = 1 - torch.trapezoid(p * q / (p + q), x).item()
    assert shift or want == pytest.approx(0.5)
    assert float(got) == pytest.approx(want, abs=0.03)


def test_a_nearest_neighbour_sees_what_a_line_does_not():
    real, fake = normal(1000), 3 * normal(1000, seed=1)
    assert float(two_sample_test(real, fake, logistic)[1]) > 0.01
    assert float(two_sample_test(real, fake, nearest_neighbour)[1]) < 1e-6


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_p_values_are_uniform_for_one_distribution(classifier):
    """As far as accuracies of 60 rows can be: there are 61 of them, so P(p <= a) is near a where a is one that can occur."""
    runs, n = 400, 60
    p = torch.stack([two_sample_test(normal(n, 3, seed), normal(n, 3, 10_000 + seed), CLASSIFIERS[classifier])[1] for seed in range(runs)])
    for right in (25, 28, 30, 32, 35, 37):
        level = phi((30 - right) / math.sqrt(15))
        binomial = sum(math.comb(60, i) for i in range(right, 61)) / 2**60
        share = (p <= level + 1e-9).double().mean().item()
        assert share == pytest.approx(binomial, abs=4 * math.sqrt(binomial * (1 - binomial) / runs))


def test_more_samples_find_a_smaller_difference():
    p = [float(two_sample_test(normal(n), normal(n, seed=1) + 0.15)[1]) for n in (50, 500, 5000)]
    assert p[0] > 1e-3
    assert p[2] < 1e-6


def test_logistic_regression_finds_the_minimum():
    x, fake = normal(400, 3), torch.arange(400) >= 200
    x[fake] += 0.5
    x = torch.cat([x, torch.ones(400, 1)], 1)  # a feature that says nothing
    scaled = (x.double() - x.double().mean(0)) / torch.tensor([*x[:, :3].double().std(0, correction=0), 1])
    weight = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.softplus((1 - 2 * fake.double()) * (scaled @ weight[:4] + weight[4])).mean()
        value = value + 1e-3 / 2 * weight[:4].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    points = 2 * normal(5000, 4, seed=1)
    points[:, 3] = 1
    want = ((points.double() - x.double().mean(0)) / torch.tensor([*x[:, :3].double().std(0, correction=0), 1])) @ weight[:4] + weight[
        4
    ] > 0
    assert torch.equal(logistic(x, fake, points), want.detach())
    assert 0.1 < want.double().mean() < 0.9


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_sets_that_are_apart_are_told_apart(classifier):
    accuracy, p_value = two_sample_test(normal(40, 100), normal(40, 100, seed=1) + 50, CLASSIFIERS[classifier])
    assert float(accuracy) == 1
    assert float(p_value) == pytest.approx(phi(-math.sqrt(40)), rel=1e-6)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_sets_of_one_point_are_not(classifier):
    x = torch.ones(40, 3)
    accuracy, p_value = two_sample_test(x, x, CLASSIFIERS[classifier])
    assert float(accuracy) == 0.5
    assert float(p_value) == 0.5


@pytest.mark.parametrize("seed", range(20))
def test_a_tie_of_nearest_neighbours_goes_to_neither_side(seed):
    """Against every distance, on a grid with many copies; and the same turned round when real and fake are."""
    generator = torch.Generator().manual_seed(seed)
    rows, others = (torch.randint(3, (n, 2), generator=generator).float() for n in (14, 9))
    fake = torch.rand(14, generator=generator) < 0.5
    distance = (others[:, None] - rows).square().sum(2)
    near = distance == distance.amin(1, keepdim=True)
    share = (near & fake).sum(1) / near.sum(1)
    said = nearest_neighbour(rows, fake, others)
    assert torch.equal(said, torch.where(share == 0.5, 0.5, (share > 0.5).double()))
    assert torch.equal(nearest_neighbour(rows, ~fake, others), 1 - said)
    assert torch.equal(nearest_neighbour(rows.flip(0), fake.flip(0), others), said), "the order of the rows decides nothing"


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_sets_of_few_points_that_are_alike_are_not_told_apart(classifier):
    """Half of the samples are copies of one point, the others of a second, in both sets; turning real and fake round changes nothing."""
    real = torch.tensor([[0.0], [1.0]]).repeat(500, 1)
    accuracy, p_value = two_sample_test(real, real, CLASSIFIERS[classifier])
    assert float(accuracy) == pytest.approx(0.5, abs=0.05)
    assert float(p_value) > 0.05
    point = torch.zeros(1000, 1)
    assert float(two_sample_test(point, point, CLASSIFIERS[classifier])[0]) == 0.5
    for rows in (torch.zeros(1, 1), torch.ones(1, 1)):
        said = CLASSIFIERS[classifier](torch.zeros(4, 1), torch.tensor([False, False, True, True]), rows)
        assert said.tolist() == [0.5], "neither real nor fake"


def test_figures_have_their_keys_and_do_not_depend_on_batches():
    real, fake = normal(900), normal(300, seed=1) + 0.5
    for classifier in CLASSIFIERS:
        got = figures(TwoSampleTest(classifier), real, fake)
        assert set(got) == {"c2st/net/accuracy", "c2st/net/p_value"}
        assert got == figures(TwoSampleTest(classifier), real, *fake.split(33))
        assert got == figures(TwoSampleTest(classifier, n=300), real, fake)
        assert got != figures(TwoSampleTest(classifier, n=100), real, fake)
        assert 0.55 < got["c2st/net/accuracy"] < 0.8
        assert got["c2st/net/p_value"] < 0.05
    assert TwoSampleTest().sentence({"c2st/net/accuracy": 0.5, "c2st/net/p_value": 0.25}).startswith("a classifier tells 50.0%")


def test_what_has_no_figure_is_refused():
    with pytest.raises(ValueError, match="equally many, not 5 and 6"):
        two_sample_test(normal(5), normal(6))
    with pytest.raises(ValueError, match="4 or more rows"):
        two_sample_test(normal(3), normal(3))
    with pytest.raises(UserError, match="needs at least 4 samples, and there are 3"):
        figures(TwoSampleTest(), normal(9), normal(3))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    two_sample_test(normal(50), normal(50, seed=1))
    assert torch.equal(before, torch.get_rng_state())
