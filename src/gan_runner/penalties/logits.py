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
