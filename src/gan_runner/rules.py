"""Who moves, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from gan_runner.game import Batches, Game, Logs


class Rule(nn.Module):
    """Plays one round. State that has to survive a resume is a buffer."""

    players: tuple[str, ...] = ("discriminator", "generator")
    """Who moves; every one of them needs a term that is due in every round."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    def build(self, game: Game) -> None:
        """Make the state that depends on the players."""

    def forward(self, game: Game, batches: Batches) -> Logs:
        """One round, by calls of game.move, or of game.gradients and game.descend."""
        raise NotImplementedError


class Alternate(Rule):
    """`d_steps` moves of D, then `g_steps` moves of G, each on a fresh batch. Goodfellow et al. 2014, algorithm 1."""

    def __init__(self, d_steps: int = 1, g_steps: int = 1):
        super().__init__()
        if d_steps < 1 or g_steps < 1:
            raise ValueError(f"both players must move: d_steps and g_steps are at least 1, not {d_steps} and {g_steps}")
        self.moves = ["discriminator"] * d_steps + ["generator"] * g_steps

    def forward(self, game: Game, batches: Batches) -> Logs:
        logs: Logs = {}
        for name in self.moves:
            logs |= game.move(name, next(batches))
        return logs


class Simultaneous(Rule):
    """Both differentiate at the same point and on the same batch, then both step. Mescheder et al. 2017."""

    def forward(self, game: Game, batches: Batches) -> Logs:
        batch = next(batches)
        logs: Logs = {}
        for name in self.players:
            logs |= game.gradients(name, batch)
        for name in self.players:
            game.descend(name)
        return logs
