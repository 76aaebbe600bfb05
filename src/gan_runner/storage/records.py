"""Find and read run directories, without starting them. Imports no torch.

They are untrusted and read by `untrusted`. Every text of a Run except its folder is safe to print.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from gan_runner.errors import printable
from gan_runner.storage import contents, older
from gan_runner.storage.contents import CURVES
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.untrusted import Value, entries, flat, leaf, moment, number, parsed_json, parsed_yaml, read_bounded, whole

STATES = ("running", "dead", "failed", "diverged", "interrupted", "finished", "?")
DIRECTIONS = ("min", "max")  # which way a figure is better
QUIET = 600  # seconds without a write after which a run is believed to be dead, as a run of another machine may hold a lock not seen here


@dataclass
class Evaluation:
    """A line of metrics.jsonl or of evaluations/watch.jsonl."""

    step: int
    images: int
    figures: dict[str, float | None]
    protocol: dict[str, Value]  # by dotted key
    better: Mapping[str, str] | None  # key -> which way is better; None: the line is of a version that did not say it

    @cached_property
    def measured(self) -> Protocol:
        """How its figures were measured."""
        return Protocol.of(self.protocol)

    def direction(self, key: str) -> str | None:
        """Say which way a figure is better, one of DIRECTIONS; None: neither, or nobody knows."""
        return older.better(key) if self.better is None else self.better.get(key)

    def meant(self, name: str, mode: str | None) -> str | None:
        """Find the key that a name stands for: that key itself, or of the metric of this name the first that can be followed.

        A figure can be followed that is not null and has a direction. mode: the direction of all, where somebody has said it. None: there
        is no such figure.
        """
        sources = {key: self.measured.source(key) for key in self.figures}
        keys = [name] if name in self.figures else [key for key, source in sources.items() if source and source.metric == name]
        return next((key for key in keys if self.figures[key] is not None and (mode or self.direction(key))), None)


@dataclass
class Run:
    """The content of a run directory; None where a value is missing or unreadable."""

    folder: Path
    name: str  # its path below the folder that was searched
    state: str  # one of STATES
    step: int | None
    steps: int | None
    images: int | None
    started: float | None  # seconds since 1970, as are ended and written
    ended: float | None
    written: float
    error: str | None
    overrides: list[str] | None  # without the experiment
    config: dict[str, Value]  # by dotted key; empty where it cannot be read
    evaluations: list[Evaluation]
    experiment: str | None  # what its line chose by +experiment=NAME

    @property
    def seconds(self) -> float | None:
        """Seconds from the first start to the end; to now for a running run, to the last written file for a dead one."""
        end = {"running": time.time(), "dead": self.written}.get(self.state, self.ended)
        return None if self.started is None or end is None else max(end - self.started, 0)

    @cached_property
    def lines(self) -> list[Evaluation]:
        """What was measured in training, or by gan-eval where nothing was."""
        return [line for line in self.evaluations if line.measured.trained] or self.evaluations

    @cached_property
    def owners(self) -> dict[str, Protocol]:
        """Plain key -> the protocol that it belongs to: the newest one of training, else the first one of gan-eval."""
        found: dict[str, Protocol] = {}
        for line in self.evaluations:
            for key in line.figures:
                if line.measured.trained or key not in found:
                    found[key] = line.measured
        return found

    @cached_property
    def curves(self) -> dict[str, dict[int, float | None]]:
        """Metric -> {images: value}. Figures of another protocol have a name of their own, by `named`."""
        found: dict[str, dict[int, float | None]] = {}
        for line in self.evaluations:
            for key, value in line.figures.items():
                if name := self.named(key, line.measured):
                    found.setdefault(name, {})[line.images] = value
        return found

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """The protocol of each curve."""
        every = ((line.measured, key) for line in self.evaluations for key in line.figures)
        return {name: protocol for protocol, key in every if (name := self.named(key, protocol))}

    def named(self, key: str, protocol: Protocol) -> str | None:
        """Name a figure: `fd/lenet`, or `fd/lenet (n=500)` if the plain key belongs to another protocol.

        None: a figure of gan-eval that repeats one of training by the same protocol.
        """
        own = self.owners.get(key, protocol)
        differs = own.described(key, protocol)
        return f"{key} ({differs})" if differs else key if own.trained == protocol.trained else None

    @property
    def keys(self) -> list[str]:
        """The measured metrics; the one that best.pt follows is the first."""
        first, _ = self.followed()
        return sorted(self.curves, key=lambda key: key != first)

    def direction(self, name: str) -> str | None:
        """Say which way a curve is better: as the newest line says that has the figure, else as its key tells."""
        key = plain(name)
        newest = next((line for line in reversed(self.evaluations) if key in line.figures), None)
        return newest.direction(key) if newest else older.better(key)

    def meant(self, name: str, mode: str | None) -> str:
        """Find the key that a name stands for, a key or the name of a metric, as `settled` does; the name itself where there is none."""
        return settled(self.lines, name, mode) or name

    @cached_property
    def own(self) -> tuple[str | None, str | None]:
        """(key, "min" | "max") that best.pt follows; (None, None) where there is none."""
        name, mode = best_of(self.config)
        if name is None:
            return None, None
        key = self.meant(name, mode)
        return key, mode or self.direction(key)

    def followed(self, asked: str | None = None) -> tuple[str | None, str | None]:
        """Return (metric, "min" | "max"): as asked (KEY, KEY:min or KEY:max), else what best.pt follows, else the first measured."""
        own, own_mode = self.own
        said = re.fullmatch(r"(.+?)(?::(min|max))?", asked or "")
        mode = said[2] if said else None
        key = self.meant(said[1], mode) if said else own or next((key for line in self.evaluations for key in line.figures), None)
        return key, mode or (own_mode if key == own else self.direction(key or ""))

    def objective(self, key: str | None, mode: str | None) -> float | None:
        """Return the best value of a metric in training; for the metric of best.pt (`best_of`), it is the objective of the run."""
        owner = self.owners.get(key or "")
        best = self.best(key or "", mode) if owner and owner.trained else None
        return best[1] if best else None

    def curve(self, key: str) -> list[tuple[int, float | None]]:
        """Return (images, value) in order for one of `keys`; all values are of one protocol."""
        return sorted(self.curves.get(key, {}).items())

    def best(self, key: str, mode: str | None) -> tuple[int, float] | None:
        """Return (images, value) of the best point of a curve."""
        found = [(images, value) for images, value in self.curve(key) if value is not None]
        return (max if mode == "max" else min)(found, key=lambda point: point[1]) if found and mode else None

    def last(self, key: str) -> float | None:
        """Return the newest value of a curve that is not null."""
        return next((value for _, value in reversed(self.curve(key)) if value is not None), None)

    def protocol(self) -> dict[str, Value]:
        """Return the protocol of the curves: that of training, or of gan-eval if training measured nothing."""
        passed = ("metrics.", "keys.", "notes")
        return {key: value for key, value in self.lines[-1].protocol.items() if not key.startswith(passed)} if self.lines else {}


def best_of(config: Mapping[str, Value]) -> tuple[str | None, str | None]:
    """Return (metric, mode) of best.pt from a configuration by dotted key; (None, None) if no metric is followed."""
    for key, value in config.items():
        if key.startswith("callback.") and key.endswith(".best.metric") and isinstance(value, str):
            mode = config.get(f"{key.removesuffix('metric')}mode")
            return value, str(mode) if mode in DIRECTIONS else None
    return None, None


def settled(lines: Iterable[Evaluation], name: str, mode: str | None) -> str | None:
    """Find the key that a name stands for in a whole run: what the first line has that says it (`Evaluation.meant`)."""
    return next((key for line in lines if (key := line.meant(name, mode)) is not None), None)


def plain(name: str) -> str:
    """Return the key in the name of a figure: `fd/lenet` for `fd/lenet (n=500)`."""
    return name.partition(" (")[0]


def drawn(folder: Path, names: Iterable[str], protocol: dict[str, Any]) -> dict[str, str]:
    """Return the names for gan-eval's figures and pictures of this protocol in a folder; call it before they are added.

    The plain key is kept for training. gan-eval uses `fd/lenet (n=500)`, or `fd/lenet (gan-eval)` if the protocol is the same.
    """
    run, other = read(folder, folder), Protocol.of(dict(flat(protocol)))
    suffixes: dict[str, str] = {}
    for prefix, (metric, *_) in other.measured.items():
        owners = [own for key, own in run.owners.items() if f"{key}/".startswith(f"{prefix}/")]
        own = next((each for each in owners if each.trained), None)
        if own is None and f"metric.{metric}._target_" in run.config:
            planned = {"n_fake": run.config.get("callback.evaluate.n"), "seed": run.config.get("callback.evaluate.seed")}
            own = Protocol.of({key: value for key, value in planned.items() if value is not None})
        differs = (own or (owners or [other])[0]).described(prefix, other)
        suffixes[prefix] = f" ({differs or 'gan-eval'})" if differs or own else ""
    found = {name: max((each for each in suffixes if f"{name}/".startswith(f"{each}/")), key=len, default="") for name in names}
    return {name: name + suffixes.get(prefix, "") for name, prefix in found.items()}


# ------------------------------------------------------------------------------------------------------------------------------- reading


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run directory."""
    return (folder / "config.yaml").is_file() and (folder / "status.json").is_file()


