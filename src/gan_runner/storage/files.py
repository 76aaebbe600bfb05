"""Open and write files in the directory of a run, a sweep or a rating: only regular files, and never through a link. Imports no torch.

Such a directory may come from another person. A link in it could redirect a write to any file of the user, opening a pipe would block, and
reading a device might never end. A path that the user typed may contain links; the part below the directory, its `root`, may not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gan_runner.errors import Failed
from gan_runner.storage.contents import kind


def append(path: Path, data: bytes, root: Path | None = None) -> None:
    """Append to a file of a directory and sync it to disk. Failed if it cannot be written or is not a regular file.

    root: the directory below which no link is followed; None: the folder of the file.
    """
    try:
        with open(appended(path, root or path.parent), "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Failed(f"{path} could not be written: {error.strerror}") from error


# -------------------------------------------------------------------------------------------------------------------------------- opening


@contextmanager
def folder_of(path: Path, root: Path | None = None) -> Iterator[int]:
    """Open the folder of a file, reached from `root` (None: that folder) without following a link: a descriptor. OSError where it cannot
    be."""
    root = path.parent if root is None else root
    if ".." in path.parent.relative_to(root).parts:
        raise OSError(errno.EINVAL, "it leads out of the directory")
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.parent.relative_to(root).parts:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def opened(path: Path, root: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file in a directory and return its descriptor. OSError, with the reason, for anything else."""
    with folder_of(path, root) as folder:
        with contextlib.suppress(FileNotFoundError):  # looked at first: opening a device may be an act
            refuse_irregular(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode)
        return regular(os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder))


def typed(path: Path) -> int:
    """Open for reading a regular file that the user named, links allowed. Returns a descriptor; OSError, without blocking, otherwise."""
    refuse_irregular(path.stat().st_mode)
    return regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def regular(descriptor: int) -> int:
    """Return the descriptor of a regular file; close any other and raise OSError."""
    try:
        refuse_irregular(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def refuse_irregular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {kind(mode)}, not a file")


def appended(path: Path, root: Path) -> int:
    """Open a file for appending and return its descriptor; the file is created if it is missing. OSError if it cannot be opened.

    A file with several hard links is copied first, so that the other link keeps its content.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = opened(path, root, flags)
    if os.fstat(descriptor).st_nlink == 1:
        return descriptor
    os.close(descriptor)
    with open(opened(path, root), "rb") as source:
        replace(path, lambda part: shutil.copyfileobj(source, part), root)
    return opened(path, root, flags)


# -------------------------------------------------------------------------------------------------------------------------------- writing


def write_bytes(path: Path, data: bytes | memoryview, root: Path | None = None) -> None:
    """Write a file atomically. Failed if it cannot be written; an older file is then left unchanged.

    root: the directory below which no link is followed; None: the folder of the file.
    """

    def fill(part: BinaryIO) -> None:
        part.write(data)

    replace(path, fill, root)


def make_folder(path: Path, root: Path | None = None) -> None:
    """Create a folder if it is missing. Failed if it cannot be created, or a file or a link has its name."""
    try:
        with folder_of(path, root) as folder:
            try:
                os.mkdir(path.name, dir_fd=folder)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise
    except OSError as error:
        raise Failed(f"{path} could not be created: {error.strerror}") from error


def link(source: Path, path: Path, root: Path | None = None) -> None:
    """Hard-link `path` to `source`, in the same folder, or copy it where hard links are not supported."""

    def name(part: str, folder: int) -> None:
        try:
            os.link(source.name, part, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError:
            with open(opened(source, root or source.parent), "rb") as whole, _new(part, folder) as file:
                shutil.copyfileobj(whole, file)

    _replace(path, name, root)


def replace(path: Path, fill: Callable[[BinaryIO], None], root: Path | None = None) -> None:
    """Write a file atomically: `fill` writes a temporary file, which is synced and renamed. Failed if it cannot be written."""

    def write(part: str, folder: int) -> None:
        with _new(part, folder) as file:
            fill(file)

    _replace(path, write, root)


def unlink(path: Path, root: Path) -> None:
    """Remove a file of a directory if it exists."""
    with contextlib.suppress(OSError), folder_of(path, root) as folder:
        os.unlink(path.name, dir_fd=folder)


def _replace(path: Path, write: Callable[[str, int], None], root: Path | None) -> None:
    part = f".{path.name}.{os.getpid()}.part"
    try:
        with folder_of(path, root) as folder:
            try:
                _refuse_to_replace(path.name, folder)
                _remove(part, folder)
                write(part, folder)
                _sync(part, folder)
                os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    _remove(part, folder)
                raise
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise Failed(f"{path} could not be written: {_reason(error, path.parent)}; what was there before is intact") from error


def _refuse_to_replace(name: str, folder: int) -> None:
    """Raise OSError if the name is a device or a pipe, such as /dev/null: other programs need it."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISLNK(mode):
            refuse_irregular(mode)


def _new(name: str, folder: int) -> BinaryIO:
    return open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder), "wb")


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _sync(name: str, folder: int) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOSPC):
        return error.strerror or str(error)
    free = shutil.disk_usage(folder).free / 2**20 if folder.exists() else 0.0
    return f"the disk is full ({free:.0f} MiB free)" if free < 64 or isinstance(error, OSError) else str(error).splitlines()[0]
