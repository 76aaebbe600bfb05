"""Summarise what refiners do to the samples of the runs of a sweep. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gan_runner.errors import some
from gan_runner.storage.records import Run
from gan_runner.studies.summary import MOST, Figure, Keys, Row, Summary, measured, setting, values, varying

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREFIX = "refined/"  # of the keys of callback.refine and gan-eval, refined/NAME/KEY
COST = "evaluations"  # KEY of the evaluations of D a sample
TICKS = (1, 2, 5, 10, 25, 50, 100)


class Refiners(Summary):
    """A row for each refiner and number of steps, of the runs that differ in their seed alone; a column for each figure.

    columns: KEY of refined/NAME/KEY. The evaluations of D a sample are the first column. The plot has a panel for each group of runs: the
    first figure that the group has, against them.
    """

    def __init__(self, question: str, columns: Keys, budget: str = ""):
        super().__init__(question, budget)
        self.columns = columns

    def rows(self, runs: Sequence[Run]) -> list[Row]:
        keys, groups = varying(runs), dict[tuple[str, ...], list[Run]]()
        for run in runs:
            groups.setdefault(tuple(setting(run, key) for key in keys), []).append(run)
        rows = []
        for labels, members in groups.items():
            for name in names(members) or ["-"]:
                row = Row(dict(zip(keys, labels)) | {"refiner": name}, members, {})
                for column in (COST, *self.columns):
                    key = f"{PREFIX}{name}/{column}"
                    for suffix, alike in measured(members, key).items():
                        if found := values(row.finished, alike, key):
                            row.figures[column + suffix] = Figure.of(found)
                rows.append(row)
        return rows

    def panels(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """Split the rows by the setting of their runs."""
        return list(grouped(rows).values())

    def plot(self, axes: Axes, rows: Sequence[Row]) -> None:
        """Draw the first figure that a group of runs has against evaluations of D: a line for each refiner, a dashed one without any."""
        (group,) = grouped(rows)
        plain = next((row for row in rows if row.labels["refiner"] == "none"), None)
        column = next((column for column in self.columns if plain is not None and column in plain.figures), None)
        axes.set(title=group, xlabel="evaluations of D a sample", ylabel=column or "")
        if plain is None or column is None:
            return
        axes.set_xscale("log")
        axes.set_xticks(TICKS, list(map(str, TICKS)))
        axes.minorticks_off()
        axes.axhline(plain.figures[column].mean, color="0.4", linestyle="--", label="none")
        for base, points in curves(rows, plain, column).items():
            axes.plot(*zip(*points), label=base)

    def reading(self, rows: Sequence[Row]) -> str:
        """Name, for each group of runs and figure, the refiner with the greatest change for the better, and columns that no run has."""
        had = {column for row in rows for column in row.figures}
        missing = [column for column in self.columns if column not in had]
        said = [f"No run has a figure {some(missing, 5)}."] if missing and had else []
        for group, members in grouped(rows).items():
            for column in self.columns:
                ways = {run.direction(f"{PREFIX}none/{column}") for row in members for run in row.finished}
                known = [row for row in members if column in row.figures and row.figures[column].n]
                plain = next((row for row in known if row.labels["refiner"] == "none"), None)
                if plain is None or not (way := next(filter(None, ways), None)):
                    continue
                best = (min if way == "min" else max)(known, key=lambda row: row.figures[column].mean)
                name, n = best.labels["refiner"], best.figures[column].n
                said.append(f"{group}, {column}: best is {name} with {best.figures[column]} (n={n}); none has {plain.figures[column]}.")
        return "\n\n".join(said)


def curves(rows: Sequence[Row], plain: Row, column: str) -> dict[str, list[tuple[float, float]]]:
    """(Evaluations, figure) of each refiner, after more and more steps."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row is not plain and column in row.figures and COST in row.figures:
            base = row.labels["refiner"].partition("@")[0]
            found.setdefault(base, []).append((row.figures[COST].mean, row.figures[column].mean))
    return {base: sorted(points) for base, points in found.items()}


def names(runs: Sequence[Run]) -> list[str]:
    """The refiners that the runs have figures of, with their inner steps: none, dgflow@25, dgflow."""
    found = dict.fromkeys(key.removeprefix(PREFIX).partition("/")[0] for run in runs for key in run.keys if key.startswith(PREFIX))
    return list(found)[:MOST]


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each setting of the runs."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        labels = {key: value for key, value in row.labels.items() if key != "refiner"}
        groups.setdefault(row._replace(labels=labels).name, []).append(row)
    return groups
