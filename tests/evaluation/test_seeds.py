"""Means, intervals and Welch's t test over seeds, against scipy.stats and tables."""

import math
import statistics

import pytest
from scipy import stats

from gan_runner.evaluation import Findings, over_seeds
from gan_runner.evaluation.seeds import Spread, student_t, welch

GROUPS = [
    ([1.0, 2.0, 6.0], [4.0, 4.5, 9.0, 11.0]),
    ([20.31, 21.9, 19.7], [20.4, 20.5, 20.45]),
    ([0.1, 0.2], [0.1, 0.3]),
    ([5.0, 5.0, 5.0], [4.0, 6.0, 7.0]),  # one group has no spread
]


def test_figures_over_seeds_have_an_interval():
    def finding(value):
        return Findings({"a": {"a": value, "b": None}}, {}, {}, {})

    means, intervals = over_seeds([finding(1.0), finding(2.0), finding(6.0)])
    assert means == {"a": 3.0, "b": None}
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)
    assert intervals == {"a": pytest.approx([3 - half, 3 + half], rel=1e-6)}


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (10, 2.2281), (30, 2.0423), (10**6, 1.95997)])
def test_student_t_is_that_of_tables(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, abs=5e-5)


@pytest.mark.parametrize(("a", "b"), GROUPS)
def test_welch_is_that_of_scipy(a, b):
    got, expected = welch(Spread.of(a), Spread.of(b)), stats.ttest_ind(b, a, equal_var=False)
    assert (got.t, got.freedom, got.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue), rel=1e-10)
    assert got.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-10)
    assert got.difference == pytest.approx(statistics.fmean(b) - statistics.fmean(a), rel=1e-12)


def test_runs_without_spread_are_not_tested():
    one, same = Spread.of([3.0]), Spread.of([1.0, 1.0])
    assert (one.deviation, one.interval) == (None, None)
    assert welch(one, Spread.of([1.0, 2.0])) is None
    assert welch(Spread.of([1.0, 2.0]), one) is None
    assert welch(same, Spread.of([2.0, 2.0])) is None
