"""Feature matching."""

from torch import Tensor

from gan_runner.game import Play
from gan_runner.penalties.penalty import Penalty


class FeatureMatching(Penalty):
    """G: weight |E f(x) - E f(G(z))|^2, f the features of D. Salimans et al. 2016."""

    coupled = True

    def generator(self, play: Play) -> Tensor:
        return self.scaled((play.on_real.features.mean(0) - play.on_fake.features.mean(0)).square().sum())
