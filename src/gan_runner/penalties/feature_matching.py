"""Feature matching."""

from collections.abc import Mapping

from torch import Tensor, nn

from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.game.spec import Spec


class FeatureMatching(Penalty):
    """G: weight |E f(x) - E f(G(z))|^2, f the features of D. Salimans et al. 2016."""

    coupled = True

    def build(self, spec: Spec, nets: Mapping[str, nn.Module]) -> None:
        if "discriminator" not in nets:
            raise ValueError("feature_matching compares features of a discriminator, and the architecture has none: drop the penalty")

    def generator(self, play: Play) -> Tensor:
        return self.scaled((play.on_real.features.mean(0) - play.on_fake.features.mean(0)).square().sum())
