"""Penalties on the logits of D."""

from typing import Annotated

import torch
from annotated_types import Ge, Lt
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


class LeCam(Penalty):
    """D: weight [E (D(x) - f)^2 + E (D(G(z)) - r)^2], r and f running averages of D's logits of real samples and fakes. Tseng et al. 2021.

    The averages start at 0. With each move that is due they become decay average + (1 - decay) mean over the batch of all processes, after
    the penalty of that move. The code of the authors leaves out a real logit below f and a fake one above r.
    """

    coupled = True
    real: Tensor
    fake: Tensor

    def __init__(
        self,
        weight: float | Schedule = 0.3,
        every: Annotated[int, Ge(1)] = 1,
        decay: Annotated[float, Ge(0), Lt(1)] = 0.99,
    ):
        super().__init__(weight, every)
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def discriminator(self, play: Play) -> Tensor:
        real, fake = (out.logits for out in play.on_both)
        value = (real - self.fake).square().mean() + (fake - self.real).square().mean()
        with torch.no_grad():
            self.real.lerp_(real.mean(), 1 - self.decay)
            self.fake.lerp_(fake.mean(), 1 - self.decay)
        return self.scaled(value)
