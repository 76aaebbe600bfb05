"""A model of rater errors, the order of questions that it gives, and simulated raters.

The page contains the same model in JavaScript; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]  # float64

INTERCEPT, PRECISION = -1.0, 1.0  # of the normal prior: errors in about a quarter of the answers, no covariate known to matter


def design(x: Array) -> Array:
    """Prepend a column of ones to the covariates, N K."""
    return np.column_stack([np.ones(len(x)), x])


def fit(x: Array, wrong: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Fit a Bayesian logistic regression of errors on covariates (N K): mean and covariance (K + 1) of the Laplace approximation.

    P(wrong | x) = sigmoid(b0 + b x), b ~ N((-1, 0 ...), 1). Covariates should have unit scale.
    """
    rows, w = design(x), np.ones(len(wrong)) if weight is None else weight
    prior = np.zeros(rows.shape[1])
    prior[0] = INTERCEPT
    b = prior.copy()
    for _ in range(20):
        p = expected(x, b)
        information = (rows.T * (w * p * (1 - p))) @ rows + PRECISION * np.eye(len(b))
        b = b + np.linalg.solve(information, rows.T @ (w * (wrong - p)) - PRECISION * (b - prior)).clip(-2, 2)
    p = expected(x, b)
    return b, np.linalg.inv((rows.T * (w * p * (1 - p))) @ rows + PRECISION * np.eye(len(b)))


def expected(x: Array, b: Array) -> Array:
    """Compute the probability of an error, N."""
    return 1 / (1 + np.exp(-(design(x) @ b)))


def uncertainty(x: Array, b: Array, covariance: Array) -> Array:
    """Compute the standard deviation sqrt(p (1 - p)) of the next answer, N, with p averaged over the posterior of b (MacKay 1992).

    Sampling in proportion to it minimises the variance of the weighted error rate (Neyman 1934).
    """
    rows = design(x)
    variance = ((rows @ covariance) * rows).sum(1)
    p = 1 / (1 + np.exp(-(rows @ b) / np.sqrt(1 + np.pi * variance / 8)))
    return np.sqrt(p * (1 - p))


def chances(uncertain: Array, left: Array, epsilon: float) -> Array:
    """Compute each pair's probability of being next: proportional to its uncertainty, or with chance epsilon uniform over those left."""
    scores = uncertain * left
    return (1 - epsilon) * scores / scores.sum() + epsilon * left / left.sum()


def simulated(
    key: dict[str, Any], wrong: Callable[[Array], Array], seed: int, questions: int | None = None, rater: str = "simulated"
) -> dict[str, Any]:
    """Simulate a rater who errs with probability wrong(covariates), N; questions are in the order of the page.

    Errors are independent each time a pair is shown.
    """
    rng, x, n = np.random.default_rng(seed), np.array(key["covariates"]), len(key["real"]) - len(key["practice"])
    p, real = wrong(x), key["real"]

    def answer(kind: str, pair: int, q: float) -> dict[str, Any]:
        right = bool(rng.random() >= p[pair])
        return {"kind": kind, "pair": pair, "chose": real[pair] if right else 1 - real[pair], "q": q, "ms": 1000}

    answers = [answer("practice", pair, 1.0) for pair in key["practice"]]
    scores = np.ones(n)
    if key["order"] == "unsure" and answers:
        seen = np.array([float(a["chose"] != real[a["pair"]]) for a in answers])
        scores = uncertainty(x[:n], *fit(x[key["practice"]], seen))
    left, asked = np.ones(n), []
    for _ in range(key["questions"] if questions is None else questions):
        q = chances(scores, left, key["epsilon"])
        asked.append(int(rng.choice(n, p=q)))
        answers.append(answer("question", asked[-1], float(q[asked[-1]])))
        left[asked[-1]] = 0
    answers += [answer("repeat", pair, 1.0) for pair in asked[: key["repeats"]]]
    return {"version": 1, "page": key["page"], "rater": rater, "session": f"{seed:x}", "answers": answers}
