"""Print messages and a progress line on the terminal, and write train.log."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gan_runner.errors import Failed, plain, printable
from gan_runner.storage.files import appended

log = logging.getLogger("gan_runner")
notice = log.getChild("notice")  # its warnings are shown on the terminal as well


@log.addFilter
def make_plain(record: logging.LogRecord) -> bool:
    """Replace control characters in a message, which could move the cursor or change the text direction of a terminal."""
    record.msg, record.args = plain(record.getMessage()), ()
    return True


class LogFile(logging.FileHandler):
    """Handler of train.log. Failed if a line cannot be written; an error's line is dropped instead, as the error is printed anyway."""

    def __init__(self, path: Path):
        try:
            super().__init__(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise Failed(f"{path} could not be opened: {error.strerror}") from error
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def _open(self) -> TextIOWrapper:
        """Open the file; called by FileHandler."""
        path = Path(self.baseFilename)
        return open(appended(path, path.parent), "a", encoding=self.encoding, errors=self.errors)

    def format(self, record: logging.LogRecord) -> str:
        """Format an entry; its further lines are indented, so that they cannot look like entries."""
        return super().format(record).replace("\n", "\n    ")

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif record.levelno < logging.ERROR:
            raise Failed(f"{self.baseFilename} could not be written: {error.strerror}") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # losing a line of the log was reported already
            super().close()


class Warnings(logging.Handler):
    """Print the warnings of `notice` on the terminal, on every rank."""

    def __init__(self, console: Console):
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(Text(record.getMessage()), soft_wrap=True)


class Reporter:
    """Print messages on the terminal, and write them to a log file.

    `say` prints a permanent line. `show` prints progress: one live line on a terminal; elsewhere a plain line, at most one every
    `plain_seconds`.
    """

    def __init__(self, log_file: Path | None = None, console: Console | None = None, silent: bool = False):
        self.console = console or Console(stderr=True, highlight=False, quiet=silent)
        self.plain_seconds = 10.0
        self.shown = time.monotonic()
        self.live: Live | None = None
        self.handler: logging.Handler | None = None
        if log_file is not None:
            self.handler = LogFile(log_file)
            log.addHandler(self.handler)
            log.setLevel(logging.INFO)
            log.propagate = False
        self.warnings = Warnings(Console(stderr=True, highlight=False) if silent else self.console)
        notice.addHandler(self.warnings)

    def say(self, message: str) -> None:
        """Print a line, and write it to the log."""
        log.info(message)
        self.console.print(Text(plain(message)), soft_wrap=True)

    def show(self, state: str) -> None:
        """Show the progress of the work."""
        state = printable(state)
        if self.console.is_terminal:
            if self.live is None:
                self.live = Live(console=self.console, refresh_per_second=4, transient=True)
                self.live.start()
            self.live.update(Text(state, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self.shown >= self.plain_seconds:
            self.shown = time.monotonic()
            self.console.print(Text(state), soft_wrap=True)

    def pause(self) -> None:
        """Take the progress line away, until there is other progress, so that another stream can write to the terminal."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def close(self) -> None:
        self.pause()
        notice.removeHandler(self.warnings)
        if self.handler is not None:
            log.removeHandler(self.handler)
            self.handler.close()
            self.handler = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


Tick = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


class Countdown:
    """Show the progress of work and the remaining time."""

    def __init__(self, reporter: Reporter, about: str = ""):
        self.reporter, self.about, self.what, self.done = reporter, about, "", 0

    def at(self, what: str, done: int, n: int) -> None:
        """Report that `done` of n are done; another `what` resets the estimate."""
        if what != self.what or done <= self.done:
            self.began, self.first = time.monotonic(), done  # the first report comes after some work, whose time is not known
        self.what, self.done = what, done
        per_one = (time.monotonic() - self.began) / max(done - self.first, 1)
        left = f", {duration(per_one * (n - done))} left" if done > self.first else ""
        self.reporter.show(f"{self.about}{what}: {done}/{n}{left}")


class Stopwatch:
    """Measure the time since it was made, to announce how long later work takes; no figure depends on it."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def duration(seconds: float) -> str:
    """Format seconds as 12 s, 3 min 20 s, 2 h 05 min or 4 d 03 h."""
    seconds = round(seconds)
    for unit, small, size, per in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // per:02d} {small}"
    return f"{seconds} s"
