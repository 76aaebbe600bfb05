"""Figures of merit against closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch
import torchvision
import yaml

from gan_runner.callbacks import Evaluate
from gan_runner.config.groups import config_dir
from gan_runner.extractors import Identity, LeNet
from gan_runner.game.spec import Spec
from gan_runner.metrics import ClassifierScore, ModeCoverage, classifier_score, coverage, nearest_mode

SIGMA = 0.05 / 2.828
MODES = torch.cartesian_prod(torch.arange(-4.0, 5, 2), torch.arange(-4.0, 5, 2)) / 2.828
GRID = Spec((2,), 25, SimpleNamespace(modes=MODES, sigma=SIGMA))


def grid_samples(n, modes=25, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % modes
    return MODES[y] + SIGMA * torch.randn(n, 2, generator=generator), y


def figures(metric, *batches, extractor=None):
    for batch in batches:
        metric.update(batch)
    return {key: value.item() for key, value in metric.figures(extractor).items()}


@pytest.mark.parametrize(("radius", "share"), [(4.0, 0.999665), (3.0, 0.988891), (2.0, 0.864665)])
def test_real_samples_are_of_high_quality_as_often_as_a_normal_distribution_says(radius, share):
    assert 1 - math.exp(-(radius**2) / 2) == pytest.approx(share, abs=1e-6)
    n = 200_000
    got = figures(ModeCoverage(GRID, radius_sigmas=radius), *grid_samples(n)[0].split(20_000))
    assert got["modes/high_quality"] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / n))
    assert got["modes/covered"] == got["modes/covered_well"] == 25
    assert got["modes/kl"] == pytest.approx(0, abs=1e-4)


def test_mode_coverage_counts_modes():
    x, _ = grid_samples(1000, modes=10)
    got = figures(ModeCoverage(GRID), x, MODES[24:])
    assert got["modes/covered"] == 11  # the last by one sample
    assert got["modes/covered_well"] == 10  # which is not 1001 / (20 * 25)
    p = torch.tensor([0.0] * 14 + [100.0] * 10 + [1.0], dtype=torch.float64) / 1001
    assert got["modes/kl"] == pytest.approx(torch.special.xlogy(p, p * 25).sum().item(), abs=1e-3)

    half = figures(ModeCoverage(GRID), MODES[:5], MODES[:5] + 5 * SIGMA)  # five at their modes, five at 7 sigma
    assert half == {"modes/covered": 5, "modes/covered_well": 5, "modes/high_quality": 0.5, "modes/kl": pytest.approx(math.log(5))}

    edge = torch.tensor([[3.999, 0.0], [4.001, 0.0]]) * SIGMA + MODES[:1]
    assert figures(ModeCoverage(GRID), edge)["modes/high_quality"] == 0.5

    none = figures(ModeCoverage(GRID), torch.full((4, 2), 50.0))
    assert none["modes/covered"] == none["modes/covered_well"] == none["modes/high_quality"] == 0
    assert math.isnan(none["modes/kl"])


@pytest.mark.parametrize("name", ["gaussians25", "ring8"])
def test_a_collapsed_generator_is_never_the_best_of_a_recipe(name):
    """Whatever comes first: what best.pt follows is better for all modes at 87 % quality than for a few modes at 100 %."""
    config = yaml.safe_load((config_dir() / "experiment" / f"{name}.yaml").read_text())
    prefix, _, key = config["callback"]["evaluate"]["best"]["metric"].partition("/")
    mode = ModeCoverage(GRID).direction(key)
    assert prefix == "modes"
    m = {"gaussians25": 25, "ring8": 8}[name]
    n, generator = torch.tensor(10_000.0, dtype=torch.float64), torch.Generator().manual_seed(0)
    whole = torch.full((m,), 8700.0 / m, dtype=torch.float64) + 20 * torch.randn(m, generator=generator, dtype=torch.float64)

    def value(counts):
        return float(coverage(counts, n)[key])

    follower = Evaluate(best={"metric": f"modes/{key}", "mode": mode})
    for modes in range(1, m * 3 // 4):
        few = torch.zeros(m, dtype=torch.float64)
        few[:modes] = n / modes
        for first, second in ((few, whole), (whole, few)):
            follower.value = value(first)
            assert follower.is_better(value(second)) == (second is whole), modes
    assert math.isnan(value(torch.zeros(m, dtype=torch.float64))), "which is null, and no value to follow"
    one = torch.zeros(m, dtype=torch.float64).index_fill(0, torch.tensor([0]), 1.0)
    assert value(one) == pytest.approx(math.log(m)), "a single sample near a mode is the worst"


def test_where_the_figures_of_modes_mean_little_is_noted():
    x, _ = grid_samples(1000)
    for batch, said in (
        (x, []),
        (x[:200], ["200 samples for 25 modes"]),
        (x + 5 * SIGMA * (torch.arange(1000) % 4 > 0)[:, None], ["less than half"]),
    ):
        metric = ModeCoverage(GRID)
        figures(metric, batch)
        assert len(metric.notes()) == len(said)
        assert all(part in note for part, note in zip(said, metric.notes()))


def test_nearest_mode_knows_the_mode_of_a_sample():
    x, y = grid_samples(2000)
    index, distance = nearest_mode(x, MODES)
    assert torch.equal(index, y)
    assert torch.allclose(distance, (x - MODES[y]).norm(dim=1).double(), atol=1e-6)


def test_mode_coverage_of_parts_adds_up():
    """Its states are sums, so that processes can add them."""
    x, _ = grid_samples(999)
    whole, first, second = ModeCoverage(GRID), ModeCoverage(GRID), ModeCoverage(GRID)
    want = figures(whole, x)
    first.update(x[:400])
    second.update(x[400:])
    assert {name: state.reduction for name, state in first._states.items()} == {"counts": "sum", "n": "sum"}
    first.counts += second.counts
    first.n += second.n
    assert figures(first) == want
    whole.reset()
    assert figures(whole, x) == want
    assert {state.dtype for state in (whole.counts, whole.n)} == {torch.float64}


def test_mode_coverage_needs_modes():
    for exact in (None, SimpleNamespace(modes=None, sigma=0.1)):
        with pytest.raises(ValueError, match="needs data whose modes are known"):
            ModeCoverage(Spec((2,), None, exact))


# ---- classifier score -----------------------------------------------------------------------------------------------------------------


def balanced(k, times):
    return torch.eye(k, dtype=torch.float64).repeat(times, 1)


def score(p, splits=1):
    return classifier_score(p.log(), splits)


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_classifier_score_runs_from_one_to_the_number_of_classes(k):
    assert score(balanced(k, 3)).item() == pytest.approx(k, rel=1e-12)
    assert score(balanced(k, 3)[:1].expand(7, -1)).item() == pytest.approx(1, rel=1e-12)
    assert score(torch.full((7, k), 1 / k)).item() == pytest.approx(1, rel=1e-6)


def test_classifier_score_of_smoothed_labels():
    one_hot = balanced(10, 4)
    assert score(0.8 * one_hot + 0.02).item() == pytest.approx(4.2025487323, abs=1e-9)
    spread = score(0.9 * one_hot + 0.1 / 9 * (1 - one_hot)).item()
    assert spread == pytest.approx(9**0.8, abs=1e-9)
    assert spread == pytest.approx(5.7995, abs=1e-4)


def test_splits_sorted_by_class_score_one_and_not_nan():
    p = balanced(10, 1).repeat_interleave(5, 0)
    assert score(p, splits=10).tolist() == pytest.approx([1.0] * 10)
    assert score(p, splits=5).tolist() == pytest.approx([2.0] * 5)
    logits = 1e4 * p  # probabilities that are 0 in float64, from finite logits
    assert classifier_score(logits, 5).tolist() == pytest.approx([2.0] * 5)


def test_splits_need_not_divide_the_number_of_samples():
    p = torch.rand(11, 4, dtype=torch.float64).softmax(1)
    parts = [score(p[a:b]).item() for a, b in ((0, 3), (3, 7), (7, 11))]  # i * 11 // 3
    assert score(p, splits=3).tolist() == pytest.approx(parts, rel=1e-12)
    with pytest.raises(ValueError, match="at least as many samples, and there are 11"):
        score(p, splits=12)


def test_classifier_score_reports_mean_and_deviation_over_splits():
    p = torch.cat([balanced(4, 1), balanced(4, 1)[:1].expand(4, -1)])
    got = figures(ClassifierScore(splits=2, shuffle=False), p.log()[:3], p.log()[3:], extractor=Identity())
    assert got == {"cs/identity": pytest.approx(2.5), "cs/identity/std": pytest.approx(1.5)}


def test_classifier_score_does_not_depend_on_batches():
    logits = 5 * torch.randn(100, 10)
    want = figures(ClassifierScore(), logits, extractor=Identity())
    assert figures(ClassifierScore(), *logits.split(17), extractor=Identity()) == want
    assert ClassifierScore.reads == ("logits",)
    assert ModeCoverage.reads == ("samples",)


@pytest.mark.slow
@pytest.mark.data
def test_real_digits_score_near_ten(real_data):
    images = torchvision.datasets.MNIST(real_data, train=False).data[:, None]
    lenet = LeNet(str(real_data / "classifiers" / "lenet_epoch12_acc0.991.pth"))
    got = figures(ClassifierScore(), *(lenet(x).logits for x in images.split(1000)), extractor=lenet)
    assert got["cs/lenet"] == pytest.approx(9.77, abs=0.01)
