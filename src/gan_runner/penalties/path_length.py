"""A penalty on how far a sample moves with its latent."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from gan_runner import distributed, tree
from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.penalties.piecewise import NoSecondDerivative
from gan_runner.schedules import Schedule


class PathLength(Penalty):
    """G: weight E (|J^T n| - a)^2, J = dG/dz, n normal noise over the root of the number of pixels. Karras et al. 2020 (StyleGAN2).

    a is the running average of |J^T n| over the batch of all processes: it starts at 0, and with each move that is due it becomes
    (1 - decay) a + decay mean, before the penalty of that move. Nothing is differentiated through it. Leaves of a sample count side by
    side. z is what enters G; the paper takes the output of a mapping network.
    """

    coupled = True
    average: Tensor

    def __init__(
        self,
        weight: float | Schedule = 2.0,
        every: Annotated[int, Ge(1)] = 4,
        decay: Annotated[float, Gt(0), Le(1)] = 0.01,
    ):
        super().__init__(weight, every)
        self.decay = decay
        self.register_buffer("average", torch.zeros(()))

    def lengths(self, play: Play) -> Tensor:
        """Compute |J^T n| of each sample, N, differentiable, in float32."""
        z = play.z.detach().requires_grad_()
        with torch.autocast(z.device.type, enabled=False):
            with NoSecondDerivative():
                sample = play.G(z, play.fake_y)
                leaves = [leaf * play.draws.normal(*leaf.shape[1:]) / math.prod(leaf.shape[2:]) ** 0.5 for leaf in tree.leaves(sample)]
                total = torch.stack([leaf.sum() for leaf in leaves]).sum()
            (slopes,) = torch.autograd.grad(total, z, create_graph=True)
        return torch.linalg.vector_norm(slopes, dim=1)

    def generator(self, play: Play) -> Tensor:
        lengths = distributed.gather(self.lengths(play.own))
        self.average.lerp_(lengths.detach().mean(), self.decay)
        return self.scaled((lengths - self.average).square().mean())
