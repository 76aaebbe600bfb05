"""Summaries: which runs of a sweep belong together, and what their figures say. Imports no torch.

A summary is handed runs as `storage.records` reads them, and returns plain text and numbers. Who writes the page escapes every text.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from annotated_types import MaxLen

from gan_runner.errors import some
from gan_runner.storage.labels import key_of, short
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.records import DIRECTIONS, Run, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = "seed"  # runs that differ in nothing else are one row
IMAGES = "images"  # the x of curves
MOST = 50  # rows or columns that a file may ask for
LONG = 60  # characters of a name
SHOWN = 8  # columns where nothing says which figures count
WHICH = {"min": "lowest", "max": "highest", None: "last"}
Keys = Annotated[list[str], MaxLen(MOST)]


class Figure(NamedTuple):
    """A figure of some runs: the mean, and the standard deviation (ddof=1; None of less than two), over the n of them that have it."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Sum up the values of one figure, one of each run."""
        if not values:
            return cls(math.nan, None, 0)
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        if not self.n:
            return "-"
        return f"{self.mean:.4g}" + ("" if self.deviation is None else f" \u00b1 {self.deviation:.2g}")


class Row(NamedTuple):
    """Runs that belong together: what they share, all of them whatever their state, and the figures of those that finished."""

    labels: dict[str, str]
    runs: list[Run]
    figures: dict[str, Figure]

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.state == "finished"]

    @property
    def name(self) -> str:
        """The row in a line of text: `hinge`, or `loss=hinge, weight=0.1`; where that would be long, its beginning and the runs."""
        if len(self.labels) == 1:
            return next(iter(self.labels.values()))
        names = short(self.labels)
        said = ", ".join(f"{names[key]}={value}" for key, value in self.labels.items()) or "all runs"
        if len(said) <= LONG:
            return said
        runs = f" (run{'s' * (len(self.runs) > 1)} {some([run.name for run in self.runs], 3)})"
        return f"{said[: max(LONG - len(runs), LONG // 2)]}\u2026{runs}"


