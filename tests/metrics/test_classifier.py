"""The classifier score against another library, and the order of its samples."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.metrics.classifier import ClassifierScore, classifier_score


def logits(n, k=10, seed=0):
    return 4 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def figures(metric, *batches, standard=False):
    for batch in batches:
        metric.update(batch)
    extractor = SimpleNamespace(named=lambda own, published: f"{published if standard else own}/net")
    return {key: value.item() for key, value in metric.figures(extractor).items()}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("n", "splits"), [(1000, 10), (997, 10), (50, 1)])
def test_torch_fidelity_says_the_same(n, splits, shuffle):
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    x = logits(n)
    want = isc.isc_features_to_metric(x, splits=splits, shuffle=shuffle)
    got = figures(ClassifierScore(splits, shuffle), *x.split(64))
    assert got["cs/net"] == pytest.approx(want["inception_score_mean"], rel=1e-12)
    assert got["cs/net/std"] == pytest.approx(want["inception_score_std"], rel=1e-9, abs=1e-12)


def test_samples_sorted_by_class():
    p = torch.eye(10).repeat_interleave(100, 0)
    assert figures(ClassifierScore(shuffle=False), p.log())["cs/net"] == pytest.approx(1, abs=1e-12)
    mixed = figures(ClassifierScore(), p.log())["cs/net"]
    assert mixed == pytest.approx(10 * math.exp(-9 / 200), rel=0.02)  # the entropy of 100 draws from K classes lacks (K - 1) / (2 100) nats
    assert figures(ClassifierScore(splits=1), p.log()) == {"cs/net": pytest.approx(10, rel=1e-12), "cs/net/std": 0}


@pytest.mark.parametrize(("epsilon", "others", "want"), [(0.2, "all", 4.2025487323), (0.1, "other", 9**0.8)])
def test_smoothed_labels(epsilon, others, want):
    """The share epsilon goes to all ten classes, or to the nine others: 4.2025 and 5.7995."""
    eye = torch.eye(10, dtype=torch.float64).repeat(20, 1)
    p = (1 - epsilon) * eye + epsilon * (1 / 10 if others == "all" else (1 - eye) / 9)
    assert figures(ClassifierScore(splits=1), p.log())["cs/net"] == pytest.approx(want, rel=1e-6)  # logits are kept in float32
    assert classifier_score(p.log(), 1).item() == pytest.approx(want, rel=1e-10)


def test_impossible_classes_add_nothing():
    x = logits(60)
    with_impossible = torch.cat([x, torch.full((60, 5), -math.inf)], 1)
    assert classifier_score(with_impossible, 3).tolist() == pytest.approx(classifier_score(x, 3).tolist(), rel=1e-12)
    sure = torch.full((20, 4), -math.inf)
    sure[torch.arange(20), torch.arange(20) % 4] = 0
    assert classifier_score(sure, 1).item() == pytest.approx(4, rel=1e-12)


def test_bad_logits_are_refused():
    for row in (math.nan, math.inf, -math.inf):
        x = logits(20)
        x[3] = row
        with pytest.raises(ValueError, match="nan or infinite"):
            classifier_score(x, 2)
        with pytest.raises(UserError, match=r"nan or infinite .*metric.classifier_score.splits=2"):
            figures(ClassifierScore(splits=2), x)
    with pytest.raises(UserError, match="over 10 splits needs at least as many samples, and there are 9"):
        figures(ClassifierScore(), logits(9))


def test_the_figure_does_not_depend_on_batches_and_draws_from_nobody():
    x = logits(123)
    mine, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    metric = ClassifierScore()
    want = figures(metric, x)
    metric.reset()
    assert figures(metric, *x.split(10)) == want
    assert want != figures(ClassifierScore(shuffle=False), x)
    assert list(figures(metric, standard=True)) == ["is/net", "is/net/std"]
    assert torch.equal(mine, torch.get_rng_state())
    assert (numpys == np.random.get_state()[1]).all()
