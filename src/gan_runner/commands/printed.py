"""Print the figures of gan-eval: as lines of JSON, as rows of CSV or Markdown, or as a table for a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, TextIO

from gan_runner.commands.groups import Groups
from gan_runner.errors import printable
from gan_runner.refinement.comparison import Row

COLUMNS = ("judged", "step", "figure", "value", "low", "high", "n", "n_real", "better")
IN_GROUPS = ("runs", "sd", "difference", "difference_low", "difference_high", "t", "freedom", "p")  # more COLUMNS, of groups of runs
OF_GROUPS = ("figure", "group", "runs", "mean", "sd", "95 % interval", "minus group 1", "95 % interval", "t", "freedom", "p")
HEADINGS = ("figure", "value", "95 % interval", "n", "n real", "better")
NUMBERS = 4  # of these headings have numbers, from the second on


class Printed:
    """Figures on standard output, each line of metrics.jsonl as soon as there is one.

    kind: auto (a table where `file` is a terminal, else json), json, csv, markdown or table. Of several checkpoints, CSV and Markdown have
    one heading. together: of several runs, a table is one for all of them, printed by `end`; grouped: then those of groups of runs follow.
    refined: a table is that of `compare`.
    """

    def __init__(self, kind: str, file: TextIO, together: bool = False, grouped: bool = False, refined: bool = False):
        self.kind = ("table" if file.isatty() else "json") if kind == "auto" else kind
        self.file, self.lines, self.together, self.grouped, self.refined = file, 0, together, grouped, refined
        self.rows: list[Sequence[str]] = []

    def add(self, name: str, line: dict[str, Any]) -> None:
        """Print a line of metrics.jsonl. name: what was judged."""
        if self.together and self.kind == "table":
            self.rows += [(printable(name), *row) for row in cells(line)]
            return
        if self.refined and self.kind == "table":
            return
        form = {"json": self.as_json, "csv": self.as_csv, "markdown": self.as_markdown, "table": self.as_table}[self.kind]
        print(form(printable(name), line), file=self.file, flush=True)
        self.lines += 1

    def compare(self, name: str, rows: Sequence[Row]) -> None:
        """Print a row for the samples of each refiner where the figures of a line are a table. name: what was judged."""
        if self.kind == "table":
            print(f"{printable(name)}\n{aligned([headings_of(rows), *map(cells_of_row, rows)], range(1, 100))}", file=self.file, flush=True)

    def end(self, groups: Groups) -> None:
        """Print the table of several runs, by figure, so that those of the runs are below each other, and what their groups come to."""
        if self.rows:
            rows = sorted(self.rows, key=lambda row: row[1])
            print(aligned([("judged", *HEADINGS), *rows], numbers=range(2, 2 + NUMBERS)), file=self.file)
        if self.grouped:
            form = {"json": groups_as_json, "csv": groups_as_csv, "markdown": groups_as_markdown, "table": groups_as_table}[self.kind]
            print(form(groups), file=self.file)
        self.file.flush()

    def as_json(self, name: str, line: dict[str, Any]) -> str:
        return json.dumps(line)

    def as_csv(self, name: str, line: dict[str, Any]) -> str:
        """Return rows of COLUMNS with all digits; nothing where a value is not there."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self.lines:
            writer.writerow(COLUMNS + (IN_GROUPS if self.grouped else ()))
        protocol = line["protocol"]
        for key, value in line["metrics"].items():
            low, high = interval(line, key) or (None, None)
            n = [protocol.get("n_fake"), protocol.get("n_real")]
            more = [None] * len(IN_GROUPS) if self.grouped else []
            writer.writerow([name, line["step"], key, value, low, high, *n, line["better"].get(key), *more])
        return text.getvalue().rstrip("\n")

    def as_markdown(self, name: str, line: dict[str, Any]) -> str:
        """Return rows of a table in Markdown, with a column for what was judged."""
        rows = [[name, *row] for row in cells(line)]
        if not self.lines:
            rows = [["judged", *HEADINGS], ["---", "---", *["---:"] * NUMBERS, "---"], *rows]
        return in_markdown(rows)

    def as_table(self, name: str, line: dict[str, Any]) -> str:
        """Return a heading and aligned rows."""
        real = line["protocol"].get("real")
        title = f"{name}, compared with {printable(str(real))}" if real else name
        return "\n".join([*([""] if self.lines else []), title, aligned([HEADINGS, *cells(line)], numbers=range(1, 1 + NUMBERS))])