def find(root: Path) -> Iterator[Path]:
    """List the run directories in a folder, itself included, down to 12 levels below it; links are not followed."""
    for name, folders, files in os.walk(root):
        folder, is_run = Path(name), {"config.yaml", "status.json"} <= set(files)
        if is_run:
            yield folder
        inside = ("checkpoints", "samples", "evaluations", "wandb") if is_run else ()
        deep = len(folder.parts) - len(root.parts) >= 12
        folders[:] = [] if deep else sorted(each for each in folders if not each.startswith(".") and each not in inside)


def read(folder: Path, root: Path) -> Run:
    """Read a run directory below a folder."""
    status, line = parsed_json(read_bounded(folder / "status.json")), parsed_yaml(read_bounded(folder / "overrides.yaml"))
    status = status if isinstance(status, dict) else {}
    config = dict(flat(parsed_yaml(read_bounded(folder / "config.yaml"))))
    evaluations = [line for path in measured(folder) for line in evaluations_of(read_bounded(path, 2**24, cut=True) or b"")]
    state, step, images = str(status.get("state")), whole(status.get("step")), whole(status.get("images"))
    if state == "running":  # status.json is of the time when the run was started or resumed
        state = "running" if is_held(folder) else "dead"
        files = numbered(folder, "samples") + numbered(folder, "checkpoints")
        step = max([step or 0, *(one.step for one in evaluations), *(round for round, _ in files)])
        batch = whole(config.get("batch_size"))
        images = None if batch is None else step * batch
    words = line[:200] if isinstance(line, list) and all(isinstance(word, str) for word in line) else None
    return Run(
        folder,
        printable(str(folder.relative_to(root))),
        state if state in STATES else "?",
        step,
        whole(config.get("trainer.steps")),
        images,
        moment(status.get("started")),
        moment(status.get("ended")),
        last_written(folder),
        None if status.get("error") is None else str(leaf(status["error"])),
        None if words is None else [printable(word) for word in words if not word.startswith("+experiment=")],
        config,
        evaluations,
        None if words is None else next((printable(word.partition("=")[2]) for word in words if word.startswith("+experiment=")), None),
    )


