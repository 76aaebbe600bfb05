"""Run gan-eval watch=true: evaluate each new checkpoint of a run while another process trains it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_runner.assembly import build
from gan_runner.commands.evaluate import Judged, config_of, drawn, each_alone, measure_all, of_checkpoint, real, refuse_missing
from gan_runner.commands.printed import Printed
from gan_runner.commands.settings import Evaluate
from gan_runner.errors import Failed, UserError, shell_line
from gan_runner.execution import hardware
from gan_runner.loggers import Curves
from gan_runner.reporting import Reporter, duration
from gan_runner.storage import contents, directory, files, records
from gan_runner.storage.checkpoint import Damaged, numbered
from gan_runner.storage.untrusted import whole
from gan_runner.trained import TrainedRun

LOCK = "evaluations/.lock"
PAUSE = 1.0  # seconds between two looks at the run
QUIET_LINES = 600.0  # seconds between lines of progress where there is no terminal
ASKED = ("n", "seed", "seeds", "split", "n_real", "reference", "resize", "column")  # settings that affect a figure
ENDS = {
    "running": "its process was killed, or its machine went down",
    "interrupted": "it was interrupted",
    "failed": "it failed",
    "diverged": "it diverged",
    "finished": "it has finished",
}
GOES_ON = ("running", "interrupted")  # after a resume


def main(settings: Evaluate, root: str | None) -> None:
    """Run gan-eval watch=true: print figures and add them to the run, until it has ended and all its checkpoints are evaluated.

    root: the folder of the data, where the line names it. UserError for what cannot be watched, or is watched by another process.
    """
    refuse(settings)
    hardware.use_threads(settings.threads)
    [one], _ = each_alone(settings)
    config = config_of(one, root)
    refuse_weights(settings, config)
    folder, device, line = Path(str(settings.run)), hardware.device_of(settings.accelerator), shell_line(["gan-eval", *sys.argv[1:]])
    files.make_folder(folder / "evaluations", folder)
    with directory.locked(folder, "watching the run", LOCK), Reporter() as reporter:
        reporter.plain_seconds = QUIET_LINES
        watch = Watch(folder, settings, config, device, reporter)
        printed = Printed(settings.format, sys.stdout)
        try:
            measure_all(watch.checkpoints(), settings, config, device, watch.keep, reporter, printed)
        except KeyboardInterrupt:
            reporter.say(f"stopped; {watch.count}; this line goes on: {line}")
            raise
        state = directory.state_of(folder)
        again = f"; once it is resumed, this line goes on: {line}" if state in GOES_ON else ""
        reporter.say(f"{folder}: {ENDS.get(str(state), 'it has ended')}; {watch.count}{again}")


def refuse(settings: Evaluate) -> None:
    """Raise UserError for keys that do not go with watch=true."""
    if settings.samples is not None or not isinstance(settings.run, str):
        raise UserError("watch=true follows one run: say run=RUN_DIR, and type a line for each run")
    if settings.checkpoint not in ("last", "all"):
        raise UserError(f"checkpoint={settings.checkpoint}: watch=true evaluates each checkpoint as it is written; leave it out")
    if settings.refiner:
        raise UserError("watch=true follows the figures of training: evaluate refiners afterwards, without watch")
    if settings.out is not None:
        raise UserError(f"out={settings.out}: the figures of watch=true are kept in the run, to go on from them; leave it out")


def refuse_weights(settings: Evaluate, config: dict[str, Any]) -> None:
    """Raise UserError for feature networks without weights: this is known before there is a checkpoint."""
    dataset = real(settings, config)
    metrics = build.make_metrics(config, settings.packages, dataset.spec) if dataset is not None else {}
    networks = {name: metric.extractor for name, metric in metrics.items() if metric.extracts and metric.network is not None}
    refuse_missing({name: reason for name, network in networks.items() if (reason := network.available())})


class Watch:
    """Which checkpoints of a run are evaluated, and which are not. It reads the run, and writes into its evaluations/ alone.

    A checkpoint is known by its step, by its weights and by what is measured: the same line skips it, also after a kill, and another one
    does not. A file is read once, but for one that was replaced.
    """

    def __init__(self, folder: Path, settings: Evaluate, config: dict[str, Any], device: torch.device, reporter: Reporter):
        self.folder, self.settings, self.device, self.reporter = folder, settings, device, reporter
        self.asked = digest({key: getattr(settings, key) for key in ASKED} | measured_by(config))
        self.done = {
            (whole(line.get("step")), str(line.get("weights_sha256")))
            for line in directory.mended_lines(folder / contents.WATCHED, folder)
            if line.get("settings_sha256") == self.asked
        }
        self.before = len(self.done)
        self.read: set[Identity] = set()
        self.curves = Curves(folder / contents.WATCHED_CURVES, folder)
        self.place = (identity(folder / LOCK) or ())[:2]  # whatever its time

    @property
    def count(self) -> str:
        """How many checkpoints are evaluated, in words."""
        n, now = len(self.done), len(self.done) - self.before
        return f"{n} checkpoint{'s' * (n != 1)} evaluated" + (f", {now} of them now" if self.before else "")

    def checkpoints(self) -> Iterator[Judged]:
        """Give each checkpoint once, the oldest first; wait for the next one until the run has ended."""
        looked = time.monotonic()
        while True:
            self.refuse_moved()
            ended = self.ended()  # asked first, as nothing is written after it
            while (path := self.next()) is not None:
                if (judged := self.load(path)) is not None:
                    yield judged
                    self.done.add((judged.step, judged.marks["weights_sha256"]))
                looked = time.monotonic()
            if ended:
                return
            self.reporter.show(f"{self.count}; waiting for the next one: {duration(time.monotonic() - looked)}")
            time.sleep(PAUSE)

    def next(self) -> Path | None:
        """Find the oldest checkpoint that was not read: step_N.pt, or last.pt where it is none of these."""
        last = self.folder / "checkpoints" / "last.pt"
        of_last = identity(last)  # before the others: last.pt is written after the step_N.pt that it is
        there = {identity(path): path for path in numbered(last.parent)}
        found = next((each for each in (*there, of_last) if each is not None and each not in self.read), None)
        if found is None:
            return None
        self.read.add(found)
        return there.get(found, last)

    def load(self, path: Path) -> Judged | None:
        """Read a checkpoint; None for one that is evaluated, was removed or is damaged."""
        try:
            run = TrainedRun(
                self.folder, "last" if path.name == "last.pt" else str(path), self.settings.packages, self.device, self.settings.ema
            )
        except UserError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                self.reporter.say(f"{path.name} is not evaluated: the run has removed it (callback.checkpoint.keep)")
                return None
            if isinstance(error.__cause__, Damaged):
                self.reporter.say(f"{path.name} is not evaluated: {error.__cause__}")
                return None
            raise
        marks = {"weights_sha256": weights(run), "settings_sha256": self.asked}
        return None if (run.step, marks["weights_sha256"]) in self.done else of_checkpoint(run, self.settings)._replace(marks=marks)

    def keep(self, line: dict[str, Any], pictures: dict[str, Tensor]) -> None:
        """Add curves, pictures and a line to the run. The line comes last: a checkpoint without one is evaluated again."""
        self.refuse_moved()
        values, pictures = drawn(self.folder, line, pictures)
        self.curves.add(line["step"], values, pictures)
        directory.add_evaluation(self.folder, line, pictures, contents.WATCHED)

    def ended(self) -> bool:
        """Return whether the run has ended. Its lock is not looked at while it may be taken: a look holds it for a moment."""
        running = directory.state_of(self.folder) in (None, "running")
        if running and time.time() - records.last_written(self.folder) < records.QUIET:
            return False
        return not records.is_held(self.folder)

    def refuse_moved(self) -> None:
        """Raise Failed if the run is no longer at its place."""
        if (identity(self.folder / LOCK) or ())[:2] != self.place:
            raise Failed(f"{self.folder} was moved or removed while it was watched")


Identity = tuple[int, int, int, int]  # device, number, size, time


def identity(path: Path) -> Identity | None:
    """Return what tells a file from one that has replaced it; None where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def weights(run: TrainedRun) -> str:
    """Return a checksum of the networks that are judged."""
    found = sha256()
    for name, network in (("generator", run.generator), ("discriminator", run.discriminator)):
        for key, value in {} if network is None else sorted(network.state_dict().items()):
            if isinstance(value, Tensor):
                found.update(f"{name}.{key} {value.dtype} {tuple(value.shape)}\n".encode())
                found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def measured_by(config: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that a figure depends on, without the place of the data."""
    return config | {"dataset": {key: value for key, value in config.get("dataset", {}).items() if key != "root"}}


def digest(tree: dict[str, Any]) -> str:
    """Return a checksum of plain values."""
    return sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()
