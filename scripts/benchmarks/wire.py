"""The contender's side of the wire: wait asleep until told, work, say how many seconds it took.

Nothing of the project is imported here: a bare contender shows how little memory the networks need.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch

Work = Callable[[Any], Any]


class Wire:
    """Lines of JSON over a local socket; {word: argument} one way, what came of it the other."""

    def __init__(self, path: str):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rw", encoding="utf-8")

    def say(self, message: dict[str, Any]) -> None:
        self.lines.write(json.dumps(message) + "\n")
        self.lines.flush()

    def hear(self) -> tuple[str, Any]:
        """The next word and its argument; the process ends where nobody speaks any more."""
        line = ""
        with contextlib.suppress(ConnectionError):
            line = self.lines.readline()
        if not line:
            os._exit(0)  # a run that is no longer measured has nothing to save
        return next(iter(json.loads(line).items()))


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_mib(device: torch.device) -> float | None:
    """The most device memory that was reserved, MiB; None on the CPU."""
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else None


def serve(wire: Wire, facts: dict[str, Any], works: dict[str, Work], device: torch.device) -> None:
    """Do what is asked, for ever."""
    wire.say(facts)
    while True:
        word, argument = wire.hear()
        wait_for(device)
        start = time.perf_counter()
        said = works[word](argument)
        wait_for(device)
        wire.say({"seconds": time.perf_counter() - start, "device_mib": device_mib(device)} | (said or {}))
