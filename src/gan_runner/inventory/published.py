"""The figures of runs beside the published ones of their experiments. Imports no torch."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

from gan_runner.config.composer import compose
from gan_runner.config.published import Published, published
from gan_runner.errors import UserError
from gan_runner.inventory.tables import print_table
from gan_runner.storage.records import Evaluation, Run
from gan_runner.storage.untrusted import flat

# keys in which a run of an experiment may differ from it: where and how it is computed, and what is looked at
FREE = re.compile(
    r"(seed|deterministic|packages|summary|trainer\.(devices|accelerator|nodes|threads|engine|profile|.*_every_steps)"
    r"|dataset\.(root|resident_mb|workers|keep_decoded)|(callback|logger|metric|extractor)(\..*)?)"
)
MOST = 3  # differences that are shown


class Row(NamedTuple):
    """A published figure and what a run has of it; differs: what is not alike, in words; empty: the protocols are equal."""

    run: str
    figure: str
    ours: float | None
    published: Published
    differs: list[str]


def rows(run: Run) -> list[Row]:
    """Compare a run with what was published for its experiment; none for a run of no experiment, or of one that says nothing."""
    try:
        expected = published(run.experiment) if run.experiment else []
    except UserError:  # an experiment of its user
        return []
    own = departures(run, run.experiment) if expected and run.experiment else []
    return [row(run, each, own) for each in expected]


def row(run: Run, expected: Published, own: list[str]) -> Row:
    """Compare a run with one published figure, by the measurement whose protocol is nearest to the published one."""
    measured = [(apart(line, expected), -line.step, line) for line in run.evaluations if line.figures.get(expected.figure) is not None]
    if not measured:
        return Row(run.name, expected.figure, None, expected, [*own, "not measured"])
    differs, _, line = min(measured, key=lambda each: (len(each[0]), each[1]))
    training = [f"training: {expected.training}"] if expected.training else []
    unfinished = [f"round {line.step:,} of {run.steps:,}"] if run.steps and line.step < run.steps else []
    return Row(run.name, expected.figure, line.figures[expected.figure], expected, [*own, *unfinished, *differs, *training])


def apart(line: Evaluation, expected: Published) -> list[str]:
    """List the entries of the published protocol that a line of metrics.jsonl has otherwise."""
    found = {name: line.protocol.get(name) for name in expected.protocol}
    return [f"{name} {shown(found[name])}, not {shown(said)}" for name, said in expected.protocol.items() if found[name] != said]


def departures(run: Run, experiment: str) -> list[str]:
    """List in what the configuration of a run is not that of its experiment."""
    recipe = recipe_of(experiment)
    keys = [key for key in {**recipe, **run.config} if not FREE.fullmatch(key)]
    gone = [f"no {key}" for key in keys if key.endswith("._target_") and key not in run.config]  # other keys may be newer than the run
    return [f"{key}={shown(run.config[key])}" for key in keys if key in run.config and run.config[key] != recipe.get(key)] + gone


@cache
def recipe_of(experiment: str) -> dict[str, Any]:
    """Compose an experiment as it is."""
    return dict(flat(compose([f"+experiment={experiment}"]).plain()))


def shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def show(runs: list[Run]) -> str:
    """Print the table, and return what it is of."""
    found = [each for run in runs for each in rows(run)]
    lines = [
        [each.run, each.figure, "-" if each.ours is None else f"{each.ours:.4g}", each.published.text, each.published.source, told(each)]
        for each in found
    ]
    if lines:
        print_table(["of", "figure", "ours", "published", "by", "differs"], lines)
    alike = sum(each.ours is not None and not each.differs for each in found)
    return f"{len(found)} published figures, {alike} measured alike" if found else "nothing was published for these runs"


def told(each: Row) -> str:
    """Put the differences into words."""
    more = len(each.differs) - MOST
    return "; ".join(each.differs[:MOST]) + (f"; and {more} more" if more > 0 else "") or "-"
