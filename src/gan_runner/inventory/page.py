"""A page about some runs, for somebody else: HTML with everything in it, or Markdown with pictures beside it.

Whatever comes out of a run directory is escaped, and the HTML forbids itself scripts and the network.
"""

import base64
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from gan_runner.errors import Failed, UserError, printable
from gan_runner.inventory.curves import draw, svg
from gan_runner.inventory.tables import amount, arrow, counted, row, shown, unlike, when
from gan_runner.storage import files
from gan_runner.storage.records import Run, numbered
from gan_runner.storage.untrusted import content

LEGEND = "In the curves, a ring marks the best value and a dot the last; images are rounds times batch size."
MOST_CURVES = 6  # of a run
MOST_BYTES = 2**24  # of a picture

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5c6670; --line: #e3e6e9; --paper: #fff; --raised: #f6f7f8; --curve: #0072b2;
  --good: #0a7a55; --bad: #b3401f; --warn: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #9aa4ae; --line: #30363c; --paper: #15181b; --raised: #1d2125;
  --curve: #56b4e9; --good: #4cc79a; --bad: #f0906a; --warn: #e2b04a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; line-height: 1.35; font-weight: 650; margin: 0; }
p { margin: 0; } .soft { color: var(--soft); font-size: .875rem; } a { color: inherit; text-underline-offset: .2em; }
a { text-decoration-color: var(--soft); } code, pre { font: .8125rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
table { width: 100%; border-collapse: collapse; margin: 2rem 0 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); } th, td { padding: .5rem 1rem .5rem 0; vertical-align: baseline; }
tr { border-bottom: 1px solid var(--line); } td.number, th.number { text-align: right; white-space: nowrap; }
td.name { min-width: 12rem; } td.metric { min-width: 11.5rem; } td.name code { display: block; color: var(--soft); margin-top: .125rem; }
.state { white-space: nowrap; } .state::before { content: ""; display: inline-block; width: .5em; height: .5em; border-radius: 50%;
  margin-right: .5em; background: currentColor; }