class Summary:
    """The tables and plots that summarise a sweep. The base class; `Table` is the one that most sweeps need.

    question: what the sweep was played to find out. budget: what it is expected to cost, in words.
    """

    def __init__(self, question: str, budget: str = ""):
        self.question, self.budget = question, budget

    def rows(self, runs: Sequence[Run]) -> list[Row]:
        """Put runs that belong together into rows. Figures come from finished runs alone; no run may be left out."""
        raise NotImplementedError

    def panels(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """Split the rows into those of each panel of the plot; one panel unless a subclass makes more."""
        return [rows]

    def plot(self, axes: Axes, rows: Sequence[Row]) -> None:
        """Draw the rows of a panel; nothing unless a subclass does."""

    def reading(self, rows: Sequence[Row]) -> str:
        """Say what the figures tell, in plain text; nothing unless a subclass does."""
        return ""


class Table(Summary):
    """A row for each setting, over its seeds; a column for each figure.

    rows: the keys that name a row (`loss`, `penalty.r1.weight`, `experiment`); null: none. A key that the jobs vary is always added, except
    the seed, so that a mean is over seeds alone. columns: the figures; KEY is the last value that was measured, KEY:min and KEY:max are the
    best one; null: what best.pt follows, else all last values. x, y: what is drawn, y over x. y is written as a column is; null: the first
    column. x is images (curves), or a key in `rows` (means with their deviations).
    """

    def __init__(
        self, question: str, rows: Keys | None = None, columns: Keys | None = None, x: str = IMAGES, y: str | None = None, budget: str = ""
    ):
        super().__init__(question, budget)
        if x not in (IMAGES, *(rows or ())):
            raise ValueError(f"x is {x}: expected {IMAGES}, or one of the keys in rows")
        self.keys, self.columns, self.x, self.y = rows or [], columns or [], x, y

    def rows(self, runs: Sequence[Run]) -> list[Row]:
        keys = list(dict.fromkeys([*self.keys, *varying(runs)]))
        rows: dict[tuple[str, ...], Row] = {}
        for run in runs:
            labels = {key: setting(run, key) for key in keys}
            rows.setdefault(tuple(labels.values()), Row(labels, [], {})).runs.append(run)
        for column in dict.fromkeys([*self.shown(runs), *([self.y] if self.y and self.x != IMAGES else ())]):
            key, mode = parsed(column)
            for suffix, members in measured(runs, column).items():
                for row in rows.values():
                    row.figures[named(key + suffix, mode)] = Figure.of(values(row.finished, members, column))
        return list(rows.values())

    def shown(self, runs: Sequence[Run]) -> list[str]:
        """The columns: as asked, else what the runs follow, else the last value of what they have measured."""
        followed = [f"{metric}:{mode}" for metric, mode in (run.own for run in runs) if metric and mode in DIRECTIONS]
        return list(dict.fromkeys(self.columns or followed or [key for run in runs for key in run.keys]))[: MOST if self.columns else SHOWN]

    def plot(self, axes: Axes, rows: Sequence[Row]) -> None:
        runs = [run for row in rows for run in row.runs]
        if column := self.y or next(iter(self.shown(runs)), None):
            (self._curves if self.x == IMAGES else self._means)(axes, rows, column)

    def _curves(self, axes: Axes, rows: Sequence[Row], column: str) -> None:
        """Draw the mean over seeds where all of them have a value, and a thin line for each."""
        key = parsed(column)[0]
        axes.set(xlabel="images (thousands)", ylabel=key)
        for suffix, members in measured([run for row in rows for run in row.runs], column).items():
            for row in rows:
                curves = [curve for run in row.finished if run.folder in members and (curve := drawable(run, key))]
                if not curves:
                    continue
                shared = sorted(set.intersection(*map(set, curves)))
                means = [statistics.fmean(curve[images] for curve in curves) for images in shared]
                x = [images / 1000 for images in shared]
                (line,) = axes.plot(x, means, label=row.name + suffix, markevery=max(len(shared) // 12, 1))
                if len(curves) > 1:
                    axes.set(ylabel=f"{key} (thin lines: one seed each)")
                for curve in curves if len(curves) > 1 else ():
                    points = [images / 1000 for images in curve]
                    axes.plot(points, list(curve.values()), color=line.get_color(), marker="", linewidth=0.7, alpha=0.4)

    def _means(self, axes: Axes, rows: Sequence[Row], column: str) -> None:
        """Draw the means over a key of the rows, with their deviations, and a line for each setting of the other keys."""
        key, mode = parsed(column)
        axes.set(xlabel=self.x, ylabel=named(key, mode))
        places = list(dict.fromkeys(row.labels[self.x] for row in rows))
        try:
            at = {place: float(place) for place in places}
            if 0 < 50 * min(at.values()) <= max(at.values()):
                axes.set_xscale("log")
        except ValueError:
            at = {place: float(number) for number, place in enumerate(places)}
            axes.set_xticks(list(at.values()), places, rotation=30 if len("".join(places)) > LONG else 0)
        for suffix in measured([run for row in rows for run in row.runs], column):
            title = named(key + suffix, mode)
            lines: dict[str, list[tuple[float, Figure]]] = {}
            for row in rows:
                others = row._replace(labels={name: value for name, value in row.labels.items() if name != self.x})
                if row.figures[title].n:
                    lines.setdefault(others.name, []).append((at[row.labels[self.x]], row.figures[title]))
            for name, points in lines.items():
                x, figures = zip(*sorted(points))
                means, deviations = [each.mean for each in figures], [each.deviation or 0 for each in figures]
                axes.errorbar(x, means, deviations, label=name + suffix, capsize=3)

    def reading(self, rows: Sequence[Row]) -> str:
        """Name the two best rows of the first column, and whether the runs tell them apart."""
        column = next(iter(self.shown([run for row in rows for run in row.runs])), "")
        key, mode = parsed(column)
        said_by = (run.direction(key) for row in rows for run in row.runs)
        title, mode = named(key, mode), mode or next(filter(None, said_by), None)
        ranked = sorted((row for row in rows if title in row.figures and row.figures[title].n), key=lambda row: row.figures[title].mean)
        if not mode or len(ranked) < 2:
            return ""
        first, second = ranked[::-1][:2] if mode == "max" else ranked[:2]
        a, b = first.figures[title], second.figures[title]
        said = f'The best mean of "{title}" is that of {first.name}: {a} (n={a.n}). Next is {second.name}: {b} (n={b.n}).'
        if a.deviation is None or b.deviation is None:
            return f"{said} Without a second seed of both, nothing says whether another seed would turn this round."
        error = math.sqrt(a.deviation**2 / a.n + b.deviation**2 / b.n)
        apart = abs(a.mean - b.mean) > 2 * error
        return f"{said} They are {abs(a.mean - b.mean):.2g} apart, " + (
            f"more than twice the standard error of this difference ({error:.2g})."
            if apart
            else f"and the standard error of this difference is {error:.2g}: these runs do not tell the two apart."
        )


# ------------------------------------------------------------------------------------------------------------------------- what runs say


def setting(run: Run, key: str) -> str:
    """What a run has for a key: the value in its configuration, else the word on its line, else the class of its part."""
    if key == "experiment":
        return run.experiment or "-"
    if key in run.config:
        value = run.config[key]
        return str(value).lower() if isinstance(value, bool) else "null" if value is None else "[]" if str(value) == "{}" else str(value)
    said = [word.partition("=")[2] for word in run.overrides or () if key_of(word) == key]
    return said[-1] if said else str(run.config.get(f"{key}._target_", "-")).rpartition(".")[2]


def varying(runs: Iterable[Run]) -> list[str]:
    """The keys on the lines of runs that have more than one value among them, except the seed."""
    runs = list(runs)
    keys = dict.fromkeys(["experiment", *(key_of(word) for run in runs for word in run.overrides or ())])
    return [key for key in keys if key != SEED and len({setting(run, key) for run in runs}) > 1]


def parsed(column: str) -> tuple[str, str | None]:
    """(key, "min" | "max" | None) of KEY, KEY:min and KEY:max."""
    key, colon, mode = column.rpartition(":")
    return (key, mode) if colon and mode in DIRECTIONS else (column, None)


def named(key: str, mode: str | None) -> str:
    """The title of a column: `fd/lenet, lowest`."""
    return f"{key}, {WHICH[mode]}"


def measured(runs: Iterable[Run], column: str) -> dict[str, set[Path]]:
    """What its name needs besides the key -> folders of the finished runs that were measured alike.

    For the protocol of the first run that is nothing, and for another one what differs: ` (n=500)`. So no mean is of two protocols.
    """
    key = parsed(column)[0]
    own: Protocol | None = None
    words = {"{}": ""}  # by what differs from the first
    found: dict[str, set[Path]] = {"": set()}
    for run in sorted((run for run in runs if run.state == "finished" and key in run.protocols), key=in_order):
        own = own or run.protocols[key]
        differing = repr(own.differing(plain(key), run.protocols[key]))
        if differing not in words:
            said = f" ({own.described(plain(key), run.protocols[key])})"
            words[differing] = said + f" #{len(words)}" * (said in found)  # words are cut, so that two may be the same
        found.setdefault(words[differing], set()).add(run.folder)
    return found


def value_of(run: Run, column: str) -> float | None:
    """The figure of a run; None where it was not measured, or where its last value could not be computed."""
    key, mode = parsed(column)
    point = run.best(key, mode) if mode else next(reversed(run.curve(key)), None)
    return point[1] if point else None


def values(runs: Iterable[Run], members: Container[Path], column: str) -> list[float]:
    """The values that there are of a figure, of those runs that were measured alike."""
    return [found for run in runs if run.folder in members and (found := value_of(run, column)) is not None]


def drawable(run: Run, key: str) -> dict[int, float]:
    """Images -> value, where there is one."""
    return {images: found for images, found in run.curve(key) if found is not None}


def in_order(run: Run) -> list[str | int]:
    """Sort runs by name, and the numbers in their names by size."""
    return [int(part) if part.isdecimal() and part.isascii() else part for part in re.split(r"([0-9]+)", run.name)]
