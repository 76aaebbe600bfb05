"""Mean and confidence interval of a figure over evaluation seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from gan_runner.evaluation.findings import Findings

T_975 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
)


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
        mean = means[key] = statistics.fmean(known)
        half = student_t(len(known) - 1) * statistics.stdev(known) / math.sqrt(len(known))
        intervals[key] = [mean - half, mean + half]
    return means, intervals


def student_t(freedom: int) -> float:
    """Approximate the 97.5 % quantile of Student's t distribution, to 0.2 %."""
    return T_975[freedom - 1] if freedom <= len(T_975) else 1.96 + 2.4 / freedom
