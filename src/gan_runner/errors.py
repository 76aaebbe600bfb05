"""What can end a command other than success, its exit code, and how messages are printed. Only cli.py turns one into the other."""

import difflib
import errno
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any


class UserError(Exception):
    """The configuration or the input is wrong: one clear message, nothing created. Exit code 2."""


class Failed(Exception):
    """The run could not go on, through no fault of its configuration (a full disk, a folder that went away). Exit code 1."""


class Diverged(Exception):
    """A loss is no longer finite. Exit code 3."""


class Interrupted(Exception):
    """A signal asked the run to stop; its state was saved first, unless `lost` says otherwise. Exit code 128 + signal."""

    def __init__(self, number: int, lost: str = ""):
        super().__init__(f"interrupted by signal {number}" + (f"; {lost}" if lost else ""))
        self.signal = number


Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


@contextmanager
def handled(numbers: Iterable[int], handler: Handler) -> Iterator[None]:
    """Handle signals by `handler`, and restore the handlers of before at the end. SIGHUP stays ignored where it is: nohup asks for that."""
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, handler) for number in numbers if number not in ignored}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


DONE, FAILED, WRONG, DIVERGED, KEYBOARD = 0, 1, 2, 3, 130  # exit codes


def with_article(name: str) -> str:
    """Return `a name`, or `an name` before a vowel."""
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def verdict(error: Exception) -> tuple[int, str]:
    """Return (exit code, message), and print the traceback of an unexpected error where GAN_RUNNER_DEBUG asks for one."""
    match error:
        case UserError():
            return WRONG, str(error)
        case Diverged():
            return DIVERGED, str(error)
        case Interrupted():
            return 128 + error.signal, str(error)
        case Failed():
            return FAILED, str(error)
        case OSError(errno=errno.ENAMETOOLONG):
            return WRONG, f"the path {printable(str(error.filename), 100)} is longer than this system allows; choose a shorter one"
    if os.environ.get("GAN_RUNNER_DEBUG") or os.environ.get("HYDRA_FULL_ERROR") == "1":
        print(plain("".join(traceback.format_exception(error))), file=sys.stderr)
        return FAILED, f"{type(error).__name__}: {error}"
    short = lack_of_memory(error)
    said = f"{short}; a smaller batch_size or n needs less" if short else f"{type(error).__name__}: {error}"
    notes = getattr(error, "__notes__", None) or ["set GAN_RUNNER_DEBUG=1 to see where"]
    return FAILED, "\n  ".join([said, *notes])


def lack_of_memory(error: Exception) -> str | None:
    """Say that memory was short, and how much was asked for; None for any other error. torch has several ways to say it."""
    said = str(error)
    if not isinstance(error, MemoryError):
        ways = "memory: you tried|out of memory|calculation overflowed|too big to convert"
        if not (isinstance(error, OverflowError | RuntimeError) and re.search(ways, said)):
            return None
    asked = re.search(r"tried to allocate ([\d.]+) ?(\w+)", said, re.IGNORECASE)
    size = asked and (amount(int(asked[1])) if asked[2] == "bytes" else f"{asked[1]} {asked[2]}")
    return f"not enough memory{f' for {size} at once' if size else ''}"


def amount(size: int) -> str:
    """Format a number of bytes, rounded down, in the unit in which it has the fewest digits: 23 GiB; what is beyond as 1,024 YiB."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
    unit = min(max(size.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{min(size >> 10 * unit, 1024):,} {units[unit]}"


def place_in(packages: Iterable[str], error: BaseException | None) -> str | None:
    """Return where the code of these packages raised an error: `mypkg/losses.py, line 12, in Mine.forward`; None if it did not."""
    roots, place = tuple(packages), None
    while error is not None:
        for frame, line in traceback.walk_tb(error.__traceback__):
            name = str(frame.f_globals.get("__name__"))
            if any(name == root or name.startswith(f"{root}.") for root in roots):
                place = f"{frame.f_code.co_filename}, line {line}, in {frame.f_code.co_qualname}"
        error = error.__cause__
    return place


def say(command: str, message: str) -> None:
    """Print `gan-train: message` on stderr; several mistakes are indented below a count."""
    lines = plain(message).rstrip("\n").split("\n")
    mistakes = [line for line in lines if not line.startswith(" ")]
    if len(mistakes) > 1:
        lines = [f"{len(mistakes)} mistakes", *(f"  {line}" for line in lines)]
    print(f"{command}: " + "\n".join(lines), file=sys.stderr, flush=True)


def shell_line(words: Iterable[str]) -> str:
    """Write words as they are typed into a shell; zsh replaces one that begins with `=`."""
    return " ".join(f"'{word}'" if re.fullmatch(r"=[\w@%+=:,./-]*", word) else shlex.quote(word) for word in words)


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """Suggest a key, ` (did you mean trainer.steps?)`."""
    near = nearest(wrong, known)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def nearest(wrong: str, known: Sequence[str]) -> list[str]:
    """Return the keys that are probably meant, three at most: first those with the same last word, then one that is spelt alike."""
    last = wrong.rsplit(".", 1)[-1]
    near = [key for key in known if key != wrong and key.rsplit(".", 1)[-1] == last][:3]
    near = near or difflib.get_close_matches(wrong, known, 1, 0.7)
    if not near:
        ends = difflib.get_close_matches(last, [key.rsplit(".", 1)[-1] for key in known], 1, 0.7)
        near = [key for key in known if key.rsplit(".", 1)[-1] in ends][:3]
    return near


def printable(text: str, limit: int = 500) -> str:
    """Return a text on one line that moves no cursor and turns no direction of reading."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text[:limit])
    return shown + ("..." if len(text) > limit else "")


def some(texts: Iterable[str], most: int) -> str:
    """List the first texts, and say how many more there are: `cat, dog and 4 more`."""
    every = list(texts)
    return ", ".join(every[:most]) + (f" and {len(every) - most:,} more" if len(every) > most else "")


def plain(text: str) -> str:
    """Return a text whose lines are `printable`; its line breaks stay."""
    return "\n".join(printable(line, len(line)) for line in text.replace("\r\n", "\n").split("\n"))
