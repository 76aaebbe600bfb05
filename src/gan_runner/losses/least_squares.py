"""The least-squares loss."""

from torch import Tensor

from gan_runner.game.loss import Loss
from gan_runner.game.play import Play


class LeastSquares(Loss):
    """D: 1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2;  G: 1/2 E (D(G(z)) - 1)^2. Mao et al. 2017, eq. 9.

    The best D is p_data / (p_data + p_g) itself, not its log odds.
    """

    def discriminator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return ((real.logits - 1).square().mean() + fake.logits.square().mean()) / 2

    def generator(self, play: Play) -> Tensor:
        return (play.on_fake.logits - 1).square().mean() / 2
