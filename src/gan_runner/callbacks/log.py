"""Log the numbers of training at intervals."""

from __future__ import annotations

import resource
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge

from gan_runner.training.callback import Callback

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


def to_numbers(logs: Logs) -> dict[str, float]:
    """Convert device scalars to floats with a single synchronisation."""
    return dict(zip(logs, torch.stack([value.float() for value in logs.values()]).tolist(), strict=True)) if logs else {}


class Log(Callback):
    """Log every `every_steps` rounds: each term by name, mean logits on real and fake, gradient norms, learning rates, speed, memory."""

    everywhere = True

    def __init__(self, every_steps: Annotated[int, Ge(1)] = 50):
        self.every_steps = every_steps
        self.latest: Logs = {}  # a lazy penalty is not in the logs of every round

    def begin(self, run: Run) -> None:
        self.since, self.at = time.monotonic(), run.step
        if run.step == 0 and run.loggers:
            n = run.batches.order.n
            shown = min(run.spec.kind.pictured, n)
            x = run.batches.take(torch.linspace(0, n - 1, shown, dtype=torch.float64).long())  # a folder is sorted by class
            run.draw("data/real", run.dataset.drawn(run.dataset.to_float(x), scale="auto", title="real"))

    def after_round(self, run: Run, logs: Logs) -> None:
        self.latest |= logs
        if run.step % self.every_steps:
            return
        values = to_numbers(self.latest)
        for name, player in run.game.players.items():
            grads = [p.grad for p in player.parameters() if p.grad is not None]  # type: ignore[union-attr]
            if grads:
                values[f"grad_norm/{name[0]}"] = float(torch.stack(torch._foreach_norm(grads)).norm())
            values[f"lr/{name[0]}"] = float(player.optimizer.param_groups[0]["lr"])  # type: ignore[union-attr,index]
        now = time.monotonic()
        values["time/images_per_second"] = (run.step - self.at) * run.batch_size / max(now - self.since, 1e-9)
        values["memory/host_mib"] = resident_mib()
        if run.device.type == "cuda":
            values["memory/device_mib"] = torch.cuda.max_memory_allocated(run.device) / 2**20
        values["progress/images"] = run.images
        run.write(values)
        self.since, self.at = time.monotonic(), run.step

    def state_dict(self) -> dict[str, Any]:
        return {"latest": dict(self.latest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.latest = dict(state.get("latest", {}))


def resident_mib() -> float:
    """Return the peak resident memory of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
