"""Plot metrics of runs over images (rounds times batch size): a panel for each metric, a line for each run."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gan_runner.errors import UserError
from gan_runner.inventory.tables import amount, arrow
from gan_runner.storage import files
from gan_runner.storage.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # Okabe and Ito (2008), without yellow
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")  # one more than colours, so that both repeat late
MOST = 24  # panels of a figure
PLAIN: dict[Any, Any] = {
    "text.usetex": False, "text.parse_math": False, "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "0.6", "axes.titlesize": 9, "axes.titlelocation": "left", "axes.labelcolor": "0.3",
    "xtick.color": "0.4", "ytick.color": "0.4", "axes.grid": True, "grid.color": "0.92", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "lines.linewidth": 1.4, "lines.markersize": 3.5,
}  # fmt: skip


def shared_keys(runs: Sequence[Run], metric: str | None = None) -> list[str]:
    """Return the metrics with a value in every run; those that the first run follows come first."""
    followed = runs[0].followed(metric)[0]
    keys = [key for key in runs[0].keys if all(run.last(key) is not None for run in runs)]
    return sorted(keys, key=lambda key: key != followed)


def draw(path: Path, runs: Sequence[Run], labels: Sequence[str], keys: Sequence[str]) -> None:
    """Write the curves of some metrics as png, pdf or svg. Lines differ by colour, dash and marker. UserError for another suffix."""
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"{path}: expected a name that ends in .png, .pdf or .svg")
    keys = keys[:MOST]
    columns = min(len(keys), 3 if len(keys) != 4 else 2)
    rows = math.ceil(len(keys) / columns)
    buffer = io.BytesIO()
    with blank(max(3.5 * columns, 4.5), 2.5 * rows + (0.6 if len(runs) > 1 else 0.2)) as figure:
        panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
        lines = [_draw_panel(panel, runs, key) for panel, key in zip(panels, keys)]
        for number, panel in enumerate(panels):
            if number >= len(keys):
                panel.set_axis_off()
            elif number >= len(keys) - columns:
                panel.tick_params(labelbottom=True)
                panel.set_xlabel("images (thousands)")
        if len(runs) > 1:
            beside = int(columns * 50 // (max(map(len, labels)) + 6))
            figure.legend(lines[0], labels, loc="outside upper left", frameon=False, ncols=max(1, min(len(runs), beside)))
        figure.savefig(buffer, format=path.suffix[1:].lower())
    files.write_bytes(path.resolve(), buffer.getvalue())


@contextmanager
def blank(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches to draw on, in the project's style and not in that of the user's settings of matplotlib."""
    import matplotlib  # half a second that only a plot needs
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    turns = range(len(COLOURS) * len(MARKERS))
    lines = cycler(color=[COLOURS[turn % len(COLOURS)] for turn in turns], marker=[MARKERS[turn % len(MARKERS)] for turn in turns])
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(PLAIN | {"axes.prop_cycle": lines})
        figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _draw_panel(axes: Axes, runs: Sequence[Run], key: str) -> list[Any]:
    """Draw the curves of one metric, a line for each run; a value that could not be computed is a gap."""
    mode = next((mode for run in runs if (mode := run.followed(key)[1])), None)
    axes.set_title(arrow(key, mode))
    axes.margins(x=0.03, y=0.08)
    lines: list[Any] = []
    for number, run in enumerate(runs):
        points = [(images / 1000, math.nan if value is None else value) for images, value in run.curve(key)]
        x, y = zip(*points)
        lines += axes.plot(
            x, y, color=COLOURS[number % len(COLOURS)], linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)], markevery=max(len(points) // 12, 1),
        )  # fmt: skip
    return lines


# ---------------------------------------------------------------------------------------------------------------------------------- SVG

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 150, 40, 8, 8, 30


class Line(NamedTuple):
    """A line of a chart: (images, value) in order, None where there is none; the number of its colour; the points that are marked."""

    points: Sequence[tuple[float, float | None]]
    colour: int = 0
    best: tuple[float, float] | None = None
    last: tuple[float, float] | None = None


def line_of(run: Run, key: str, mode: str | None, colour: int = 0) -> Line:
    """The curve of a metric, with its best and its last value marked."""
    points = run.curve(key)
    last = next(((images, value) for images, value in reversed(points) if value is not None), None)
    return Line(points, colour, run.best(key, mode), last)


def svg(run: Run, key: str, mode: str | None) -> str:
    """Draw one curve as SVG for a page, which defines the styles of its classes; a ring marks the best value, a dot the last."""
    return chart([line_of(run, key, mode)], f"{key} over images")


def chart(lines: Sequence[Line], label: str) -> str:
    """Draw lines as SVG, each as a group of the class that `look` names. At least one of them has a value."""
    every = [(images, value) for line in lines for images, value in line.points if value is not None]
    low, high = _range([value for _, value in every])
    most = max(images for line in lines for images, _ in line.points) or 1

    def at(images: float, value: float) -> tuple[str, str]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * images / most
        return f"{x:.1f}", f"{TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low):.1f}"

    parts = []
    for tick in _ticks(low, high):
        y = at(0, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy=".32em" text-anchor="end">{tick:.4g}</text>')
    for tick in _ticks(0, most):
        parts.append(f'<text x="{at(tick, low)[0]}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{amount(round(tick))}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">images</text>')
    for line in lines:
        parts.append(f'<g class="{look(line.colour)}">')
        for is_gap, piece in groupby(line.points, key=lambda point: point[1] is None):
            path = " ".join(",".join(at(images, value)) for images, value in piece if value is not None)
            parts.append("" if is_gap else f'<polyline class="curve" points="{path}"/>')
        for point, name, radius in ((line.last, "last", 2.5), (line.best, "best", 3)):
            parts.append('<circle class="{}" cx="{}" cy="{}" r="{}"/>'.format(name, *at(*point), radius) if point else "")
        parts.append("</g>")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def look(number: int) -> str:
    """The classes of a line on a page: its colour, and its dashes where the colours are used up."""
    return f"c{number % len(COLOURS)}" + (f" dashes{number // len(COLOURS)}" if number >= len(COLOURS) else "")


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of an axis: that of the values, or an interval around a single value."""
    low, high = min(values), max(values)
    if high - low > 1e-9 * max(abs(low), abs(high)) and high - low > 1e-300:
        return low, high
    room = abs(low) / 10 if abs(low) > 1e-9 else 0.5
    return low - room, low + room


def _ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers in a range."""
    least = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(least))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= least * (1 - 1e-9))
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