def measured(folder: Path) -> list[Path]:
    """List the files that have the evaluations of a run: of training and gan-eval, and of gan-eval watch=true."""
    watched = folder / contents.WATCHED
    return [folder / "metrics.jsonl", *([] if watched.parent.is_symlink() else [watched])]


def evaluations_of(data: bytes) -> Iterator[Evaluation]:
    """Parse the lines of metrics.jsonl or evaluations/watch.jsonl; invalid ones, such as half a line of a killed process, are skipped."""
    for text in islice(data.splitlines(), 100_000):
        line = parsed_json(text)
        if isinstance(line, dict) and isinstance(line.get("metrics"), dict):
            step, images = whole(line.get("step")), whole(line.get("images"))
            if step is not None and images is not None:
                figures = {printable(key): number(value) for key, value in islice(line["metrics"].items(), 1000)}
                yield Evaluation(step, images, figures, dict(flat(line.get("protocol"))), directions_of(line.get("better")))


def directions_of(said: Any) -> dict[str, str] | None:
    """Read what a line says of which way is better; None where it says nothing."""
    if not isinstance(said, dict):
        return None
    return {printable(key): mode for key, mode in islice(said.items(), 1000) if mode in DIRECTIONS}


def numbered(folder: Path, below: str = "samples") -> list[tuple[int, Path]]:
    """List (round, file) of samples/step_N.png, or of checkpoints/step_N.pt, newest first."""
    found = ((re.fullmatch(r"step_([0-9]{1,15})\.(png|pt)", entry.name), Path(entry.path)) for entry in entries(folder / below))
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def last_written(folder: Path) -> float:
    """Return when a file of a run was last written, in seconds since 1970."""
    times = [0.0]
    curves = [entry.name for entry in entries(folder) if any(fnmatch(entry.name, name) for name in CURVES)]
    for entry in (entry for below in ("", "checkpoints", "samples", "evaluations", *curves) for entry in entries(folder / below)):
        try:
            times.append(0.0 if entry.name == ".lock" else entry.stat(follow_symlinks=False).st_mtime)
        except OSError:  # it went away
            continue
    return max(times)


def is_held(folder: Path) -> bool:
    """Return whether a process holds the lock of a run; True as well if that cannot be determined."""
    try:
        lock = os.open(folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
