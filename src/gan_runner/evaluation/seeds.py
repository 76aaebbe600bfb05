"""Means, confidence intervals and tests of a figure over seeds: of evaluation for one run, of training for several."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from gan_runner.evaluation.findings import Findings


class Spread(NamedTuple):
    """A figure of N runs: mean, standard deviation (ddof 1) and the 95 % confidence interval of the mean (Student's t)."""

    n: int
    mean: float
    deviation: float | None  # None: there is one run
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one value of each run."""
        n, mean = len(values), statistics.fmean(values)
        if n < 2:
            return cls(n, mean, None, None)
        deviation = statistics.stdev(values)
        half = student_t(n - 1) * deviation / math.sqrt(n)
        return cls(n, mean, deviation, (mean - half, mean + half))


class Welch(NamedTuple):
    """Welch's t test of two means (Welch 1947): their difference, its 95 % confidence interval, t, degrees of freedom, two-sided p."""

    difference: float
    interval: tuple[float, float]
    t: float
    freedom: float
    p: float


def over_seeds(findings: Sequence[Findings]) -> tuple[dict[str, float | None], dict[str, list[float]]]:
    """Return the mean of every figure and its 95 % confidence interval (Student's t) over evaluations with different seeds."""
    means: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}
    for key in findings[0].numbers:
        values = [each.numbers.get(key) for each in findings]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            means[key] = None
            continue
        spread = Spread.of(known)
        means[key] = spread.mean
        if spread.interval is not None:
            intervals[key] = list(spread.interval)
    return means, intervals


def welch(a: Spread, b: Spread) -> Welch | None:
    """Test whether the means of two groups of runs differ, as `b - a`; None where a group has one run, or neither has any spread."""
    if a.deviation is None or b.deviation is None or a.deviation == b.deviation == 0:
        return None
    of_a, of_b = a.deviation**2 / a.n, b.deviation**2 / b.n
    error = math.sqrt(of_a + of_b)
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (a.n - 1) + of_b**2 / (b.n - 1))
    difference = b.mean - a.mean
    half = student_t(freedom) * error
    from scipy.special import stdtr  # imported here: it takes a tenth of a second

    t = difference / error
    return Welch(difference, (difference - half, difference + half), t, freedom, float(2 * stdtr(freedom, -abs(t))))


def student_t(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
