"""Precision, recall, density and coverage against closed forms and another implementation."""

import math
from types import SimpleNamespace

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.metrics.manifold import DensityCoverage, PrecisionRecall, density_coverage, precision_recall


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(n, f=2, seed=0):
    return torch.randn(n, f, generator=seeded(seed))


def square(n, seed=0):
    return torch.rand(n, 2, generator=seeded(seed))


def ring(n, modes, seed):
    angle = 2 * math.pi * (torch.arange(n) % modes) / 8
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * normal(n, seed=seed)


def floats(pair):
    return [float(value) for value in pair]


def figures(metric, real, *batches):
    metric.reference = SimpleNamespace(features=lambda: real, split="train")
    for batch in batches:
        metric.update(batch)
    return {key: float(value) for key, value in metric.figures(SimpleNamespace(name="net")).items()}


def expected_coverage(n, m, k):
    return 1 - math.prod((n - j) / (n + m - j) for j in range(1, k + 1))


def test_identical_sets_have_all_of_it():
    x = normal(300, 16)
    assert floats(precision_recall(x, x.flip(0))) == [1, 1]
    assert floats(density_coverage(x, x.flip(0))) == [1, 1]


def test_far_apart_sets_have_none_of_it():
    x = normal(300)
    assert floats(precision_recall(x, x + 100)) == [0, 0]
    assert floats(density_coverage(x, x + 100)) == [0, 0]


@pytest.mark.slow
def test_half_of_a_square_is_precise_and_recalls_half():
    real, fake = square(2000), square(2000, 1) * torch.tensor([0.5, 1])
    precision, recall = floats(precision_recall(real, fake, k=5))
    density, coverage = floats(density_coverage(real, fake, k=5))
    assert precision > 0.99
    assert recall == pytest.approx(0.5, abs=0.05)  # a strip as wide as a ball more than half, and the noise of the real sample
    assert density == pytest.approx(1, abs=0.06)
    assert coverage == pytest.approx(0.5, abs=0.04)
    assert floats(precision_recall(fake, real, k=5)) == [recall, precision]


def test_four_modes_of_eight():
    real, fake = ring(2000, 8, 0), ring(2000, 4, 1)
    precision, recall = floats(precision_recall(real, fake, k=5))
    density, coverage = floats(density_coverage(real, fake, k=5))
    assert precision == pytest.approx(0.992, abs=0.01)
    assert recall == pytest.approx(0.490, abs=0.012)
    assert density == pytest.approx(1.005, abs=0.06)
    assert coverage == pytest.approx(0.5 * expected_coverage(250, 500, 5), abs=0.01)


@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 5), (60, 20, 3), (20, 60, 1)])
def test_expectations_for_one_distribution(n, m, k):
    """They hold for whatever distribution: ranks of distances decide."""
    got = torch.tensor([floats(density_coverage(normal(n, 3, seed), normal(m, 3, 10_000 + seed), k)) for seed in range(400)])
    error = 4 * got.std(0) / 20
    assert error.max() < 0.05
    assert abs(got[:, 0].mean() - 1) < error[0]
    assert abs(got[:, 1].mean() - expected_coverage(n, m, k)) < error[1]


def test_one_point_is_precise_and_recalls_nothing():
    real, fake = normal(500), torch.zeros(500, 2)
    assert floats(precision_recall(real, fake)) == [1, 0]
    density, coverage = floats(density_coverage(real, fake))
    holding = (real.norm(dim=1)[:, None] < torch.cdist(real, real).sort(1).values[:, 5:6]).sum().item()
    assert density == pytest.approx(holding / 5)
    assert coverage == holding / 500


def test_a_copy_of_a_real_row_lies_on_the_edges_that_the_row_itself_defines():
    """Open balls do not count those edges, so that copies of all real rows have a density of 1 and not of (k + 1) / k."""
    x = normal(200, 64) + 50
    for k in (1, 5):
        assert floats(density_coverage(x, x.clone(), k)) == [1, 1]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_those_of_torch_fidelity(k):
    theirs = pytest.importorskip("torch_fidelity.metric_prc").prc_features_to_metric
    real, fake = normal(700, 32, 0), 0.9 * normal(500, 32, 1)
    fake[:20] = real[:20]
    for dtype in (torch.float32, torch.float64):
        want = theirs(fake.to(dtype), real.to(dtype), prc_neighborhood=k, prc_batch_size=10_000, save_cpu_ram=False, verbose=False)
        assert floats(precision_recall(real, fake, k)) == pytest.approx([want["precision"], want["recall"]], abs=1e-7)  # theirs is float32
        assert 0 < want["recall"] < want["precision"] < 1


@pytest.mark.parametrize("metric", [PrecisionRecall, DensityCoverage])
def test_batches_do_not_move_a_figure(metric):
    real, fake = normal(300), 0.7 * normal(200, seed=1)
    whole = figures(metric(), real, fake)
    assert whole == figures(metric(), real, *fake.split(33))
    assert min(whole.values()) > 0
    again = metric()
    figures(again, real, normal(200, seed=2))
    again.reset()
    assert figures(again, real, fake) == whole


def test_figures_have_their_keys():
    real, fake = normal(300), 0.7 * normal(200, seed=1)
    want = precision_recall(real, fake)
    assert figures(PrecisionRecall(), real, fake) == {"pr/net/precision": float(want[0]), "pr/net/recall": float(want[1])}
    want = density_coverage(real, fake, 2)
    assert figures(DensityCoverage(k=2), real, fake) == {"dc/net/density": float(want[0]), "dc/net/coverage": float(want[1])}
    assert PrecisionRecall().sentence({"pr/net/precision": 0.5, "pr/net/recall": None}) == "precision 0.500, recall null"


def test_fewer_real_samples_are_a_fixed_choice():
    """Not the first, for data may be sorted."""
    real, fake = normal(1000), normal(300, seed=1)
    real = real[real[:, 0].argsort()]
    some = figures(PrecisionRecall(n_real=300), real, fake)
    assert some == figures(PrecisionRecall(n_real=300), real, fake)
    assert some["pr/net/precision"] > figures(PrecisionRecall(), real[:300], fake)["pr/net/precision"] + 0.3
    assert figures(PrecisionRecall(n_real=5000), real, fake) == figures(PrecisionRecall(n_real=None), real, fake)


def test_what_has_no_figure_is_refused():
    x = normal(10)
    with pytest.raises(UserError, match="needs at least 4 samples, and there are 3"):
        figures(PrecisionRecall(), x, x[:3])
    with pytest.raises(UserError, match=r"needs at least 6 real samples \(train\), and there are 5"):
        figures(DensityCoverage(), x[:5], x)
    for bad in (math.nan, math.inf):
        for metric in (PrecisionRecall(), DensityCoverage()):
            with pytest.raises(UserError, match="NaN or infinite"):
                figures(metric, x, torch.cat([x, torch.full((1, 2), bad)]))
