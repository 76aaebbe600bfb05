"""D and G take turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from gan_runner.game.rule import Rule

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Batches, Logs


class Alternate(Rule):
    """`d_steps` moves of D, then `g_steps` moves of G, each on a fresh batch. Goodfellow et al. 2014, algorithm 1."""

    def __init__(self, d_steps: Annotated[int, Ge(1)] = 1, g_steps: Annotated[int, Ge(1)] = 1):
        super().__init__()
        self.moves = ["discriminator"] * d_steps + ["generator"] * g_steps

    def forward(self, game: Game, batches: Batches) -> Logs:
        logs: Logs = {}
        for name in self.moves:
            logs |= game.move(name, next(batches))
        return logs
