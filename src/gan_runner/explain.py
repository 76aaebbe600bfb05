"""What went wrong, for the user: one plain line for each mistake, and an exit code."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_runner.errors import Diverged, Failed, Interrupted, UserError
from gan_runner.untrusted import plain

DONE, FAILED, WRONG, DIVERGED, KEYBOARD = 0, 1, 2, 3, 130  # exit codes


def verdict(error: Exception) -> tuple[int, str]:
    """(exit code, message); prints the traceback of an unexpected error where one was asked for."""
    match error:
        case UserError():
            return WRONG, str(error)
        case Diverged():
            return DIVERGED, str(error)
        case Interrupted():
            return 128 + error.signal, str(error)
        case Failed():
            return FAILED, str(error)
    if os.environ.get("GAN_RUNNER_DEBUG") or os.environ.get("HYDRA_FULL_ERROR") == "1":
        print(plain("".join(traceback.format_exception(error))), file=sys.stderr)
        return FAILED, f"{type(error).__name__}: {error}"
    return FAILED, f"{type(error).__name__}: {error}\n  set GAN_RUNNER_DEBUG=1 to see where"


def say(command: str, message: str) -> None:
    """`gan-train: message` on stderr; several mistakes are indented below a count."""
    lines = plain(message).rstrip("\n").split("\n")
    mistakes = [line for line in lines if not line.startswith(" ")]
    if len(mistakes) > 1:
        lines = [f"{len(mistakes)} mistakes", *(f"  {line}" for line in lines)]
    print(f"{command}: " + "\n".join(lines), file=sys.stderr, flush=True)


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """` (did you mean trainer.steps?)`: first a key with the same last word, then one that is spelt alike."""
    last = wrong.rsplit(".", 1)[-1]
    near = [key for key in known if key != wrong and key.rsplit(".", 1)[-1] == last][:3]
    near = near or difflib.get_close_matches(wrong, known, 1, 0.7)
    if not near:
        ends = difflib.get_close_matches(last, [key.rsplit(".", 1)[-1] for key in known], 1, 0.7)
        near = [key for key in known if key.rsplit(".", 1)[-1] in ends][:3]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def bad_grammar(override: str, text: str) -> str:
    """Why Hydra's grammar refuses an override."""
    if "=" not in override and not override.startswith("~"):
        guess = f"; an experiment is chosen with +experiment={override}" if re.fullmatch(r"[\w/-]+", override) else ""
        return f"{override}: expected KEY=VALUE{guess}"
    reason = next((one for one in text.splitlines() if one.strip() and not one.startswith(("See http", "Error parsing"))), "")
    return f"cannot read {override}: {reason.strip()}; quote what has special characters, inside the shell's quotes: 'key=\"a,b\"'"


def listed(options: Sequence[str], most: int = 50) -> str:
    """The names that can be chosen, the first of them where there are many."""
    more = f" and {len(options) - most} more" if len(options) > most else ""
    return ", ".join(sorted(options)[:most]) + more


def orphan(key: str, chosen: Sequence[str], options: Sequence[str]) -> str:
    """`key` belongs to a part of a list that is not chosen."""
    group, name = key.split(".")[:2]
    has = ", ".join(chosen) or "none"
    if name in options:
        return f"{key}: {name} is not chosen ({group}: {has}); add it with +{group}={name}"
    return f"{key}: there is no {group} {name}{did_you_mean(name, options)}; chosen: {has}; available: {listed(options)}"


def unknown_key(key: str, frame: DictConfig) -> str:
    """`key` is not in `frame`; says what its neighbours are."""
    parent, _, _ = key.rpartition(".")
    node = OmegaConf.select(frame, parent) if parent else None
    siblings = [str(name) for name in node if name != "_target_"] if isinstance(node, DictConfig) else []
    takes = f"; {parent} has {', '.join(siblings)}" if siblings else ""
    return f"unknown key {key}{takes}{did_you_mean(key, keys_of(frame, hydra=key.startswith('hydra.')))}"


def rendered(error: BaseException) -> str:
    """An error of YAML, OmegaConf or Hydra."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    cause: BaseException = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = getattr(cause, "full_key", None)
        first = str(cause).strip().splitlines()[0]
        return f"{key}: {first}" if key else first
    lines = [one.strip() for one in str(error).strip().splitlines() if one.strip()]
    where = re.fullmatch(r"In '(.*)': \w+ raised while composing config:", lines[0]) if lines[1:] else None
    if where:
        return f"{where[1]}.yaml: {lines[1]}"
    return " ".join(lines[:2]) or type(error).__name__


def keys_of(node: DictConfig, prefix: str = "", hydra: bool = True) -> list[str]:
    """All dotted keys of a configuration, inner ones and leaves."""
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
    """`a.b=1`, `a.c=2`: what a piece of configuration says."""
    if isinstance(node, DictConfig) and len(node) and not node._is_interpolation():
        for key in node:
            yield from leaves(node._get_node(key), f"{prefix}.{key!s}")
    else:
        value = OmegaConf.to_container(node) if isinstance(node, (DictConfig, ListConfig)) else node._value()
        yield f"{prefix}={value}"


def exists(node: Any, key: str) -> bool:
    """Whether a configuration has a dotted key, be its value null or missing."""
    for part in key.split("."):
        if isinstance(node, DictConfig) and part in list(node.keys()):
            node = node._get_node(part)
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node._get_node(int(part))
        else:
            return False
    return True
