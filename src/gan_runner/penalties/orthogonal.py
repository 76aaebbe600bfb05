"""A penalty on weights alone."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.game.spec import Spec
from gan_runner.schedules import Schedule

Side = Literal["generator", "discriminator"]


def layers_of(net: nn.Module) -> list[nn.Module]:
    """Return the linear and convolutional layers whose weights are trained."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [layer for layer in net.modules() if isinstance(layer, kinds) and trained_weight(layer).requires_grad]


def trained_weight(layer: nn.Module) -> Tensor:
    """Return the weight that the optimiser moves; under spectral norm that is the one before the division."""
    return layer.parametrizations.weight.original if parametrize.is_parametrized(layer, "weight") else layer.weight  # type: ignore


def off_diagonal(layer: nn.Module) -> Tensor:
    """Compute |W W^T * (1 - I)|^2 of a layer, the rows of W its outputs: the sum of squared inner products of different rows."""
    weight = trained_weight(layer).float()
    rows = (weight.transpose(0, 1) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else weight).flatten(1)
    products = rows @ rows.T
    return products.square().sum() - products.diagonal().square().sum()


class Orthogonal(Penalty):
    """G, D or both: weight times the sum over layers of |W W^T * (1 - I)|^2, off the diagonal. Brock et al. 2019 (BigGAN).

    It makes the outputs of a layer differ, and leaves their lengths free. Counted are linear and convolutional layers with weights to
    train; under spectral norm the weight that is divided. `players` says whose. The code of the authors has half of the slope.
    """

    def __init__(
        self,
        weight: float | Schedule = 1e-4,
        every: Annotated[int, Ge(1)] = 1,
        players: list[Side] = ["generator"],  # noqa: B006
    ):
        super().__init__(weight, every)
        if not players:
            raise ValueError("players names nobody, and nothing is penalised: drop the penalty")
        self.players = players

    def has_summand(self, side: str) -> bool:
        return side in self.players

    def build(self, spec: Spec, nets: Mapping[str, nn.Module]) -> None:
        for side in self.players:
            if not layers_of(nets[side]):
                raise ValueError(f"orthogonal: the {side} has no linear or convolutional layer to train; leave it out of players")

    def of(self, net: nn.Module) -> Tensor:
        """Compute the summand of a network."""
        with torch.autocast(next(net.parameters()).device.type, enabled=False):
            return self.scaled(torch.stack([off_diagonal(layer) for layer in layers_of(net)]).sum())

    def discriminator(self, play: Play) -> Tensor | None:
        return self.of(play.D) if "discriminator" in self.players else None

    def generator(self, play: Play) -> Tensor | None:
        return self.of(play.G) if "generator" in self.players else None
