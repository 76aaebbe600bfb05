"""The hyper-parameters of a player's optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gan_runner.schedules import Schedule


class Hyperparameters(nn.Module):
    """The arguments of an optimiser. Each may be a schedule, although torch's optimisers know none."""

    def __init__(self, arguments: Mapping[str, Any]):
        super().__init__()
        self.schedules: Mapping[str, Schedule] = nn.ModuleDict(  # type: ignore[assignment]
            {key: value for key, value in arguments.items() if isinstance(value, Schedule)}
        )
        self.on_device = bool(arguments.get("fused"))  # other optimisers read their numbers on the host
        self.graphed = False  # whether the optimiser may be part of a CUDA graph
        self.rate_factor = 1.0  # what a trick multiplied the learning rate by

    def scheduled(self, step: int, run: int) -> dict[str, Any]:
        """Return those that follow schedules: device scalars, which the game fills before a round, or the numbers of this round."""
        return {key: schedule.value if self.on_device else schedule.scaled(step, run) for key, schedule in self.schedules.items()}

    def apply(self, optimizer: torch.optim.Optimizer, step: int, run: int) -> None:  # type: ignore[override]
        """Give the optimiser those of this round; loading a state leaves copies of the device scalars there."""
        for group in optimizer.param_groups:
            group.update(self.scheduled(step, run) | self.capturing(group))

    def capturing(self, group: Mapping[str, Any]) -> dict[str, bool]:
        """Return the option that lets a CUDA graph hold the step, for an optimiser that has it."""
        return {"capturable": self.graphed} if "capturable" in group else {}

    def scale_rate(self, optimizer: torch.optim.Optimizer, factor: float) -> None:
        """Multiply the learning rate by `factor`, for the rest of the run; a schedule is multiplied as a whole."""
        self.restore(self.rate_factor * factor)
        if "lr" not in self.schedules:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor

    def restore(self, rate_factor: float) -> None:
        """Use this factor of the learning rate; an optimiser that was loaded has it in a constant rate."""
        self.rate_factor = rate_factor
        if "lr" in self.schedules:
            self.schedules["lr"].factor = rate_factor
