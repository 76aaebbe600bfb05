"""Averages of the generator's weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from gan_runner.game.trick import Trick

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.network import Generator
    from gan_runner.game.play import Logs

Halflife = Annotated[float, Gt(0)]


class EMA(Trick):
    """Samples are taken from a running average of G. Yazici et al. 2019; Karras et al. 2018.

    After every round average <- beta average + (1 - beta) G with beta = 2^(-batch_size / (1000 halflife_kimg)): the memory halves every
    `halflife_kimg` thousand images, whatever the batch size. Of several half-lives each has an average, and the first is judged; gan-eval
    and gan-sample load another by ema=HALFLIFE. rampup: a half-life is at most this share of the images so far (Karras et al. 2020, .05).
    Buffers (the statistics of batch norm) are copied.
    """

    rounds: Tensor

    def __init__(self, halflife_kimg: Halflife | list[Halflife] = 10.0, rampup: Annotated[float, Gt(0)] | None = None):
        super().__init__()
        self.halflives = halflife_kimg if isinstance(halflife_kimg, list) else [halflife_kimg]
        if not self.halflives or len(set(self.halflives)) < len(self.halflives):
            raise ValueError(f"halflife_kimg={halflife_kimg}: expected half-lives that differ, one or more")
        self.rampup = rampup
        if rampup is not None:
            self.register_buffer("rounds", torch.zeros(()))  # so many are averaged

    def sampler(self, generator: Generator) -> Generator:
        self.net, *others = (copy.deepcopy(generator).eval().requires_grad_(False) for _ in self.halflives)
        self.others = nn.ModuleList(others)
        self.averages = dict(zip(self.halflives, (self.net, *others), strict=True))
        return self.net

    @torch.no_grad()
    def after_round(self, game: Game) -> Logs:
        if self.rampup is not None:
            self.rounds.add_(1)
        for halflife, net in self.averages.items():
            self.update(list(net.parameters()), list(game.G.parameters()), 1000 * halflife, game.batch_size)
            if buffers := list(net.buffers()):
                torch._foreach_copy_(buffers, list(game.G.buffers()))
        return {}

    def update(self, average: list[Tensor], now: list[Tensor], halflife: float, images: int) -> None:
        """Move an average by one round of so many images. halflife: in images."""
        if self.rampup is None:
            torch._foreach_lerp_(average, now, 1 - 0.5 ** (images / halflife))
            return
        halflives = (self.rampup * images * self.rounds).clamp(max=halflife)
        change = torch._foreach_sub(now, average)
        torch._foreach_mul_(change, 1 - 0.5 ** (images / halflives))
        torch._foreach_add_(average, change)
