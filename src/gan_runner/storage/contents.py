"""What a run directory, the folder of a sweep and a folder of ratings may hold."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from gan_runner.errors import UserError, printable

FOLDERS = ("checkpoints", "samples", "evaluations", "wandb", ".hydra")
RUN = (
    *FOLDERS, "config.yaml", "overrides.yaml", "env.json", "status.json", "metrics.jsonl", "changes.jsonl", "train.log", ".lock", ".*.part",
    "events.out.tfevents.*", "scalars.csv", "wandb.json", "mlflow.json", "trackio.json", "profile.pt.trace.json",
)  # fmt: skip
SUMMARY = ("sweep.yaml", "table.md", "plot.png", "page.md", "events.out.tfevents.summary")  # what a sweep was asked, and what it came to
SWEEP = (*SUMMARY, ".lock", "table.txt", "study.db*", "multirun.yaml", ".submitit", ".*.part")
RATING = ("key.json", "score.json", "page", ".*.part")
MOST = {"metrics.jsonl": 2**28, "scalars.csv": 2**28, "changes.jsonl": 2**22}  # bytes of what is read as a whole, and grows with a run


# ------------------------------------------------------------------------------------------------------------------------ before the start


def refuse_foreign(folder: Path, names: Collection[str] = RUN) -> None:
    """Raise UserError where a file or folder that is used in a directory is a link, a pipe or a device, or is larger than it can be.

    Links of wandb's own, which stay inside wandb/, are left alone, and so are files of other names, which nobody opens.
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
    """Apply `refuse_foreign` to the directory of a sweep and its jobs, none of which may be reached through a link below it."""
    refuse_foreign(folder, SWEEP)
    for job in jobs:
        for path in (job, *job.parents):
            if path != folder and path.is_relative_to(folder) and path.is_symlink():
                raise UserError(f"{path} is a link, and a job is played in a folder of the sweep itself; replace it by what it leads to")
        refuse_foreign(job)


def listed(folder: Path, names: Collection[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """List the files and folders of a directory under these names, and those in its folders at any depth; links are not followed."""
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
    """Return whether a link is one of those that wandb makes: in its folder, to something in there, or to the log of a run that has ended.

    That log is in the user's cache, and each start of wandb has a folder of its own: what was left before is not opened again.
    """
    own = folder / "wandb"
    of_a_run = path.match("wandb/*run-*/logs/debug-core.log")
    return path.is_relative_to(own) and path != own and (of_a_run or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(own)))


def kind(mode: int) -> str:
    """Name the kind of a file that is not regular."""
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")
