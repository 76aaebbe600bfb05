"""The Glicko-2 rating system. Glickman 2013, "Example of the Glicko-2 system"; the step numbers are that paper's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

SCALE = 400 / math.log(10)  # 173.7178: points of a rating per unit of the internal scale
MEAN = 1500.0


class Rating(NamedTuple):
    """Estimate of a player's strength: rating +- deviation in points, and its volatility. By default that of a new player."""

    rating: float = MEAN
    deviation: float = 350.0
    volatility: float = 0.06


class Result(NamedTuple):
    """Result of a game: 1 for a win, 1/2 for a draw, 0 for a loss, or a number between."""

    opponent: Rating
    score: float


def expected_score(player: Rating, opponent: Rating) -> float:
    """Predict the probability of a win, 0 ... 1, from the ratings; closer to 1/2 the less is known of the opponent. Step 3, E."""
    return 1 / (1 + math.exp(-_log_odds(player, opponent)))


def rated(player: Rating, results: Iterable[Result], tau: float = 0.5) -> Rating:
    """Update the rating after a period with these results. tau: how much the volatility may change, 0.3 ... 1.2.

    Ratings of opponents are those before the period. Without a game only the deviation grows. The update is one step of Newton's method
    from the old rating. It diverges with hundreds of games in a period (the paper uses 10 to 15), or after a win whose predicted
    probability was one in thousands.
    """
    phi, information, surprise = player.deviation / SCALE, 0.0, 0.0  # step 2
    for opponent, score in results:
        weight, log_odds = _weight(opponent), _log_odds(player, opponent)
        information += (weight / (2 * math.cosh(log_odds / 2))) ** 2  # g^2 E (1 - E), but not 0 among very unequal players
        surprise += weight * (score - expected_score(player, opponent))
    if information == 0:
        return player._replace(deviation=SCALE * math.hypot(phi, player.volatility))  # step 6
    variance = 1 / information  # step 3
    volatility = _volatility(player.volatility, phi, variance, variance * surprise, tau)  # steps 4 and 5
    spread = math.hypot(phi, volatility)  # step 6
    phi = 1 / math.sqrt(1 / spread**2 + information)  # step 7
    return Rating(player.rating + SCALE * phi**2 * surprise, SCALE * phi, volatility)  # step 8


def _weight(opponent: Rating) -> float:
    """Return g(phi), step 3: the weight of a game against this opponent, 0 ... 1."""
    return 1 / math.sqrt(1 + 3 * (opponent.deviation / SCALE / math.pi) ** 2)


def _log_odds(player: Rating, opponent: Rating) -> float:
    return _weight(opponent) * (player.rating - opponent.rating) / SCALE


def _volatility(before: float, phi: float, variance: float, improvement: float, tau: float) -> float:
    """Solve step 5: the root of f by the Illinois algorithm, on the scale of a = log volatility^2."""
    a, square = math.log(before**2), improvement**2

    def f(x: float) -> float:
        spread = phi**2 + variance + math.exp(x)
        return math.exp(x) * (square - spread) / (2 * spread**2) - (x - a) / tau**2

    low = a
    if square > phi**2 + variance:
        high = math.log(square - phi**2 - variance)
    else:
        high = a - tau
        while f(high) < 0:
            high -= tau
    at_low, at_high = f(low), f(high)
    while abs(high - low) > 1e-6:
        middle = low + (low - high) * at_low / (at_high - at_low)
        at_middle = f(middle)
        if at_middle * at_high <= 0:
            low, at_low = high, at_high
        else:
            at_low /= 2
        high, at_high = middle, at_middle
    return math.exp(low / 2)
