"""The output of gan-runs: rows of the table, columns of a comparison, JSON lines for programs."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gan_runner.errors import printable, say, shell_line
from gan_runner.reporting import duration
from gan_runner.storage.labels import differing as keys_that_differ
from gan_runner.storage.labels import label
from gan_runner.storage.records import STATES, Run, plain
from gan_runner.storage.untrusted import Value

COLOURS = {"running": "cyan", "dead": "red", "failed": "red", "diverged": "magenta", "interrupted": "yellow", "finished": "green"}
ARROWS = {"max": " \u2191", "min": " \u2193"}
SPARE = ("took", "images", "age", "metric")  # columns that a narrow terminal leaves out, in this order
UNITS = {10**9: "G", 10**6: "M", 10**3: "k", 1: ""}


def best_and_last(run: Run, asked: str | None) -> tuple[str | None, str | None, float | None, float | None]:
    """Return (metric, "min" | "max", best, last); best is None if the direction is unknown."""
    metric, mode = run.followed(asked)
    best = run.best(metric, mode) if metric else None
    return metric, mode, best[1] if best else None, run.last(metric) if metric else None


# -------------------------------------------------------------------------------------------------------------------------------- words


def counted(runs: Sequence[Run]) -> str:
    """Count runs by state: 3 runs: 2 finished, 1 failed."""
    states = Counter(run.state for run in runs)
    said = ", ".join(f"{states[state]} {'unreadable' if state == '?' else state}" for state in reversed(STATES) if states[state])
    return f"{len(runs)} run{'s' * (len(runs) != 1)}{': ' * bool(runs)}{said}"


def shown(value: Value, unknown: str = "-") -> str:
    """Format a figure, or a value of a configuration."""
    if isinstance(value, bool):
        return str(value).lower()
    return unknown if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def amount(n: int | None) -> str:
    """Format a number: 950, 51.2k, 12.8M."""
    if n is None:
        return "?"
    unit = next(unit for unit in UNITS if n >= unit or unit == 1)
    return f"{n / unit:.4g}{UNITS[unit]}"


def since(then: float | None) -> str:
    """Format the time since then: 3 d, 2 h, 5 min."""
    return "?" if not then else " ".join(duration(max(time.time() - then, 0)).split()[:2])


def when(seconds: float | None) -> str | None:
    """Format a time as ISO 8601, UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def arrow(metric: str | None, mode: str | None) -> str:
    """Format the metric with an arrow for the better direction."""
    return f"{metric or '-'}{ARROWS.get(mode or '', '')}"


def short_names(names: Sequence[str]) -> list[str]:
    """Remove the common leading folders of paths."""
    parts = [name.strip("/").split("/") for name in names]
    while min(map(len, parts)) > 1 and len({each[0] for each in parts}) == 1:
        parts = [each[1:] for each in parts]
    return ["/".join(each) for each in parts]


def labelled(runs: Sequence[Run]) -> list[str]:
    """Name runs in one chart: by their folders, and by what differs between their lines."""
    lines = [[*(run.overrides or ()), *([f"experiment={run.experiment}"] if run.experiment else [])] for run in runs]
    keys = keys_that_differ(lines)
    labels, folders = [label(line, keys) for line in lines], short_names([run.name for run in runs])
    return [f"{folder}: {said}" if said else folder for said, folder in zip(labels, folders)]


# ------------------------------------------------------------------------------------------------------------------------------- tables


def row(run: Run, metric: str | None) -> dict[str, str]:
    """Build the row of a run in the table."""
    key, mode, best, last = best_and_last(run, metric)
    return {
        "run": run.name,
        "state": run.state,
        "step": f"{shown(run.step, '?')}/{shown(run.steps, '?')}",
        "images": amount(run.images),
        "metric": arrow(key, mode),
        "best": shown(best),
        "last": shown(last),
        "took": "?" if run.seconds is None else duration(run.seconds),
        "age": since(run.started),
        "changed": changed(run),
    }


def changed(run: Run, said: Sequence[str] = ()) -> str:
    """Return the overrides of a run, except the experiment and those in `said`."""
    return "?" if run.overrides is None else shell_line(word for word in run.overrides if word not in said)


def changed_alike(runs: Sequence[Run]) -> list[str]:
    """Return the overrides that all runs share, if there are several runs."""
    first = (runs[0].overrides or []) if len(runs) > 1 else []
    return [word for word in first if all(word in (run.overrides or []) for run in runs)]


