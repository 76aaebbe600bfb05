"""Choose an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from gan_runner import distributed
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError
from gan_runner.execution.captured import Graphed
from gan_runner.execution.engine import Compiled, Engine
from gan_runner.execution.replay import Replayed
from gan_runner.game.game import Game

Name = Literal["auto", "eager", "compile", "cuda_graph", "replay"]


def engine_of(
    name: Name,
    game: Game,
    say: Callable[[str], None],
    images: bool = True,
    dataset: Dataset | None = None,
    last: Callable[[int], Path | None] = lambda step: None,
) -> Engine:
    """Create the engine that trainer.engine names. last: returns the newest checkpoint of at most a number of rounds.

    auto with one process: cuda_graph on a GPU; replay on a CPU, but eager for images, whose operations take so long that Python's
    overhead does not matter. auto with several processes: eager.
    """
    device = game.generator.device.type
    if name == "auto":
        fixed = {"cuda": "cuda_graph", "cpu": "eager" if images else "replay"}
        name = fixed.get(device, "eager") if distributed.size() == 1 else "eager"  # type: ignore[assignment]
    for needs, only in (("cuda_graph", "cuda"), ("replay", "cpu")):
        if name == needs and device != only:
            raise UserError(f"trainer.engine={name} needs a {only.upper()} device, and this is {device}; say trainer.engine=auto")
    if name in ("cuda_graph", "replay"):
        return {"cuda_graph": Graphed, "replay": Replayed}[name](game, say, dataset, last)
    return {"eager": Engine, "compile": Compiled}[name](game, say)


@contextmanager
def one_stream(device: torch.device) -> Iterator[None]:
    """Run everything on a side stream, as the default stream cannot be captured."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
