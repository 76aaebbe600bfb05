"""Capture rounds, replay them in static memory, and compare them with eager rounds. Contains the engine of CUDA graphs."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_runner import distributed
from gan_runner.datasets import Dataset, Resident, Streamed
from gan_runner.draws import falls_on
from gan_runner.errors import Failed
from gan_runner.execution.capturable import authors, refused, theirs
from gan_runner.execution.comparison import Before, Outcome, Watched, first_beyond, first_unequal, shake
from gan_runner.execution.engine import Fallible
from gan_runner.execution.recording import Line, Recorder, departure
from gan_runner.game.game import Game, Phase
from gan_runner.game.play import Batch, Logs

MOST_PHASES = 32  # captures that are kept: each holds the memory of a round
SHAKEN = 8  # eager plays that show what rounding does to a round


class CapturingEngine(Fallible):
    """Base of engines that replay a captured round in static memory; one capture for each phase of the game.

    One of `one_in` captured rounds is also executed operation by operation, and must give the same result.
    """

    one_in: int
    holds: bool = False  # whether a recording keeps all intermediate results alive until the end of the round

    def __init__(
        self, game: Game, say: Callable[[str], None], dataset: Dataset | None = None, last: Callable[[int], Path | None] = lambda step: None
    ):
        super().__init__(game, say)
        self.ready: dict[Phase, CapturedRound] = {}
        self.lines: dict[Phase, list[Line]] = {}  # their operations
        self.met: set[Phase] = set()
        self.staged: Staged | None = None
        self.last = last
        self.watched: Watched | None = None
        self.good: int | None = None  # the round of the last comparison
        self.roomy = True  # False once a comparison did not fit into memory
        if reason := uncapturable(game, dataset):
            self.give_up(reason)

    def execute(self, phase: Phase, batches: Resident | Streamed) -> Logs:
        source: Any = batches
        if isinstance(batches, Streamed):
            source = self.staged = self.staged or Staged(batches)
            self.staged.fill()
        if phase in self.ready:
            compares = falls_on(self.one_in, "comparison", self.game.seed, self.game.step)
            return self.compared(phase, source) if compares else self.ready[phase](source)
        if not self.able_still():
            return self.game.turn(source)
        self.met.add(phase)
        if len(self.met) > MOST_PHASES:
            self.give_up(f"a schedule has changed the operations of a round more than {MOST_PHASES} times")
            return self.game.turn(source)
        logs = self.approach(phase, source)
        if self.staged and self.staged.left:
            raise RuntimeError("rounds read different numbers of batches")
        return logs

    def able_still(self) -> bool:
        """Check again whether rounds may be captured: a callback may have added a part or a hook since the start.

        The data set is not checked again: a round reads batches, and executes none of its code.
        """
        self.watched = None
        self.authors = authors(self.game)
        if reason := refused(self.game):
            self.give_up(reason)
        return self.able

    def approach(self, phase: Phase, source: Resident | Staged) -> Logs:
        """Execute a round of a phase that is not captured yet, and capture it if possible."""
        raise NotImplementedError

    def stop(self) -> None:
        self.ready.clear()
        self.lines.clear()
        super().stop()

    def compared(self, phase: Phase, source: Resident | Staged) -> Logs:
        """Execute a captured round and the same round operation by operation. Failed if they differ.

        A round whose comparison does not fit into the memory of the device is not compared, which is reported once.
        """
        watched = self.watched = self.watched or Watched(self.game, theirs(self.game))
        before = None
        with suppress(torch.OutOfMemoryError):
            before = Before(watched, source)
            return self.held_against(phase, source, watched, before)
        if before is not None:
            before.restore()
        if self.roomy:
            self.say(f"trainer.engine={self.name}: not enough memory to play a round twice; rounds for which it is short are not compared")
        self.roomy = False
        return self.ready[phase](source)

    def held_against(self, phase: Phase, source: Resident | Staged, watched: Watched, before: Before) -> Logs:
        """Execute a round from the state `before` it, captured and operation by operation. Failed if the two differ."""
        plays = [self.eager(source)]
        if not self.exact:
            before.restore()
            plays.append(self.eager(source))
        before.restore(counts=False)
        start = source.position
        logs = self.ready[phase](source)
        now = watched.outcome(logs, (source.position - start, 0), kept=not self.exact)
        found = first_unequal(plays[0], now) if self.exact else first_beyond(now, plays)
        if found and not self.exact:  # eager plays may agree by chance: more of them, from weights that differ by a rounding unit
            after = Before(watched, source)
            for i in range(SHAKEN):
                before.restore()
                shake(self.game, self.game.seed, self.game.step, i)
                plays.append(self.eager(source))
            after.restore()
            found = first_beyond(now, plays)
        if found:
            before.restore()
            raise Failed(self.complaint(phase, found, source))
        self.good = self.game.step
        return logs

    @property
    def exact(self) -> bool:
        """True if two plays of a round are bit for bit the same."""
        return self.game.generator.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()

    def taken_down(self, source: Resident | Staged) -> tuple[Logs, Tensor, Recorder]:
        """Execute a round operation by operation. Returns its losses, the same stacked in one tensor, and the recording."""
        with Recorder(self.authors, self.holds) as recorder:
            logs = self.game.turn(source)
            return logs, stacked(logs), recorder

    def eager(self, source: Resident | Staged) -> Outcome:
        """Execute a round operation by operation. Returns the state and the losses after it."""
        assert self.watched is not None
        start = source.position
        logs = self.game.turn(source)
        return self.watched.outcome(logs, (source.position - start, getattr(source, "left", 0)))

    def complaint(self, phase: Phase, found: str, source: Resident | Staged) -> str:
        """Describe what is wrong with a captured round: the operation, the part, and the checkpoint to resume from."""
        recorder = self.taken_down(source)[-1]
        what, who = departure(self.lines[phase], recorder.lines) or (
            "The operations are the same, and some part reads memory that is not torch's",
            "",
        )
        remedy = f"; the code of {who} says capturable = True, and does not do the same in every round: let it say False" if who else ""
        return (
            f"trainer.engine={self.name} has executed round {self.game.step + 1} wrongly: operation by operation, {found} is another. "
            f"{what}{remedy}. {self.way_back()}"
        )

    def way_back(self) -> str:
        """Name the newest checkpoint that can be trusted."""
        instead = "begin a new run with trainer.engine=eager"
        if self.good is None:
            return f"No round was compared before, and no checkpoint can be trusted: {instead}"
        path = self.last(self.good)
        compared = f"the last good comparison, of round {self.good + 1}"
        if path is None:
            return f"There is no checkpoint from before {compared}: {instead}"
        return (
            f"Go on from {path}, the last checkpoint before {compared}: delete last.pt and the newer step_N.pt, and resume with "
            "trainer.engine=eager"
        )


class Graphed(CapturingEngine):
    """Capture a whole round as one CUDA graph: all moves, penalties, optimisers, averages, and the reading of data that are on the device.

    The first rounds of a phase are executed operation by operation, so that everything that is allocated at first use exists; then a
    round is captured, and replayed from there on.
    """

    name = "cuda_graph"
    one_in = 2000
    warm = 3

    def __init__(self, game: Game, say: Callable[[str], None], *more: Any):
        for player in game.players.values():
            player.hyperparameters.graphed = True
        warnings.filterwarnings("ignore", message=".*capturable=True.*")  # of optimisers, in the first rounds
        self.played: Counter[Phase] = Counter()
        self.pool = torch.cuda.graph_pool_handle()
        super().__init__(game, say, *more)

    def approach(self, phase: Phase, source: Resident | Staged) -> Logs:
        if self.played[phase] < self.warm:
            self.played[phase] += 1
            logs, _, recorder = self.taken_down(source)
            self.lines[phase] = recorder.lines
            return logs
        self.ready[phase] = self.captured(source)
        self.proven.add(phase)
        return self.ready[phase](source)

    def captured(self, source: Resident | Staged) -> CapturedRound:
        """Capture a round as a CUDA graph, without executing it."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.game.generator)
        start = source.position
        with torch.cuda.graph(graph, pool=self.pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            logs = self.game.turn(source)
            values = stacked(logs)
        read, source.position = source.position - start, start
        return CapturedRound(graph.replay, read, list(logs), values, [(p, p.grad) for p in self.game.parameters()])

    def stop(self) -> None:
        for player in self.game.players.values():
            player.hyperparameters.graphed = False
        super().stop()


class CapturedRound:
    """A captured round. Calling it executes the round in the same memory and overwrites the previous results."""

    def __init__(
        self,
        execute: Callable[[], None],
        read: int,  # samples
        names: list[str],  # of the logs
        values: torch.Tensor,
        gradients: Sequence[tuple[torch.nn.Parameter, torch.Tensor | None]],
    ):
        self.execute, self.read, self.names, self.values, self.gradients = execute, read, names, values, gradients

    def __call__(self, source: Resident | Staged) -> Logs:
        self.execute()
        source.position += self.read
        for p, gradient in self.gradients:  # so that callbacks and tricks see the gradients of this round
            p.grad = gradient
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


def stacked(logs: Logs) -> torch.Tensor:
    """Stack scalar losses in float32."""
    return torch.stack([value.float() for value in logs.values()])


def uncapturable(game: Game, dataset: Dataset | None = None) -> str | None:
    """Return why the rounds of this game cannot be captured; None if nothing is known against it."""
    if distributed.size() > 1:
        return "several processes train together"
    if reason := refused(game, dataset):
        return reason
    for player in game.players.values():
        if player.hyperparameters.schedules and not player.hyperparameters.on_device:
            return f"the schedules of the {player.name}'s optimiser are read on the host, unless it has fused=true"
    return None


class Staged:
    """Copy the batches of a round into static memory of the device, where a captured round reads them, by `fill` before each replay."""

    position = 0  # the source counts its own position

    def __init__(self, source: Streamed):
        self.source = source
        self.places: list[Batch] = []
        self.given = 0

    @property
    def left(self) -> int:
        """Number of batches that were read for this round and not used."""
        return len(self.places) - self.given

    def prepare(self) -> None:
        """Nothing to prepare: `fill` reads the source."""

    def fill(self) -> None:
        """Read as many batches as the last round has used."""
        for place in self.places:
            batch = next(self.source)
            place.x.copy_(batch.x)
            if place.y is not None and batch.y is not None:
                place.y.copy_(batch.y)
        self.given = 0

    def __next__(self) -> Batch:
        if not self.left:  # in the first round, which allocates the static memory
            batch = next(self.source)
            self.places.append(Batch(batch.x.clone(), None if batch.y is None else batch.y.clone()))
        self.given += 1
        return self.places[self.given - 1]
