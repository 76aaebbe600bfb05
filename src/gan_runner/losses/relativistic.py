"""Relativistic losses: a real logit counts by how far it is above that of a fake. With softplus(t) = log(1 + exp(t))."""

import torch.nn.functional as F
from torch import Tensor

from gan_runner.game.loss import Loss
from gan_runner.game.play import Play


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
