"""Explain mistakes to the user: one plain line for each."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from gan_runner.errors import did_you_mean


def bad_grammar(override: str, text: str, typed: str | None) -> str:
    """Explain why Hydra's grammar refuses an override; typed: how it is typed where its value is a text."""
    if "=" not in override and not override.startswith("~"):
        guess = f"; an experiment is chosen with +experiment={override}" if re.fullmatch(r"[\w/-]+", override) else ""
        return f"{override}: expected KEY=VALUE{guess}" + (f"; a value with spaces is typed {typed}" if typed else "")
    if user := re.fullmatch(r"[^=]*=~([\w.-]+)(/.*)?", override):
        return f"{override}: there is no user {user[1]} whose home this could be" + (f"; as a text it is typed {typed}" if typed else "")
    if typed:
        return f"cannot read {override}: special characters need quotes, for Hydra inside those for the shell; type {typed}"
    reason = next((one for one in text.splitlines() if one.strip() and not one.startswith(("See http", "Error parsing"))), "")
    return f"cannot read {override}: {reason.strip()}; quote what has special characters, inside the shell's quotes: 'key=\"a,b\"'"


def listed(options: Sequence[str], most: int = 50) -> str:
    """Format the available names; only the first if there are many."""
    more = f" and {len(options) - most} more" if len(options) > most else ""
    return ", ".join(sorted(options)[:most]) + more


def orphan(key: str, chosen: Sequence[str], options: Sequence[str]) -> str:
    """Explain that `key` belongs to a part of a list that is not chosen."""
    group, name = key.split(".")[:2]
    has = ", ".join(chosen) or "none"
    if name in options:
        return f"{key}: {name} is not chosen ({group}: {has}); add it with +{group}={name}"
    return f"{key}: there is no {group} {name}{did_you_mean(name, options)}; chosen: {has}; available: {listed(options)}"


def unknown_key(key: str, frame: DictConfig) -> str:
    """Explain that `key` is not in `frame`, and name its neighbours."""
    parent, _, _ = key.rpartition(".")
    node = OmegaConf.select(frame, parent) if parent else None
    siblings = [str(name) for name in node if name != "_target_"] if isinstance(node, DictConfig) else []
    takes = f"; {parent} has {', '.join(siblings)}" if siblings else ""
    return f"unknown key {key}{takes}{did_you_mean(key, keys_of(frame, hydra=key.startswith('hydra.')))}"


def keys_of(node: DictConfig, prefix: str = "", hydra: bool = True) -> list[str]:
    """Return all dotted keys of a configuration, inner nodes and leaves."""
    found: list[str] = []
    for key in node:
        if key == "_target_" or (not prefix and (key == "defaults" or (key == "hydra" and not hydra))):
            continue
        child = node._get_node(key)
        found.append(f"{prefix}{key!s}")
        if isinstance(child, DictConfig) and not (child._is_none() or child._is_missing() or child._is_interpolation()):
            found += keys_of(child, f"{prefix}{key!s}.")
    return found


def leaves(node: Any, prefix: str) -> Iterator[str]:
    """Yield the values of a piece of configuration: `a.b=1`, `a.c=2`."""
    if isinstance(node, DictConfig) and len(node) and not node._is_interpolation():
        for key in node:
            yield from leaves(node._get_node(key), f"{prefix}.{key!s}")
    else:
        value = OmegaConf.to_container(node) if isinstance(node, (DictConfig, ListConfig)) else node._value()
        yield f"{prefix}={value}"


def exists(node: Any, key: str) -> bool:
    """Return whether a configuration has a dotted key; its value may be null or missing."""
    for part in key.split("."):
        if isinstance(node, DictConfig) and part in list(node.keys()):
            node = node._get_node(part)
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node._get_node(int(part))
        else:
            return False
    return True
