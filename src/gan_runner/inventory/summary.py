"""Summarise a sweep from its run directories alone: table.md, plot.png, page.md and a file for TensorBoard in its folder.

What gan-train was asked is in sweep.yaml beside the runs: the line, the jobs, and the summary. Everything in the folder may come from a
stranger, and is read and escaped as such. Imports no torch.
"""

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from gan_runner.assembly.classes import locate
from gan_runner.assembly.signatures import misnamed, mistyped, signature
from gan_runner.errors import UserError, printable, shell_line
from gan_runner.inventory.curves import COLOURS, MARKERS, blank
from gan_runner.inventory.page import escaped, literal
from gan_runner.inventory.tables import amount, counted, differences, print_table, shown
from gan_runner.reporting import duration
from gan_runner.storage import contents, files, records
from gan_runner.storage.labels import VARIED
from gan_runner.storage.records import Run
from gan_runner.storage.untrusted import leaf, parsed_json, parsed_yaml, read_bounded
from gan_runner.studies.summary import SEED, Row, Summary, in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECORD, TABLE, PLOT, PAGE, EVENTS = contents.SUMMARY
DEFAULT = {"_target_": "gan_runner.studies.Table", "question": "What did the jobs of this sweep come to?"}  # of a sweep without a study
LINK = f"![the figures as a plot]({PLOT})"
LINES = 20  # in the legend of a plot


class Sweep(NamedTuple):
    """What the folder of a sweep holds."""

    line: list[str]  # as typed; empty where that is not recorded
    summary: Any
    runs: list[Run]
    attempts: list[Run]  # that a job made before it was started again
    waiting: list[str]  # jobs that have not begun


def record(folder: Path, line: Sequence[str], jobs: Sequence[str], summary: dict[str, Any], varied: Sequence[str] = ()) -> None:
    """Write the command line, the jobs, the keys that these vary, and the summary of a sweep into its folder, to be read again later."""
    asked = {"line": list(line), "jobs": list(jobs), VARIED: list(varied), "summary": summary}
    files.write_bytes(folder / RECORD, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True).encode(), folder)


def read(folder: Path) -> Sweep:
    """Read the folder of a sweep, or any folder with runs. UserError where there are none."""
    if records.is_run(folder):
        raise UserError(f"{folder} is a run; a summary is of the folder that its runs are in")
    contents.refuse_foreign(folder, contents.SWEEP)
    asked = parsed_yaml(read_bounded(folder / RECORD, 2**22))
    asked = asked if isinstance(asked, dict) else {}
    line, jobs = ([str(word) for word in each] if isinstance(each := asked.get(key), list) else [] for key in ("line", "jobs"))
    found = sorted((records.read(each, folder) for each in records.find(folder)), key=in_order)
    if not found:
        raise UserError(f"there are no runs in {folder}")
    names = {run.name for run in found}
    attempts = [run for run in found if (again := re.fullmatch(r"(.+)\.attempt_[0-9]+", run.name)) and again[1] in {*names, *jobs}]
    waiting = [name for job in jobs if (name := printable(job)) not in names]
    return Sweep(line, cleaned(asked.get("summary", DEFAULT)), [run for run in found if run not in attempts], attempts, waiting)


def cleaned(node: Any) -> Any:
    """Make every text of a document printable."""
    if isinstance(node, dict):
        return {cleaned(key): cleaned(value) for key, value in node.items()}
    return [cleaned(each) for each in node] if isinstance(node, list) else printable(node, len(node)) if isinstance(node, str) else node


def made(node: Any, packages: Sequence[str]) -> Summary:
    """Make the summary that a configuration names. UserError with all that is wrong with it."""
    if not isinstance(node, dict):
        raise UserError("summary: expected _target_, question and what the class of the summary takes besides")
    cls, values = locate(node.get("_target_"), Summary, "summary", packages), {key: node[key] for key in node if key != "_target_"}
    known = signature(cls)
    mistakes = [*misnamed("summary", cls, values)]
    mistakes += mistyped("summary", {key: known[key][0] for key in values if key in known}, values)
    if mistakes:
        raise UserError("\n".join(mistakes))
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"summary: {error}") from error


