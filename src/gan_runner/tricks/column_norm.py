"""A bound on the weights into each unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from torch import nn

from gan_runner.game.trick import Part, Trick

if TYPE_CHECKING:
    from gan_runner.game.game import Player


class ColumnNorm(Trick):
    """The weights into each unit of D have a norm of at most `limit`, from the start and after every step of it. Srivastava et al. 2014.

    Units are those of linear layers and the output channels of convolutions; frozen layers stay as they are. 1.9365 is the limit of
    Goodfellow et al. 2014.
    """

    def __init__(self, limit: Annotated[float, Gt(0)] = 1.9365):
        super().__init__()
        self.limit = limit

    def wrap(self, part: Part, name: str) -> Part:
        if name == "discriminator":
            if not weights(part):
                raise ValueError(
                    f"column_norm bounds weights of linear layers and convolutions, and {type(part).__name__} has none that are free: "
                    "drop the trick"
                )
            self.bound(part)
        return part

    def after_step(self, player: Player) -> None:
        if player.name == "discriminator":
            self.bound(player.net)

    @torch.no_grad()
    def bound(self, net: nn.Module) -> None:
        for weight, unit in weights(net):
            norm = torch.linalg.vector_norm(weight, dim=[axis for axis in range(weight.dim()) if axis != unit], keepdim=True)
            weight.mul_((self.limit / norm.clamp_min(1e-12)).clamp(max=1.0))


def weights(net: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Return the trained weights of linear layers and convolutions that no parametrisation computes, each with its axis of units."""
    found = []
    for layer in net.modules():
        weight = layer._parameters.get("weight") if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) else None
        if weight is not None and weight.requires_grad:
            found.append((weight, 1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0))
    return found
