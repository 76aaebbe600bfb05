"""Read run directories from outside: where they are, and what is in them. Imports no torch.

They may come from strangers, and are read as `untrusted` reads. Every text of a Run but its folder is fit to be printed.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gan_runner.errors import printable
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.untrusted import Value, content, entries, flat, leaf, moment, number, parsed_json, parsed_yaml, whole

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
    experiment: str | None  # what its line chose by +experiment=NAME

    @property
    def seconds(self) -> float | None:
        """From the first start to the end, or to now, or to the last sign of a dead run."""
        end = {"running": time.time(), "dead": self.written}.get(self.state, self.ended)
        return None if self.started is None or end is None else max(end - self.started, 0)

    @cached_property
    def owners(self) -> dict[str, Protocol]:
        """The protocol that owns each plain key: that of training, the newest where it was changed, else the first of gan-eval."""
        found: dict[str, Protocol] = {}
        for line in self.evaluations:
            protocol = Protocol.of(line.protocol)
            for key in line.figures:
                if protocol.trained or key not in found:
                    found[key] = protocol
        return found

    @cached_property
    def curves(self) -> dict[str, dict[int, float | None]]:
        """images -> value of each metric that the run was measured by. What was measured by another protocol has a name of its own."""
        found: dict[str, dict[int, float | None]] = {}
        for line in self.evaluations:
            protocol = Protocol.of(line.protocol)
            for key, value in line.figures.items():
                if name := self.named(key, protocol):
                    found.setdefault(name, {})[line.images] = value
        return found

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """The protocol of each curve."""
        lines = [(Protocol.of(line.protocol), line.figures) for line in self.evaluations]
        return {name: protocol for protocol, figures in lines for key in figures if (name := self.named(key, protocol))}

    def named(self, key: str, protocol: Protocol) -> str | None:
        """The name of a figure: `fd/lenet`, or `fd/lenet (n=500)` where another protocol owns the plain key.

        None: gan-eval repeats by the same protocol what training measures.
        """
        own = self.owners.get(key, protocol)
        differs = own.described(key, protocol)
        return f"{key} ({differs})" if differs else key if own.trained == protocol.trained else None

    @property
    def keys(self) -> list[str]:
        """The metrics that it was measured by, the one it follows first."""
        return sorted(self.curves, key=lambda key: key != self.followed()[0])

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
        own = self.owners.get(metric or "")
        values = [value for _, value in self.curve(metric or "") if value is not None] if own and own.trained else []
        return (max if mode == "max" else min)(values, default=None)

    def curve(self, key: str) -> list[tuple[int, float | None]]:
        """(images, value) in order, of one of `keys`: all measured by one protocol."""
        return sorted(self.curves.get(key, {}).items())

    def best(self, key: str, mode: str | None) -> tuple[int, float] | None:
        """(images, value) of the best of a curve."""
        found = [(images, value) for images, value in self.curve(key) if value is not None]
        return (max if mode == "max" else min)(found, key=lambda point: point[1]) if found and mode else None

    def last(self, key: str) -> float | None:
        """The newest value of a curve that could be computed."""
        return next((value for _, value in reversed(self.curve(key)) if value is not None), None)

    def protocol(self) -> dict[str, Value]:
        """How the curves were measured: in training, or by gan-eval where nothing was."""
        lines = [line for line in self.evaluations if Protocol.of(line.protocol).trained] or self.evaluations
        passed = ("metrics.", "keys.", "notes")
        return {key: value for key, value in lines[-1].protocol.items() if not key.startswith(passed)} if lines else {}


def best_of(config: dict[str, Value]) -> tuple[str | None, Value]:
    """(metric, mode) that best.pt follows, in a configuration by dotted key; None: there is none."""
    for key, value in config.items():
        if key.startswith("callback.") and key.endswith(".best.metric") and isinstance(value, str):
            return value, config.get(f"{key.removesuffix('metric')}mode")
    return None, None


def better(metric: str | None) -> str | None:
    """ "min" or "max", where the name of a metric tells which way is better."""
    key = plain(metric or "")
    return next((mode for mode, names in BETTER.items() if re.fullmatch(names, key)), None)


def plain(name: str) -> str:
    """The key in the name of a figure: `fd/lenet` of `fd/lenet (n=500)`."""
    return name.partition(" (")[0]


def drawn(folder: Path, names: Iterable[str], protocol: dict[str, Any]) -> dict[str, str]:
    """The names under which gan-eval draws figures and pictures of this protocol beside what a folder has; to be asked before it has them.

    What training measures, or will, keeps the plain key: `fd/lenet (n=500)`, or `fd/lenet (gan-eval)` where the protocol is the same.
    """
    run, other = read(folder, folder), Protocol.of(dict(flat(protocol)))
    suffixes: dict[str, str] = {}
    for prefix, (metric, _) in other.measured.items():
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
    """Read a run directory below a folder."""
    status, line = parsed_json(content(folder / "status.json")), parsed_yaml(content(folder / "overrides.yaml"))
    status = status if isinstance(status, dict) else {}
    config = dict(flat(parsed_yaml(content(folder / "config.yaml"))))
    evaluations = list(evaluations_of(content(folder / "metrics.jsonl", 2**24, cut=True) or b""))
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
    """Whether a process holds the lock of a run, or this cannot be found out."""
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
