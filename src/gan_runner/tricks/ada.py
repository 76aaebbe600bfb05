"""Adaptive discriminator augmentation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from gan_runner import distributed, tree
from gan_runner.draws import Draws
from gan_runner.game.trick import Trick
from gan_runner.tree import Sample
from gan_runner.tricks import pixels

if TYPE_CHECKING:
    from gan_runner.game.game import Game, Player
    from gan_runner.game.play import Logs, Play

GATES = 13  # changes, each made with a probability
ROTATIONS = (4, 6)  # of which either is made with probability p
VALUES, NORMALS = 8, 7  # uniform and normal numbers that say how


def product(*matrices: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Multiply 2 x 2 matrices (a, b, c, d), row by row."""
    a, b, c, d = matrices[0]
    for e, f, g, h in matrices[1:]:
        a, b, c, d = a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h
    return a, b, c, d


def rotation(angle: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return angle.cos(), -angle.sin(), angle.sin(), angle.cos()


class ADA(Trick):
    """D sees images under augmentations, each with probability p, which follows how often D is sure of real ones. Karras et al. 2020.

    Every `every` rounds p rises where the mean sign of D's logits of real images, over all processes, is above `target`, and falls below
    it, so that it goes from 0 to 1 within `kimg` thousand images. Changes of geometry: mirroring, rotation, scale, translation, one
    bilinear interpolation for all of them; outside, an image goes on as in a mirror. Changes of colour: brightness, contrast, luma,
    and hue and saturation of three channels. Each sample has one change, the same at all scales. The authors interpolate with wavelet
    filters instead.

    The sign of a logit means something only where the loss gives its zero a meaning: with a relativistic or the Wasserstein loss, add
    the penalty logit_centring.
    """

    p: Tensor
    rotates: Tensor
    seen: Tensor
    signs: Tensor
    rounds: Tensor

    def __init__(
        self, target: Annotated[float, Gt(-1), Lt(1)] = 0.6, every: Annotated[int, Ge(1)] = 4, kimg: Annotated[float, Gt(0)] = 500.0
    ):
        super().__init__()
        self.target, self.every, self.kimg = target, every, kimg
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("rotates", torch.tensor([gate in ROTATIONS for gate in range(GATES)]), persistent=False)
        self.register_buffer("seen", torch.zeros(2))  # in this round and process: the sum of signs, and how many there were
        self.register_buffer("signs", torch.zeros(2))  # the same since the last change of p, of all processes
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def build(self, game: Game) -> None:
        pixels.refuse_points(game.spec.shape, "ada")

    def augment(self, sample: Sample, draws: Draws) -> Sample:
        pixels.refuse_no_images(sample, "ada")
        on = draws.uniform(GATES) < torch.where(self.rotates, 1 - (1 - self.p).sqrt(), self.p)
        u, normal = draws.uniform(VALUES), draws.normal(NORMALS)
        return tree.map(lambda leaf: self.coloured(self.moved(leaf, on, u, normal), on, u, normal), sample)

    def moved(self, x: Tensor, on: Tensor, u: Tensor, normal: Tensor) -> Tensor:
        """Change the geometry of images x (N C H W). Those of which nothing is to be changed stay as they are."""
        mirror, turn, shift, zoom, rotate, stretch, rotate_again, slide = on.view(len(x), GATES, 1, 1).unbind(1)[:8]
        half, quarter, down, right, angle, other_angle, *_ = u.view(len(x), VALUES, 1, 1).unbind(1)
        size, aspect, slide_down, slide_right, *_ = normal.view(len(x), NORMALS, 1, 1).unbind(1)
        one, zero = torch.ones_like(half), torch.zeros_like(half)
        flip = torch.where(mirror & (half < 0.5), -one, one)
        larger, wider = (torch.where(gate, 2 ** (0.2 * log), 1.0) for gate, log in ((zoom, size), (stretch, aspect)))
        quarters = torch.where(turn, (quarter * 4).floor() * (math.pi / 2), 0.0)
        first, second = (torch.where(gate, (2 * each - 1) * math.pi, 0.0) for gate, each in ((rotate, angle), (rotate_again, other_angle)))
        a, b, c, d = product(
            rotation(first), (larger * wider, zero, zero, larger / wider), rotation(second + quarters), (one, zero, zero, flip)
        )
        y, z = (
            places
            - (side - 1) / 2
            - torch.where(shift, (0.125 * side * (2 * whole - 1)).round(), 0.0)
            - torch.where(slide, 0.125 * side * part, 0.0)
            for places, side, whole, part in zip(pixels.grid(x), x.shape[2:], (down, right), (slide_down, slide_right), strict=True)
        )
        height, width = x.shape[2:]
        seen = pixels.interpolated(x, a * y + b * z + (height - 1) / 2, c * y + d * z + (width - 1) / 2)
        return torch.where(on[:, :8].any(1).view(-1, 1, 1, 1), seen, x)

    def coloured(self, x: Tensor, on: Tensor, u: Tensor, normal: Tensor) -> Tensor:
        """Change the colours of images x (N C H W). Luma is the mean over channels, chroma the rest."""
        bright, contrasted, inverted, hued, saturated = on.view(len(x), GATES, 1, 1, 1).unbind(1)[8:]
        inversion, hue = u.view(len(x), VALUES, 1, 1, 1).unbind(1)[6:]
        brightness, contrast, saturation = normal.view(len(x), NORMALS, 1, 1, 1).unbind(1)[4:]
        sign = torch.where(inverted & (inversion < 0.5), -1.0, torch.ones_like(hue))
        factor = torch.where(contrasted, 2 ** (0.5 * contrast), 1.0)
        luma = x.mean(1, keepdim=True)
        chroma = x - luma
        if x.shape[1] == 3:
            angle = torch.where(hued, (2 * hue - 1) * math.pi, 0.0)
            across = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)  # the cross product with the grey axis
            chroma = torch.where(saturated, 2**saturation, 1.0) * (angle.cos() * chroma + angle.sin() * across)
        changed = factor * (sign * (luma + torch.where(bright, 0.2 * brightness, 0.0)) + chroma)
        return torch.where(on[:, 8:].any(1).view(-1, 1, 1, 1), changed, x)

    def watch(self, play: Play, player: Player) -> None:
        real, _ = play.seen
        if player.name == "discriminator" and real is not None:
            self.seen.add_(torch.stack([real.logits.sign().sum(), torch.ones_like(real.logits).sum()]))

    def after_round(self, game: Game) -> Logs:
        self.rounds.add_(1)
        total, n = distributed.mean({"total": self.seen[0], "n": self.seen[1]}).values()
        self.signs.add_(torch.stack([total, n]) * distributed.size())
        self.seen.zero_()
        total, n = self.signs.unbind()
        now = (self.rounds.remainder(self.every) == 0) & (n > 0)
        sign = total / n.clamp_min(1.0)
        step = game.batch_size * self.every / (1000 * self.kimg)
        self.p.copy_(torch.where(now, (self.p + step * (sign - self.target).sign()).clamp(0, 1), self.p))
        self.signs.mul_(~now)
        return {"ada/p": self.p.clone(), "ada/sign": sign}
