"""Penalties on the logits of D."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.schedules import Schedule


class Drift(Penalty):
    """D: weight E D(x)^2 on real samples, for a critic that is defined up to a constant. Karras et al. 2018."""

    def __init__(self, weight: float | Schedule = 1e-3, every: Annotated[int, Ge(1)] = 1):
        super().__init__(weight, every)

    def discriminator(self, play: Play) -> Tensor:
        return self.scaled(play.on_real.logits.square().mean())


class LogitCentring(Penalty):
    """D: weight E (D(x) + D(G(z)))^2, for a loss of D(x) - D(G(z)) alone. Lin et al. 2025, "Adversarial Flow Models".

    x and G(z) are pairs of a batch; those of a conditional G have one label.
    """

    paired = True

    def __init__(self, weight: float | Schedule = 0.01, every: Annotated[int, Ge(1)] = 1):
        super().__init__(weight, every)

    def discriminator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return self.scaled((real.logits + fake.logits).square().mean())
