"""Write and read the files of a run directory. Reading executes no code from it."""

from __future__ import annotations

import fcntl
import importlib
import importlib.metadata
import inspect
import io
import itertools
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from omegaconf import OmegaConf
from torch import Tensor

from gan_runner.errors import Failed, UserError, printable
from gan_runner.storage import checkpoint, contents, files, older, starts
from gan_runner.storage.configurations import portable
from gan_runner.storage.configurations import read_config as read_config
from gan_runner.storage.untrusted import parsed_json, parsed_yaml, read_bounded, whole

CHANGES = "changes.jsonl"
NOT_SET = "not set"

State = Literal["running", "finished", "interrupted", "failed", "diverged"]
BEST_MODE = "callback.evaluate.best.mode"
WATCHERS = ("callback.log", "callback.progress", "callback.diagnose")  # write no figure, picture or checkpoint: they do not tell runs apart
IN_ORDER = ("penalty", "trick")  # parts that are applied in the order in which a configuration names them
GOES_ON = ("running", "interrupted")  # a job of a sweep in one of these states is resumed


@contextmanager
def locked(folder: Path, doing: str = "writing the run", name: str = ".lock") -> Iterator[None]:
    """Lock a run directory, or that of a sweep, for writing. UserError if another process holds the lock, or nothing can be written.

    The lock ends with the process. It is asked for several times, as `records.is_held` of other processes takes it for a moment.
    """
    try:
        lock = files.opened(folder / name, folder, os.O_RDWR | os.O_CREAT)  # whatever it holds stays
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    with open(lock, "rb") as file:
        for pause in (0.01, 0.05, 0.2, None):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if pause is None:
                    raise UserError(f"another process is {doing} in {folder}") from error
                time.sleep(pause)
        yield


def lay_out(folder: Path, config: Any, overrides: list[str]) -> None:
    """Create the files and folders of a new run. UserError if the folder holds a run already."""
    if os.path.lexists(folder / "status.json"):
        raise UserError(f"{folder} holds a run already; go on with it by resume={folder}, or choose another folder")
    files.make_folder(folder / "checkpoints", folder)
    files.make_folder(folder / "samples", folder)
    write_config(folder, config)
    files.write_bytes(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)).encode())


def write_config(folder: Path, config: Any) -> None:
    """Write config.yaml: all that is needed to run it again."""
    files.write_bytes(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(portable(config))).encode())


