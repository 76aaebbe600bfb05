"""The hinge loss."""

import torch.nn.functional as F
from torch import Tensor

from gan_runner.game.loss import Loss
from gan_runner.game.play import Play


class Hinge(Loss):
    """D: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)));  G: -E D(G(z)). Lim & Ye 2017."""

    def discriminator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return F.relu(1 - real.logits).mean() + F.relu(1 + fake.logits).mean()

    def generator(self, play: Play) -> Tensor:
        return -play.on_fake.logits.mean()
