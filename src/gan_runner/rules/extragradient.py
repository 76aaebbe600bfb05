"""Both players look one step ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_runner.rules.before import Before
from gan_runner.rules.simultaneous import Simultaneous

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Batches, Logs


class Extragradient(Simultaneous):
    """Both take a step, differentiate where it leads, go back, and step with these gradients. Korpelevich 1976; GANs: Gidel et al. 2019.

    With SGD of rate h: w' = w - h g(w), then w - h g(w'). With another optimiser both steps are its own update. Its state (moments, counts)
    is copied before the first step and restored before the second, so that the look-ahead leaves nothing in it. Each step has a batch of
    its own. The losses in the log are those at w'. A round costs as much as two of `simultaneous`.
    """

    def forward(self, game: Game, batches: Batches) -> Logs:
        before = [Before(game.players[name]) for name in self.players]
        super().forward(game, batches)
        logs = self.differentiate(game, batches)
        for each in before:
            each.restore()
        self.descend(game)
        return logs
