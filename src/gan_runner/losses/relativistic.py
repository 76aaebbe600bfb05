"""Relativistic losses: a real logit counts by how far it is above that of a fake. With softplus(t) = log(1 + exp(t))."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_runner.game.loss import Balanced, Loss
from gan_runner.game.play import Play
from gan_runner.schedules import Schedule


class RelativisticPaired(Loss):
    """D: E softplus(D(G(z)) - D(x));  G: E softplus(D(x) - D(G(z))). Jolicoeur-Martineau 2018.

    The pairs are row i of both batches. In a conditional run both have the same label. The best D is log(p_data / p_g) plus any constant.
    """

    paired = True
    shift_invariant = True

    def discriminator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return F.softplus(fake.logits - real.logits).mean()

    def generator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return F.softplus(real.logits - fake.logits).mean()


class RelativisticAverage(Loss):
    """D: E f(D(x) - E D(G(z))) + E f(E D(x) - D(G(z)));  G: the same with real and fake exchanged. Jolicoeur-Martineau 2018.

    hinge: f(t) is max(0, 1 - t) instead of softplus(-t). A mean is that of the batch of all processes, over all labels; each of several
    critics has its own.
    """

    coupled = True
    shift_invariant = True

    def __init__(self, hinge: bool = False, generator_weight: float | Schedule | Balanced = 1.0):
        super().__init__(generator_weight)
        self.hinge = hinge

    def above(self, high: Tensor, low: Tensor) -> Tensor:
        """Compute the cost of logits that should be above the mean of others, and of these others."""
        margins = torch.cat([high - low.mean(0), high.mean(0) - low])
        return 2 * (F.relu(1 - margins) if self.hinge else F.softplus(-margins)).mean()

    def discriminator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return self.above(real.logits, fake.logits)

    def generator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return self.above(fake.logits, real.logits)
