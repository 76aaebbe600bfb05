"""Standard output and standard error of a command, to which writing never fails. Imports no torch.

Messages are a courtesy: a run goes on when its terminal is closed, when `head` has read enough, or when the disk of its log is full.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNREAD = (errno.EPIPE, errno.EIO)  # nobody reads it any more: a pipe, a terminal


class Courtesy(io.RawIOBase):
    """A file descriptor; what cannot be written to it is dropped. lost: the first reason, except that nobody reads any more."""

    def __init__(self, descriptor: int):
        super().__init__()
        self.descriptor = descriptor
        self.lost: OSError | None = None

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def,override]
        try:
            return os.write(self.descriptor, data)
        except OSError as error:
            if error.errno not in UNREAD:
                self.lost = self.lost or error
            return len(data)


@contextmanager
def courteous() -> Iterator[dict[str, Courtesy]]:
    """Replace `sys.stdout` and `sys.stderr` by streams to which writing never fails. Yields both, by name.

    Characters that an encoding lacks are written as escapes. A stream that is closed leads nowhere; one that another program has put in
    its place is left alone.
    """
    streams, before = {}, {"stdout": sys.stdout, "stderr": sys.stderr}
    for descriptor, (name, stream) in enumerate(before.items(), 1):
        if stream is not getattr(sys, f"__{name}__"):
            continue
        if stream is None:
            take_up(descriptor)
        else:
            stream.flush()
        streams[name] = Courtesy(descriptor)
        buffered = io.BufferedWriter(streams[name])
        encoding = getattr(stream, "encoding", "utf-8")
        lines = name == "stderr" or streams[name].isatty()
        setattr(sys, name, io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=lines))
    try:
        yield streams
    finally:
        for name in streams:
            getattr(sys, name).flush()
            setattr(sys, name, before[name])


def take_up(descriptor: int) -> None:
    """Open a closed descriptor on nothing: else the next file that is opened would get its number, and the messages of C libraries."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        if null != descriptor:
            os.close(null)