def show(runs: Sequence[Run], metric: str | None) -> None:
    """Print the table. A metric or an override that all runs share is printed once."""
    words = changed_alike(runs)
    rows = [row(run, metric) | {"changed": changed(run, words)} for run in runs]
    shared = {each["metric"] for each in rows}
    columns = [column for column in (rows[0] if rows else ()) if column != "metric" or len(shared) > 1]
    if len(shared) == 1 and shared != {"-"}:
        say("gan-runs", f"best and last: {min(shared)}")
    if words:
        say("gan-runs", f"all of them: {shell_line(words)}")
    if mixed := unlike(runs, metric):
        say("gan-runs", f"not all figures were measured alike; they differ in {', '.join(mixed[:5])}: see --compare")
    if unknown := {each["metric"] for each in rows if each["last"] != "-" and each["best"] == "-"}:
        say("gan-runs", f"which {min(unknown)} is the best? Say --metric {min(unknown)}:min or :max")
    if rows:
        print_table(columns, [[each[column] for column in columns] for each in rows])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: in a terminal with the layout of `fitted`, otherwise one line for each row."""
    columns, rows = [printable(each) for each in columns], [[printable(cell) for cell in row] for row in rows]
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(fitted(columns, rows, console.width))
        return
    widths = [max(cell_len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    for line in (columns, *rows):
        print("  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths)).rstrip())


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    """Lay out a table: names come last, with their changes below, or below the rest where they do not fit beside it.

    Columns of SPARE are dropped if less than 40 columns, or less than the longest name, remain for the names.
    """
    lines = [dict(zip(columns, row)) for row in rows]
    needed = {column: 2 + max(cell_len(line[column]) for line in [{column: column}, *lines]) for column in columns}
    kept = [column for column in columns if column not in ("run", "changed")]
    names = "run" in columns
    below = names and width - sum(needed[column] for column in kept if column not in SPARE) < needed["run"]
    for spare in SPARE if names else ():
        if width - sum(needed[column] for column in kept) < (0 if below else max(40, needed["run"])) and spare in kept:
            kept.remove(spare)
    if below:
        return Group(*names_below(kept, lines, needed))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in kept:
        table.add_column(Text(column), no_wrap=names, overflow="fold")
    if names:
        table.add_column(Text("run"), overflow="fold")
    for line in lines:
        table.add_row(*(cell(line, column) for column in kept), *([Text("\n").join(name(line))] if names else []))
    return table


def names_below(columns: Sequence[str], lines: Sequence[dict[str, str]], needed: Mapping[str, int]) -> Iterator[RenderableType]:
    """Yield the lines of a table in which the name of a run has the whole width, below its other columns."""
    header = {column: column for column in columns}
    for line in [header, *lines]:
        cells = [cell(line, column) for column in columns]
        for text, column in zip(cells, columns):
            text.pad_right(needed[column] - cell_len(text.plain))
        yield Text("", style="bold" if line is header else "", no_wrap=True, overflow="crop").join(cells)
        yield from (Padding(text, (0, 0, 0, 2)) for text in (name(line) if line is not header else ()))


def cell(line: dict[str, str], column: str) -> Text:
    return Text(line[column], COLOURS.get(line[column], "") if column == "state" else "")


def name(line: dict[str, str]) -> list[Text]:
    """Return the name of a run, and what its line changed."""
    return [Text(line["run"], overflow="fold"), *([Text(line["changed"], "dim", overflow="fold")] if line.get("changed") else [])]


def unlike(runs: Sequence[Run], asked: str | None) -> list[str]:
    """Return protocol differences of runs shown by the same metric: their figures are not comparable."""
    return list(dict.fromkeys(name for metric in {run.followed(asked)[0] for run in runs} for name in differing(runs, asked, metric)))


def differing(runs: Sequence[Run], asked: str | None, metric: str | None) -> list[str]:
    """Return the differences in the protocols of one metric, among the runs shown by it."""
    key = plain(metric or "")
    found = [run.owners[key] for run in runs if key in run.owners and run.followed(asked)[0] == metric]
    return list(dict.fromkeys(name for other in found[1:] for name in found[0].differing(key, other)))


def differences(trees: list[dict[str, Value]]) -> dict[str, list[Value]]:
    """Return the values that are not equal in all trees, by key; None: missing."""
    said = [{key: "null" if value is None else value for key, value in tree.items()} for tree in trees]
    rows = {key: [tree.get(key) for tree in said] for key in dict.fromkeys(key for tree in said for key in tree)}
    return {key: cells for key, cells in rows.items() if len(set(map(repr, cells))) > 1}


def side_by_side(runs: Sequence[Run], asked: str | None) -> dict[str, dict[str, list[Value]]]:
    """Return what differs between the configurations of runs and between their protocols, and all figures. None: missing.

    A figure that was measured by different protocols says so beside its name.
    """
    figures: dict[str, list[Value]] = {}
    for key in dict.fromkeys(key for run in runs for key in run.keys):
        same = asked if asked and asked.rpartition(":")[0] == key else key
        modes = [run.followed(same)[1] for run in runs]
        mode = next((mode for mode in modes if mode), None)
        mixed = differing(runs, key, key)
        caution = f" (not alike: {', '.join(mixed[:3])})" if mixed else ""
        if mode:
            best = [run.best(key, mode) for run in runs]
            figures[f"{arrow(key, mode)} best{caution}"] = [point[1] if point else None for point in best]
        figures[f"{key} last{caution}"] = [run.last(key) for run in runs]
    return {
        "configuration": differences([run.config for run in runs]),
        "protocol of the figures": differences([run.protocol() for run in runs]),
        "metrics": figures,
    }


def as_json(run: Run, asked: str | None) -> dict[str, Any]:
    """Collect all that is known of a run, for programs."""
    metric, mode, best, last = best_and_last(run, asked)
    return {
        "name": run.name, "path": str(run.folder), "state": run.state, "step": run.step, "steps": run.steps, "images": run.images,
        "metric": metric, "mode": mode, "best": best, "last": last, "metrics": {key: run.last(key) for key in run.keys},
        "overrides": run.overrides, "error": run.error, "seconds": run.seconds,
        "started": when(run.started), "ended": when(run.ended), "written": when(run.written),
    }  # fmt: skip
