"""A state on disk: whole or not at all, and read without executing anything."""

import contextlib
import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from gan_runner.errors import Failed

VERSION = 2
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda state: {**state, "version": 2, "rng": [state.get("rng")]},  # before there were several processes
}
PARTS = {"step": int, "spec": dict, "game": dict, "batches": dict, "callbacks": dict, "rng": list}  # of the state of a run
SINCE = {"config": dict, "data": dict, "machine": dict}  # parts that states of before do not have
MISFIT = (RuntimeError, LookupError, ValueError, TypeError, AttributeError)  # how a state says that it belongs to something else
_PLAIN = (bool, int, float, str, type(None))


class Damaged(Exception):
    """A file that cannot be read as a checkpoint."""


def refuse_objects(value: Any, path: str = "state") -> None:
    """Name the first thing in a state that a weights-only load would refuse: all but tensors, numbers, strings, None, list, tuple, dict."""
    if type(value) is dict or (isinstance(value, dict) and type(value).__name__ == "OrderedDict"):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise TypeError(f"{path} has the key {key!r} of type {type(key).__name__}; a checkpoint takes str and int")
            refuse_objects(item, f"{path}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            refuse_objects(item, f"{path}[{i}]")
    elif type(value) not in _PLAIN and not isinstance(value, torch.Tensor):
        raise TypeError(f"{path} is a {type(value).__name__}; a checkpoint takes tensors, numbers, strings, None, list, tuple and dict")


def snapshot(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it is now, in memory of its own on the CPU: what it was taken from may go on changing."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), state)


class Writer:
    """Writes on a thread of its own while rounds are played, one thing at a time; what goes wrong is raised by the next call."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "writer")
        self.last: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Begin this when what came before is done."""
        self.wait()
        self.last = self.thread.submit(work)

    def look(self) -> None:
        """Raise what went wrong, if that is known by now."""
        if self.last is not None and self.last.done():
            self.wait()

    def wait(self) -> None:
        """Return when everything is written."""
        last, self.last = self.last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Wait, and let go of the thread."""
        try:
            self.wait()
        finally:
            self.thread.shutdown()


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all; Failed where the disk does not take it, with the file that was there intact."""

    def fill(part: Path) -> None:
        part.write_bytes(data)

    _replace(path, fill)


def make_folder(path: Path) -> None:
    """Make a folder where there is none. Failed where the disk does not take it, or a file has its name."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise Failed(f"{path} could not be created: {error.strerror}") from error


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state, whole or not at all. Failed where the disk does not take it; the file that was there stays."""
    refuse_objects(state)
    _replace(path, lambda part: torch.save(state, part))


def link(source: Path, path: Path) -> None:
    """Let `path` be a second name of `source`, or a copy where the file system has no second names."""

    def fill(part: Path) -> None:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)

    _replace(path, fill)


def _replace(path: Path, fill: Any) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        fill(part)
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise Failed(f"{path} could not be written: {_reason(error, path.parent)}; what was there before is intact") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOSPC):
        return error.strerror or str(error)
    free = shutil.disk_usage(folder).free / 2**20 if folder.exists() else 0.0
    return f"the disk is full ({free:.0f} MiB free)" if free < 64 or isinstance(error, OSError) else str(error).splitlines()[0]


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read the state of a run. Damaged where the file is cut, altered beyond reading, or of another kind."""
    try:
        with zipfile.ZipFile(path) as file:
            if altered := file.testzip():  # torch.load does not look at checksums: flipped bits would be weights
                raise ValueError(f"the checksum of {altered} is wrong")
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # the zip reader and the unpickler have a dozen ways of saying so
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{path} is damaged: {reason[:120]}") from error
    if not isinstance(state, dict) or type(state.get("version")) is not int:
        raise Damaged(f"{path} is not a checkpoint of gan-runner")
    version = state["version"]
    if not 1 <= version <= VERSION:
        raise Damaged(f"{path} is of version {version}, and this gan-runner reads versions 1 to {VERSION}; install a newer one")
    for older in range(version, VERSION):
        state = MIGRATIONS[older](state)
    parts = PARTS | {name: kind for name, kind in SINCE.items() if name in state}
    if wrong := [name for name, kind in parts.items() if not isinstance(state.get(name), kind)]:
        raise Damaged(f"{path} is not the state of a run: it has no {', '.join(wrong)} of the right kind")
    return state


def misfit(error: Exception) -> str:
    """What a state that belongs to something else has said, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def candidates(folder: Path) -> list[Path]:
    """The checkpoints from which a run can go on, newest first: last.pt, then step_*.pt."""
    return [path for path in (folder / "last.pt", *reversed(numbered(folder))) if path.is_file()]


def numbered(folder: Path) -> list[Path]:
    """The checkpoints step_*.pt, oldest first."""
    return sorted(folder.glob("step_*.pt"))
