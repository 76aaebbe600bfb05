"""G answers an old D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.draws import Draws
from gan_runner.game.rule import Rule

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Batches, Logs

SHARE = 0.999  # of the Poisson delays that are followed; a longer one counts as the longest of these


class Stale(Rule):
    """D moves against the newest G, then G against the D of `delay` moves of D ago, as with asynchronous workers.

    poisson: the delay of each round is drawn from the Poisson distribution of mean `delay`. In the first rounds, where D has not moved
    that often, G meets the D of the start. delay=0 is one round of `alternate`, bit for bit.

    Only the weights of D are old; its buffers, such as the running statistics of batch norm, are the newest. The state of the run has
    1 + the longest delay copies of these weights.
    """

    past: Tensor
    """Weights of D after its last moves, moves W: move t is in row t % len(past)."""

    moves: Tensor
    """How often D has moved."""

    reached: Tensor
    """Probability of a drawn delay of at most 0, 1, ...; without the longest one."""

    def __init__(self, delay: Annotated[int, Ge(0)] = 1, poisson: bool = False):
        super().__init__()
        self.delay, self.poisson = delay, poisson
        reached = cumulated(delay) if poisson else []
        self.longest = len(reached) if poisson else delay
        self.register_buffer("reached", torch.tensor(reached), persistent=False)

    def build(self, game: Game) -> None:
        start = weights_of_d(game)
        self.register_buffer("past", flat(start).repeat(self.longest + 1, 1))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64, device=start[0].device))

    def forward(self, game: Game, batches: Batches) -> Logs:
        logs = game.move("discriminator", next(batches))
        weights, n = weights_of_d(game), len(self.past)
        newest = flat(weights)
        self.moves.add_(1)
        self.past.index_copy_(0, self.moves[None] % n, newest[None])
        fill(weights, self.past.index_select(0, (self.moves[None] - self.age(game)) % n)[0])
        logs |= game.move("generator", next(batches))
        fill(weights, newest)
        return logs

    def age(self, game: Game) -> Tensor | int:
        """Draw the delay of this round; the same in all processes."""
        return (Draws(game.generator, 1).uniform() >= self.reached).sum() if self.poisson else self.delay


def cumulated(mean: float) -> list[float]:
    """Return P(k <= 0), P(k <= 1), ... of a Poisson variable, as far as they are below SHARE."""
    found, k, total = [], 0, math.exp(-mean)
    while total < SHARE:
        found.append(total)
        k += 1
        total += math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
    return found


def weights_of_d(game: Game) -> list[torch.nn.Parameter]:
    """List all that the optimiser of D moves."""
    return list(game.players["discriminator"].weights())


def flat(weights: Sequence[Tensor]) -> Tensor:
    """Copy weights into one vector."""
    return torch.cat([p.detach().flatten() for p in weights])


@torch.no_grad()
def fill(weights: Sequence[Tensor], vector: Tensor) -> None:
    """Copy a vector that `flat` made into the weights."""
    parts = vector.split([p.numel() for p in weights])
    torch._foreach_copy_(list(weights), [part.view_as(p) for part, p in zip(parts, weights, strict=True)])
