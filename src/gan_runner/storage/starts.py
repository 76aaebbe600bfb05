"""Other runs that a run starts from, or whose generator is a part of it. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gan_runner.errors import UserError

KEYS = ("run", "generator", "discriminator", "sha256")


def spelled(said: Any) -> Any:
    """Write `RUN_DIR` or `RUN_DIR:best`, or a mapping that lacks keys, as a mapping with all of KEYS."""
    if isinstance(said, str):
        said = {"run": said}
    return dict.fromkeys(KEYS) | said if isinstance(said, dict) else dict.fromkeys(KEYS) if said is None else said


def place_of(run: str) -> tuple[str, str]:
    """Split `RUN_DIR:best` or the path of a checkpoint into the directory and the checkpoint; last where none is named."""
    if run.endswith(".pt"):
        return os.path.dirname(os.path.dirname(run)), run
    folder, colon, which = run.rpartition(":")
    return (folder, which) if colon and which in ("last", "best") and not os.path.exists(run) else (run, "last")


def refuse_missing(run: str, part: str) -> None:
    """Raise UserError where `run`, from which a part of this run is made, is no run directory."""
    if not Path(run, "config.yaml").is_file():
        raise UserError(f"{part} another run, and {run} is no run directory: has it been moved or deleted?")


def alike(config: Any) -> Any:
    """Return a plain configuration in which `init_from` is spelled out, without the checksum, which belongs to one start of a run."""
    if not isinstance(config, dict):
        return config
    said = spelled(config.get("init_from"))
    return config | {"init_from": said | {"sha256": None} if isinstance(said, dict) else said}
