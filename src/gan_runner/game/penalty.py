"""What every penalty shares: a weight, and how often it is due."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from gan_runner.game.term import Term
from gan_runner.schedules import Schedule, schedule


class Penalty(Term):
    """weight * penalty(play). With `every` = k it is asked for in every k-th round, by all moves of it, and counts k times."""

    def __init__(self, weight: float | Schedule = 1.0, every: Annotated[int, Ge(1)] = 1):
        super().__init__()
        self.weight, self.every = schedule(weight), every

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def scaled(self, value: Tensor) -> Tensor:
        """Return the value as it enters the objective."""
        return self.weight.value * self.every * value
