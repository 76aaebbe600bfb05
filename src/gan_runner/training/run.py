"""The run, as it is passed to callbacks and loggers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gan_runner import distributed
from gan_runner.datasets import Dataset, stream
from gan_runner.datasets.classes import refuse_renamed
from gan_runner.errors import Diverged, UserError
from gan_runner.execution import hardware
from gan_runner.game.spec import Spec
from gan_runner.reporting import Countdown, Reporter
from gan_runner.sampling.subjects import Source, source_of
from gan_runner.storage import checkpoint
from gan_runner.trainer import Trainer
from gan_runner.training import provenance

if TYPE_CHECKING:
    from gan_runner.evaluation.metric import Metric
    from gan_runner.game.game import Game
    from gan_runner.game.play import Logs
    from gan_runner.training.callback import Callback
    from gan_runner.training.logger import Logger


@dataclass
class Assembly:
    """The objects that a configuration describes."""

    config: dict[str, Any]
    dataset: Dataset
    spec: Spec
    trainer: Trainer
    game: Game
    metrics: dict[str, Metric]
    callbacks: dict[str, Callback]
    loggers: dict[str, Logger]
    made_with: dict[str, Any]  # the configuration as a state keeps it


class Run:
    """A run, as it is passed to callbacks and loggers: the objects of its assembly, its folder and its progress."""

    def __init__(self, assembly: Assembly, folder: Path, reporter: Reporter):
        self.config, self.dataset, self.spec, self.made_with = assembly.config, assembly.dataset, assembly.spec, assembly.made_with
        self.trainer, self.game = assembly.trainer, assembly.game
        self.metrics, self.callbacks = assembly.metrics, assembly.callbacks
        self.loggers: list[Logger] = []  # those that have begun
        self.folder, self.reporter = folder, reporter
        self.device = self.game.generator.device
        self.batch_size = self.game.batch_size
        tick = Countdown(reporter).at
        labelled = getattr(self.game.D, "classes", None) is not None or any(term.labelled for term in self.game.terms.values())
        self.batches = stream(self.dataset, "train", self.batch_size, assembly.config["seed"], self.device, tick, labelled)
        self.recent: list[Logs] = []  # of the rounds whose losses have not been looked at
        self.saved_at: int | None = None
        self.writer = checkpoint.Writer()
        self.objective: float | None = None  # the best value of the metric that best.pt follows

    @cached_property
    def source(self) -> Source | None:
        """The data that samples are made for, the test split, where G works on data."""
        return source_of(self.game.G, self.dataset)

    @property
    def pretrained(self) -> bool:
        """Whether the weights of G were loaded (init_from)."""
        return any((self.config.get("init_from") or {}).get(key) for key in ("run", "generator"))

    @property
    def step(self) -> int:
        """Rounds played."""
        return self.game.step

    @property
    def steps(self) -> int:
        """Length of the run, in rounds."""
        return self.trainer.steps

    @property
    def images(self) -> int:
        """Real images used so far: one batch per round."""
        return self.step * self.batch_size

    @property
    def machine(self) -> dict[str, Any]:
        """Facts that the exact bits of the run depend on, besides configuration and data: hardware and versions."""
        return hardware.facts(self.device, hardware.precision_of(self.trainer.precision, self.device, self.spec.kind.bounded))

    def state(self) -> dict[str, Any]:
        """Return everything that the next round depends on, with configuration, data and machine. A collective: call it on all ranks."""
        return {
            "version": checkpoint.VERSION,
            "step": self.step,
            "images": self.images,
            "spec": self.spec.saved(),
            "config": self.made_with,
            "data": self.batches.fingerprint,
            "machine": self.machine,
            "game": dict(self.game.state_dict()),
            "batches": self.batches.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self.callbacks.items()},
            "rng": distributed.everyones({name: each.cpu() for name, each in hardware.rng_state(self.device).items()}),
        }

    def restore(self, state: dict[str, Any], other_data: bool = False) -> None:
        """Restore a saved state. UserError if its networks, its class names or its number of samples do not match.

        other_data: the number of samples may differ.
        """
        batches = state["batches"] | ({"samples": self.batches.order.n} if other_data else {})
        try:
            refuse_renamed(Spec.restored(state["spec"]), self.spec, self.dataset.name)
            self.game.load_state_dict(state["game"])
            self.batches.load_state_dict(batches)
            for name, callback in self.callbacks.items():
                callback.load_state_dict(state["callbacks"].get(name, {}))
            if distributed.rank() < len(state["rng"]):
                hardware.set_rng_state(state["rng"][distributed.rank()], self.device)
        except checkpoint.MISFIT as error:
            raise UserError(f"the checkpoint does not fit the run's configuration: {checkpoint.misfit(error)}") from error
        if len(state["rng"]) != distributed.size():
            self.reporter.say(
                f"played by {len(state['rng'])} processes until now and by {distributed.size()} from here on: the same run up to rounding, "
                "but for networks that couple samples (batch norm) or draw inside forward (dropout)"
            )
        if reasons := provenance.inexact(state.get("machine"), self.machine, self.config["deterministic"]):
            self.reporter.say(f"from here on not bit for bit what an uninterrupted run would be: {'; '.join(reasons)}")
        self.saved_at = self.step

    def save(self, path: Path, then: Callable[[], None] = lambda: None) -> None:
        """Write the state, after checking that all losses are finite and flushing the loggers.

        Every rank must call this. Rank 0 writes the file and then calls `then`, in a thread, while training goes on.
        """
        self.look()
        for logger in self.loggers:
            logger.flush()
        state = self.state()
        if distributed.is_first():
            state = checkpoint.snapshot(state)

            def write() -> None:
                checkpoint.save(path, state, self.folder)
                then()

            self.writer.submit(write)

    def look(self) -> None:
        """Wait for the losses of the recent rounds. Diverged, with term, step and last checkpoint, if one is not finite."""
        recent, self.recent = self.recent, []
        first = self.step - len(recent) + 1
        seen = [(first + i, name, value) for i, logs in enumerate(recent) for name, value in logs.items()]
        if not seen:
            return
        finite = torch.stack([value.float() for _, _, value in seen]).isfinite().cpu()
        if not finite.all():
            step, name, value = seen[int((~finite).nonzero()[0])]
            self.writer.wait()
            found = next(iter(checkpoint.candidates(self.folder / "checkpoints")), None)
            raise Diverged(
                f"{name} is {float(value)} in round {step}; "
                + (f"the last checkpoint is {found}" if found else "there is no checkpoint yet")
            )

    def last_checkpoint(self, step: int) -> Path | None:
        """Return the newest checkpoint of at most `step` rounds; None if there is none."""
        self.writer.wait()
        there = {int(path.stem.removeprefix("step_")): path for path in checkpoint.numbered(self.folder / "checkpoints")}
        return there[max(rounds)] if (rounds := [n for n in there if n <= step]) else None

    def log_to(self, logger: Logger) -> None:
        """Start a logger, and log to it from now on."""
        logger.begin(self)
        self.loggers.append(logger)

    def write(self, values: dict[str, float]) -> None:
        """Log numbers of this step to every logger."""
        for logger in self.loggers:
            logger.scalars(self.step, values)

    def write_file(self, name: str, suffix: str, content: bytes) -> None:
        """Write samples of this step as a file (txt, wav, ...) to every logger."""
        for logger in self.loggers:
            logger.write_file(self.step, name, suffix, content)

    def draw(self, name: str, picture: Tensor) -> None:
        """Log a picture (uint8 3 H W) of this step to every logger."""
        for logger in self.loggers:
            logger.picture(self.step, name, picture)
