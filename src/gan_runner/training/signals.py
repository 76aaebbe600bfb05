"""Handle the signals that stop a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from types import FrameType

from gan_runner import distributed
from gan_runner.errors import handled

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Record SIGINT, SIGTERM, SIGUSR1 or SIGUSR2, to stop after the round; a second signal of the same kind kills.

    Clusters send several kinds as warnings, one after another.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> Signals:
        self.handled = handled(SIGNALS, self.note)
        self.handled.__enter__()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # worker processes start with these blocked
        return self

    def __exit__(self, *error: object) -> None:
        self.handled.__exit__(None, None, None)

    def note(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if multiprocessing.parent_process() is not None:  # Linux sends SIGINT once for each thread of a parent that dies: one death
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.received is None and distributed.is_first():
            os.write(2, b"\nstopping after this round, once the state is saved; a second signal kills\n")
        self.received = self.received or number

    def agreed(self) -> bool:
        """Return whether to stop: all-reduce, true on all ranks once one has received a signal."""
        greatest = distributed.agree(self.received or 0)  # a signal that comes meanwhile is for the next round
        self.received = greatest or self.received
        return greatest > 0
