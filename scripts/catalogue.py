#!/usr/bin/env python3
"""The parts of gan-runner as a page: formula, source, defaults, and the experiments that use each.

    python scripts/catalogue.py docs/catalogue.md

Everything is read from the docstrings of classes, the YAML files of configs/ and the composed experiments.
"""

import argparse
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gan_runner import schedules
from gan_runner.assembly.signatures import signature
from gan_runner.commands.usage import catalogue
from gan_runner.config.composed import plain
from gan_runner.config.composer import Composer
from gan_runner.config.groups import LISTS, PAIRS, config_dir
from gan_runner.schedules import Schedule

HEAD = """\
# Catalogue

The parts that shape training, with the values of their YAML files: a key is changed by `GROUP.KEY=VALUE`, in a group of which several are
chosen by `GROUP.NAME.KEY=VALUE`. `D(x)` is the logit of a sample, high where D says real, and `E` a mean over the batch. Measures are in
[metrics.md](metrics.md), experiments in [experiments.md](experiments.md).

This page is generated from the classes and from `configs/`. After a change of either: `python scripts/catalogue.py docs/catalogue.md`.
"""
GROUPS = {
    "loss": "Losses: `loss=NAME`",
    "penalty": "Penalties: `'penalty=[A,B]'`",
    "trick": "Tricks: `'trick=[A,B]'`, applied in the order of the list",
    "rule": "Rules: `rule=NAME`",
    "optimizer": "Optimizers: `optimizer=NAME`",
    "schedule": "Schedules: `{_target_: gan_runner.schedules.NAME, ...}` in the place of a number",
    "prior": "Priors: `prior=NAME`",
    "refiner": "Refiners: `gan-sample refiner=NAME`, `gan-eval 'refiner=[A,B]'`",
    "architecture": "Networks: `architecture=NAME`",
    "dataset": "Data sets: `dataset=NAME`",
}
BY_FILE = {"optimizer", "architecture", "dataset"}  # described by the head of their file: several classes, or those of torch
YEAR = r"(?:19|20)\d\d"
CITED = re.compile(rf"\b[A-Z][\w'-]+(?: et al\.| (?:and|&) [A-Z][\w'-]+)? {YEAR}\b|\barXiv \d{{4}}\.\d{{5}}\b")
FORMULA = re.compile(r"[=^|]|<-|\w\(")
LOCAL = re.compile(r"^\$\{\.\.(\w+)\}$")  # another key of the same file
PLACE = re.compile(r"^\$\{oc\.env:\w+,(\w+)\}$")


class Entry(NamedTuple):
    """A row of the page."""

    name: str  # as it is written
    text: str  # docstrings, or the head of a file
    more: str  # other places that may name a source
    defaults: str
    used: list[str]


def sentences(text: str) -> list[str]:
    """Split a text at the ends of its sentences; `et al.`, `eq.` and `...` end none."""
    found = re.split(r"(?<!et al)(?<!eq)(?<!\.)\.\s", f"{' '.join(text.split())} ")
    return [f"{each.strip().removesuffix('.')}." for each in found if each.strip()]


def formula(text: str) -> str:
    """Return the first paragraph of a docstring, and later sentences with a formula; without sources, and without what raises errors."""
    first, *rest = (sentences(each) for each in text.split("\n\n"))
    kept = [each for each in first if not CITED.match(each) and not each.startswith("ValueError")] or first
    kept += [each for part in rest for each in part if FORMULA.search(each) and not CITED.match(each)]
    return re.sub(r" ?\([^()]*\)", lambda found: "" if CITED.search(found[0]) else found[0], " ".join(kept))


def sources(*texts: str) -> str:
    """Return the papers that the texts name, each once."""
    found = dict.fromkeys(" ".join(each.split()) for text in texts for each in CITED.findall(" ".join(text.split())))
    return "; ".join(found)


def described(target: str) -> str:
    """Return the docstring of a class that a `_target_` names."""
    module, _, name = target.rpartition(".")
    return inspect.getdoc(getattr(import_module(module), name)) or ""


