"""An event file of TensorBoard that a process adds to whenever it has something, also after it was killed."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from gan_runner.storage import contents, files
from gan_runner.storage.untrusted import read_bounded

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class Curves:
    """Adds points to one event file below a run directory, each once. Half a point at its end, of a power cut, is removed.

    Not in the run directory itself: of several files in one folder, TensorBoard without its data server reads on in the newest only, and
    the curves of training would stop (`File ... updated even though the current file is ...`).
    """

    def __init__(self, path: Path, root: Path):
        from tensorboard.compat.proto.event_pb2 import Event

        self.path, self.root = path, root
        before = read_bounded(path, contents.MOST[path.name]) or b""
        whole = list(events_of(before))
        self.there = {point(event) for event in whole}
        first = [] if whole else [Event(wall_time=time.time(), file_version="brain.Event:2")]
        kept = b"".join(map(record, whole or first))
        if kept != before:
            files.write_bytes(path, kept, root)

    def add(self, step: int, values: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Add numbers and pictures, but for those that are there. Failed if they cannot be written."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import image, scalar

        made = [scalar(name, value) for name, value in values.items()]
        made += [image(name, picture, dataformats="CHW") for name, picture in pictures.items()]
        events = [Event(wall_time=time.time(), step=step, summary=each) for each in made]
        files.append(self.path, b"".join(record(event) for event in events if point(event) not in self.there), self.root)
        self.there |= {point(event) for event in events}


def point(event: Event) -> tuple[int, bytes]:
    """Return what tells points apart: their step, and a hash of name and value."""
    return event.step, sha256(event.summary.SerializeToString(deterministic=True)).digest()


def record(event: Event) -> bytes:
    """Return an event as it is in a file: its length, itself, and checksums."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def events_of(data: bytes) -> Iterator[Event]:
    """Parse the events of a file, up to the first that is not whole."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    at, edge = 0, 12  # bytes: a length of 8 and a checksum of 4; behind the event another one
    while at + edge <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        try:
            event = Event.FromString(data[at + edge : at + edge + length])
        except DecodeError:
            return
        if record(event) != data[at : at + edge + length + 4]:
            return
        yield event
        at += edge + length + 4
