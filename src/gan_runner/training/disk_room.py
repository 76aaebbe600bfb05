"""Check before a run that its checkpoints fit on the disk."""

from __future__ import annotations

import copy
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_runner.errors import UserError

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.training.run import Assembly


def refuse_shortage(assembly: Assembly, folder: Path) -> None:
    """Raise UserError, with sizes, if the checkpoints that a run keeps do not fit on the disk of its folder, which may not exist yet.

    Existing checkpoints of a resumed run count as free space. Curves and pictures are not counted. A read-only disk is reported as such,
    since freeing space on it would not help.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise UserError(f"{folder} cannot be written: {os.strerror(errno.EROFS)}")
    n, each = sum(callback.states() for callback in assembly.callbacks.values()), state_bytes(assembly.game)
    there = {path.stat().st_ino: path.stat().st_size for path in (folder / "checkpoints").glob("*.pt")}  # last.pt is a hard link
    free = shutil.disk_usage(place).free
    if n * each - sum(there.values()) > free:
        more = f" more than the {mib(sum(there.values()))} that are there" if there else ""
        raise UserError(
            f"the disk of {folder} has {mib(free)} free, and this run keeps up to {n} checkpoints of {mib(each)} each{more}: "
            "make room, choose another place, or lower callback.checkpoint.keep"
        )


def state_bytes(game: Game) -> int:
    """Estimate the bytes of a state on disk: weights, buffers, and the state of the optimisers."""
    size = sum(value.nbytes for value in game.state_dict().values() if isinstance(value, Tensor))
    for player in game.players.values():
        weights = sum(p.nbytes for p in player.objective.parameters() if p.requires_grad)
        size += weights * averages(player.optimizer)
    return size


def averages(optimizer: torch.optim.Optimizer) -> int:
    """Count state tensors per weight, by one step of the optimiser on a tiny parameter."""
    trial, weight = copy.copy(optimizer), torch.nn.Parameter(torch.zeros(2, 3))
    weight.grad = torch.zeros_like(weight)
    trial.param_groups = [{**optimizer.param_groups[0], "params": [weight]}]
    trial.state = type(optimizer.state)(dict)
    trial.step()
    return sum(isinstance(value, Tensor) and value.shape == weight.shape for value in trial.state[weight].values())


def mib(size: int) -> str:
    """Format a number of bytes in MiB."""
    return f"{size / 2**20:.1f} MiB"