def aligned(rows: Sequence[Sequence[str]], numbers: range) -> str:
    """Lay out rows, of which the columns with these indices have numbers."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def in_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows as those of a table in Markdown."""
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def cells(line: dict[str, Any]) -> list[Sequence[str]]:
    """Return the cells below HEADINGS: a row for each figure."""
    protocol = line["protocol"]
    n, n_real = (f"{protocol[key]:,}" if isinstance(protocol.get(key), int) else "-" for key in ("n_fake", "n_real"))
    rows: list[Sequence[str]] = []
    for key, value in line["metrics"].items():
        rows.append((printable(key), short(value), between(interval(line, key)), n, n_real, line["better"].get(key) or ""))
    return rows


def headings_of(rows: Sequence[Row]) -> list[str]:
    """Return the headings of rows of refiners."""
    return ["refiner", *map(printable, rows[0].figures), "evaluations", "gradients", "s / 1,000"]


def cells_of_row(row: Row) -> list[str]:
    """Return the cells below them."""
    return [printable(row.name), *map(short, row.figures.values()), *map(short, row.cost[:2]), short(1000 * row.cost.seconds)]


def interval(line: dict[str, Any], key: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure over several seeds; None where there is none."""
    between = line["protocol"].get("intervals_95", {}).get(key)
    return None if between is None else (between[0], between[1])


def short(value: Any) -> str:
    """Return a number with five digits; a list, such as a curve, by its length; None as -."""
    return "-" if value is None else f"{len(value)} values" if isinstance(value, list) else f"{value:.5g}"


# ---- groups of runs -----------------------------------------------------------------------------------------------------------------


def groups_as_json(groups: Groups) -> str:
    return json.dumps(groups.line())


def groups_as_csv(groups: Groups) -> str:
    """Return rows of COLUMNS and IN_GROUPS with all digits; nothing where a value is not there."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for figure, group, spread, test in groups.rows:
        mean, interval, n, sd = (spread.mean, spread.interval, spread.n, spread.deviation) if spread else (None, None, None, None)
        tested = [test.difference, *test.interval, test.t, test.freedom, test.p] if test else [None] * 6
        writer.writerow([group, None, figure, mean, *(interval or (None, None)), None, None, groups.better(figure), n, sd, *tested])
    return text.getvalue().rstrip("\n")


def groups_as_markdown(groups: Groups) -> str:
    """Return a table in Markdown."""
    rule = ["---", "---", *["---:"] * (len(OF_GROUPS) - 2)]
    return "\n" + in_markdown([OF_GROUPS, rule, *cells_of(groups)])


def groups_as_table(groups: Groups) -> str:
    """Return aligned rows, after the members of each group."""
    members = [f"  {name}: {', '.join(printable(each.name) for each in group)}" for name, group in zip(groups.names, groups.groups)]
    return "\n".join(["", *members, "", aligned([OF_GROUPS, *cells_of(groups)], numbers=range(2, len(OF_GROUPS)))])


def cells_of(groups: Groups) -> list[Sequence[str]]:
    """Return the cells below OF_GROUPS: a row for each figure of each group."""
    rows: list[Sequence[str]] = []
    for figure, group, spread, test in groups.rows:
        summary = [str(spread.n), *map(short, (spread.mean, spread.deviation)), between(spread.interval)] if spread else ["-"] * 4
        tested = [short(test.difference), between(test.interval), *map(short, (test.t, test.freedom, test.p))] if test else ["-"] * 5
        rows.append((printable(figure), group, *summary, *tested))
    return rows


def between(interval: tuple[float, float] | None) -> str:
    """Return an interval with five digits."""
    return "-" if interval is None else f"[{short(interval[0])}, {short(interval[1])}]"
