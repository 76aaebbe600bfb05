"""Check what a run directory, the folder of a sweep or a folder of ratings contains."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from gan_runner.errors import UserError, printable

CURVES = ("D", "*=*")  # folders with event files: of D alone, and of a job of a sweep, named by what differs
FOLDERS = ("checkpoints", "samples", "evaluations", "wandb", ".hydra", *CURVES)
RUN = (
    *FOLDERS, "config.yaml", "overrides.yaml", "env.json", "status.json", "metrics.jsonl", "changes.jsonl", "train.log", ".lock", ".*.part",
    "events.out.tfevents.*", "scalars.csv", "wandb.json", "mlflow.json", "trackio.json", "profile.pt.trace.json",
)  # fmt: skip
SUMMARY = ("sweep.yaml", "table.md", "plot.png", "page.md", "events.out.tfevents.summary")  # the command line of a sweep, and its summary
SWEEP_RECORDS = (SUMMARY[0], "multirun.yaml", "table.txt")  # a folder with one of these is that of a sweep
SWEEP = (*SUMMARY, *SWEEP_RECORDS[1:], ".lock", "study.db*", ".submitit", ".*.part")
RATING = ("key.json", "score.json", "page", ".*.part")
WATCHED = "evaluations/watch.jsonl"  # what gan-eval measures while a run trains, and the curves of it
WATCHED_CURVES = "evaluations/events.out.tfevents.watch"
MOST = {  # largest size in bytes of files that grow with a run and are read into memory
    "metrics.jsonl": 2**28, "scalars.csv": 2**28, "changes.jsonl": 2**22, Path(WATCHED).name: 2**28, Path(WATCHED_CURVES).name: 2**30,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------------ before the start


def refuse_foreign(folder: Path, names: Collection[str] = RUN) -> None:
    """Raise UserError if one of these files and folders of a directory is a link, a pipe or a device, or is larger than a run writes.

    Allowed are links that wandb makes inside wandb/. Files of other names are not checked, as they are never opened.
    """
    if len(str(folder).splitlines()) > 1:
        raise UserError(f"{printable(str(folder))}: there is a line break in the name of this directory; rename it")
    if any("\ud800" <= character <= "\udfff" for character in str(folder)):  # TensorBoard cannot write there
        raise UserError(f"{printable(str(folder))}: there are bytes in the name of this directory that are no UTF-8; rename it")
    for path, status in listed(folder, names):
        name = printable(str(path))
        if stat.S_ISLNK(status.st_mode) and not is_of_wandb(path, folder):
            raise UserError(
                f"{name} is a link, and nothing in a directory that may come from somebody else is followed; "
                "replace it by what it leads to, or remove it"
            )
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise UserError(f"{name} is {kind(status.st_mode)}, not a file; remove it")
        if status.st_size > MOST.get(path.name, status.st_size):
            raise UserError(f"{name} has {status.st_size / 2**20:.0f} MiB, more than a run writes; move it away")


def refuse_foreign_sweep(folder: Path, jobs: Iterable[Path]) -> None:
    """Apply `refuse_foreign` to the directory of a sweep and to its jobs; UserError if the path to a job has a link below the directory."""
    refuse_foreign(folder, SWEEP)
    for job in jobs:
        for path in (job, *job.parents):
            if path != folder and path.is_relative_to(folder) and path.is_symlink():
                raise UserError(f"{path} is a link, and a job is played in a folder of the sweep itself; replace it by what it leads to")
        refuse_foreign(job)


def listed(folder: Path, names: Collection[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """List the entries of a directory with these names, and everything inside the folders among them; links are not followed."""
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(at) as found:
            for entry in sorted(found, key=lambda each: each.name):
                if at == folder and not any(fnmatch(entry.name, name) for name in names):
                    continue
                with contextlib.suppress(FileNotFoundError):  # it went away
                    status = entry.stat(follow_symlinks=False)
                    yield Path(entry.path), status
                    if stat.S_ISDIR(status.st_mode) and entry.name != ".submitit":  # which has links of its own
                        waiting.append(Path(entry.path))


def is_of_wandb(path: Path, folder: Path) -> bool:
    """Return whether wandb made a link: it is in wandb/, and its target is in there or is the log of a run that has ended.

    That log is in the user's cache. Each start of wandb makes a new folder, so the links of earlier ones are not opened again.
    """
    own = folder / "wandb"
    of_a_run = path.match("wandb/*run-*/logs/debug-core.log")
    return path.is_relative_to(own) and path != own and (of_a_run or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(own)))


def kind(mode: int) -> str:
    """Name the type of a file that is not regular, for messages."""
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")
