"""The Wasserstein loss."""

from torch import Tensor

from gan_runner.game.loss import Loss
from gan_runner.game.play import Play


class Wasserstein(Loss):
    """D: E D(G(z)) - E D(x);  G: -E D(G(z)). Arjovsky et al. 2017.

    It is a distance only while something keeps D Lipschitz: the trick weight_clip or spectral_norm, or the penalty gradient_penalty.
    """

    shift_invariant = True

    def discriminator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return fake.logits.mean() - real.logits.mean()

    def generator(self, play: Play) -> Tensor:
        return -play.on_fake.logits.mean()
