"""Generators whose latents follow a law that the configuration chooses."""

from torch import Tensor

from gan_runner.draws import Draws
from gan_runner.game.network import Generator
from gan_runner.game.prior import Prior


class LatentGenerator(Generator):
    """A generator with a prior of choice; None: N(0, I). ValueError for a prior that cannot draw so many numbers a sample."""

    def __init__(self, latent: int, prior: Prior | None):
        super().__init__()
        self.latent, self.law = latent, Prior() if prior is None else prior
        self.law.check(latent)

    def prior(self, draws: Draws) -> Tensor:
        return self.law.draw(draws, self.latent)
