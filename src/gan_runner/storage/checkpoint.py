"""Write states atomically and read them with a weights-only load, which executes no code."""

import os
import pickletools
import re
import stat
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.utils._pytree import tree_map_only

from gan_runner.errors import printable
from gan_runner.storage.files import opened, replace, typed
from gan_runner.storage.untrusted import memory

VERSION = 2
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda state: {**state, "version": 2, "rng": [state.get("rng")]},  # before there were several processes
}
PARTS = {"step": int, "spec": dict, "game": dict, "batches": dict, "callbacks": dict, "rng": list}  # of the state of a run
SINCE = {"config": dict, "data": dict, "machine": dict}  # parts that states of before do not have
SHOWN = ("spec", *SINCE)  # parts whose values are compared, printed and written
MOST = 3_000_000  # values and characters of such a part
MISFIT = (RuntimeError, LookupError, ValueError, TypeError, AttributeError)  # what load_state_dict raises for a state of another model
KEYS = (  # how names in a saved game begin, and the keys of the configuration that they belong to
    (r"players\.(\w+)\.objective\.net\.", r"architecture.\1."),
    (r"players\.\w+\.objective\.owned\.", ""),
    (r"players\.(\w+)\.schedules\.", r"optimizer.\1."),
    (r"players\.(\w+)\.", r"optimizer.\1."),
    (r"tricks\.", "trick."),
)
_PLAIN = (bool, int, float, str, type(None))


class Damaged(Exception):
    """A file that cannot be read as a checkpoint."""


def refuse_objects(value: Any, path: str = "state") -> None:
    """Raise TypeError at the first value that a weights-only load would refuse.

    Allowed are tensors, numbers, strings, None, list, tuple and dict.
    """
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
    """Copy the state to the CPU, so that training can go on while the copy is written."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), state)


class Writer:
    """Writes files in a thread during training, one after the other; the next call raises the error of a failed write."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "writer")
        self.last: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Wait for the previous write, then start this one."""
        self.wait()
        self.last = self.thread.submit(work)

    def look(self) -> None:
        """Raise the error of a failed write, without waiting for one that is in progress."""
        if self.last is not None and self.last.done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is written; raise the error of a failed write."""
        last, self.last = self.last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Wait until everything is written, and end the thread."""
        try:
            self.wait()
        finally:
            self.thread.shutdown()


def save(path: Path, state: dict[str, Any], root: Path | None = None) -> None:
    """Write a state atomically. Failed if it cannot be written; an older file is then left unchanged.

    root: the directory below which no link is followed; None: the folder of the file.
    """
    refuse_objects(state)
    replace(path, lambda part: torch.save(state, part), root)


def load(path: Path, device: torch.device | str = "cpu", root: Path | None = None) -> dict[str, Any]:
    """Read the state of a run. Damaged if the file is cut, altered, no checkpoint, or needs more memory than its own size.

    root: the run directory, in which no link is followed; None: a path that the user typed. FileNotFoundError if there is no file.
    """
    state = read_tensors(path, device, root)
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
    if large := [name for name in SHOWN if name in state and not is_small(state[name])]:
        raise Damaged(f"{path} is not the state of a run: {', '.join(large)} would grow when it is shown")
    return state


def read_tensors(path: Path, device: torch.device | str = "cpu", root: Path | None = None) -> Any:
    """Read what torch.save wrote, if it is tensors and plain values: nothing of the file is executed. Errors as of `load`."""
    try:
        with open(typed(path) if root is None else opened(path, root), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > memory():
                raise ValueError(f"it has {size / 2**30:.0f} GiB, more than there is memory")
            refuse_growing(file, size)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Validating sparse tensor")  # which no part of ours has
                state = torch.load(file, map_location=device, weights_only=True)
            refuse_declared(state, size)
    except FileNotFoundError:
        raise
    except Exception as error:  # the zip reader and the unpickler have a dozen ways of saying so
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{path} is damaged: {printable(reason, 120)}") from error
    return state


def refuse_growing(file: BinaryIO, size: int) -> None:
    """Raise ValueError for an archive that is altered or grows when unpacked, or whose pickle names more than torch and collections."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(each.compress_type != zipfile.ZIP_STORED for each in entries) or sum(each.file_size for each in entries) > size:
            raise ValueError("it grows when it is unpacked")
        if altered := archive.testzip():  # torch.load does not look at checksums: flipped bits would be weights
            raise ValueError(f"the checksum of {altered} is wrong")
        for each in entries:
            if each.filename.endswith("data.pkl"):
                for code, name, _ in pickletools.genops(archive.read(each)):
                    if code.name == "GLOBAL" and not re.match(r"(torch[\w.]*|collections) ", str(name)):  # bytearray(10**12)
                        raise ValueError(f"it names {name}")


def refuse_declared(state: Any, size: int) -> None:
    """Raise ValueError if the declared size of a tensor is larger than its file."""
    waiting, seen = [state], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            if value.numel() * value.element_size() > size:
                raise ValueError(f"a tensor of shape {tuple(value.shape)} is more than the file holds")
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def is_small(value: Any) -> bool:
    """Return whether a part has at most MOST values and characters; a shared value counts each time, as it is printed each time."""
    waiting, size = [value], 0
    while waiting and size <= MOST:
        value = waiting.pop()
        size += 1 + (len(value) if isinstance(value, str) else 0)
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
    return size <= MOST


def misfit(error: Exception) -> str:
    """Return the last line of the error that load_state_dict raised for a state of another model, with keys that a user can type."""
    return in_keys((str(error).strip().splitlines() or [type(error).__name__])[-1].strip())


def in_keys(text: str) -> str:
    """Write the names of weights and buffers of a game, in a text, as configuration keys."""
    for pattern, key in KEYS:
        text = re.sub(rf"\b{pattern}", key, text)
    return text


def candidates(folder: Path) -> list[Path]:
    """List the checkpoints from which a run can be resumed, newest first: last.pt, then step_*.pt."""
    return [path for path in (folder / "last.pt", *reversed(numbered(folder))) if is_file(path)]


def numbered(folder: Path) -> list[Path]:
    """List the checkpoints step_N.pt, oldest first."""
    return sorted(path for path in folder.glob("step_*.pt") if re.fullmatch(r"step_[0-9]+\.pt", path.name) and is_file(path))


def is_file(path: Path) -> bool:
    """Return whether the path is a regular file; a link is not."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
