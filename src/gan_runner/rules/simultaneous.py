"""D and G step at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_runner.game.rule import Rule

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Batches, Logs


class Simultaneous(Rule):
    """Both differentiate at the same point and on the same batch, then both step. Mescheder et al. 2017."""

    def forward(self, game: Game, batches: Batches) -> Logs:
        logs = self.differentiate(game, batches)
        self.descend(game)
        return logs

    def differentiate(self, game: Game, batches: Batches) -> Logs:
        """Fill the gradients of both at one point, on one batch."""
        batch = next(batches)
        logs: Logs = {}
        for name in self.players:
            logs |= game.gradients(name, batch)
        return logs

    def descend(self, game: Game) -> None:
        """Let both step by their gradients."""
        for name in self.players:
            game.descend(name)
