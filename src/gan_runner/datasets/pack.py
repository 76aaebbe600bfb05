"""Base classes of files that pack images: such a file, and an image in it. Nothing of it is unpacked to the disk."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import IO, Any

from gan_runner.datasets.listing import shown, suffix_of
from gan_runner.errors import UserError, printable

MEMBERS = 2**22  # images of a file, at most
NAME = 1000  # characters of the name of an image or a class


class Member:
    """An image that is packed in a file: read whole, when it is asked for. UserError, which names it, where it cannot be read.

    name: of the image below the file, by which it is split. size: bytes, 0 where it is not known before. mark: stands for its label where
    the name does not tell it, else "-".
    """

    __slots__ = ("key", "mark", "name", "pack", "size")

    def __init__(self, pack: Pack, key: int, name: str, size: int = 0, mark: str = "-"):
        self.pack, self.key, self.name, self.size, self.mark = pack, key, name, size, mark

    def __str__(self) -> str:
        return self.pack.described(self.key)

    @property
    def identity(self) -> str:
        """What changes when the bytes of the image do."""
        return f"{self.pack.path.absolute()} {self.pack.state} {self.key} {self.name} "

    @property
    def suffix(self) -> str:
        return suffix_of(self.name)

    def read_bytes(self) -> bytes:
        """Read the encoded image."""
        return self.pack.read(self.key)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the encoded image for reading."""
        return io.BytesIO(self.read_bytes())


Encoded = Path | Member  # an image file: by itself, or packed in another file


class Pack:
    """A file that packs images. Each process opens it for itself, so that none moves the place at which another reads.

    UserError where the file cannot be read, or has changed since it was listed.
    """

    def __init__(self, path: Path):
        self.path, self.state = path, state_of(path)
        self._opened: tuple[int, Any] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_opened": None, "_lock": threading.Lock()}

    @property
    def handle(self) -> Any:
        """The file, opened in this process."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            if state_of(self.path) != self.state:
                raise UserError(f"{shown(self.path)} has changed while it was in use; start again")
            opened = self._opened = (os.getpid(), self.opened())
        return opened[1]

    def opened(self) -> Any:
        """Open the file."""
        raise NotImplementedError

    def read(self, key: int) -> bytes:
        """Read the bytes of an image."""
        raise NotImplementedError

    def described(self, key: int) -> str:
        """Name an image in messages."""
        raise NotImplementedError


def state_of(path: Path) -> tuple[int, int]:
    """Return size and time of change of a regular file. UserError where there is none."""
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {shown(path)}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(about.st_mode):
        raise UserError(f"cannot read {shown(path)}: it is no regular file")
    return about.st_size, about.st_mtime_ns


def reason(error: BaseException) -> str:
    """Return one line of an error."""
    return printable((getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0], 200)