.finished { color: var(--good); } .failed, .diverged, .dead { color: var(--bad); } .interrupted { color: var(--warn); }
.running { color: var(--curve); }
article { border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1.5rem; } article > p { margin-top: .25rem; }
.error { color: var(--bad); font-size: .875rem; }
.both { display: grid; gap: 2rem; margin-top: 1.25rem; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); }
figure { margin: 0; } figcaption { font-size: .8125rem; color: var(--soft); } figcaption b { color: var(--ink); font-weight: 600; }
.picture img { display: block; width: 100%; max-width: 30rem; margin-bottom: .5rem; border-radius: 4px; background: #fff; }
.sharp { image-rendering: pixelated; } .curves { display: grid; gap: 1.5rem; align-content: start;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
svg { display: block; width: 100%; height: auto; margin-top: .25rem; overflow: visible; } svg text { font-size: 10px; fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .curve { fill: none; stroke: var(--curve); stroke-width: 1.75; stroke-linejoin: round; }
svg circle { fill: var(--curve); } svg .best { fill: var(--paper); stroke: var(--curve); stroke-width: 1.75; }
details { margin-top: 1.25rem; font-size: .875rem; } summary { cursor: pointer; color: var(--soft); }
pre { background: var(--raised); padding: .75rem 1rem; border-radius: 4px; white-space: pre-wrap; margin: .5rem 0 0; }
@media (max-width: 52rem) { body { padding: 1.5rem 1rem 3rem; } .both { grid-template-columns: minmax(0, 1fr); }
  thead { display: none; } tr { display: grid; grid-template-columns: 1fr 1fr; padding: .75rem 0; }
  td, td.number { padding: .125rem 0; text-align: left; white-space: normal; } td.name, td.metric { grid-column: 1 / -1; min-width: 0; }
  td:not(.name)::before { content: attr(data-label) " "; color: var(--soft); } }
@media print { body { max-width: none; padding: 0; } article { break-inside: avoid; } details { display: none; } }
"""
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""


def write(out: Path, runs: Sequence[Run], root: Path, metric: str | None) -> None:
    """Write the page. UserError where its name says neither HTML nor Markdown, Failed where the disk does not take it."""
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


def newest_picture(run: Run) -> tuple[int, bytes] | None:
    """(round, PNG) of the newest grid of samples that is one."""
    for step, path in numbered(run.folder):
        data = content(path, MOST_BYTES)
        if data and data.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
            return step, data
    return None


def drawable(run: Run, metric: str | None) -> list[str]:
    """The metrics of a run that have a curve, the one it follows first."""
    followed = run.followed(metric)[0]
    return sorted((key for key in run.keys if run.last(key) is not None), key=lambda key: key != followed)


def caution(runs: Sequence[Run], metric: str | None) -> str:
    """What forbids to compare the figures, if anything does."""
    mixed = unlike(runs, metric)
    return f"Not all figures were measured alike: they differ in {', '.join(mixed[:5])}." if mixed else ""


def facts(run: Run) -> str:
    """60 of 60 rounds, 15.36k images, 10 s, began 2026-01-31 10:00:00 UTC"""
    line = row(run, None)
    began = f", began {said.replace('T', ' ').replace('+00:00', ' UTC')}" if (said := when(run.started)) else ""
    return f"{shown(run.step, '?')} of {shown(run.steps, '?')} rounds, {line['images']} images, {line['took']}{began}"


def afterwards(run: Run) -> list[tuple[str, str, str]]:
    """(checkpoint, figures, protocol) of what gan-eval measured."""
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
    """The page as one file."""
    date = time.strftime("%Y-%m-%d %H:%M")
    about = f'<p class="soft">{escape(f"{counted(runs)}. {date}")}<br>{escape(f"{LEGEND} {caution(runs, metric)}")}</p>'
    body = f"<h1>{escape(title)}</h1>\n{about}\n{overview(runs, metric)}"
    articles = "".join(article(number, run, metric) for number, run in enumerate(runs))
    return f"{HEAD}<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{body}{articles}"


def overview(runs: Sequence[Run], metric: str | None) -> str:
    """The table of the runs, each linked to its article."""
    columns = {"state": "", "step": "number", "images": "number", "took": "number", "metric": "metric", "best": "number", "last": "number"}
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in {"run": "", **columns}.items())
    lines = []
    for number, run in enumerate(runs):
        line = row(run, metric)
        changed = f"<code>{escape(line['changed'])}</code>" if line["changed"] else ""
        cells = [f'<td class="name"><a href="#run-{number}">{escape(line["run"])}</a>{changed}</td>', f"<td>{badge(run)}</td>"]
        cells += [f'<td class="{columns[name]}" data-label="{name}">{escape(line[name])}</td>' for name in list(columns)[1:]]
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>\n</table>\n"


def badge(run: Run) -> str:
    return f'<span class="state {run.state}">{run.state}</span>' if run.state != "?" else '<span class="state">unreadable</span>'


def article(number: int, run: Run, metric: str | None) -> str:
    """One run: samples and curves side by side, and what has to be known to repeat it."""
    parts = [f'\n<article id="run-{number}">\n<h2>{escape(run.name)}</h2>\n<p class="soft">{badge(run)}, {escape(facts(run))}</p>\n']
    if run.overrides:
        parts.append(f"<p><code>{escape(' '.join(run.overrides))}</code></p>\n")
    if run.error and run.state != "finished":
        parts.append(f'<p class="error">{escape(run.error)}</p>\n')
    parts.append('<div class="both">\n<figure class="picture">')
    if found := newest_picture(run):
        step, data = found
        sharp = ' class="sharp"' if int.from_bytes(data[16:20], "big") < 480 else ""
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        parts.append(f'<img{sharp} src="{source}" alt="samples">\n<figcaption>Samples after {step} rounds</figcaption>')
    else:
        parts.append("<figcaption>No samples</figcaption>")
    parts.append('</figure>\n<div class="curves">\n')
    keys = drawable(run, metric)
    for key in keys[:MOST_CURVES]:
        mode = run.followed(metric if metric and metric.rpartition(":")[0] == key else key)[1]
        best = f"best {shown(point[1])} at {amount(point[0])}, " if (point := run.best(key, mode)) else ""
        parts.append(f"<figure><figcaption><b>{escape(arrow(key, mode))}</b><br>{best}last {shown(run.last(key))}</figcaption>")
        parts.append(f"{svg(run, key, mode)}</figure>\n")
    if len(keys) > MOST_CURVES:
        rest = ", ".join(f"{key} {shown(run.last(key))}" for key in keys[MOST_CURVES:])
        parts.append(f'<p class="soft">Last values of the others: {escape(rest)}</p>\n')
    parts.append("" if keys else '<p class="soft">No figures</p>\n')
    parts.append("</div>\n</div>\n")
    for name, text in details(run):
        parts.append(f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>\n")
    return "".join(parts) + "</article>\n"


def details(run: Run) -> list[tuple[str, str]]:
    """(heading, lines) of what is told below the pictures."""
    protocol, config = ("\n".join(f"{key}: {shown(value)}" for key, value in tree.items()) for tree in (run.protocol(), run.config))
    judged = "\n".join(f"{checkpoint}: {figures}\n  {protocol}" for checkpoint, figures, protocol in afterwards(run))
    found = (("Measured by gan-eval", judged), ("How the curves were measured", protocol), ("Configuration", config))
    return [(name, text) for name, text in found if text]


# ----------------------------------------------------------------------------------------------------------------------------- Markdown


def literal(text: str) -> str:
    """A text as code, which nothing in it can end; a table, too, stays whole."""
    return f"`{text.replace('`', chr(39)).replace('|', chr(0xA6))}`" if text.strip() else ""


def markdown(title: str, runs: Sequence[Run], metric: str | None, folder: Path) -> str:
    """The page, and its pictures in a folder beside it."""
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
        lines += [literal(" ".join(run.overrides)), ""] if run.overrides else []
        lines += [literal(run.error), ""] if run.error and run.state != "finished" else []
        lines += [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|", f"| {' | '.join(cells.values())} |"] if cells else []
        for name, text in details(run):
            fenced = ["```text", text.replace("`", "'"), "```"]
            lines += ["", f"<details><summary>{name}</summary>", "", *fenced, "", "</details>"]
    return "\n".join(lines) + "\n"