class Difference(NamedTuple):
    """A key whose value differs between two configurations."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return printable(f"{self.key} from {self.before} to {self.now}", 200)


def default_of(node: dict[str, Any], key: str) -> Any:
    """Return the default of a parameter of the class that a node names; NOT_SET without a default or for a class of another package."""
    module, _, name = str(node.get("_target_")).rpartition(".")
    if module.split(".")[0] != "gan_runner":
        return NOT_SET
    try:
        default = inspect.signature(getattr(importlib.import_module(module), name)).parameters[key].default
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return NOT_SET
    return NOT_SET if default is inspect.Parameter.empty else list(default) if isinstance(default, tuple) else default


def differences(before: Any, now: Any, path: str = "") -> Iterator[Difference]:
    """Yield the keys in which two configurations differ. Versions of a configuration are made alike here, and nowhere else.

    A key that one of them lacks counts as its default. Callbacks that only watch (WATCHERS) are not compared, nor a mode that is not set:
    older versions had max in its place.
    """
    if path[1:] in WATCHERS or (path[1:] == BEST_MODE and None in (before, now)):
        return
    if not path:
        before, now = (starts.alike(older.translated(each)) for each in (before, now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            default = older.ADDED.get(f"{path}.{key}"[1:], NOT_SET)
            old, new = (each[key] if key in each else default_of(each, key) if default is NOT_SET else default for each in (before, now))
            yield from differences(old, new, f"{path}.{key}")
        orders = [", ".join(str(key) for key in one if key in other) for one, other in ((before, now), (now, before))]
        if path[1:] in IN_ORDER and orders[0] != orders[1]:
            yield Difference(path[1:], *orders)
    elif before != now and not (before != before and now != now):  # nan is nan
        yield Difference(path[1:], before, now)


def line_of(words: Iterable[Any]) -> list[str]:
    """Return the words of a command line that affect the results of its run: keys of older versions renamed, 64.0 and 6.4e1 as 64."""
    found = []
    for word in words:
        sign, key, rest = re.fullmatch(r"([+~]*)([^=]*)(.*)", str(word), re.DOTALL).groups()  # type: ignore[union-attr]
        key = next((new + key[len(old) :] for old, new in older.RENAMED.items() if key == old or key.startswith(f"{old}.")), key)
        if sign == "+" and key in {each.partition(".")[0] for each in WATCHERS}:  # +callback=[progress]
            names = [name for name in rest[1:].strip("[]").split(",") if f"{key}.{name.strip()}" not in WATCHERS]
            rest = f"=[{','.join(names)}]" if names else ""
        watches = any(key == each or key.startswith(f"{each}.") for each in WATCHERS)
        if not watches and (rest or sign == "~"):
            found.append(f"{sign}{key}{with_plain_number(rest)}")
    return found


def with_plain_number(rest: str) -> str:
    """Return the end of a word, `=64.0`, with the shortest form of a whole number, `=64`; any other as it is."""
    number = re.fullmatch(r"=([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", rest, re.IGNORECASE)
    value = float(number[1]) if number else math.nan
    return f"={int(value)}" if value.is_integer() and abs(value) < 2**53 else rest


def as_read(config: Any) -> dict[str, Any]:
    """Return the configuration that reading config.yaml will give: `portable`, written as YAML and parsed."""
    return portable(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(portable(config)))))


def made_with(config: Any) -> dict[str, Any]:
    """Return a configuration as it is stored in a state: plain values, without the path of the data."""
    made = as_read(config)
    made["dataset"] = {key: value for key, value in made["dataset"].items() if key not in ("root", "path")}
    return made


def record_changes(folder: Path, step: int, changes: Iterable[Difference]) -> None:
    """Append to changes.jsonl, atomically, what was changed when a run was resumed after round `step`."""
    lines = [json.dumps({"step": step, "time": now(), "key": each.key, "from": each.before, "to": each.now}) + "\n" for each in changes]
    if lines:
        before = read_bounded(folder / CHANGES, contents.MOST[CHANGES]) or b""
        files.write_bytes(folder / CHANGES, before + "".join(lines).encode(), folder)


def recorded_changes(folder: Path) -> dict[str, Any]:
    """Read changes.jsonl: key -> the newest value that a resume gave it."""
    lines = [parsed_json(line) for line in (read_bounded(folder / CHANGES, contents.MOST[CHANGES]) or b"").splitlines()]
    return {str(line["key"]): line["to"] for line in lines if isinstance(line, dict) and {"key", "to"} <= line.keys()}


def move_aside(folder: Path) -> Path:
    """Rename a run directory to the first free FOLDER.attempt_N, and return that path. Failed if it cannot be renamed."""
    n = next(n for n in itertools.count(1) if not os.path.lexists(folder.with_name(f"{folder.name}.attempt_{n}")))
    try:
        return folder.rename(folder.with_name(f"{folder.name}.attempt_{n}"))
    except OSError as error:
        raise Failed(f"{folder} could not be moved aside: {error.strerror}") from error


class Status:
    """Writes status.json: the state and the progress of a run, for other programs."""

    def __init__(self, folder: Path, writes: bool = True):
        self.path, self.writes = folder / "status.json", writes
        self.started = status_of(folder).get("started") or now()

    def write(self, state: State, step: int, images: int, error: str | None = None) -> None:
        entry: dict[str, Any] = {"state": state, "step": step, "images": images, "started": self.started}
        if error is not None:
            entry["error"] = error
        if state != "running":
            entry["ended"] = now()
        if self.writes:
            files.write_bytes(self.path, json.dumps(entry, indent=2).encode())


def status_of(folder: Path) -> dict[str, Any]:
    """Read status.json; empty if it cannot be read."""
    status = parsed_json(read_bounded(folder / "status.json"))
    return status if isinstance(status, dict) else {}


def state_of(folder: Path) -> str | None:
    """Return the state in status.json; None if it cannot be read or is not one of State."""
    state = status_of(folder).get("state")
    return state if isinstance(state, str) and state in get_args(State) else None


def write_picture(path: Path, picture: Tensor, root: Path | None = None) -> None:
    """Write a PNG atomically, from uint8 3 H W, 1 H W for grey, or 4 H W with opacity. root: below which no link is followed."""
    from PIL import Image

    pixels = picture.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "png")
    files.write_bytes(path, buffer.getvalue(), root)


def add_evaluation(folder: Path, line: Mapping[str, Any], pictures: Mapping[str, Tensor], name: str = "metrics.jsonl") -> None:
    """Add the pictures of an evaluation to evaluations/, and then its line to a file: where there is the line, all of it is there.

    line: step, images, metrics (key -> figure or None), better (key -> "min" or "max"), protocol.
    """
    for key, picture in pictures.items():
        files.make_folder(folder / "evaluations", folder)
        write_picture(folder / "evaluations" / f"step_{line['step']:08d}_{key.replace('/', '_')}.png", picture, folder)
    files.append(folder / name, f"{json.dumps(line)}\n".encode(), folder)


def mended_lines(path: Path, root: Path) -> list[dict[str, Any]]:
    """Read a file of lines of JSON, and remove those that are damaged, such as the half line of a process that was killed."""
    lines = (read_bounded(path, contents.MOST[path.name]) or b"").splitlines(keepends=True)
    kept = {number: said for number, line in enumerate(lines) if line.endswith(b"\n") and isinstance(said := parsed_json(line), dict)}
    if len(kept) < len(lines):
        files.write_bytes(path, b"".join(lines[number] for number in kept), root)
    return list(kept.values())


def now() -> str:
    """Return the local time as ISO 8601 with its UTC offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def newest(folder: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """Return (path, state) of the newest readable checkpoint, and report unreadable ones. UserError if there is none."""
    for path in checkpoint.candidates(folder / "checkpoints"):
        try:
            return path, checkpoint.load(path, root=folder)
        except checkpoint.Damaged as error:
            say(f"{error}; trying the one before")
    raise UserError(f"{folder} has no checkpoint to go on from: {begin_again(folder)}")


def begin_again(folder: Path) -> str:
    """Say how a run that left no checkpoint is played from its first round."""
    there = parsed_yaml(read_bounded(folder / "overrides.yaml", 2**24))
    line = shlex.join(["gan-train", *(str(word) for word in there)]) if isinstance(there, list) else "the line that began it"
    return f"play it again from its first round, into another folder, by {printable(line, 2000)}"


def forget_after(folder: Path, step: int) -> None:
    """Remove evaluations after round `step` from metrics.jsonl: a resumed run will measure them again."""
    path = folder / "metrics.jsonl"
    data, kept = read_bounded(path, contents.MOST[path.name]), []
    if data is None:
        return
    for line in data.splitlines(keepends=True):
        said = parsed_json(line)  # None: half a line, of a process that was killed
        at = whole(said.get("step")) if isinstance(said, dict) else None
        if at is not None and at <= step:
            kept.append(line)
    files.write_bytes(path, b"".join(kept))


def write_environment(folder: Path) -> None:
    """Write env.json: command line, versions, device, and the commit if the package runs from a checkout."""
    commit = git("rev-parse", "HEAD")
    environment = {
        "command": sys.argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "commit": commit,
        "dirty": bool(git("status", "--porcelain")) if commit else None,
    }
    files.write_bytes(folder / "env.json", json.dumps(environment, indent=2).encode())


def git(*words: str) -> str | None:
    """Return the output of a git command in the checkout of this file; None if this file is in no checkout."""
    here = Path(__file__).resolve()
    try:
        for command in (("ls-files", "--error-unmatch", here.name), words):
            said = subprocess.run(["git", *command], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()
