"""Metrics of features where sets are alike, constant, or not finite: the right figure, or one sentence."""

import math
from types import SimpleNamespace

import pytest
import torch

from gan_runner import metrics
from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments

N, F = 600, 8
METRICS = {
    "FrechetDistance": metrics.FrechetDistance,
    "IntraClassFrechet": metrics.IntraClassFrechet,
    "FrechetInfinity": lambda: metrics.FrechetInfinity(smallest=300, points=3),
    "KernelDistance": lambda: metrics.KernelDistance(subset_size=N),
    "PrecisionRecall": metrics.PrecisionRecall,
    "DensityCoverage": metrics.DensityCoverage,
    "PRD": metrics.PRD,
    "TwoSampleTest": metrics.TwoSampleTest,
    "FlawCritics": metrics.FlawCritics,
    "Memorisation": metrics.Memorisation,
    "Birthday": metrics.Birthday,
    "FrechetRatio": metrics.FrechetRatio,
    "CMMD": metrics.CMMD,
    "MIND": metrics.MIND,
    "SlicedWasserstein": metrics.SlicedWasserstein,
    "Authenticity": metrics.Authenticity,
    "CT": metrics.CT,
    "FLD": metrics.FLD,
}


def normal(seed=0):
    return torch.randn(N, F, generator=torch.Generator().manual_seed(seed))


CONSTANT = torch.full((N, F), 0.5)


def reference(rows):
    one_class = torch.zeros(len(rows), dtype=torch.long)
    found = SimpleNamespace(features=lambda: rows, moments=lambda: Moments.of(rows), labels=one_class, split="train", n=len(rows))
    found.of, found.class_names = lambda split: found, None
    return found


def figures(name, fake, real):
    metric = METRICS[name]()
    metric.reference = reference(real)
    values = {"features": fake, "logits": fake, "y": torch.zeros(len(fake), dtype=torch.long), "samples": fake}
    metric.update(*[values[field] for field in metric.reads])
    said = metric.figures(SimpleNamespace(name="net", named=lambda own, published: f"{own}/net"))
    return {key.partition("/net")[2].strip("/"): value.item() for key, value in said.items()}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["fake", "real"])
def test_what_is_not_finite_is_refused(name, bad, side):
    rows = {"fake": normal(), "real": normal(1)}
    rows[side][3, 2] = bad
    with pytest.raises(UserError, match=r"not finite|NaN or infinite"):
        figures(name, **rows)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("FrechetDistance", {"": 0}),
        ("IntraClassFrechet", {"": 0, "0": 0}),  # a single class
        ("PrecisionRecall", {"precision": 1, "recall": 1}),
        ("DensityCoverage", {"density": 1, "coverage": 1}),
        ("PRD", {"f8": 1, "f1_8": 1}),
        ("FlawCritics", {"count": 0}),
        ("Memorisation", {"closer_to_train": 0.5, "p_value": 1, "distance_ratio": 1, "near_duplicates": 0.01}),
        ("CMMD", {"": 0}),
        ("MIND", {"": 0}),
        ("SlicedWasserstein", {"": 0}),
        ("Authenticity", {"": 0}),
        ("CT", {"": 0}),  # the test samples are copies as well
        ("FrechetRatio", "are they the same"),
    ],
)
def test_identical_sets(name, want):
    if isinstance(want, str):
        with pytest.raises(UserError, match=want):
            figures(name, normal(), normal())
    else:
        assert figures(name, normal(), normal()) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("FrechetDistance", {"": 0}),
        ("IntraClassFrechet", {"": 0, "0": 0}),
        ("FrechetInfinity", {"": 0}),
        ("KernelDistance", {"": 0, "std": 0}),
        ("PrecisionRecall", {"precision": 1, "recall": 1}),
        ("DensityCoverage", "all have the same features"),
        ("PRD", {"f8": 1, "f1_8": 1}),
        ("TwoSampleTest", {"accuracy": 0.5, "p_value": 0.5}),
        ("FlawCritics", "all have the same features"),
        ("Memorisation", {"closer_to_train": 0.5, "p_value": 1, "distance_ratio": 1, "near_duplicates": 0.01}),
        ("FrechetRatio", "are they the same"),
        ("CMMD", {"": 0}),
        ("MIND", {"": 0}),
        ("SlicedWasserstein", {"": 0}),
        ("Authenticity", {"": 0}),
        ("CT", {"": 0}),
        ("FLD", "all have the same features"),
    ],
)
def test_one_image_over_and_over_on_both_sides(name, want):
    if isinstance(want, str):
        with pytest.raises(UserError, match=want):
            figures(name, CONSTANT, CONSTANT)
    else:
        got = figures(name, CONSTANT, CONSTANT)
        assert {key: got[key] for key in want} == pytest.approx(want, abs=1e-9)


def test_a_generator_of_one_image():
    real = normal()
    whole = (real.double().mean(0) - 0.5).square().sum() + torch.trace(torch.cov(real.T.double()))
    assert figures("FrechetDistance", CONSTANT, real)[""] == pytest.approx(whole.item(), rel=1e-9)
    assert figures("PrecisionRecall", CONSTANT, real) == {"precision": 1, "recall": 0}
    assert figures("DensityCoverage", CONSTANT, real)["coverage"] < 0.05
    assert figures("TwoSampleTest", CONSTANT, real)["p_value"] < 1e-9
    assert figures("Birthday", CONSTANT, real)["support"] == 1
