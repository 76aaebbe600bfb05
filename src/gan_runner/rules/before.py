"""What a player was before its step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gan_runner.game.game import Player


class Before:
    """A copy of the weights of a player and of the state of its optimiser, which a step changes.

    All is restored in place, as a captured round uses that memory.
    """

    def __init__(self, player: Player):
        self.optimizer = player.optimizer
        self.weights: list[Tensor] = list(player.weights())
        self.numbers = [p.detach().clone() for p in self.weights]
        self.state = {
            p: {key: value.clone() if isinstance(value, Tensor) else value for key, value in of_p.items()}
            for p, of_p in self.optimizer.state.items()
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Undo the step. State that it made, as the first step of an optimiser does, is removed."""
        torch._foreach_copy_(self.weights, self.numbers)
        for p in list(self.optimizer.state):
            now, before = self.optimizer.state[p], self.state.get(p)
            if before is None:
                del self.optimizer.state[p]
                continue
            for key, value in before.items():
                if isinstance(value, Tensor):
                    now[key].copy_(value)
                else:
                    now[key] = value

    @torch.no_grad()
    def restore_unless(self, moves: Tensor) -> None:
        """Undo the step where `moves` (a boolean scalar on the device) is false, without reading it on the host. State that the step made
        stays."""
        for p, before in zip(self.weights, self.numbers, strict=True):
            p.copy_(torch.where(moves, p, before))
        for weight, saved in self.state.items():
            now = self.optimizer.state[weight]
            for key, value in saved.items():
                if isinstance(value, Tensor):
                    now[key].copy_(torch.where(moves.to(value.device), now[key], value))
