"""Layers that do not learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from gan_runner.errors import some
from gan_runner.game.trick import Part, Trick
from gan_runner.tricks.spectral_norm import Side

if TYPE_CHECKING:
    from gan_runner.game.game import Game


class Freeze(Trick):
    """The weights of the named layers of a player do not move. For a run that starts from weights: Mo et al. 2020 (FreezeD).

    layers: {discriminator: [body.0, body.2]}, by the names of modules, each with all that is in it. Statistics of batch norm in them go on.
    Before other tricks in the list: those may put layers into others.
    """

    def __init__(self, layers: dict[Side, list[str]] = {}):  # noqa: B006
        super().__init__()
        self.layers = layers

    def build(self, game: Game) -> None:
        if absent := [side for side, layers in self.layers.items() if layers and side not in game.players]:
            raise ValueError(f"freeze.layers names the {absent[0]}, and the architecture has none")

    def wrap(self, part: Part, name: str) -> Part:
        there = layers_of(part) if name in self.layers else {}
        for layer in self.layers.get(name, []):  # type: ignore[call-overload]
            if layer not in there:
                raise ValueError(f"freeze.layers.{name} names {layer}, which has no weights or does not exist; there are {some(there, 30)}")
            there[layer].requires_grad_(False)
        return part


def layers_of(net: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a network that hold weights, by name."""
    return {name: module for name, module in net.named_modules() if name and next(module.parameters(), None) is not None}
