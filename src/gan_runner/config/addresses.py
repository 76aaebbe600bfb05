"""Replace the addresses of runs on a command line by run directories and checkpoints, so that they are recorded as what they meant."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from gan_runner.config.command_line import parsed, quoted, text_of
from gan_runner.errors import UserError
from gan_runner.storage.addresses import LATEST, STATES, address, is_run

WITH_STATE = ("init_from", "init_from.run", "discriminator", "corrector")  # take RUN_DIR:best


def located(words: Sequence[str], root: Callable[[], Path]) -> tuple[list[str], list[str]]:
    """Return the line with run directories in the place of addresses, and a note for each that was replaced.

    An address is the value of a key that ends in `run`, or of one of WITH_STATE. root: returns the folder for `latest`. UserError for an
    address that leads to no run; what is no path is left to who reads it.
    """
    found: list[str] = []
    notes: list[str] = []
    for override in parsed(words):
        text = text_of(override)
        meant = _replaced(override, root) if names_run(override) else [text]
        found += meant
        notes += [f"{text} is {' '.join(meant)}"] if meant != [text] else []
    return found, notes


def names_run(override: Override) -> bool:
    """Return whether an override names runs that exist by other words than their directories."""
    key = override.key_or_group
    if override.is_sweep_override() or override.is_delete() or key.startswith("hydra."):
        return False
    return (key.rpartition(".")[2] == "run" or key in WITH_STATE) and any(map(is_address, _listed(override.value())))


def is_address(said: Any) -> bool:
    """Return whether a value is `latest`, RUN_DIR:best or a path, and not itself a run directory."""
    text = str(said)
    if not isinstance(said, str) or not text.strip() or is_run(Path(text)):
        return False
    return any(each == LATEST or os.path.lexists(each) for each in (text, text.rpartition(":")[0]))


def _replaced(override: Override, root: Callable[[], Path]) -> list[str]:
    """Return the overrides that say the same by run directories."""
    key, value, text = override.key_or_group, override.value(), text_of(override)
    sign = text[: len(text) - len(text.lstrip("+"))]
    try:
        there = [address(str(each), root()) for each in _listed(value)]
    except UserError as error:
        raise UserError(f"{text}: {error}") from error
    states = [each.checkpoint for each in there if each.checkpoint]
    if key in WITH_STATE:
        return [f"{sign}{key}={typed(there[0].with_state())}"]
    if states and len(there) > 1:
        raise UserError(f"{text}: name the run directories alone, and the checkpoint of all of them by checkpoint=NAME")
    run = f"{sign}{key}=" + _written(value, iter([typed(str(each.folder)) for each in there]))
    return [run, *(f"{sign}{key.removesuffix('run')}checkpoint={typed(state)}" for state in states)]


def typed(path: str) -> str:
    """Return a path, or the name of a checkpoint, as the value of an override: in quotes where it needs them."""
    if path in STATES.values():
        return path
    if not re.fullmatch(r"[\w./:-]+", path, re.ASCII):
        return quoted(path)
    return path if "/" in path else f"./{path}"  # 3 and null alone would be no text


def _listed(value: Any) -> list[Any]:
    """Return a value, or all that is in a list, also of groups."""
    return [each for one in value for each in _listed(one)] if isinstance(value, list) else [value]


def _written(value: Any, folders: Iterator[str]) -> str:
    """Write a value with these folders in the place of its own."""
    return f"[{','.join(_written(each, folders) for each in value)}]" if isinstance(value, list) else next(folders)
