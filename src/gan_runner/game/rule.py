"""Base class of rules: in which order the players move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Batches, Logs


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
        """Play one round, by calls of game.move, or of game.gradients and game.descend."""
        raise NotImplementedError
