"""Compute error rates with intervals from answers and their key.

The estimate. A page shows M of the N pairs of its pool; the pair at turn t has a known probability q_t among those left. Weighting
answer t by

    v_t = 1 + (N - M) / (N - t) * (1 / ((N - t + 1) q_t) - 1)

makes the mean of v_t f(pair) unbiased for the mean of f over the pool, for any q_t (Farquhar, Gal and Rainforth 2021); in
random order all v_t are 1. With a model m of the rater's errors on the covariates of a pair, fitted to the weighted answers, the error
rate is

    mean over the pool of m(x)  +  mean over the answers of v_t (wrong_t - m(x_t)),

which does not require a correct m: a wrong model widens the interval, without bias (a difference estimator; Saerndal, Swensson and
Wretman 1992). If errors depend on the covariates, this needs half to five sixths of the answers of counting. Nearly all of the gain is
due to m; the order of questions adds a few per cent (simulations: 0 to 10).

In a choice between two, a wrong answer is one fake taken for real and one real taken for fake, so this is HYPE_infinity, the share of both
kinds of mistakes (Zhou et al. 2019). If fake and real cannot be distinguished, half of the answers are wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gan_runner.commands.settings import Rate
from gan_runner.errors import UserError, printable
from gan_runner.rating.raters import Array, expected, fit
from gan_runner.storage import files
from gan_runner.storage.files import typed
from gan_runner.storage.untrusted import number, whole

Z = 1.959964  # 95 %
PAIRS, COVARIATES = 50_000, 16  # of a page, at most; the interval draws all pairs 2,000 times
LONGEST = 2**26  # bytes of a file


class Session(NamedTuple):
    """The answers of one rater to M questions: the pairs, the probability q of each, whether the answer is wrong, its time in ms."""

    rater: str
    name: str
    pairs: Any
    q: Array
    wrong: Array
    ms: Array
    exposure: Array
    practice: tuple[int, int]  # right, of how many
    repeats: tuple[int, int]  # the same answer as before, of how many


def weights(q: Array, n: int) -> Array:
    """Compute the weights v_t of the answers of a session, M, from their probabilities q_t and the number n of pairs in the pool."""
    m, t = len(q), np.arange(1, len(q) + 1)
    return 1 + (n - m) / np.maximum(n - t, 1) * (1 / ((n - t + 1) * q) - 1)


def shares(session: Session, covariates: Array) -> Array:
    """Compute the contribution of each pair of the pool (covariates: N K) to the error rate of a rater, N: the sum is the estimate."""
    n, m = len(covariates), len(session.pairs)
    v, x = weights(session.q, n), covariates[session.pairs]
    b, _ = fit(x, session.wrong, v)
    parts = expected(covariates, b) / n
    np.add.at(parts, session.pairs, v * (session.wrong - expected(x, b)) / m)
    return parts


def interval(parts: Array, answers: int, draws: int, seed: int, coefficients: int = 1) -> tuple[float, float, float]:
    """Compute the error rate and its 95 % interval from the shares of R raters (R N), who gave `answers` answers in total.

    Bootstrap over pairs and, if there are several, over raters. The two variances are added, minus that of single answers, which is in
    both (Cameron, Gelbach and Miller 2011). R - 1 of R raters are drawn (Rao and Wu 1988), otherwise the spread of few raters would be
    too small; Student's t (Satterthwaite 1946) accounts for the uncertainty of this spread. The interval is Wilson's (1927) for the
    number of answers with this variance: it stays within 0 and 1, and has a width also without errors.
    """
    rng, (r, n) = np.random.default_rng(seed), parts.shape
    rate = float(np.clip(parts.sum(1).mean(), 0, 1))
    variance, z = float((rng.multinomial(n, np.full(n, 1 / n), draws) @ parts.mean(0)).var()), Z
    if r > 1:
        raters = float((rng.multinomial(r - 1, np.full(r, 1 / r), draws) @ parts.sum(1) / (r - 1)).var())
        both = float(parts.var(1).sum()) * n / r**2
        variance = max(variance + raters - both, variance, raters)
        freedom = (r - 1) * (variance / max(raters, 1e-12)) ** 2
        z = float(np.quantile(np.abs(rng.standard_t(min(freedom, 1e6), 100 * draws)), 0.95))
    variance *= answers / max(answers - r * coefficients, 1)
    worth = rate * (1 - rate) / variance if variance > 0 else math.inf
    worth = min(worth, 4 * answers) if 0 < rate < 1 else answers  # few errors may be spread so evenly that there seems to be no variance
    middle, half = rate + z**2 / (2 * worth), z * math.sqrt(rate * (1 - rate) / worth + z**2 / (4 * worth**2))
    return rate, max((middle - half) / (1 + z**2 / worth), 0.0), min((middle + half) / (1 + z**2 / worth), 1.0)


def threshold(exposure: Array) -> float:
    """Estimate the threshold of a staircase, ms: the mean over the second half of its turns (HYPE_time uses their mode)."""
    return float(exposure[len(exposure) // 2 :].mean())


def read_key(path: Path) -> dict[str, Any]:
    """Read the key that `gan_runner.rating.page` wrote beside a page. UserError where it is none."""
    key = read_json(path)
    if not isinstance(key, dict) or key.get("version") != 1 or not {"page", "real", "covariates"} <= key.keys():
        raise UserError(f"{path} is not the key of a rating page")
    if flaw := flaw_of(key):
        raise UserError(f"{path} is damaged: {flaw}; the key that gan-rate wrote beside the page is needed")
    return key


def flaw_of(key: dict[str, Any]) -> str | None:
    """Return what is wrong with a key; None if all values are valid for a page."""
    real, practice, covariates, n = key["real"], key.get("practice"), key["covariates"], whole(key.get("questions"))
    if not isinstance(key["page"], str) or "source" not in key or not isinstance(key.get("staircase", ""), dict | None):
        return "page, source or staircase is missing or of another kind"
    if not isinstance(real, list) or not all(type(each) is int and each in (0, 1) for each in real) or len(real) > PAIRS:
        return f"real has to be 0 or 1 for each pair, of no more than {PAIRS:,}"
    if not isinstance(practice, list) or not all(type(each) is int for each in practice) or not 0 <= len(practice) < len(real):
        return "practice has to be the numbers of some of the pairs"
    if sorted(practice) != list(range(len(real) - len(practice), len(real))):
        return "the pairs for practice are not the last ones"
    if not isinstance(covariates, list) or len(covariates) != len(real) or not all(isinstance(each, list) for each in covariates):
        return "covariates have to be a list of numbers for each pair"
    if {len(each) for each in covariates} != {min(len(covariates[0]), COVARIATES)} or any(number(x) is None for c in covariates for x in c):
        return f"covariates have to be finite numbers, as many for each pair, and no more than {COVARIATES}"
    return None if n else "questions has to be a whole number, 1 or more"


def read_json(path: Path) -> Any:
    try:
        with open(typed(path), "rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > LONGEST:
        raise UserError(f"{path} has more than {LONGEST // 2**20} MiB, and is not of a rating page")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({printable(str(error), 100)}); was it cut short? Ask for it again") from error


def session(content: Any, key: dict[str, Any], path: Path) -> Session:
    """Check the answers that a page saved against the key. UserError if they are of another page, or damaged."""
    pool, real = len(key["real"]) - len(key["practice"]), key["real"]
    try:
        if content["page"] != key["page"]:
            there = printable(str(content["page"]), 40)
            raise UserError(f"{path} answers page {there}, and the key is that of page {printable(key['page'], 40)}")
        rater, name = (printable(content[each], 100) for each in ("rater", "session"))
        if not isinstance(content["rater"], str) or not isinstance(content["session"], str):
            raise TypeError("rater and session have to be text")
        of = {kind: [a for a in content["answers"] if a["kind"] == kind] for kind in ("practice", "question", "repeat")}
        asked, first = of["question"], {a["pair"]: a["chose"] for a in of["question"]}
        ranges = {"practice": range(len(real)), "question": range(pool), "repeat": range(pool)}
        sound = all(type(a["pair"]) is int and a["pair"] in ranges[k] and a["chose"] in (0, 1) for k in of for a in of[k])
        if not sound or len(first) < len(asked):
            raise UserError(f"{path} is damaged: a pair that was not asked, was asked twice, or has no answer")
        if not asked:
            raise UserError(f"{path}: {rater} has answered no question yet, only {len(of['practice'])} for practice; nothing to score")
        return Session(
            rater=rater,
            name=name,
            pairs=np.array(list(first)),
            q=np.array([value_of(a, "q", 1 / (100 * PAIRS), 1) for a in asked]),
            wrong=np.array([float(a["chose"] != real[a["pair"]]) for a in asked]),
            ms=np.array([value_of(a, "ms", 0, 1e12) for a in asked]),
            exposure=np.array([value_of(a, "exposure", 0, 1e6) if key["staircase"] else math.nan for a in asked]),
            practice=(sum(a["chose"] == real[a["pair"]] for a in of["practice"]), len(of["practice"])),
            repeats=(sum(a["chose"] == first[a["pair"]] for a in of["repeat"]), len(of["repeat"])),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = printable(f"{type(error).__name__}: {error}", 100)
        raise UserError(f"{path} does not hold the answers of a rating page ({reason})") from error


def value_of(answer: dict[str, Any], name: str, least: float, most: float) -> float:
    """Return a number of an answer. ValueError unless it is between `least` and `most`."""
    found = number(answer[name])
    if found is None or not least <= found <= most:
        raise ValueError(f"{name} is {answer[name]!r}, and has to be {least:g} to {most:g}")
    return found


def scored(key: dict[str, Any], sessions: Sequence[Session], seed: int = 0, draws: int = 2000) -> dict[str, Any]:
    """Compute error rates and intervals of each rater and of all together; for a staircase, thresholds instead."""
    names = [s.name for s in sessions]
    if again := sorted({s.rater for s in sessions if names.count(s.name) > 1}):
        raise UserError(f"the answers of {', '.join(again)} are there twice; name each session once")
    covariates = np.array(key["covariates"], dtype=np.float64)[: len(key["real"]) - len(key["practice"])]
    raters, parts = [], []
    for s in sessions:
        one: dict[str, Any] = {"rater": s.rater, "answers": len(s.pairs), "asked": key["questions"], "median_ms": float(np.median(s.ms))}
        one |= {"consistent": s.repeats, "practice": s.practice}
        if key["staircase"]:
            one["threshold_ms"] = threshold(s.exposure)
        else:
            parts.append(shares(s, covariates))
            one["error"], *one["interval"] = interval(parts[-1][None], len(s.pairs), draws, seed, covariates.shape[1] + 1)
        raters.append(one)
    whole: dict[str, Any] = {"raters": len(sessions), "answers": sum(len(s.pairs) for s in sessions), "chance": 0.5}
    if key["staircase"]:
        times, rng = np.array([one["threshold_ms"] for one in raters]), np.random.default_rng(seed)
        means = rng.choice(times, (draws, max(len(times) - 1, 1))).mean(1)
        whole |= {"threshold_ms": float(times.mean()), "interval": np.quantile(means, (0.025, 0.975)).tolist() if len(times) > 1 else None}
    else:
        whole["error"], *whole["interval"] = interval(np.array(parts), whole["answers"], draws, seed, covariates.shape[1] + 1)
    return {"page": key["page"], "source": key["source"], "overall": whole, "by_rater": raters}


def report(found: dict[str, Any]) -> list[str]:
    """Format the score as lines of text."""

    def figure(one: dict[str, Any]) -> str:
        low, high = one["interval"] if one.get("interval") else (math.nan, math.nan)
        if "threshold_ms" in one:
            return f"{one['threshold_ms']:4.0f} ms" + ("" if math.isnan(low) else f" ({low:.0f} to {high:.0f})")
        return f"{one['error']:6.1%} ({low:.1%} to {high:.1%})"

    whole, lines = found["overall"], []
    meaning = (
        "exposure at which three of four answers are right" if "threshold_ms" in whole else "wrong; 50 % where real and fake look alike"
    )
    lines.append(f"{figure(whole)}  {meaning}; {whole['answers']} answers of {whole['raters']} rater(s), 95 % interval")
    if whole["raters"] < 3:
        lines.append("  note: the interval is about these raters; three or more are needed to show how far others may differ")
    for one in found["by_rater"]:
        more = [f"{one[name][0]} of {one[name][1]} {what}" for name, what in CHECKS.items() if one[name][1]]
        lines.append(
            f"  {figure(one)}  {one['rater']}: {one['answers']} answers, {one['median_ms'] / 1000:.1f} s each"
            + "".join(f", {m}" for m in more)
        )
        if one["answers"] < one["asked"]:
            lines.append(
                f"  note: {one['rater']} answered {one['answers']} of {one['asked']} questions; these are scored, and the interval is wider"
            )
        same, again = one["consistent"]
        if again >= 4 and same < again / 2:
            lines.append(f"  note: {one['rater']} contradicts most of their own earlier answers; were they guessing?")
    return lines


CHECKS = {"consistent": "repeats answered alike", "practice": "right in practice"}


def score(settings: Rate, say: Callable[[str], None]) -> None:
    """Score the files `answers` with the file `key` (None: the one in the folder `out`); print it, and write score.json beside the key."""
    path = Path(settings.key or Path(settings.out) / "key.json")
    key = read_key(path)
    sessions = [session(read_json(Path(name)), key, Path(name)) for name in settings.answers]
    if not sessions:
        raise UserError("there are no answers to score: 'answers=[FILE, ...]' names what raters saved")
    out = path.with_name("score.json")
    try:
        with np.errstate(all="ignore"):
            found = scored(key, sessions, settings.seed)
        data = json.dumps(found, indent=2, allow_nan=False)
    except (np.linalg.LinAlgError, ValueError, OverflowError) as error:  # covariates or chances that no page has
        raise UserError(f"these answers and {path} make no error rate: their chances q or covariates are none that a page has") from error
    files.write_bytes(out, data.encode())
    for line in report(found):
        say(line)
    say(f"score: {out}")
