"""A loss that is shown another view of each play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gan_runner.game.play import Logs, Play
from gan_runner.game.term import Term


class Shown(Term):
    """A loss that a trick shows plays to, changed by `view`; all else is that of the loss."""

    def __init__(self, loss: Term):
        super().__init__()
        self.loss = loss
        self.owner, self.labelled, self.paired, self.averaged = loss.owner, loss.labelled, loss.paired, loss.averaged
        self.coupled, self.shift_invariant = loss.coupled, loss.shift_invariant

    def view(self, side: str, play: Play) -> Play:
        """Return what the loss sees of a play in its part for this player."""
        raise NotImplementedError

    def due(self, step: int) -> bool:
        return self.loss.due(step)

    def discriminator(self, play: Play) -> Tensor | None:
        return self.loss.discriminator(self.view("discriminator", play))

    def generator(self, play: Play) -> Tensor | None:
        return self.loss.generator(self.view("generator", play))

    @property
    def balanced(self) -> Any:
        return self.loss.balanced

    def weighed(self, side: str, value: Tensor, summands: Mapping[str, Tensor], net: nn.Module) -> Tensor:
        return self.loss.weighed(side, value, summands, net)

    def logs(self) -> Logs:
        return self.loss.logs()

    def has_summand(self, side: str) -> bool:
        return self.loss.has_summand(side)


class View:
    """A play of which a subclass changes some attributes."""

    def __init__(self, play: Play):
        self.play = play

    def __getattr__(self, name: str) -> Any:
        return getattr(self.play, name)


def innermost(term: nn.Module) -> nn.Module:
    """Return the loss itself, below what tricks have put around it."""
    while isinstance(term, Shown):
        term = term.loss
    return term
