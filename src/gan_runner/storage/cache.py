"""Write and read the files of the cache: written atomically, with a checksum at the end that is verified on reading."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from gan_runner.storage import files

BLOCK = 2**20
SEAL = 16  # bytes at the end of a file: "\ncrc32 01234567\n"


class Damaged(Exception):
    """A file of the cache that was altered or cut; the message names the evidence."""


def cache_folder() -> Path:
    """Return the folder of decoded images and features of real data: $GAN_RUNNER_CACHE, else gan-runner in the user's cache folder."""
    if named := os.environ.get("GAN_RUNNER_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gan-runner"


def seal(checksum: int) -> bytes:
    """Return the last SEAL bytes of a file whose other bytes have this CRC-32."""
    return b"\ncrc32 %08x\n" % checksum


def write(path: Path, data: bytes | memoryview) -> None:
    """Write a file and its checksum. Failed if it cannot be written."""
    files.write_bytes(path, b"".join([data, seal(zlib.crc32(data))]))


def verify(path: Path) -> None:
    """Verify the checksum of a whole file. Damaged if it is wrong or missing; OSError if the file cannot be read."""
    with path.open("rb") as file:
        left, checksum = os.fstat(file.fileno()).st_size - SEAL, 0
        while left > 0 and (block := file.read(min(left, BLOCK))):
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
        if left or file.read() != seal(checksum):
            raise Damaged("its checksum is wrong")


def read(path: Path) -> bytes:
    """Return the bytes of a file without its checksum. Damaged if that is wrong or missing; OSError if the file cannot be read."""
    content = path.read_bytes()
    if content[-SEAL:] != seal(zlib.crc32(memoryview(content)[:-SEAL])):
        raise Damaged("its checksum is wrong")
    return content[:-SEAL]


def identity(path: Path) -> tuple[int, ...]:
    """Return inode, size and modification time of a file: they change when it is replaced. OSError if there is no file."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