def write(folder: Path, packages: Sequence[str] = ()) -> tuple[str, list[list[str]]]:
    """Write the four files. Returns how many runs there are, in words, and the lines of the table. Failed where the disk takes none."""
    sweep = read(folder)
    summary = made(sweep.summary, packages)
    rows = summary.rows(sweep.runs)
    lines = list(table(rows))
    page, picture = "\n".join(paged(sweep, summary, rows, lines)), drawn(summary, rows)
    written = {TABLE: f"{in_markdown(lines)}\n".encode(errors="replace"), PLOT: picture, PAGE: page.encode(errors="replace")}
    written[EVENTS] = events(page.replace(LINK, ""), picture, max((run.ended or 0 for run in sweep.runs), default=0))
    for name, data in written.items():
        files.write_bytes(folder / name, data, folder)
    return told(sweep), lines


def show(folder: Path, packages: Sequence[str]) -> str:
    """Write the files, and print the table. Returns a line that says so."""
    said, lines = write(folder, packages)
    print_table(lines[0], lines[1:])
    return f"{folder / PAGE}: {said}"


# -------------------------------------------------------------------------------------------------------------------------------- table


def table(rows: Sequence[Row]) -> Iterator[list[str]]:
    """The head, then a line for each row: its labels, how many of its runs finished, its figures."""
    labels = list(dict.fromkeys(key for row in rows for key in row.labels))
    figures = list(dict.fromkeys(key for row in rows for key in row.figures))
    yield [*labels, "finished", *figures]
    for row in rows:
        cells = [row.labels.get(key, "") for key in labels]
        finished = len(row.finished)
        cells.append(f"{finished} of {len(row.runs)}")
        for key in figures:
            figure = row.figures.get(key)
            some = "" if figure is None or figure.n == finished else f" of {finished}"
            cells.append(f"{figure} (n={figure.n}{some})" if figure else "")
        yield cells


def in_markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, each cell as it is."""
    head, *rest = [f"| {' | '.join(literal(printable(cell)) for cell in line)} |" for line in lines]
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest])


# --------------------------------------------------------------------------------------------------------------------------------- page


def paged(sweep: Sweep, summary: Summary, rows: Sequence[Row], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of page.md. They hold no date and no path, so that the same runs make the same page."""
    yield from (f"# {escaped(summary.question)}", "")
    if sweep.line:
        yield from ("```sh", printable(shell_line(["gan-train", *sweep.line]), 2**20), "```", "")
    yield from ("## Budget", "")
    if summary.budget:
        yield from (f"Stated: {escaped(summary.budget)}", "")
    yield from (f"Used: {escaped(used([*sweep.runs, *sweep.attempts]))}", "", "## Figures", "")
    yield from (in_markdown(lines), "")
    yield from ("Mean \u00b1 standard deviation over seeds (divisor n - 1; none for n=1) of the n finished runs that have the figure.", "")
    for caution in cautions(rows):
        yield from (f"**Caution:** {escaped(caution)}", "")
    if said := summary.reading(rows):
        yield from (escaped(said), "")
    yield from (LINK, "", "## What did not finish", "")
    ended = [run for run in sweep.runs if run.state != "finished"]
    yield f"{told(sweep)}."
    if unfinished := [*ended, *sweep.attempts]:
        yield ""
        yield in_markdown([["run", "state", "rounds", "line", "error"], *map(about, unfinished)])
    if sweep.waiting:
        yield from ("", f"Not begun: {', '.join(map(literal, sweep.waiting))}")
    yield from ("", "`gan-runs FOLDER --summary` writes this page again.", "")


def told(sweep: Sweep) -> str:
    """12 runs: 11 finished, 1 failed; 4 jobs have not begun"""
    waiting, again = len(sweep.waiting), len(sweep.attempts)
    said = [counted(sweep.runs)]
    said += [f"{waiting} job{'s have' if waiting > 1 else ' has'} not begun"] if waiting else []
    return "; ".join(said + ([f"{again} earlier attempt{'s' * (again > 1)} of them"] if again else []))


def about(run: Run) -> list[str]:
    """What the page says of a run that did not finish."""
    state = "unreadable" if run.state == "?" else run.state
    return [run.name, state, f"{shown(run.step, '?')} of {shown(run.steps, '?')}", shell_line(run.overrides or ()), run.error or ""]


def used(runs: Sequence[Run]) -> str:
    """Rounds, images, time and hardware, as the runs recorded them."""
    seconds = [max(run.ended - run.started, 0) for run in runs if run.started is not None and run.ended is not None]
    missing = f" (of {len(seconds)} runs, as the others have no end)" if len(seconds) < len(runs) else ""
    machines = Counter(map(machine, runs))
    where = "; ".join(f"{n} run{'s' * (n > 1)} on {name}" for name, n in machines.items())
    rounds, images = (amount(sum(each or 0 for each in found)) for found in ([run.step for run in runs], [run.images for run in runs]))
    return f"{rounds} rounds, {images} images, {duration(sum(seconds))} from start to end of each run, added up{missing}. {where}."


def machine(run: Run) -> str:
    """The device and the threads of a run."""
    said = parsed_json(read_bounded(run.folder / "env.json"))
    said = said if isinstance(said, dict) else {}
    device = str(leaf(said.get("device") or "an unknown device"))
    own = " (its CPU)" if run.config.get("trainer.accelerator") == "cpu" else ""
    return f"{shown(run.config.get('trainer.devices', 1))} x {device}{own}, threads: {leaf(said.get('threads', '?'))}"


def cautions(rows: Sequence[Row]) -> Iterator[str]:
    """Where the runs of a row are no repetitions that differ in their seed alone."""
    for row in rows:
        found = differences([run.config for run in row.finished])
        seeds = found.pop(SEED, [run.config.get(SEED) for run in row.finished])
        if others := [key for key, cells in found.items() if cells != seeds]:
            yield f"the runs of {row.name} differ in more than their seed: {', '.join(others[:5])}."
        if twice := [seed for seed, n in Counter(map(repr, seeds)).items() if n > 1]:
            yield f"several runs of {row.name} have the same seed ({', '.join(twice[:5])}), and n counts each of them."


# ----------------------------------------------------------------------------------------------------------------- picture, TensorBoard


def drawn(summary: Summary, rows: Sequence[Row]) -> bytes:
    """The plot of a summary as PNG; a legend names up to LINES lines. In several panels, lines of one label look the same."""
    buffer = io.BytesIO()
    panels = summary.panels(rows) or [rows]
    across = min(len(panels), 2)
    down = math.ceil(len(panels) / across)
    with blank(5 * across if across > 1 else 7.5, 3.2 * down if across > 1 else 4) as figure:
        every = list(figure.subplots(down, across, squeeze=False).flat)
        lines: dict[str, Any] = {}
        for axes, part in zip_longest(every, panels):
            if part is None:
                axes.set_axis_off()
                continue
            summary.plot(axes, part)
            if not axes.has_data():
                axes.set_title("no finished run has a value to draw")
            handles, labels = axes.get_legend_handles_labels()
            lines |= {label: handle for label, handle in zip(labels, handles) if label not in lines}
            if across > 1:
                alike(axes, list(lines))
        if 1 < len(lines) <= LINES:
            beside = max(1, min(len(lines), int(across * 5 + 2.5) * 10 // (max(map(len, lines)) + 6)))
            figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(lines) / beside))
            figure.legend(list(lines.values()), list(lines), loc="outside upper left", frameon=False, ncols=beside)
        elif lines and across == 1:
            every[0].set_title(next(iter(lines)) if len(lines) == 1 else f"{len(lines)} rows; the table names them")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def alike(axes: "Axes", labels: Sequence[str]) -> None:
    """Give each line the colour and the marker of its label."""
    for line in axes.get_lines():
        if line.get_label() in labels and line.get_marker() not in ("", "None"):
            at = labels.index(line.get_label())
            line.set(color=COLOURS[at % len(COLOURS)], marker=MARKERS[at % len(MARKERS)])


def events(page: str, picture: bytes, when: float) -> bytes:
    """A file of TensorBoard with the page and the plot. It is made here, as TensorBoard's own writer adds a file each time."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary as Values
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.record_writer import RecordWriter

    text = TensorProto(dtype=DT_STRING, string_val=[page.encode(errors="replace")])
    width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))
    image = Values.Image(height=height, width=width, colorspace=4, encoded_image_string=picture)
    values = [
        Values.Value(tag="summary/page", metadata=create_summary_metadata("", ""), tensor=text),
        Values.Value(tag="summary/plot", image=image),
    ]
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in (Event(wall_time=when, file_version="brain.Event:2"), Event(wall_time=when, step=0, summary=Values(value=values))):
        writer.write(event.SerializeToString())
    return buffer.getvalue()
