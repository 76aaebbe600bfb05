"""Print the figures of gan-eval: as lines of JSON, as rows of CSV or Markdown, or as a table for a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, TextIO

from gan_runner.errors import printable

COLUMNS = ("judged", "step", "figure", "value", "low", "high", "n", "n_real", "better")
HEADINGS = ("figure", "value", "95 % interval", "n", "n real", "better")
NUMBERS = 4  # of these headings have numbers, from the second on


class Printed:
    """Figures on standard output, each line of metrics.jsonl as soon as there is one.

    kind: auto (a table where `file` is a terminal, else json), json, csv, markdown or table. Of several checkpoints, CSV and Markdown have
    one heading. together: of several runs, a table is one for all of them, printed by `end`.
    """

    def __init__(self, kind: str, file: TextIO, together: bool = False):
        self.kind = ("table" if file.isatty() else "json") if kind == "auto" else kind
        self.file, self.lines, self.together = file, 0, together
        self.rows: list[Sequence[str]] = []

    def add(self, name: str, line: dict[str, Any]) -> None:
        """Print a line of metrics.jsonl. name: what was judged."""
        if self.together and self.kind == "table":
            self.rows += [(printable(name), *row) for row in cells(line)]
            return
        form = {"json": self.as_json, "csv": self.as_csv, "markdown": self.as_markdown, "table": self.as_table}[self.kind]
        print(form(printable(name), line), file=self.file, flush=True)
        self.lines += 1

    def end(self) -> None:
        """Print the table of several runs, by figure, so that those of the runs are below each other."""
        if self.rows:
            rows = sorted(self.rows, key=lambda row: row[1])
            print(aligned([("judged", *HEADINGS), *rows], first=2), file=self.file, flush=True)

    def as_json(self, name: str, line: dict[str, Any]) -> str:
        return json.dumps(line)

    def as_csv(self, name: str, line: dict[str, Any]) -> str:
        """Return rows of COLUMNS with all digits; nothing where a value is not there."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self.lines:
            writer.writerow(COLUMNS)
        protocol = line["protocol"]
        for key, value in line["metrics"].items():
            low, high = interval(line, key) or (None, None)
            n = [protocol.get("n_fake"), protocol.get("n_real")]
            writer.writerow([name, line["step"], key, value, low, high, *n, line["better"].get(key)])
        return text.getvalue().rstrip("\n")

    def as_markdown(self, name: str, line: dict[str, Any]) -> str:
        """Return rows of a table in Markdown, with a column for what was judged."""
        rows = [[name, *row] for row in cells(line)]
        if not self.lines:
            rows = [["judged", *HEADINGS], ["---", "---", *["---:"] * NUMBERS, "---"], *rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)

    def as_table(self, name: str, line: dict[str, Any]) -> str:
        """Return a heading and aligned rows."""
        real = line["protocol"].get("real")
        title = f"{name}, compared with {printable(str(real))}" if real else name
        return "\n".join([*([""] if self.lines else []), title, aligned([HEADINGS, *cells(line)], first=1)])


def aligned(rows: Sequence[Sequence[str]], first: int) -> str:
    """Lay out rows, of which NUMBERS columns from the one with index `first` have numbers."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    right = range(first, first + NUMBERS)
    lines = ("  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def cells(line: dict[str, Any]) -> list[Sequence[str]]:
    """Return the cells below HEADINGS: a row for each figure."""
    protocol = line["protocol"]
    n, n_real = (f"{protocol[key]:,}" if isinstance(protocol.get(key), int) else "-" for key in ("n_fake", "n_real"))
    rows: list[Sequence[str]] = []
    for key, value in line["metrics"].items():
        between = interval(line, key)
        said = "-" if between is None else f"[{short(between[0])}, {short(between[1])}]"
        rows.append((printable(key), "-" if value is None else short(value), said, n, n_real, line["better"].get(key) or ""))
    return rows


def interval(line: dict[str, Any], key: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure over several seeds; None where there is none."""
    between = line["protocol"].get("intervals_95", {}).get(key)
    return None if between is None else (between[0], between[1])


def short(value: Any) -> str:
    """Return a number with five digits; a list, such as a curve, by its length."""
    return f"{len(value)} values" if isinstance(value, list) else f"{value:.5g}"
