"""Read untrusted files: no code is executed, no link is followed, and sizes are bounded."""

import json
import math
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from gan_runner.errors import UserError, amount, printable

Value = bool | int | float | str | None
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_bounded(path: Path, limit: int = 2**18, cut: bool = False) -> bytes | None:
    """Read a regular file; None where it is none, or larger than the limit (cut: read its beginning)."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            return file.read(limit) if stat.S_ISREG(status.st_mode) and (cut or status.st_size <= limit) else None
    except (OSError, ValueError):
        return None


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """List the entries of a folder; empty if it is a link or cannot be read."""
    try:
        return [] if folder.is_symlink() else list(os.scandir(folder))
    except OSError:
        return []


def parsed_json(data: bytes | None) -> Any:
    """Parse JSON; None if it is invalid."""
    try:
        return json.loads(data or b"")
    except (ValueError, RecursionError):
        return None


def parsed_yaml(data: bytes | None) -> Any:
    """Parse YAML of plain values; None if it is invalid, has aliases (they can expand without bound) or more than 50 levels."""
    try:
        text, depth = (data or b"").decode(), 0
        for event in yaml.parse(text, Loader=LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > 50 or isinstance(event, yaml.AliasEvent):
                return None
        return yaml.load(text, Loader=LOADER)  # the safe one, in C where there is one
    except Exception:  # whatever a document can do to a parser
        return None


def flat(tree: Any) -> Iterator[tuple[str, Value]]:
    """List (dotted key, leaf) of nested dicts, at most 5,000; a dict at the 20th level is one leaf."""

    def visit(node: dict[Any, Any], path: str, depth: int) -> Iterator[tuple[str, Value]]:
        for key, value in node.items():
            name = f"{path}{leaf(key)}"
            if isinstance(value, dict) and value and depth < 20:
                yield from visit(value, f"{name}.", depth + 1)
            else:
                yield name, leaf(value)

    return islice(visit(tree if isinstance(tree, dict) else {}, "", 1), 5000)


def leaf(value: Any) -> Value:
    """Convert a value to one that can be printed and written as JSON."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    try:
        return printable(str(value))
    except (ValueError, RecursionError):  # a number of 100,000 digits
        return "?"


def memory() -> int:
    """Return the bytes of memory that this process may use: those of the machine, or the limit of its control group if it is lower."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = (read_bounded(Path("/sys/fs/cgroup", name)) for name in ("memory.max", "memory/memory.limit_in_bytes"))
    return min([here, *(int(each) for each in said if each and each.strip().isdigit())])


def refuse_too_large(what: str, size: int) -> None:
    """Raise UserError if samples of so many bytes do not fit into half of the memory: they are held twice, as what they are made of."""
    if size > memory() // 2:
        raise UserError(f"{what} is too large: its samples take {amount(size)}, and the memory here is {amount(memory())}")


def whole(value: Any) -> int | None:
    """Return a whole number from 0 to 2**53 - 1, which a float represents exactly; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def number(value: Any) -> float | None:
    """Return a number whose square is finite, too, as a float; None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e150 else None


def moment(text: Any) -> float | None:
    """Convert ISO 8601 to seconds since 1970; None for anything else."""
    try:
        seconds = datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return seconds if seconds >= 0 else None
