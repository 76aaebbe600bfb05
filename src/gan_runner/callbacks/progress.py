"""Show the progress of the run and the remaining time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from gan_runner.callbacks.log import to_numbers
from gan_runner.reporting import duration
from gan_runner.training.callback import Callback

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


class Progress(Callback):
    """Show a progress line: rounds, images per second, losses, remaining time; say once, after the first rounds, how long the run takes."""

    after_seconds = 20.0

    def __init__(self, every_seconds: Annotated[float, Gt(0)] = 10.0):
        self.every_seconds = every_seconds

    def begin(self, run: Run) -> None:
        run.reporter.plain_seconds = self.every_seconds
        self.began, self.first, self.shown = time.monotonic(), run.step, 0.0
        self.announced = False

    def after_round(self, run: Run, logs: Logs) -> None:
        now = time.monotonic()
        if now - self.shown < 0.5:
            return
        self.shown = now
        per_round = (now - self.began) / (run.step - self.first)
        losses = "  ".join(f"{name} {value:.4g}" for name, value in to_numbers(logs).items() if name.startswith("loss/"))
        left = (run.steps - run.step) * per_round
        if not self.announced and now - self.began > self.after_seconds:
            self.announced = True
            if left > self.after_seconds:
                run.reporter.say(f"expected to take {duration(left)} more, by the first {run.step - self.first} rounds")
        run.reporter.show(f"round {run.step}/{run.steps}  {run.batch_size / per_round:.0f} images/s  {losses}  {duration(left)} left")

    def end(self, run: Run) -> None:
        took, rounds = time.monotonic() - self.began, run.step - self.first
        run.reporter.say(f"played {rounds} rounds in {duration(took)} ({rounds * run.batch_size / max(took, 1e-9):.0f} images/s)")
