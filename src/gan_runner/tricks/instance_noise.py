"""Instance noise."""

from gan_runner import tree
from gan_runner.draws import Draws
from gan_runner.game.trick import Augmentation
from gan_runner.schedules import Schedule, schedule
from gan_runner.tree import Sample


class InstanceNoise(Augmentation):
    """D sees every sample, real and fake, through fresh Gaussian noise of deviation `sigma`, in both moves. Sonderby et al. 2017.

    sigma is in the units of the data (images are in [-1, 1]); by default it falls linearly from .1 to 0 over the run.
    """

    def __init__(self, sigma: float | Schedule = 0.1):
        super().__init__()
        self.sigma = schedule(sigma)

    def augment(self, sample: Sample, draws: Draws) -> Sample:
        return tree.map(lambda leaf: leaf + self.sigma.value * draws.normal(*leaf.shape[1:]), sample)
