"""The Frechet distance over that of held-out samples."""

import pytest
import torch

from feature_rows import EXTRACTOR, Real, measured, normal
from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.metrics import FrechetRatio, frechet


def test_it_is_the_ratio_of_two_distances_by_as_many_samples():
    train, test, fake = normal(900, 6), normal(300, 6, 1), 1.5 * normal(300, 6, 2)
    want = frechet(Moments.of(fake), Moments.of(train)) / frechet(Moments.of(test), Moments.of(train))
    assert measured(FrechetRatio(), Real(train, test), fake) == {"": pytest.approx(float(want), rel=1e-12), "n": 300}


def test_test_samples_themselves_have_1():
    train, test = normal(900, 6), normal(300, 6, 1)
    assert measured(FrechetRatio(), Real(train, test), test.flip(0))[""] == pytest.approx(1, rel=1e-9)


def test_a_generator_that_is_the_data_has_1():
    """In expectation of both distances: the deviation of one ratio is as great as that of the distance of a few features."""
    ratios = [
        measured(FrechetRatio(), Real(normal(4000, 64, 3 * s), normal(1000, 64, 3 * s + 1)), normal(1000, 64, 3 * s + 2))[""]
        for s in range(3)
    ]
    assert ratios == pytest.approx([1, 1, 1], abs=0.05)


@pytest.mark.parametrize(("fakes", "tests"), [(700, 200), (200, 700)])
def test_both_distances_are_of_as_many_samples(fakes, tests):
    """The bias from their number would make the smaller set worse."""
    got = measured(FrechetRatio(), Real(normal(3000, 64), normal(tests, 64, 1)), normal(fakes, 64, 2))
    assert got == {"": pytest.approx(1, abs=0.1), "n": 200}


def test_a_shift_adds_its_square():
    train, test = normal(900, 6, dtype=torch.float64), normal(300, 6, 1, torch.float64)
    train, test = train - train.mean(0), test - test.mean(0)
    shift = torch.tensor([3.0, 0, 0, 4, 0, 0], dtype=torch.float64)
    held_out = float(frechet(Moments.of(test), Moments.of(train)))
    assert measured(FrechetRatio(), Real(train, test), test + shift)[""] == pytest.approx(1 + 25 / held_out, rel=1e-9)


def test_figures_do_not_depend_on_batches_nor_on_the_split_of_the_reference():
    train, test, fake = normal(900), normal(300, seed=1), 2 * normal(400, seed=2)
    whole = measured(FrechetRatio(), Real(train, test), fake)
    assert whole == measured(FrechetRatio(), Real(train, test, split="test"), *fake.split(77))
    metric = FrechetRatio()
    assert "times as far from the training set as 300" in metric.sentence({"fd_ratio/net": 2.0, "fd_ratio/net/n": 300.0})
    assert metric.prefix(EXTRACTOR) == "fd_ratio/net"


def test_too_few_samples_are_noted():
    metric = FrechetRatio()
    measured(metric, Real(normal(90, 20), normal(15, 20, 1)), normal(30, 20, 2))
    assert metric.notes() == ["15 samples on each side for 20 features: with no more samples than features, bias is most of the distance"]


def test_what_has_no_ratio_is_refused():
    rows = normal(50)
    with pytest.raises(UserError, match="are they the same"):
        measured(FrechetRatio(), Real(torch.ones(9, 2), torch.ones(9, 2)), rows[:, :2])
    with pytest.raises(UserError, match="there is no test split"):
        measured(FrechetRatio(), Real(rows), rows)
    with pytest.raises(UserError, match="needs at least 2 samples, and there are 1"):
        measured(FrechetRatio(), Real(rows, rows), rows[:1])
