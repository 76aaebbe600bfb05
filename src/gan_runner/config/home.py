"""Expand `~` in the words of a command line and in configuration files. Imports no Hydra."""

import os
import re
from typing import Any

HOMES = re.compile(  # ~ or ~user where a value or an item begins, or a text in quotes
    r"""(?:(?<=[=\[,{:(])|(?<=[,:] ))~[\w.-]*(?=[/,\])}:\s]|$)|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
)


def at_home(word: str) -> str:
    """Expand `~` and `~user` where a value, or an item of a list, begins with it. A shell does it only where a word begins with it."""
    return HOMES.sub(_expanded, word) if "~" in word else word


def _expanded(match: re.Match[str]) -> str:
    inside = match[0] if match[0].startswith("~") else match[0][1:-1]
    return match[0].replace(inside, os.path.expanduser(inside), 1)


def all_at_home(tree: Any) -> Any:
    """Expand `~` and `~user` where a text of a configuration begins with it."""
    if isinstance(tree, dict):
        return {key: all_at_home(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [all_at_home(value) for value in tree]
    return os.path.expanduser(tree) if isinstance(tree, str) else tree
