"""Print the table of a sweep."""

from pathlib import Path
from typing import Any

from gan_runner.errors import Failed, plain, say, shell_line, verdict
from gan_runner.inventory import summary
from gan_runner.jobs.job import Outcome
from gan_runner.storage import files, labels, records
from gan_runner.storage.protocols import Protocol


def state_of(folder: Path) -> str:
    """Read the state of a job that this process has not run; "waiting" if it has not started."""
    return records.read(folder, folder.parent).state if records.is_run(folder) else "waiting"


def report(folder: Path, outcomes: list[Outcome], followed: tuple[str | None, Any] | None) -> None:
    """Print the table of a sweep and write table.txt. followed: (metric, mode) if one metric is used for all jobs."""
    rows: list[tuple[str, ...]] = []
    best: dict[tuple[str, Any], tuple[float, str]] = {}  # of those that finished, by (name, mode)
    varied = labels.differing([outcome.overrides for outcome in outcomes])
    owner: dict[str, Protocol] = {}  # the protocol of the first job that was measured by a metric; another one has another name
    for outcome in outcomes:
        metric, mode, value = None, None, outcome.value
        name = labels.label(outcome.overrides, varied) or shell_line(outcome.overrides)
        if records.is_run(Path(outcome.folder)):
            run = records.read(Path(outcome.folder), Path(outcome.folder).parent)
            metric, mode = followed or run.own
            value = run.objective(metric, mode)
            if value is not None and metric:
                own = owner.setdefault(metric, run.owners[metric])
                metric += f" ({differs})" if (differs := own.described(metric, run.owners[metric])) else ""
        if value is not None and metric and outcome.state == "finished":
            this = (value, f"{name} (job {outcome.number})" if name else f"job {outcome.number}")
            best[metric, mode] = (max if mode == "max" else min)(best.get((metric, mode), this), this, key=lambda pair: pair[0])
        shown = "" if value is None else f"{value:.6g}"
        rows.append((str(outcome.number), outcome.state, shown, metric or "", name))
    if not rows:
        return
    rows.insert(0, ("job", "state", "best", "of", "what differs"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]) for row in rows]
    lines += [f"best {metric}: {value:.6g}, of {name}" for (metric, _), (value, name) in best.items() if len(rows) > 2]
    text = "\n".join(lines)
    print(plain(f"{text}\n{folder}"), flush=True)
    try:
        files.write_bytes(folder / "table.txt", f"{text}\n".encode(), folder)
    except Failed as error:
        say("gan-train", f"table.txt was not written: {error}")


def sum_up(folder: Path, packages: list[str]) -> None:
    """Write the summary of a sweep beside its jobs. A mistake in it, which may be of the user's own class, ends no sweep."""
    if next(records.find(folder), None) is None:  # it was stopped before its first job began
        return
    try:
        say("gan-train", f"{folder / summary.PAGE}: {summary.write(folder, packages)[0]}")
    except Exception as error:
        say("gan-train", f"the summary was not written: {verdict(error)[1]}; once that is mended: gan-runs {folder} --summary")