def shown(value: Any) -> str:
    """Return a value of a YAML file as it is typed."""
    if isinstance(value, dict) and "_target_" in value:
        inner = [f"{key}: {shown(each)}" for key, each in value.items() if key != "_target_"]
        return f"{value['_target_'].rpartition('.')[2]}({', '.join(inner)})"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def filled(node: Any, file: dict[str, Any]) -> Any:
    """Return a node with the values of the keys that it refers to, and the default of the place of the data."""
    if isinstance(node, dict):
        return {key: filled(value, file) for key, value in node.items()}
    if isinstance(node, str) and (found := LOCAL.match(node)):
        return file[found[1]]
    return PLACE.sub(r"\1", node) if isinstance(node, str) else node


def values(node: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {shown(value)}" for key, value in node.items() if key != "_target_")


def defaults_of_pair(node: dict[str, Any]) -> str:
    """Return the values of both players, once where they are the same."""
    both = {side: node[side] for side in ("generator", "discriminator") if node.get(side)}
    words = [values(each) for each in both.values()]
    if len({repr(each) for each in both.values()}) == 1 and len(both) == 2:
        return words[0]
    return "; ".join(f"{side[0].upper()}: {each}" if each else side[0].upper() for side, each in zip(both, words))


@cache
def experiments() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return each experiment: what it chooses of each group, and its configuration."""
    composer = Composer()
    found = {}
    for name in sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml")):
        composed = composer.compose([f"+experiment={name}"])
        found[name] = (composed.choices, plain(composed.config, complete=False))
    return found


def targets(tree: Any) -> Iterator[str]:
    """Yield every `_target_` in a tree."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if key == "_target_":
            yield value
        yield from targets(value)


def using(group: str, name: str, target: str) -> list[str]:
    """Return the experiments that choose a part, or name its class where the group is not chosen in experiments."""
    found = []
    for experiment, (choices, config) in experiments().items():
        chosen = choices.get(group)
        named = target in targets(config) if group in ("schedule", "prior", "refiner") else False
        if named or chosen == name or (isinstance(chosen, list) and name in chosen):
            found.append(experiment)
    return found


def of_file(group: str, name: str) -> Entry:
    """Describe the part of a YAML file."""
    path, link = config_dir() / group / f"{name}.yaml", f"[`{name}`](../configs/{group}/{name}.yaml)"
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    node, head = filled(node, node), catalogue()[group][name]
    if group in LISTS:
        node = node if "_target_" in node else next(iter(node.values()))
    if group in PAIRS:
        documented = [described(each["_target_"]) for each in node.values() if isinstance(each, dict)] if group != "optimizer" else []
        return Entry(link, head, " ".join([head, *documented]), defaults_of_pair(node), using(group, name, ""))
    text = head if group in BY_FILE else described(node["_target_"])
    more = " ".join([head, described(node["_target_"])])
    return Entry(link, text, more, values(node), using(group, name, node["_target_"]))


def of_schedules() -> list[Entry]:
    """Describe the schedules, which have no files."""
    kinds = [each for each in vars(schedules).values() if isinstance(each, type) and issubclass(each, Schedule)]
    found = []
    for kind in sorted(kinds, key=lambda each: each.__name__):
        if kind.__doc__ and "at" in dir(kind) and kind not in (Schedule, schedules.Ramp):
            ramp = f" {schedules.Ramp.__doc__}" if issubclass(kind, schedules.Ramp) else ""
            given = ", ".join(name if default is ... else f"{name}: {shown(default)}" for name, (_, default) in signature(kind).items())
            used = using("schedule", kind.__name__, f"gan_runner.schedules.{kind.__name__}")
            found.append(Entry(f"`{kind.__name__}`", kind.__doc__ + ramp, "", given, used))
    return found


def cell(text: str) -> str:
    """Return a text as it is written in a cell of a table."""
    return re.sub(r"([|*<])", r"\\\1", text)


def table(entries: list[Entry]) -> str:
    rows = [
        f"| {each.name} | {cell(formula(each.text))} | {cell(sources(each.text, each.more))} | {cell(each.defaults)} "
        f"| {', '.join(f'`{name}`' for name in each.used)} |"
        for each in entries
    ]
    return "\n".join(["| name | what it is | source | values | experiments |", "|---|---|---|---|---|", *rows])


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        entries = of_schedules() if group == "schedule" else [of_file(group, name) for name in catalogue()[group]]
        parts.append(f"\n## {title}\n\n{table(entries)}\n")
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.parse_args().out.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
