"""Read the curves of the training game from the event files of a run directory, as of a stranger. Imports no torch."""

import os
import stat
import struct
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from gan_runner.storage.contents import CURVES
from gan_runner.storage.untrusted import entries, number

NAMES = ("loss/g", "loss/d", "d/real", "d/fake")
EVENTS = "events.out.tfevents.*"
MOST_FILES = 100
MOST_BYTES = 2**28  # of one file
LARGEST = 2**12  # bytes of a record with a number; larger ones are pictures


def read(folder: Path) -> dict[str, dict[int, float | None]]:
    """Return {round: value} of each curve in NAMES that a run has; None where a value is not finite. A resumed run has the last word."""
    found: dict[str, dict[int, float | None]] = {}
    for path in event_files(folder)[:MOST_FILES]:
        for step, name, value in scalars(path):
            found.setdefault(name, {})[step] = value
    return {name: dict(sorted(found[name].items())) for name in NAMES if name in found}


def event_files(folder: Path) -> list[Path]:
    """List the event files of a run, oldest first: TensorBoard has the time in their names. Links are not followed."""
    below = [Path(each.path) for each in entries(folder) if fnmatch(each.name, CURVES[-1])]
    paths = (Path(each.path) for place in (folder, *below) for each in entries(place) if fnmatch(each.name, EVENTS))
    return sorted(paths, key=lambda path: path.name)


def scalars(path: Path) -> Iterator[tuple[int, str, float | None]]:
    """Yield (round, name, value) of the numbers in NAMES; an incomplete or damaged record ends the file."""
    from google.protobuf.message import DecodeError  # a tenth of a second that only the page needs
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                for record in records(file):
                    event = Event.FromString(record)
                    for value in event.summary.value:
                        if value.tag in NAMES and value.WhichOneof("value") == "simple_value" and event.step >= 0:
                            yield event.step, value.tag, number(value.simple_value)
    except (OSError, ValueError, DecodeError):
        return


def records(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the short records of an event file: 8 bytes of length, 4 of a checksum, the record, 4 of a checksum."""
    while file.tell() < MOST_BYTES and len(head := file.read(12)) == 12:
        (length,) = struct.unpack("<Q", head[:8])
        if length <= LARGEST:
            record = file.read(length)
            if len(record) < length:
                return
            yield record
        else:
            file.seek(min(length, MOST_BYTES), os.SEEK_CUR)
        file.seek(4, os.SEEK_CUR)
