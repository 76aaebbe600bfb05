"""Download a file: one attempt in a process, with a progress bar on a terminal; the file is created atomically."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS = 10.0  # without an answer, or without another byte
BLOCK = 2**20

_failed: dict[str, str] = {}  # URL -> why it could not be had in this process


class Remote(NamedTuple):
    """A file on the network."""

    url: str
    size: int | None
    """In bytes; None where it was not published: what the server says is taken."""

    sha256: str | None
    """None where it was not published: any file of that size is taken."""


def fetch(remote: Remote, path: Path, allowed: bool) -> str | None:
    """Download the file to `path` where that is allowed. Returns why it is not there, or None."""
    if not allowed:
        return "downloading is off (extractor.download=false)"
    failure = download(remote, path)
    return None if failure is None else f"it could not be downloaded ({failure})"


def download(remote: Remote, path: Path) -> str | None:
    """Download the file to `path`. Returns why it failed, or None.

    It is received in a temporary folder beside `path`, and moved to `path` if size and SHA-256 are right, so that an interruption
    leaves nothing. A progress bar is shown on standard error where that is a terminal. A failure is not retried in this process: a run that
    evaluates every minute must not wait every minute.
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
        expected = remote.size if remote.size is not None else _announced(answer)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".download-", dir=path.parent))
        try:
            digest, size = hashlib.sha256(), 0
            with (part / path.name).open("wb") as file, _bar() as bar:
                task = bar.add_task(path.name, total=expected)
                while size <= expected and (block := answer.read(BLOCK)):
                    file.write(block)
                    digest.update(block)
                    size += len(block)
                    bar.update(task, completed=size)
            if size != expected or remote.sha256 not in (None, digest.hexdigest()):
                received = f"{size:,} bytes, SHA-256 {digest.hexdigest()}"
                wanted = f"{expected:,} bytes" + (f", SHA-256 {remote.sha256}" if remote.sha256 else "")
                raise ValueError(f"what came is another file: {received} instead of {wanted}")
            os.replace(part / path.name, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _announced(answer: HTTPResponse) -> int:
    """Return the size of the file in bytes, as the server says it; ValueError where it does not."""
    said = answer.headers.get("Content-Length", "")
    if not said.isdigit():
        raise ValueError("the server does not say how large the file is")
    return int(said)


def _bar() -> Progress:
    """Build a progress bar that shows nothing unless standard error is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
