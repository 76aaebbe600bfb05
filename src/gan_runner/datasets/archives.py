"""Verify or download the files of public data sets."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

from gan_runner.errors import Failed, UserError

Check = Callable[[Path], tuple[str, str]]  # (what is expected of a file, what was found); equal where it is undamaged

_sound: set[tuple[Path, int, int]] = set()  # (path, size, mtime) of the files that this process has read through


class Archive(NamedTuple):
    """A file on the network, and the files unpacked from it."""

    name: str
    md5: str
    urls: tuple[str, ...]
    members: tuple[str, ...]


def md5_is(expected: str) -> Check:
    """Build the check for this MD5."""

    def check(path: Path) -> tuple[str, str]:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return f"md5 {expected}", f"md5 {found}"

    return check


def verify(path: Path, check: Check) -> None:
    """Verify a file, once in a process unless it changes. Raises UserError if it is damaged."""
    try:
        stat = path.stat()
        key = (path.resolve(), stat.st_size, stat.st_mtime_ns)
        if key in _sound:
            return
        expected, found = check(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if expected != found:
        raise UserError(
            f"{path} is damaged: expected {expected}, found {found}; delete it and run again to have it downloaded, or put an undamaged "
            "copy there"
        )
    _sound.add(key)


def obtain(title: str, folder: Path, checks: Mapping[str, Check], archives: Callable[[], Iterable[Archive]]) -> None:
    """Ensure that all files (path below `folder`: its check) exist undamaged; download the archives of missing ones.

    An archive that exists in `folder` is unpacked without a download. Raises UserError if a file is damaged, or missing and cannot be
    downloaded; Failed if the disk is full.
    """
    lacking = {name for name in checks if not (folder / name).is_file()}
    for name, check in checks.items():
        if name not in lacking:
            verify(folder / name, check)
    if not lacking:
        return
    missing = [(archive, lacks) for archive in archives() if (lacks := [name for name in archive.members if name in lacking])]
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        for archive, lacks in missing:
            _unpack(folder, archive, {name: checks[name] for name in lacks})
    except (OSError, HTTPException, RuntimeError) as error:  # torchvision raises RuntimeError for a bad download
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Failed(f"cannot write {title} to {folder}: {error.strerror}") from error
        wanted = " and ".join(f"{archive.name} (md5 {archive.md5}, {archive.urls[0]})" for archive, _ in missing)
        inside = ", ".join(name for _, lacks in missing for name in lacks)
        raise UserError(
            f"{title} is not in {folder.absolute()} and cannot be downloaded ({error}). Put {wanted} there, or unpacked: {inside}. "
            "Another place is named by dataset.root or by the environment variable GAN_RUNNER_DATA"
        ) from error


def _unpack(folder: Path, archive: Archive, checks: Mapping[str, Check]) -> None:
    """Unpack in a temporary folder, then move each file to its path: interruptions and other processes leave no partial file."""
    from torchvision.datasets import utils

    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    try:
        if (folder / archive.name).is_file():
            verify(folder / archive.name, md5_is(archive.md5))
            utils.extract_archive(str(folder / archive.name), str(part))
        else:
            _download(part, archive)
        for name, check in checks.items():
            verify(part / name, check)
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(part / name, folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _download(part: Path, archive: Archive) -> None:
    from torchvision.datasets import utils

    for url in archive.urls:
        try:
            utils.download_and_extract_archive(url, str(part), filename=archive.name, md5=archive.md5)
            return
        except (URLError, ConnectionError, TimeoutError, HTTPException, RuntimeError):
            if url == archive.urls[-1]:
                raise
