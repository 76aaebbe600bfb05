"""Delete run directories: check which may be deleted, ask the user, delete."""

import fcntl
import os
import shutil
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from gan_runner.errors import DONE, FAILED, Failed, UserError, printable, say
from gan_runner.inventory.tables import print_table, since
from gan_runner.storage.contents import WATCHED
from gan_runner.storage.records import QUIET, Run, last_written
from gan_runner.storage.untrusted import parsed_json, read_bounded

LEFT_BEHIND = (
    "config.yaml", "overrides.yaml", "env.json", "status.json", "metrics.jsonl", "changes.jsonl", "train.log", ".lock", ".*.part",
    ".hydra/*.yaml", "events.out.tfevents.*", "D/events.out.tfevents.*", "*=*/events.out.tfevents.*",
    "scalars.csv", "wandb.json", "wandb/*", "mlflow.json", "trackio.json",
    "profile.pt.trace.json", "checkpoints/*.pt", "checkpoints/.*.part", "samples/*.png", "samples/*.npz", "evaluations/*.png",
    WATCHED, "evaluations/events.out.tfevents.*", "evaluations/.lock", "evaluations/.*.part",
)  # fmt: skip


def prune(runs: list[Run], root: Path, yes: bool) -> int:
    """Delete runs after the user has confirmed."""
    going: list[tuple[Run, int]] = []
    for run in runs:
        if reason := why_not(run, root):
            say("gan-runs", f"{run.name} stays: {reason}")
        else:
            going.append((run, size(run.folder)))
    if not going:
        say("gan-runs", "there is nothing to delete")
        return DONE
    lines = [[run.name, run.state, f"{n / 1e6:.1f} MB", since(run.written)] for run, n in going]
    print_table(["run", "state", "size", "last written"], lines)
    what = f"delete {len(going)} run{'s' * (len(going) > 1)} ({sum(n for _, n in going) / 1e6:.1f} MB)"
    if not yes and not sys.stdin.isatty():
        raise UserError(f"{what}? There is no terminal to ask on, and nothing was deleted; say --yes to have it done")
    try:
        if not yes and input(f"{what}? [y/N] ").strip().casefold() not in ("y", "yes"):
            raise EOFError
    except EOFError:
        say("gan-runs", "nothing was deleted")
        return DONE
    freed, gone = 0, 0
    for run, _ in going:
        try:
            freed, gone = freed + delete(run, root), gone + 1
        except (Failed, UserError) as error:
            say("gan-runs", str(error))
    say("gan-runs", f"deleted {gone} run{'s' * (gone != 1)}, {freed / 1e6:.1f} MB are free")
    return DONE if gone == len(going) else FAILED


def files_of(folder: Path) -> dict[str, os.stat_result]:
    """Return all files and links below a run directory, by relative path. OSError if a part cannot be read."""

    def give_up(error: OSError) -> None:
        raise error

    paths = (Path(name, each) for name, folders, files in os.walk(folder, onerror=give_up) for each in folders + files)
    return {str(path.relative_to(folder)): path.lstat() for path in paths if path.is_symlink() or not path.is_dir()}


def size(folder: Path) -> int:
    """Return the bytes of a run directory; a file with several hard links counts once."""
    return sum({(each.st_dev, each.st_ino): each.st_size for each in files_of(folder).values()}.values())


def why_not(run: Run, root: Path) -> str | None:
    """Return why a run directory must not be deleted; None if it may be."""
    if not run.folder.resolve().is_relative_to(root.resolve()):
        return f"it is not below {root}"
    try:
        others = [path for path in files_of(run.folder) if not any(fnmatch(path, name) for name in LEFT_BEHIND)]
    except OSError as error:
        return f"not all of it can be read: {error.strerror}"
    if others:
        return f"it holds {', '.join(map(printable, others[:3]))}{' and more' if others[3:] else ''}, which no run leaves there"
    if run.state == "running":
        return "a process is writing it"
    if run.state == "?":
        return "its status.json cannot be read"
    if run.state == "dead" and (ago := time.time() - last_written(run.folder)) < QUIET:
        return f"it was written to {max(ago, 0):.0f} s ago and may be alive on another machine; try again in {QUIET // 60} minutes"
    return None


def delete(run: Run, root: Path) -> int:
    """Delete a run directory if its state has not changed. Returns the bytes freed. UserError if not allowed, Failed if it fails."""
    state = {"dead": "running"}.get(run.state, run.state)
    try:
        lock = os.open(run.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise Failed(f"{run.name} stays: its lock cannot be taken: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said = parsed_json(read_bounded(run.folder / "status.json"))
        if reason := why_not(run, root) if isinstance(said, dict) and str(said.get("state")) == state else "it has changed meanwhile":
            raise UserError(f"{run.name} stays: {reason}")
        freed = size(run.folder)
        shutil.rmtree(run.folder.resolve())
    except BlockingIOError as error:
        raise UserError(f"{run.name} stays: a process is writing it") from error
    except OSError as error:
        raise Failed(f"{run.name} could not be deleted: {error.strerror}") from error
    finally:
        os.close(lock)
    return freed
