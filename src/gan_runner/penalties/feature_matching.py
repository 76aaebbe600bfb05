"""Feature matching."""

from torch import Tensor

from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play


class FeatureMatching(Penalty):
    """G: weight |E f(x) - E f(G(z))|^2, f the features of D. Salimans et al. 2016."""

    coupled = True

    def generator(self, play: Play) -> Tensor:
        return self.scaled((play.on_real.features.mean(0) - play.on_fake.features.mean(0)).square().sum())
