"""Differentiable augmentation of every image that D sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from gan_runner import tree
from gan_runner.draws import Draws
from gan_runner.game.trick import Augmentation
from gan_runner.tree import Sample
from gan_runner.tricks import pixels

if TYPE_CHECKING:
    from gan_runner.game.game import Game

NUMBERS = 7  # that are drawn for a sample: brightness, saturation, contrast, then rows and columns of translation and cutout


def below(u: Tensor, n: int) -> Tensor:
    """Return whole numbers in 0 ... n - 1 from uniform ones in [0, 1)."""
    return (u * n).floor().long().clamp(max=n - 1)


class DiffAugment(Augmentation):
    """D sees every image, real and fake, in other colours, moved, and with a square cut out, in both moves. Zhao et al. 2020.

    colour: brightness + U(-.5, .5), saturation x U(0, 2), contrast x U(.5, 1.5). translation: by whole pixels, up to this share of each
    side. cutout: the sides of the square, as a share. What is moved in and what is cut out is 0. Each sample has one change, the same at
    all scales. translation and cutout can be 0, which leaves them out.
    """

    def __init__(
        self, colour: bool = True, translation: Annotated[float, Ge(0), Lt(1)] = 0.125, cutout: Annotated[float, Ge(0), Lt(1)] = 0.5
    ):
        super().__init__()
        self.colour, self.translation, self.cutout = colour, translation, cutout

    def build(self, game: Game) -> None:
        pixels.refuse_points(game.spec.shape, "diffaugment")

    def augment(self, sample: Sample, draws: Draws) -> Sample:
        pixels.refuse_no_images(sample, "diffaugment")
        u = draws.uniform(NUMBERS)
        return tree.map(lambda leaf: self.changed(leaf, u), sample)

    def changed(self, x: Tensor, u: Tensor) -> Tensor:
        """Return images x (N C H W), each changed by its numbers u (N 7)."""
        brightness, saturation, contrast, *places = u.to(x.dtype).view(len(u), NUMBERS, 1, 1, 1).unbind(1)
        if self.colour:
            x = x + (brightness - 0.5)
            x = torch.lerp(x.mean(1, keepdim=True), x, 2 * saturation)
            x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, contrast + 0.5)
        down, right, row, column = (place[:, 0] for place in places)
        if self.translation:
            x = self.translated(x, down, right)
        return x * ~self.cut(x, row, column)[:, None] if self.cutout else x

    def translated(self, x: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Move images by whole pixels: down and right (N 1 1) are uniform in [0, 1)."""
        at, there = [], []
        for u, places, side in zip((down, right), pixels.grid(x), x.shape[2:], strict=True):
            most = int(self.translation * side + 0.5)
            came_from = places - (below(u, 2 * most + 1) - most)
            there.append(pixels.inside(came_from, side))
            at.append(came_from.clamp(0, side - 1))
        return pixels.taken(x, *torch.broadcast_tensors(*at)) * (there[0] & there[1])[:, None]

    def cut(self, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return which pixels are cut out, N H W: the centre of the square is uniform over the image."""
        inside = []
        for u, places, side in zip((row, column), pixels.grid(x), x.shape[2:], strict=True):
            length = int(self.cutout * side + 0.5)
            first = below(u, side + 1 - length % 2) - length // 2
            inside.append(pixels.inside(places - first, length))
        return inside[0] & inside[1]
