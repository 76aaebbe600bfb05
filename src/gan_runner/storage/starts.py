"""The key `init_from`: from which weights a run starts. Imports no torch."""

from __future__ import annotations

import os
from typing import Any

KEYS = ("run", "generator", "discriminator", "sha256")


def spelled(said: Any) -> Any:
    """Write `RUN_DIR` or `RUN_DIR:best`, or a mapping that lacks keys, as a mapping with all of KEYS."""
    if isinstance(said, str):
        said = {"run": said}
    return dict.fromkeys(KEYS) | said if isinstance(said, dict) else dict.fromkeys(KEYS) if said is None else said


def place_of(run: str) -> tuple[str, str]:
    """Split `RUN_DIR:best` into the directory and the checkpoint; last where none is named."""
    folder, colon, which = run.rpartition(":")
    return (folder, which) if colon and which in ("last", "best") and not os.path.exists(run) else (run, "last")


def alike(config: Any) -> Any:
    """Return a plain configuration in which `init_from` is spelled out, without the checksum, which belongs to one start of a run."""
    if not isinstance(config, dict):
        return config
    said = spelled(config.get("init_from"))
    return config | {"init_from": said | {"sha256": None} if isinstance(said, dict) else said}
