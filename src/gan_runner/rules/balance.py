"""The player that is ahead waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from gan_runner import distributed
from gan_runner.game.rule import Rule
from gan_runner.rules.before import Before

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Batches, Logs


class Balance(Rule):
    """D moves, then G; D waits while a running mean of its loss is below `low`, G while it is above `high`.

    mean <- decay mean + (1 - decay) loss of D, after every round; at first it is (low + high) / 2, so that both move. The defaults are for
    the logistic losses: .45 is that of a D that gives the right answer a probability of .8, 1.39 that of one that knows nothing. A player
    that waits is differentiated, and its step is undone: D's loss is measured in every round, and a round takes as long. `moved/d` and
    `moved/g` are logged: 1 where the player moved. Running averages of penalties and the statistics of batch norm go on while it waits.
    """

    mean: Tensor

    def __init__(self, low: float = 0.45, high: float = 1.39, decay: Annotated[float, Ge(0), Lt(1)] = 0.9):
        super().__init__()
        if low > high:
            raise ValueError(f"low={low} is above high={high}: then neither player would move at a loss between them")
        self.low, self.high, self.decay = low, high, decay
        self.register_buffer("mean", torch.tensor((low + high) / 2))

    def build(self, game: Game) -> None:
        if not game.terms["loss"].has_summand("discriminator"):
            raise ValueError(f"balance measures the loss of D, and {type(game.terms['loss']).__name__} has none: use rule=alternate")

    def forward(self, game: Game, batches: Batches) -> Logs:
        moves = {"discriminator": self.mean >= self.low, "generator": self.mean <= self.high}
        logs: Logs = {}
        for name, moved in moves.items():
            before = Before(game.players[name])
            logs |= game.move(name, next(batches))
            before.restore_unless(moved)
            logs[f"moved/{name[0]}"] = moved.float()
        loss = distributed.mean({"loss": logs["loss/d"]})["loss"]
        self.mean.lerp_(torch.where(loss.isfinite(), loss, self.mean), 1 - self.decay)  # a step that overflowed in float16 is skipped
        return logs
