"""The configuration as a table of hyperparameters."""

from __future__ import annotations

from typing import Any

from gan_runner.storage.untrusted import flat


def hyperparameters(config: dict[str, Any]) -> dict[str, int | float | str]:
    """Collect the settings that can make two runs differ, for a table: a part by the name of its class, yes and no in words; no
    watchers."""
    shown: dict[str, int | float | str] = {}
    for key, value in flat({key: node for key, node in config.items() if key not in ("callback", "logger") and node != {}}):
        if key.endswith("._target_"):
            shown[key.removesuffix("._target_")] = str(value).rpartition(".")[2]
        elif isinstance(value, bool):
            shown[key] = str(value).lower()
        else:
            shown[key] = "null" if value is None else value
    return shown
