"""One player moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gan_runner.game.rule import Rule

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Batches, Logs


class Solo(Rule):
    """One move of `player` a round. For games of one network (flows, autoregressive models, autoencoders), or where the other is frozen."""

    def __init__(self, player: Literal["generator", "discriminator"] = "generator"):
        super().__init__()
        self.players = (player,)

    def forward(self, game: Game, batches: Batches) -> Logs:
        return game.move(self.players[0], next(batches))
