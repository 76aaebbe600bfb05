"""Run directories seen from outside: where they are, and what stands in them. Imports no torch.

They may come from strangers, and are read as `untrusted` reads. Every text of a Run but its folder is fit to be printed.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from gan_runner.untrusted import Value, content, entries, flat, leaf, moment, number, parsed_json, parsed_yaml, printable, whole

STATES = ("running", "dead", "failed", "diverged", "interrupted", "finished", "?")
BETTER = {
    "min": r"(intra_)?(fid|fd)(_infinity)?/[^/]+|(kid|mmd|geometry)/[^/]+|modes/kl",
    "max": r"(cs|is)/[^/]+|(pr|dc|prd)/[^/]+/(precision|recall|coverage|f8|f1_8)|support/(precision|recall|f1)"
    r"|modes/(covered|covered_well|high_quality)|(ais|parzen)/log_likelihood",
}  # which way is better, of metrics that their run does not follow


class Evaluation(NamedTuple):
    """A line of metrics.jsonl."""

    step: int
    images: int
    figures: dict[str, float | None]
    protocol: dict[str, Value]  # by dotted key


@dataclass
class Run:
    """What a run directory says; None: it does not say, or it cannot be read."""

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

    @property
    def seconds(self) -> float | None:
        """From the first start to the end, or to now, or to the last sign of a dead run."""
        end = {"running": time.time(), "dead": self.written}.get(self.state, self.ended)
        return None if self.started is None or end is None else max(end - self.started, 0)

    @property
    def keys(self) -> list[str]:
        """The metrics that it was measured by, the one it follows first."""
        return sorted(dict.fromkeys(key for line in self.evaluations for key in line.figures), key=lambda key: key != self.followed()[0])

    def followed(self, asked: str | None = None) -> tuple[str | None, str | None]:
        """(metric, "min" | "max"): as asked (KEY, KEY:min or KEY:max), else what best.pt follows, else the first that was measured."""
        own, own_mode = best_of(self.config)
        said = re.fullmatch(r"(.+?)(?::(min|max))?", asked or "")
        metric = said[1] if said else own or next((key for line in self.evaluations for key in line.figures), None)
        if said and said[2]:
            return metric, said[2]
        if metric == own and own_mode in BETTER:
            return metric, str(own_mode)
        return metric, better(metric)

    def objective(self, metric: str | None, mode: Value) -> float | None:
        """The best value of a metric in training; of what best.pt follows (`best_of`), it is what the run returned."""
        lines = [line for line in self.evaluations if "checkpoint" not in line.protocol]
        values = [value for line in lines if (value := line.figures.get(metric or "")) is not None]
        return (max if mode == "max" else min)(values, default=None)

    def curve(self, key: str) -> list[tuple[int, float | None]]:
        """(images, value) in order: as it was measured during training, else by gan-eval."""
        lines = [line for line in self.evaluations if key in line.figures]
        return sorted({line.images: line.figures[key] for line in in_training(lines)}.items())

    def best(self, key: str, mode: str | None) -> tuple[int, float] | None:
        """(images, value) of the best of a curve."""
        found = [(images, value) for images, value in self.curve(key) if value is not None]
        return (max if mode == "max" else min)(found, key=lambda point: point[1]) if found and mode else None

    def last(self, key: str) -> float | None:
        """The newest value of a curve that could be computed."""
        return next((value for _, value in reversed(self.curve(key)) if value is not None), None)

    def protocol(self) -> dict[str, Value]:
        """How the curves were measured."""
        lines = in_training(self.evaluations)
        return {key: value for key, value in lines[-1].protocol.items() if not key.startswith("metrics.")} if lines else {}


def best_of(config: dict[str, Value]) -> tuple[str | None, Value]:
    """(metric, mode) that best.pt follows, in a configuration by dotted key; None: there is none."""
    for key, value in config.items():
        if key.startswith("callback.") and key.endswith(".best.metric") and isinstance(value, str):
            return value, config.get(f"{key.removesuffix('metric')}mode")
    return None, None


def better(metric: str | None) -> str | None:
    """ "min" or "max", where the name of a metric tells which way is better."""
    return next((mode for mode, names in BETTER.items() if metric and re.fullmatch(names, metric)), None)


def in_training(lines: list[Evaluation]) -> list[Evaluation]:
    """The evaluations of training itself, which share a protocol; those of gan-eval where there are no others."""
    return [line for line in lines if "checkpoint" not in line.protocol] or lines


# ------------------------------------------------------------------------------------------------------------------------------- reading


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory."""
    return (folder / "config.yaml").is_file() and (folder / "status.json").is_file()


def find(root: Path) -> Iterator[Path]:
    """The run directories in a folder, itself included, down to 12 levels below it; links are not followed."""
    for name, folders, files in os.walk(root):
        folder, is_run = Path(name), {"config.yaml", "status.json"} <= set(files)
        if is_run:
            yield folder
        inside = ("checkpoints", "samples", "evaluations", "wandb") if is_run else ()
        deep = len(folder.parts) - len(root.parts) >= 12
        folders[:] = [] if deep else sorted(each for each in folders if not each.startswith(".") and each not in inside)


def read(folder: Path, root: Path) -> Run:
    """What stands in a run directory below a folder."""
    status, line = parsed_json(content(folder / "status.json")), parsed_yaml(content(folder / "overrides.yaml"))
    status = status if isinstance(status, dict) else {}
    config = dict(flat(parsed_yaml(content(folder / "config.yaml"))))
    evaluations = list(evaluations_of(content(folder / "metrics.jsonl", 2**24, cut=True) or b""))
    state, step, images = str(status.get("state")), whole(status.get("step")), whole(status.get("images"))
    if state == "running":  # status.json stands where the run was started or resumed
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
    )


def evaluations_of(data: bytes) -> Iterator[Evaluation]:
    """The lines of metrics.jsonl; what is none, such as the half line of a process that was killed, is passed over."""
    for text in islice(data.splitlines(), 100_000):
        line = parsed_json(text)
        if isinstance(line, dict) and isinstance(line.get("metrics"), dict):
            step, images = whole(line.get("step")), whole(line.get("images"))
            if step is not None and images is not None:
                figures = {printable(key): number(value) for key, value in islice(line["metrics"].items(), 1000)}
                yield Evaluation(step, images, figures, dict(flat(line.get("protocol"))))


def numbered(folder: Path, below: str = "samples") -> list[tuple[int, Path]]:
    """(round, file) of samples/step_N.png, or of checkpoints/step_N.pt; the newest first."""
    found = ((re.fullmatch(r"step_([0-9]{1,15})\.(png|pt)", entry.name), Path(entry.path)) for entry in entries(folder / below))
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def last_written(folder: Path) -> float:
    """When a file of a run was last written, in seconds since 1970."""
    times = [0.0]
    for entry in (entry for below in ("", "checkpoints", "samples", "evaluations") for entry in entries(folder / below)):
        try:
            times.append(0.0 if entry.name == ".lock" else entry.stat(follow_symlinks=False).st_mtime)
        except OSError:  # it went away
            continue
    return max(times)


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a run, or it cannot be told."""
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
