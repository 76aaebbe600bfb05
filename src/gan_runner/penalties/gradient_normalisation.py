"""The scale of the gradient that G receives."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from gan_runner import distributed, tree
from gan_runner.errors import UserError
from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play

TINY = 1e-8


class GradientNormalisation(Penalty):
    """G: the gradient that arrives at its samples is divided by its running root mean square. Lin et al. 2025, "Adversarial Flow Models".

    The mean square of a gradient g of n entries is n |g|^2, as for a loss that is a mean over entries: it depends neither on the size
    of the batch nor on that of a sample. The running one is decay times itself plus (1 - decay) times the mean over processes, with
    each move of G, before the division; divided by 1 - decay^moves, so that the first gradient has root mean square 1 as well. The
    value that is logged is the root mean square before this move; as a summand it is constant.
    """

    coupled = True
    square: Tensor
    mass: Tensor

    def __init__(self, decay: Annotated[float, Ge(0), Lt(1)] = 0.9):
        super().__init__()
        self.decay = decay
        self.register_buffer("square", torch.zeros(()))
        self.register_buffer("mass", torch.zeros(()))

    @property
    def scale(self) -> Tensor:
        """The running root mean square; 0 before the first move."""
        return (self.square / self.mass.clamp_min(TINY)).sqrt()

    def normalised(self, grad: Tensor) -> Tensor:
        """Return the gradient over the running root mean square, which it enters first."""
        own = {"square": grad.float().square().sum() * grad.numel()}
        self.square.lerp_(distributed.mean(own)["square"], 1 - self.decay)
        self.mass.lerp_(torch.ones_like(self.mass), 1 - self.decay)
        return grad / (self.scale + TINY)

    def generator(self, play: Play) -> Tensor:
        """Return the running root mean square. UserError in float16, and for samples of several leaves."""
        device, leaves = play.own.z.device.type, tree.leaves(play.own.fake)
        if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
            raise UserError("gradient_normalisation would undo the scale of gradients of trainer.precision=16: use bf16 or 32")
        if len(leaves) > 1:
            raise UserError("gradient_normalisation takes samples of one scale, and those of this generator have several: drop the penalty")
        self.arriving = leaves[0]
        return self.scale

    def weighed(self, side: str, value: Tensor, summands: Mapping[str, Tensor], net: nn.Module) -> Tensor:
        """Return the value. From here on gradients are normalised: those by which a loss weighs itself came before."""
        self.arriving.register_hook(self.normalised)
        del self.arriving
        return value
