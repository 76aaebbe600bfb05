"""Wrong labels for D."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from gan_runner.game.play import DiscriminatorOutput, Play
from gan_runner.game.term import Term
from gan_runner.game.trick import Part, Trick
from gan_runner.schedules import Schedule, schedule
from gan_runner.tricks.shown import Shown, View

Share = Annotated[float, Ge(0), Le(1)] | Schedule


class Flipped(View):
    """A play in which D's outputs of some real samples are taken for those of fakes, and of as many fakes for those of real ones."""

    def __init__(self, play: Play, share: Tensor):
        super().__init__(play)
        self.share = share

    @cached_property
    def flipped(self) -> Tensor:
        return self.play.draws.uniform() < self.share

    @cached_property
    def on_both(self) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        outs = self.play.on_both

        def mixed(one: Tensor, other: Tensor) -> Tensor:
            return torch.where(self.flipped.view(-1, *[1] * (one.dim() - 1)), other, one)

        real, fake = (DiscriminatorOutput(*map(mixed, each, other)) for each, other in (outs, outs[::-1]))
        return real, fake

    @property
    def on_real(self) -> DiscriminatorOutput:
        return self.on_both[0]

    @property
    def on_fake(self) -> DiscriminatorOutput:
        return self.on_both[1]


class FlippedLoss(Shown):
    """A loss of which D's part sees flipped labels."""

    def __init__(self, loss: Term, share: Schedule):
        super().__init__(loss)
        self.share = share

    def view(self, side: str, play: Play) -> Any:
        return Flipped(play, self.share.value) if side == "discriminator" else play


class LabelFlip(Trick):
    """The loss of D takes a `share` of the real samples for fakes, and as many fakes for real. Chintala et al. 2016.

    In each move some pairs are drawn, and real sample i and fake i change places in D's loss, whatever the loss; penalties see the right
    labels. The best sigmoid(D) is ((1 - share) p_data + share p_g) / (p_data + p_g): between share and 1 - share.
    """

    def __init__(self, share: Share = 0.05):
        super().__init__()
        self.share = schedule(share)

    def wrap(self, part: Part, name: str) -> Any:
        return FlippedLoss(part, self.share) if name == "loss" else part  # type: ignore[arg-type]
