"""Find the run that a text names: a run directory or something in it, a folder of runs, or `latest`. Imports no torch."""

import os
from pathlib import Path
from typing import NamedTuple

from gan_runner.errors import UserError, printable, some
from gan_runner.storage.contents import SWEEP_RECORDS
from gan_runner.storage.records import find
from gan_runner.storage.untrusted import moment, parsed_json, read_bounded

LATEST = "latest"
RUN = "a folder with config.yaml, such as outputs/NAME/DATE_TIME"
STATES = {"last.pt": "last", "best.pt": "best"}  # the checkpoints that have a name of their own


class Address(NamedTuple):
    """A run directory, and the checkpoint of it that was named: last, best, the path of a file, or None."""

    folder: Path
    checkpoint: str | None = None

    def with_state(self) -> str:
        """Return the address as init_from takes it: RUN_DIR, RUN_DIR:best, or the path of a checkpoint."""
        if self.checkpoint is None:
            return str(self.folder)
        return f"{self.folder}:{self.checkpoint}" if self.checkpoint in STATES.values() else self.checkpoint


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run directory, whatever its config.yaml is."""
    return os.path.lexists(folder / "config.yaml")


def address(said: str, root: Path) -> Address:
    """Find the run that a text names.

    said: a run directory, RUN_DIR:best, a path inside a run directory, a folder of runs for its newest run, or `latest` for the newest
    run in the folder `root`. UserError where there is none, or for the folder of a sweep.
    """
    path = Path(said)
    if not os.path.lexists(path):
        before, colon, which = said.rpartition(":")
        if colon and which in STATES.values():
            return Address(address(before, root).folder, which)
        if said == LATEST:
            return Address(newest(root))
    if is_run(path):
        return Address(path)
    if run := next(filter(is_run, list(path.parents)[:2]), None):
        return within(path, run)
    if not path.is_dir():
        raise UserError(f"there is no run ({RUN})")
    return Address(newest(path))


def within(path: Path, run: Path) -> Address:
    """Return the address of a file or folder in a run directory. UserError for a checkpoint that is not there."""
    if path.suffix != ".pt":
        return Address(run)
    if not path.is_file():
        there = sorted(each.name for each in (run / "checkpoints").glob("*.pt"))
        raise UserError(f"there is no checkpoint {printable(str(path))}; {run} has {', '.join(there) or 'none'}")
    return Address(run, STATES.get(path.name, str(path)) if path.parent == run / "checkpoints" else str(path))


def newest(root: Path) -> Path:
    """Return the run below a folder that was started last. UserError where there is none, or the folder is that of a sweep."""
    runs = sorted(find(root), key=age) if root.is_dir() else []
    if not runs:
        raise UserError(f"there is no run in {printable(str(root))} ({RUN})")
    if any((root / name).is_file() for name in SWEEP_RECORDS):
        named = some(sorted(map(str, runs), key=length_first), 20)
        raise UserError(f"{printable(str(root))} is a sweep; name one of its {len(runs)} runs: {named}")
    return runs[-1]


def length_first(text: str) -> tuple[int, str]:
    """Return what sorts 2 before 10."""
    return len(text), text


def age(folder: Path) -> tuple[float, int, str]:
    """Return what sorts runs from the first started to the last; among those of one second, by status.json and by name."""
    status = parsed_json(read_bounded(folder / "status.json"))
    started = moment(status.get("started")) if isinstance(status, dict) else None
    return started or 0.0, os.lstat(folder / "status.json").st_mtime_ns, str(folder)
