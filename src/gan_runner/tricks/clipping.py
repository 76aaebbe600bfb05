"""Bounds on weights and on gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from gan_runner.game.trick import Part, Trick

if TYPE_CHECKING:
    from gan_runner.game.game import Player


class WeightClip(Trick):
    """D's weights stay in [-limit, limit], from its first forward on and after every step of it. Arjovsky et al. 2017."""

    def __init__(self, limit: Annotated[float, Gt(0)] = 0.01):
        super().__init__()
        self.limit = limit

    def wrap(self, part: Part, name: str) -> Part:
        if name == "discriminator":
            self.clip(part)
        return part

    def after_step(self, player: Player) -> None:
        if player.name == "discriminator":
            self.clip(player.net)

    @torch.no_grad()
    def clip(self, net: nn.Module) -> None:
        weights: list[Tensor] = [p for p in net.parameters() if p.requires_grad]
        torch._foreach_clamp_min_(weights, -self.limit)
        torch._foreach_clamp_max_(weights, self.limit)


class GradientClip(Trick):
    """The norm of a player's whole gradient is at most `limit`. Pascanu et al. 2013."""

    def __init__(self, limit: Annotated[float, Gt(0)] = 1.0):
        super().__init__()
        self.limit = limit

    def before_step(self, player: Player) -> None:
        clip_grad_norm_(player.parameters(), self.limit)
