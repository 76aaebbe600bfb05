"""The settings of the group `trainer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from gan_runner.execution import engines, hardware


@dataclass(frozen=True)
class Trainer:
    """How long a run is, how precisely and on what it is computed."""

    steps: Annotated[int, Ge(0)] = 10000
    accumulate: Annotated[int, Ge(1)] = 1
    accelerator: hardware.Accelerator = "auto"
    devices: Annotated[int, Ge(1)] | Literal["auto"] = 1
    precision: hardware.Precision = 32
    channels_last: bool = True
    engine: engines.Name = "auto"
    check_every_steps: Annotated[int, Ge(1)] = 50
    compare_every_steps: Annotated[int, Ge(1)] = 1000
    sync_batch_norm: bool = False
    threads: Annotated[int, Ge(1), Le(hardware.MOST_THREADS)] | None = None
    profile: bool = False
