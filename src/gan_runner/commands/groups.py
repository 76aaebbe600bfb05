"""Compare groups of runs that differ in the training seed: the mean of each figure in each group, and Welch's t test between groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gan_runner.errors import some
from gan_runner.evaluation.seeds import Spread, Welch, welch
from gan_runner.inventory.published import FREE
from gan_runner.inventory.tables import differences
from gan_runner.storage import records
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.untrusted import flat

OF_A_SUBJECT = {"generator", "samples", "checkpoint", "lossy", "chosen"}  # entries of a protocol that say who was judged
SHOWN = 3  # differences in a note


class Member(NamedTuple):
    """A run, or samples, of a group, and its line of metrics.jsonl."""

    name: str
    run: Path | None
    line: dict[str, Any]


class Compared(NamedTuple):
    """A figure of one group, and how it differs from that of the first group."""

    figure: str
    group: str
    spread: Spread | None  # None: a run of the group has no such figure
    test: Welch | None  # None: of the first group, and where there is none


class Groups:
    """The groups of one line of gan-eval, each with the members that were measured."""

    def __init__(self, groups: Sequence[Sequence[Member]]):
        self.groups = groups
        self.names = [f"group {number + 1}" for number in range(len(groups))]

    @property
    def several(self) -> bool:
        """Whether some group has several members."""
        return any(len(group) > 1 for group in self.groups)

    @cached_property
    def figures(self) -> list[str]:
        """The figures that some member has, in the order of the first."""
        return list(dict.fromkeys(key for group in self.groups for each in group for key in each.line["metrics"]))

    def better(self, figure: str) -> str | None:
        """Return which way a figure is better, as the first member says that has it."""
        return next((way for group in self.groups for each in group if (way := each.line["better"].get(figure))), None)

    def spread(self, group: Sequence[Member], figure: str) -> Spread | None:
        """Summarise a figure of a group; None where a member has no such figure."""
        values = [value for each in group if (value := each.line["metrics"].get(figure)) is not None]
        return Spread.of(values) if len(values) == len(group) else None

    @cached_property
    def rows(self) -> list[Compared]:
        """Each figure of each group, tested against the first group where the figure was measured alike."""
        rows = []
        for figure in self.figures:
            first, *others = [self.spread(group, figure) for group in self.groups]
            alike = not self.unlike[figure]
            tests = [welch(first, other) if first and other and alike else None for other in others]
            rows += [Compared(figure, *each) for each in zip(self.names, [first, *others], [None, *tests])]
        return rows

    @cached_property
    def unlike(self) -> dict[str, tuple[str, ...]]:
        """For each figure the entries of the protocol in which the members' measurements differ."""
        first, *others = [Protocol.of(dict(flat(each.line["protocol"]))) for group in self.groups for each in group]
        found = {figure: dict.fromkeys(name for other in others for name in first.differing(figure, other)) for figure in self.figures}
        return {
            figure: tuple(name for name in names if name.removesuffix("_sha256") not in OF_A_SUBJECT) for figure, names in found.items()
        }

    def notes(self) -> list[str]:
        """Return what a reader has to know: what the tests do not cover, and what makes the groups unlike."""
        notes = []
        if single := [name for name, group in zip(self.names, self.groups) if len(group) == 1]:
            whose = f" with {some(single, SHOWN)}" if self.several else ""
            notes.append(f"training seeds were not compared{whose}: one run has no spread over training seeds")
        for name, group in zip(self.names, self.groups):
            if len(group) > 1 and (mixed := differing_keys(group)):
                notes.append(f"the runs of {name} differ in more than the seed: {some(mixed, SHOWN)}")
        steps = sorted({each.line["step"] for group in self.groups for each in group if each.run is not None})
        if len(steps) > 1:
            notes.append(f"they were measured at different rounds: {some(map(str, steps), SHOWN)}")
        for names in dict.fromkeys(self.unlike.values()):
            if names:
                figures = [figure for figure in self.figures if self.unlike[figure] == names]
                notes.append(f"{some(figures, SHOWN)}: not measured alike, the protocols differ in {some(names, SHOWN)}")
        if any(each.test for each in self.rows):
            notes.append("p is of Welch's t test over training seeds, two-sided, not corrected for the number of figures and groups")
        return notes

    def line(self) -> dict[str, Any]:
        """Return all of it as one JSON object."""
        figures: dict[str, Any] = {}
        tests: list[dict[str, Any]] = []
        for figure, group, spread, test in self.rows:
            figures.setdefault(figure, {})[group] = spread and spread._asdict()
            if test is not None:
                tests.append({"figure": figure, "group": group, "than": self.names[0], **test._asdict()})
        members = {name: [each.name for each in group] for name, group in zip(self.names, self.groups)}
        return {"groups": members, "figures": figures, "tests": tests, "notes": self.notes()}


def differing_keys(group: Sequence[Member]) -> list[str]:
    """List the keys in which the configurations of a group differ, besides the seed and where they were computed."""
    configs = [records.read(each.run, each.run).config for each in group if each.run is not None]
    return [key for key in differences(configs) if not FREE.fullmatch(key)]
