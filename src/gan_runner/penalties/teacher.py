"""A penalty on the distance of G to its own average."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.evaluation.extractor import Extractor
from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.penalties.consistency import mean_square
from gan_runner.schedules import Schedule


class Teacher(Penalty):
    """G: weight E (f(G(z)) - f(A(z)))^2, A the average of G that the trick ema keeps. After SD-GAN (arXiv 2605.08577).

    f: the sample itself (`through` None), or the features of a frozen network, for images. The square of a sample is the mean over its
    entries; of a sample of several scales the mean over scales. A is in evaluation mode: with batch norm or dropout in G the distance
    is above 0 even where the weights are equal. Nothing is differentiated through A.
    """

    averaged = True

    def __init__(self, weight: float | Schedule = 1.0, every: Annotated[int, Ge(1)] = 1, through: Extractor | None = None):
        super().__init__(weight, every)
        self.through = through

    def generator(self, play: Play) -> Tensor:
        assert play.average is not None
        with torch.no_grad():
            aim = play.average(play.z, play.fake_y)
        if self.through is None:
            return self.scaled(mean_square(play.fake, aim))
        of_fake, of_aim = (self.through.extract(play.G.show(sample)).features for sample in (play.fake, aim))
        return self.scaled((of_fake - of_aim).square().mean())
