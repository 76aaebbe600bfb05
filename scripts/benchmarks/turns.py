"""A run that plays in turns: a callback, named on the line of gan-train."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.wire import Wire, device_mib, wait_for
from gan_runner.game import Logs
from gan_runner.storage import checkpoint
from gan_runner.training.callback import Callback
from gan_runner.training.run import Run


class Turns(Callback):
    """A run that plays when it is told to, for the time between being told and having played; the waiting is not counted.

    It comes last, so that what other callbacks do after a round belongs to the round.
    """

    order = 100

    def __init__(self, path: str):
        self.path, self.left = path, 0

    def begin(self, run: Run) -> None:
        self.wire = Wire(self.path)
        self.wire.say(facts_of(run))
        self.obey(run)

    def after_round(self, run: Run, logs: Logs) -> None:
        self.left -= 1
        if self.left == 0:
            wait_for(run.device)
            self.wire.say({"seconds": time.perf_counter() - self.began, "device_mib": device_mib(run.device)})
            self.obey(run)

    def obey(self, run: Run) -> None:
        """Do what is asked between rounds; come back where rounds are asked for."""
        works: dict[str, Callable[[Any], object]] = {
            "save": lambda path: checkpoint.save(Path(path), run.state()),
            "restore": lambda path: run.restore(checkpoint.load(Path(path))),
            "evaluate": lambda _: run.callbacks["evaluate"].evaluate(run),  # type: ignore[attr-defined]
        }
        while True:
            word, argument = self.wire.hear()
            wait_for(run.device)
            self.began = time.perf_counter()
            if word == "play":
                self.left = argument
                return
            works[word](argument)
            wait_for(run.device)
            self.wire.say({"seconds": time.perf_counter() - self.began})


def facts_of(run: Run) -> dict[str, Any]:
    """How the run computes, so that the bare round can do likewise."""
    with run.game.precision():
        half = torch.is_autocast_enabled(run.device.type)
        precision = str(torch.get_autocast_dtype(run.device.type)).removeprefix("torch.") if half else "float32"
    return {
        "precision": precision,
        "channels_last": any(
            p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in run.game.parameters()
        ),
        "threads": torch.get_num_threads(),
        "device": str(run.device),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }
