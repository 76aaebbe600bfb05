"""Write a page about runs, to share: HTML in one file, or Markdown with pictures beside it.

All text from a run directory is escaped, and the HTML disables scripts and network access by its content security policy.
"""

import base64
import re
import statistics
import time
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from gan_runner.errors import Failed, UserError, printable, shell_line
from gan_runner.inventory.curves import COLOURS, Line, chart, draw, line_of, look, svg
from gan_runner.inventory.tables import amount, arrow, changed, changed_alike, counted, labelled, row, shown, unlike, when
from gan_runner.storage import files, scalars
from gan_runner.storage.records import Run, numbered
from gan_runner.storage.untrusted import read_bounded, whole

MOST_CURVES = 6  # of a run
MOST_BYTES = 2**24  # of a picture
MOST_TOGETHER = 2 * len(COLOURS)  # runs in one chart: each colour once as a line, and once with dashes
MOST_POINTS = 150  # of a curve of the game
GAMES = {"Loss of G": "loss/g", "Loss of D": "loss/d", "Logits on real": "d/real", "Logits on fake": "d/fake"}
PAIRS = {"Losses": {"G": "loss/g", "D": "loss/d"}, "Mean logits": {"real": "d/real", "fake": "d/fake"}}

TEMPLATES = Environment(
    loader=PackageLoader("gan_runner.inventory", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def write(out: Path, runs: Sequence[Run], root: Path, metric: str | None) -> None:
    """Write the page. UserError if its suffix is neither .html nor .md, Failed if it cannot be written."""
    kind = out.suffix.lower()
    if kind not in (".html", ".htm", ".md"):
        raise UserError(f"--report {out}: expected a name that ends in .html or .md")
    if not runs:
        raise UserError("there is no run to report")
    title = printable(f"Runs in {root.resolve().name or root}")
    try:
        page = markdown(title, runs, metric, out.with_name(f"{out.stem}_files")) if kind == ".md" else html(title, runs, metric)
        files.write_bytes(out.resolve(), page.encode(errors="replace"))
    except OSError as error:
        raise Failed(f"{error.filename or out} could not be written: {error.strerror}") from error


def newest_picture(run: Run, wanted: Container[int] | None = None) -> tuple[int, bytes] | None:
    """Return (round, PNG) of the newest valid grid of samples, of these rounds if they are named."""
    for step, path in numbered(run.folder):
        data = read_bounded(path, MOST_BYTES) if path.suffix == ".png" and (wanted is None or step in wanted) else None
        if data and data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
            return step, data
    return None


def drawable(run: Run, metric: str | None) -> list[str]:
    """Return the metrics of a run that have a curve; the one it follows comes first."""
    followed = run.followed(metric)[0]
    return sorted((key for key in run.keys if run.last(key) is not None), key=lambda key: key != followed)


def caution(runs: Sequence[Run], metric: str | None) -> str:
    """Return a warning if the figures are not comparable."""
    mixed = unlike(runs, metric)
    return f"Not all figures were measured alike: they differ in {', '.join(mixed[:5])}." if mixed else ""


def facts(run: Run) -> str:
    """Format facts: 60 of 60 rounds, 15.36k images, 10 s, began 2026-01-31 10:00:00 UTC."""
    line = row(run, None)
    began = f", began {said.replace('T', ' ').replace('+00:00', ' UTC')}" if (said := when(run.started)) else ""
    return f"{shown(run.step, '?')} of {shown(run.steps, '?')} rounds, {line['images']} images, {line['took']}{began}"


def afterwards(run: Run) -> list[tuple[str, str, str]]:
    """Return (checkpoint, figures, protocol) of each measurement of gan-eval."""
    found = []
    for line in run.evaluations:
        if "checkpoint" in line.protocol:
            between = {key: line.protocol.get(f"intervals_95.{key}") for key in line.figures}
            figures = ", ".join(f"{key} {shown(value)} {between[key] or ''}".strip() for key, value in line.figures.items())
            passed = ("metrics.", "keys.", "checkpoint", "intervals_95.")
            said = ((key, shown(value)) for key, value in line.protocol.items() if not key.startswith(passed))
            found.append((shown(line.protocol["checkpoint"]), figures, ", ".join(f"{key} {value}" for key, value in said)))
    return found


# --------------------------------------------------------------------------------------------------------------------------------- HTML


def html(title: str, runs: Sequence[Run], metric: str | None) -> str:
    """Render the page as one file."""
    return TEMPLATES.get_template("page.html.jinja").render(
        title=title,
        counted=counted(runs),
        date=time.strftime("%Y-%m-%d %H:%M"),
        caution=caution(runs, metric),
        together=together(runs, metric) if len(runs) > 1 else None,
        alike=" ".join(changed_alike(runs)),
        runs=[article(run, metric, changed_alike(runs)) for run in runs],
    )


def together(runs: Sequence[Run], metric: str | None) -> dict[str, Any]:
    """Collect what shows runs beside each other: charts with a line for each, and their samples after the same round."""
    shown, games = runs[:MOST_TOGETHER], [game(run) for run in runs[:MOST_TOGETHER]]
    charts: list[dict[str, Any]] = []
    for key in dict.fromkeys(key for run in shown for key in drawable(run, metric)):
        if len(having := [(n, run) for n, run in enumerate(shown) if run.last(key) is not None]) > 1 and len(charts) < MOST_CURVES:
            mode = next((mode for _, run in having if (mode := run.followed(key)[1])), None)
            lines = [line_of(run, key, mode, n) for n, run in having]
            charts.append(
                {"title": arrow(key, mode), "caption": "", "legend": [], "svg": chart(lines, f"{key} over images, {len(lines)} runs")}
            )
    for title, name in GAMES.items():
        if lines := [Line(curves[name], n) for n, curves in enumerate(games) if name in curves]:
            charts.append({"title": title, "caption": "", "legend": [], "svg": chart(lines, f"{title} over images, {len(lines)} runs")})
    return {
        "legend": [(look(n), name) for n, name in enumerate(labelled(shown))],
        "left_out": len(runs) - len(shown),
        "charts": charts,
        "pictures": pictures(shown),
    }


def pictures(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return the samples of runs after the last round of which most of them have a picture; None where no two have one of a round."""
    steps = Counter(step for run in runs for step, path in numbered(run.folder) if path.suffix == ".png")
    if not steps or max(steps.values()) < 2:
        return None
    step = max(steps, key=lambda step: (steps[step], step))
    found = [(n, name, newest_picture(run, {step})) for n, (run, name) in enumerate(zip(runs, labelled(runs)))]
    return {"step": step, "runs": [(look(n), name, picture(data)) for n, name, data in found if data]}


def game(run: Run) -> dict[str, list[tuple[float, float | None]]]:
    """Return (images, value) of each curve of the game that a run has written, thinned to the means of neighbours."""
    batch = whole(run.config.get("batch_size"))
    curves = scalars.read(run.folder) if batch else {}
    found = {name: thinned([(step * (batch or 0), value) for step, value in curve.items()]) for name, curve in curves.items()}
    return {name: points for name, points in found.items() if any(value is not None for _, value in points)}


def thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Return at most MOST_POINTS points: each the mean of its neighbours, and at the place of the last of them."""
    size = -(-len(points) // MOST_POINTS)
    found: list[tuple[float, float | None]] = []
    for start in range(0, len(points), size or 1):
        part = points[start : start + size]
        values = [value for _, value in part if value is not None]
        found.append((part[-1][0], statistics.fmean(values) if values else None))
    return found


def pairs(run: Run) -> list[dict[str, Any]]:
    """Return the charts of the game of one run: both losses in one, both logits in the other."""
    curves, found = game(run), []
    for title, names in PAIRS.items():
        lines = {said: Line(curves[name], n) for n, (said, name) in enumerate(names.items()) if name in curves}
        if lines:
            legend = [(look(line.colour), said) for said, line in lines.items()]
            found.append({"title": title, "caption": "", "legend": legend, "svg": chart([*lines.values()], f"{title} over images")})
    return found


def article(run: Run, metric: str | None, alike: Sequence[str]) -> dict[str, Any]:
    """Collect the content for one run: a row of the table, samples, curves, and the settings to repeat it."""
    keys = drawable(run, metric)
    return {
        "name": run.name,
        "state": run.state,
        "row": row(run, metric) | {"changed": changed(run, alike)},
        "facts": facts(run),
        "overrides": shell_line(run.overrides or ()),
        "error": "" if run.state == "finished" else run.error,
        "picture": picture(newest_picture(run)),
        "games": pairs(run),
        "curves": [curve(run, key, metric) for key in keys[:MOST_CURVES]],
        "others": ", ".join(f"{key} {shown(run.last(key))}" for key in keys[MOST_CURVES:]),
        "details": details(run),
    }


def picture(found: tuple[int, bytes] | None) -> dict[str, Any] | None:
    """Return what the page shows of (round, PNG): the round, the width in pixels, and the PNG in base64."""
    if not found:
        return None
    step, data = found
    return {"step": step, "width": int.from_bytes(data[16:20], "big"), "data": base64.b64encode(data).decode()}


def curve(run: Run, key: str, metric: str | None) -> dict[str, Any]:
    """Return the curve of a metric as SVG, its title, and a caption with the best and the last value."""
    mode = run.followed(metric if metric and metric.rpartition(":")[0] == key else key)[1]
    best = f"best {shown(point[1])} at {amount(point[0])}, " if (point := run.best(key, mode)) else ""
    return {"title": arrow(key, mode), "caption": f"{best}last {shown(run.last(key))}", "legend": [], "svg": svg(run, key, mode)}


def details(run: Run) -> list[tuple[str, str]]:
    """Return (heading, lines) of the sections below the pictures."""
    protocol, config = ("\n".join(f"{key}: {shown(value)}" for key, value in tree.items()) for tree in (run.protocol(), run.config))
    judged = "\n".join(f"{checkpoint}: {figures}\n  {protocol}" for checkpoint, figures, protocol in afterwards(run))
    found = (("Measured by gan-eval", judged), ("How the curves were measured", protocol), ("Configuration", config))
    return [(name, text) for name, text in found if text]


# ----------------------------------------------------------------------------------------------------------------------------- Markdown


def literal(text: str) -> str:
    """Format a text as Markdown code that its content cannot end, also inside a table."""
    return f"`{text.replace('`', chr(39)).replace('|', chr(0xA6))}`" if text.strip() else ""


def escaped(text: str) -> str:
    """A text on one line as Markdown that shows it as it is: no markup, link, name of a user, or list in it."""
    said = re.sub(r"([\\`*_{}\[\]<>#|~&!$@]|:(?=//)|(?<=www)\.|^[-+=])", r"\\\1", printable(text, len(text)).strip())
    return re.sub(r"^([0-9]+)(?=[.)](\s|$))", r"\1\\", said)


def markdown(title: str, runs: Sequence[Run], metric: str | None, folder: Path) -> str:
    """Render the page, and write its pictures to a folder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = ("run", "state", "step", "images", "took", "metric", "best", "last", "changed")
    lines = [f"# {literal(title)}", "", f"{counted(runs)}. {time.strftime('%Y-%m-%d %H:%M')}", "", literal(caution(runs, metric)), ""]
    lines += [f"| {' | '.join(columns)} |", "|---|---|---:|---:|---:|---|---:|---:|---|"]
    for run in runs:
        cells = {name: literal(cell) if name in ("run", "metric", "changed") else cell for name, cell in row(run, metric).items()}
        lines.append(f"| {' | '.join(cells[column] for column in columns)} |")
    for number, run in enumerate(runs):
        cells = {}
        if found := newest_picture(run):
            files.write_bytes(folder / f"{number}_samples.png", found[1])
            cells[f"samples after {found[0]} rounds"] = f"![samples]({quote(folder.name)}/{number}_samples.png)"
        if keys := drawable(run, metric):
            draw(folder / f"{number}_curves.png", [run], [run.name], keys[:MOST_CURVES])
            cells["curves"] = f"![curves]({quote(folder.name)}/{number}_curves.png)"
        lines += ["", f"## {literal(run.name)}", "", f"{run.state.replace('?', 'unreadable')}, {facts(run)}", ""]
        lines += [literal(shell_line(run.overrides)), ""] if run.overrides else []
        lines += [literal(run.error), ""] if run.error and run.state != "finished" else []
        lines += [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|", f"| {' | '.join(cells.values())} |"] if cells else []
        for name, text in details(run):
            fenced = ["```text", text.replace("`", "'"), "```"]
            lines += ["", f"<details><summary>{name}</summary>", "", *fenced, "", "</details>"]
    return "\n".join(lines) + "\n"
