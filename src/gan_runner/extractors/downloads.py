"""Download a file: one attempt in a process; the file is created atomically."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

SECONDS = 10.0  # without an answer, or without another byte
BLOCK = 2**20

_failed: dict[str, str] = {}  # URL -> why it could not be had in this process


class Remote(NamedTuple):
    """A file on the network."""

    url: str
    size: int
    sha256: str


def download(remote: Remote, path: Path) -> str | None:
    """Download the file to `path`. Returns why it failed, or None.

    It is received in a temporary folder beside `path`, and moved to `path` if size and SHA-256 are right, so that an interruption
    leaves nothing. A failure is not retried in this process: a run that evaluates every minute must not wait every minute.
    """
    if remote.url in _failed:
        return _failed[remote.url]
    _failed[remote.url] = "it was interrupted"
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        _receive(remote, path)
    except (OSError, HTTPException, ValueError) as error:
        _failed[remote.url] = str(getattr(error, "reason", None) or error) or type(error).__name__
        return _failed[remote.url]
    else:
        del _failed[remote.url]
        return None
    finally:
        if not path.exists():
            for folder in new:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _receive(remote: Remote, path: Path) -> None:
    with urlopen(remote.url, timeout=SECONDS) as answer:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".download-", dir=path.parent))
        try:
            digest, size = hashlib.sha256(), 0
            with (part / path.name).open("wb") as file:
                while size <= remote.size and (block := answer.read(BLOCK)):
                    file.write(block)
                    digest.update(block)
                    size += len(block)
            if size != remote.size or digest.hexdigest() != remote.sha256:
                received = f"{size:,} bytes, SHA-256 {digest.hexdigest()}"
                raise ValueError(f"what came is another file: {received} instead of {remote.size:,} bytes, SHA-256 {remote.sha256}")
            os.replace(part / path.name, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
