"""Convert the configuration to a table of hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gan_runner.storage.untrusted import flat


def hyperparameters(config: dict[str, Any]) -> dict[str, int | float | str]:
    """Return the settings that can affect results, flat by dotted key: a part as its class name, a bool as text; no callback or logger."""
    shown: dict[str, int | float | str] = {}
    for key, value in flat({key: node for key, node in config.items() if key not in ("callback", "logger") and node != {}}):
        if key.endswith("._target_"):
            shown[key.removesuffix("._target_")] = str(value).rpartition(".")[2]
        elif isinstance(value, bool):
            shown[key] = str(value).lower()
        else:
            shown[key] = "null" if value is None else value
    return shown


def said_first(shown: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return the hyperparameters that these keys of a line set: the key itself, or each part of a list of parts."""
    return list(
        dict.fromkeys(name for key in keys for name in shown if key == name or (key not in shown and name.rpartition(".")[0] == key))
    )
