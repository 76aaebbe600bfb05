"""Check that a state was made with the same configuration and data as the run that resumes it, unless the line accepts differences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_runner.datasets import Dataset
from gan_runner.datasets.fingerprint import differences, digest
from gan_runner.errors import UserError, printable, some
from gan_runner.storage import checkpoint, directory
from gan_runner.storage.directory import Difference

if TYPE_CHECKING:
    from gan_runner.training.run import Run


WATCHING = ("trainer", "callback", "logger", "metric", "extractor")  # keys on which no network depends
NETWORKS = ("architecture", "trick")  # keys that make networks what they are, weights apart
SHOWN = 5  # differences in a message


def refuse_others(
    path: Path, state: dict[str, Any], config: Any, dataset: Dataset, accept: Collection[str], say: Callable[[str], None]
) -> bool:
    """Raise UserError, with the differences, if the state in the file `path` was made with another configuration or other data.

    config: from config.yaml in its run directory. Keys that an earlier resume changed or accepted (changes.jsonl) may differ. accept:
    "config" and "data" allow other differences, which are reported. Returns whether the data differ, or might. A state of an older version
    has neither; then a message says that they were not checked.
    """
    folder = path.parents[1]
    notes: list[str] = []
    recorded, other_data = directory.recorded_changes(folder), "data" in accept
    if missing := [what for name, what in (("config", "configuration"), ("data", "data")) if name not in state]:
        notes.append(f"not checked: whether {' and '.join(missing)} are those of {path.name}, which an older version wrote")
    if "config" in state:
        with understood(path):
            changed = list(directory.differences(state["config"], directory.made_with(config)))
        changed = [each for each in changed if recorded.get(each.key, directory.NOT_SET) != each.now]
        if changed and "config" not in accept:
            raise UserError(
                f"{folder / 'config.yaml'} is not the configuration that {path.name} was made with: {listed(changed)}; change it back, "
                "or go on with it by accept=config (trainer.*, callback.* and logger.* may also be said on the line)"
            )
        notes += [f"accepted: {each}" for each in changed]
    if "data" in state:
        now = dataset.fingerprint("train", dataset.open("train"))  # what a data set of the user raises is its own
        with understood(path):
            found = differences(state["data"], now)
        if found:
            if "data" not in accept and recorded.get("data") != digest(now):
                raise UserError(
                    f"the data are not those that {path} was trained on: {'; '.join(found)}; to go on with these, say accept=data"
                )
            notes.append(f"accepted: other data: {'; '.join(found)}")
        other_data = bool(found)
    for note in notes:
        say(note)
    return other_data


def record(folder: Path, state: dict[str, Any], run: Run) -> None:
    """Append to changes.jsonl the differences between a resumed run and its state, unless they are recorded already."""
    before = state["config"] if "config" in state else directory.made_with(directory.read_config(folder))
    changes = list(directory.differences(before, run.made_with))
    if "data" in state and differences(state["data"], run.batches.fingerprint):
        changes.append(Difference("data", digest(state["data"]), digest(run.batches.fingerprint)))
    recorded = directory.recorded_changes(folder)
    directory.record_changes(folder, run.step, [each for each in changes if recorded.get(each.key, directory.NOT_SET) != each.now])


def refuse_other_networks(path: Path, state: dict[str, Any], folder: Path) -> None:
    """Raise UserError, with the differences, if the state in the file `path` was made with networks of another configuration than `folder`.

    Keys of WATCHING may differ. Others, except NETWORKS, may differ if a resume changed them.
    """
    if "config" not in state:
        return
    with understood(path):
        recorded = directory.recorded_changes(folder)
        found = [
            each
            for each in directory.differences(state["config"], directory.made_with(directory.read_config(folder)))
            if (head := each.key.partition(".")[0]) not in WATCHING
            and (head in NETWORKS or recorded.get(each.key, directory.NOT_SET) != each.now)
        ]
    if found:
        raise UserError(
            f"{path} was made with another configuration than {folder / 'config.yaml'} says: {listed(found)}; "
            "use a checkpoint of that run, and its config.yaml as it was written"
        )


def inexact(before: dict[str, Any] | None, now: dict[str, Any], deterministic: bool) -> list[str]:
    """List the reasons why a resumed run is equal only up to rounding; empty if it is bit for bit the same."""
    reasons = [printable(f"{key} was {before.get(key)} and is {now[key]}") for key in now if before.get(key) != now[key]] if before else []
    if now["device"] != "cpu" and not deterministic:
        reasons.append(f"{now['device']} without deterministic=true")
    return reasons


def listed(changes: Iterable[Difference]) -> str:
    """Format the first SHOWN differences and the number of the others."""
    return some(map(str, changes), SHOWN)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn the errors of reading a malformed state into UserError."""
    try:
        yield
    except checkpoint.MISFIT as error:
        raise UserError(f"{path} does not say what it was made with: {printable(checkpoint.misfit(error))}") from error
