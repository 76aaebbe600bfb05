"""An average of the generator's weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt

from gan_runner.game.trick import Trick

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.network import Generator
    from gan_runner.game.play import Logs


class EMA(Trick):
    """Samples are taken from a running average of G. Yazici et al. 2019; Karras et al. 2018.

    After every round average <- beta average + (1 - beta) G with beta = 2^(-batch_size / (1000 halflife_kimg)): the memory halves every
    `halflife_kimg` thousand images, whatever the batch size. Buffers (the statistics of batch norm) are copied.
    """

    def __init__(self, halflife_kimg: Annotated[float, Gt(0)] = 10.0):
        super().__init__()
        self.halflife_kimg = halflife_kimg

    def sampler(self, generator: Generator) -> Generator:
        self.net = copy.deepcopy(generator).eval().requires_grad_(False)
        return self.net

    @torch.no_grad()
    def after_round(self, game: Game) -> Logs:
        beta = 0.5 ** (game.batch_size / (1000 * self.halflife_kimg))
        torch._foreach_lerp_(list(self.net.parameters()), list(game.G.parameters()), 1 - beta)
        if buffers := list(self.net.buffers()):
            torch._foreach_copy_(buffers, list(game.G.buffers()))
        return {}
