"""Handle the signals that stop a run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from types import FrameType

from gan_runner import distributed
from gan_runner.errors import Interrupted, handled

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
PATIENCE_S = 5.0  # that a run still waits for its data after a signal


class Signals:
    """Record a signal of SIGNALS, to stop after the round; a second signal of the same kind kills, except SIGHUP.

    Until `playing` is set there is nothing to save, and a signal ends a run of one process at once. Clusters send several kinds as
    warnings, one after another. A terminal that closes sends SIGHUP twice.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.at = 0.0
        self.playing = False

    def __enter__(self) -> Signals:
        self.handled = handled(SIGNALS, self.note)
        self.handled.__enter__()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # worker processes start with these blocked
        return self

    def __exit__(self, *error: object) -> None:
        self.handled.__exit__(None, None, None)

    def note(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
        if multiprocessing.parent_process() is not None:  # Linux sends SIGINT once for each thread of a parent that dies: one death
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.received is not None:
            return
        self.received, self.at = number, time.monotonic()
        if not self.playing and distributed.size() == 1:
            raise Interrupted(number)
        if distributed.is_first():
            with contextlib.suppress(OSError):  # nobody reads it
                os.write(2, b"\nstopping after this round, once the state is saved; a second signal kills\n")

    def agreed(self) -> bool:
        """Return whether to stop: all-reduce, true on all ranks once one has received a signal."""
        greatest = distributed.agree(self.received or 0)  # a signal that comes meanwhile is for the next round
        self.received = greatest or self.received
        return greatest > 0

    def refuse_to_wait(self) -> None:
        """Raise Interrupted in a round that waits for its data, where a signal came more than PATIENCE_S ago."""
        if self.received is not None and time.monotonic() - self.at > PATIENCE_S:
            raise Interrupted(self.received, "the round still waited for its data, so what followed the last checkpoint is not saved")
