"""Numbers that depend on the step.

A round reads `schedule.value`, a device scalar that is filled before it, so that a captured round sees today's number.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn


class Schedule(nn.Module):
    """A number for every round; subclasses say which."""

    value: Tensor
    on_host: bool = False
    """True where it decides which operations a round has, as a number of layers: its part reads `now`. See `on_host` below."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    factor: float = 1.0
    """What its number is multiplied by: a trick lowers the learning rate of a run that collapsed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.register_buffer("value", torch.zeros(()), persistent=False)

    def at(self, step: int, run: int) -> float:
        """Return the number in round `step` (from 0) of a run of `run` rounds."""
        raise NotImplementedError

    @property
    def follows_run(self) -> bool:
        """Whether the length of the run changes it."""
        return False

    def scaled(self, step: int, run: int) -> float:
        """Return the number that a round uses: that of the schedule, times the factor."""
        return self.factor * self.at(step, run)

    def fill(self, step: int, run: int) -> None:
        """Put the number of this round where the round will read it: `value` on the device, `now` on the host."""
        self.now = self.scaled(step, run)
        self.value.fill_(self.now)


class Constant(Schedule):
    """The same number all the time."""

    def __init__(self, number: float):
        super().__init__()
        self.number = self.now = float(number)
        self.value.fill_(self.number)

    def at(self, step: int, run: int) -> float:
        return self.number

    def fill(self, step: int, run: int) -> None:
        if self.now != self.scaled(step, run):  # else it is there already
            super().fill(step, run)


class Ramp(Schedule):
    """From `start` to `end` over `steps` rounds, then `end`; steps=None: over the whole run. The share `hold` of it stays at `start`."""

    def __init__(self, start: float, end: float, steps: int | None = None, hold: float = 0.0):
        super().__init__()
        if not 0 <= hold < 1:
            raise ValueError(f"hold is the share of the way spent at the start, at least 0 and below 1, not {hold}")
        self.start, self.end, self.steps, self.hold = start, end, steps, hold

    @property
    def follows_run(self) -> bool:
        return self.steps is None

    def at(self, step: int, run: int) -> float:
        length = run if self.steps is None else self.steps
        way = min(step / length, 1.0) if length > 0 else 1.0
        return self.between(max(way - self.hold, 0.0) / (1 - self.hold))

    def between(self, progress: float) -> float:
        """Return the number when a share `progress`, 0 to 1, of the change is done."""
        raise NotImplementedError


class Linear(Ramp):
    """A straight line."""

    def between(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


class Cosine(Ramp):
    """Half a period of a cosine: flat at both ends."""

    def between(self, progress: float) -> float:
        return self.start + (self.end - self.start) * (1 - math.cos(math.pi * progress)) / 2


class Exponential(Ramp):
    """The same factor every round; both ends must be positive."""

    def __init__(self, start: float, end: float, steps: int | None = None, hold: float = 0.0):
        if start <= 0 or end <= 0:
            raise ValueError(f"an exponential schedule needs start and end above 0, and has start={start}, end={end}")
        super().__init__(start, end, steps, hold)

    def between(self, progress: float) -> float:
        return self.start * (self.end / self.start) ** progress


class Step(Schedule):
    """`start` times `factor` for each of the rounds `at` that have been reached."""

    def __init__(self, start: float, at: list[Annotated[int, Ge(1)]], factor: Annotated[float, Gt(0)] = 0.1):
        super().__init__()
        self.start, self.milestones, self.by = start, list(at), factor

    def at(self, step: int, run: int) -> float:
        return self.start * self.by ** sum(step >= each for each in self.milestones)


class InverseSquareRoot(Schedule):
    """start / sqrt(max(n / after, 1)) in round n: `start` for `after` rounds, then as 1 / sqrt(n). Karras et al. 2024 (EDM2)."""

    def __init__(self, start: float, after: Annotated[int, Ge(1)]):
        super().__init__()
        self.start, self.after = start, after

    def at(self, step: int, run: int) -> float:
        return self.start / math.sqrt(max(step / self.after, 1.0))


class Warmup(Schedule):
    """`then`, a number or a schedule, times a factor that rises from 0 to 1 in a straight line over the first `steps` rounds."""

    def __init__(self, steps: Annotated[int, Ge(1)], then: float | Schedule):
        super().__init__()
        self.steps, self.then = steps, schedule(then)

    @property
    def follows_run(self) -> bool:
        return self.then.follows_run

    def at(self, step: int, run: int) -> float:
        return self.then.at(step, run) * min(step / self.steps, 1.0)


def schedule(number: float | Schedule) -> Schedule:
    """Return the schedule itself, or the one that stays at this number."""
    return number if isinstance(number, Schedule) else Constant(number)


def on_host(number: float | Schedule) -> Schedule:
    """Return the same for a number that decides which operations a round has. Rounds of different numbers are captured apart."""
    made = schedule(number)
    made.on_host = True
    return made
