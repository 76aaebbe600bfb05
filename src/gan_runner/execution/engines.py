"""How a round is executed: operation by operation, through compiled networks, as one CUDA graph or as one list of operations.

The result is the same up to rounding. What an engine cannot execute is executed operation by operation, and the reason is told once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gan_runner import distributed
from gan_runner.datasets import Dataset, Resident, Streamed
from gan_runner.draws import falls_on
from gan_runner.errors import Failed, UserError
from gan_runner.execution import hardware
from gan_runner.execution.capturable import authors, refused, theirs, walk
from gan_runner.execution.comparison import Before, Outcome, Remembered, Watched, first_beyond, first_unequal, shake
from gan_runner.execution.replay import Line, Recorder, Replay, departure, difference
from gan_runner.game.game import Game
from gan_runner.game.play import Batch, Logs

Name = Literal["auto", "eager", "compile", "cuda_graph", "replay"]
Due = frozenset[str]  # the terms of a round
SHAKEN = 8  # eager plays that show what rounding does to a round


class Engine:
    """Executes rounds operation by operation."""

    def __init__(self, game: Game, say: Callable[[str], None]):
        self.game, self.say = game, say

    def turn(self, batches: Resident | Streamed) -> Logs:
        """The device's part of a round that `game.prepare` has prepared."""
        return self.game.turn(batches)


class Ambitious(Engine):
    """An engine that may turn out to be unable: then the state is restored, and rounds are executed operation by operation."""

    name: str

    def __init__(self, game: Game, say: Callable[[str], None]):
        super().__init__(game, say)
        self.able = True
        self.proven: set[Due] = set()  # of which it has executed a round

    def turn(self, batches: Resident | Streamed) -> Logs:
        due = frozenset(self.game.due)
        if not self.able:
            return self.game.turn(batches)
        if due in self.proven:
            return self.execute(due, batches)
        device = self.game.generator.device
        before = Remembered(walk({"game": self.game})), batches.state_dict(), hardware.rng_state(device)
        try:
            return self.execute(due, batches)
        except (UserError, Failed):
            raise
        except Exception as error:  # compilers and drivers have many ways of saying no
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        game, read, rng = before
        game.restore()
        self.stop()
        batches.load_state_dict(read)
        hardware.set_rng_state(rng, device)
        self.game.prepare(batches)
        logs = self.game.turn(batches)  # what a part raises is raised here, too, and is not the engine's
        self.tell(reason)
        return logs

    def execute(self, due: Due, batches: Resident | Streamed) -> Logs:
        """Play a round of this set of terms, and add the set to `proven` once that needs no watching any more."""
        raise NotImplementedError

    def give_up(self, reason: str) -> None:
        """Be the plain engine from here on."""
        self.stop()
        self.tell(reason)

    def stop(self) -> None:
        """Let go of what the engine has made."""
        self.able = False

    def tell(self, reason: str) -> None:
        self.say(f"trainer.engine={self.name} cannot execute this run, which goes on with eager: {reason[:400]}")


class Compiled(Ambitious):
    """The passes of the networks are compiled. Penalties, which differentiate twice, take the networks as they are."""

    name = "compile"

    def __init__(self, game: Game, say: Callable[[str], None], backend: str = "inductor"):
        super().__init__(game, say)
        self.plain = game.passes
        game.passes = {side: torch.compile(net, dynamic=False, backend=backend) for side, net in self.plain.items()}
        say("compiling the networks: the first round takes a while")

    def execute(self, due: Due, batches: Resident | Streamed) -> Logs:
        logs = self.game.turn(batches)
        self.proven.add(due)
        return logs

    def stop(self) -> None:
        self.game.passes = self.plain
        super().stop()


class Fixed(Ambitious):
    """Rounds are executed without Python, on fixed places in memory: one way of executing them for every set of terms.

    Of `one_in` rounds that are ready, one is executed operation by operation as well, and must give the same.
    """

    one_in: int
    holds: bool = False  # whether what a round makes is held until it is over, when it is taken down

    def __init__(
        self, game: Game, say: Callable[[str], None], dataset: Dataset | None = None, last: Callable[[int], Path | None] = lambda step: None
    ):
        super().__init__(game, say)
        self.ready: dict[Due, Again] = {}
        self.lines: dict[Due, list[Line]] = {}  # the operations of those
        self.staged: Staged | None = None
        self.last = last
        self.watched: Watched | None = None
        self.good: int | None = None  # the round of the last comparison
        self.roomy = True  # whether every comparison has fitted into memory
        if reason := uncapturable(game, dataset):
            self.give_up(reason)

    def execute(self, due: Due, batches: Resident | Streamed) -> Logs:
        source: Any = batches
        if isinstance(batches, Streamed):
            source = self.staged = self.staged or Staged(batches)
            self.staged.fill()
        if due in self.ready:
            compares = falls_on(self.one_in, "comparison", self.game.seed, self.game.step)
            return self.compared(due, source) if compares else self.ready[due](source)
        if not self.able_still():
            return self.game.turn(source)
        logs = self.approach(due, source)
        if self.staged and self.staged.left:
            raise RuntimeError("rounds read different numbers of batches")
        return logs

    def able_still(self) -> bool:
        """Whether no part has been added since the beginning that keeps rounds from being replayed, such as the hook of a callback.

        The data set is not asked again: a round reads batches, and executes none of its code.
        """
        self.watched = None
        self.authors = authors(self.game)
        if reason := refused(self.game):
            self.give_up(reason)
        return self.able

    def approach(self, due: Due, source: Resident | Staged) -> Logs:
        """Play a round of a set of terms that is not `ready`."""
        raise NotImplementedError

    def stop(self) -> None:
        self.ready.clear()
        self.lines.clear()
        super().stop()

    def compared(self, due: Due, source: Resident | Staged) -> Logs:
        """Play a round that is ready, and the same one operation by operation. Failed where they differ.

        A round whose comparison does not fit into the memory of the device is played without, and that is said once.
        """
        watched = self.watched = self.watched or Watched(self.game, theirs(self.game))
        before = None
        with suppress(torch.OutOfMemoryError):
            before = Before(watched, source)
            return self.held_against(due, source, watched, before)
        if before is not None:
            before.restore()
        if self.roomy:
            self.say(f"trainer.engine={self.name}: not enough memory to play a round twice; rounds for which it is short are not compared")
        self.roomy = False
        return self.ready[due](source)

    def held_against(self, due: Due, source: Resident | Staged, watched: Watched, before: Before) -> Logs:
        """Play a round from the state `before` it, replayed and operation by operation. Failed where the two differ."""
        plays = [self.eager(source)]
        if not self.exact:
            before.restore()
            plays.append(self.eager(source))
        before.restore(counts=False)
        start = source.position
        logs = self.ready[due](source)
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
            raise Failed(self.complaint(due, found, source))
        self.good = self.game.step
        return logs

    @property
    def exact(self) -> bool:
        """Whether two plays of a round are the same to the bit."""
        return self.game.generator.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()

    def taken_down(self, source: Resident | Staged) -> tuple[Logs, Tensor, Recorder]:
        """Play a round operation by operation; its logs, once more side by side, and what was executed."""
        with Recorder(self.authors, self.holds) as recorder:
            logs = self.game.turn(source)
            return logs, stacked(logs), recorder

    def eager(self, source: Resident | Staged) -> Outcome:
        """What the round leaves behind when it is played operation by operation."""
        assert self.watched is not None
        start = source.position
        logs = self.game.turn(source)
        return self.watched.outcome(logs, (source.position - start, getattr(source, "left", 0)))

    def complaint(self, due: Due, found: str, source: Resident | Staged) -> str:
        """What is wrong with a round, from the state before it: the operation, the part, and from where to go on."""
        recorder = self.taken_down(source)[-1]
        what, who = departure(self.lines[due], recorder.lines) or (
            "The operations are the same, and some part reads memory that is not torch's",
            "",
        )
        remedy = f"; the code of {who} says capturable = True, and does not do the same in every round: let it say False" if who else ""
        return (
            f"trainer.engine={self.name} has executed round {self.game.step + 1} wrongly: operation by operation, {found} is another. "
            f"{what}{remedy}. {self.way_back()}"
        )

    def way_back(self) -> str:
        """Which checkpoint can be trusted."""
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


class Graphed(Fixed):
    """A whole round is one CUDA graph: all moves, penalties, optimisers, averages, and the reading of data that lie on the device.

    The first rounds of a set of terms are played operation by operation, so that whatever is made at first use is there; then a round is
    captured, and replayed from there on.
    """

    name = "cuda_graph"
    one_in = 2000
    warm = 3

    def __init__(self, game: Game, say: Callable[[str], None], *more: Any):
        for player in game.players.values():
            player.graphed = True
        warnings.filterwarnings("ignore", message=".*capturable=True.*")  # of optimisers, in the first rounds
        self.played: Counter[Due] = Counter()
        self.pool = torch.cuda.graph_pool_handle()
        super().__init__(game, say, *more)

    def approach(self, due: Due, source: Resident | Staged) -> Logs:
        if self.played[due] < self.warm:
            self.played[due] += 1
            logs, _, recorder = self.taken_down(source)
            self.lines[due] = recorder.lines
            return logs
        self.ready[due] = self.captured(source)
        self.proven.add(due)
        return self.ready[due](source)

    def captured(self, source: Resident | Staged) -> Again:
        """A round as a CUDA graph. It is recorded, and not played."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.game.generator)
        start = source.position
        with torch.cuda.graph(graph, pool=self.pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            logs = self.game.turn(source)
            values = stacked(logs)
        read, source.position = source.position - start, start
        return Again(graph.replay, read, list(logs), values, [(p, p.grad) for p in self.game.parameters()])

    def stop(self) -> None:
        for player in self.game.players.values():
            player.graphed = False
        super().stop()


class Replayed(Fixed):
    """A whole round is one list of operations. A round of a set of terms is taken down once two of them have been the same list."""

    name = "replay"
    one_in = 200
    holds = True
    tries = 4

    def __init__(self, game: Game, say: Callable[[str], None], *more: Any):
        self.seen: dict[Due, list[Recorder]] = {}
        super().__init__(game, say, *more)

    def approach(self, due: Due, source: Resident | Staged) -> Logs:
        start = source.position
        logs, values, recorder = self.taken_down(source)
        seen = self.seen.setdefault(due, [])
        seen.append(recorder)
        differs = difference(*(each.lines for each in seen[-2:])) if len(seen) > 1 else "it has been played once"
        if differs is None:
            gradients = {p: p.grad for p in self.game.parameters() if p.grad is not None}
            replay = Replay(recorder.operations, [values, *gradients.values()])
            kept = [(p, replay.now(grad)) for p, grad in gradients.items()]
            self.ready[due] = Again(replay, source.position - start, list(logs), replay.now(values), kept)
            self.lines[due] = recorder.lines
            self.proven.add(due)
            del self.seen[due]
        elif len(seen) == self.tries:
            self.give_up(differs)
        return logs

    def stop(self) -> None:
        self.seen.clear()
        super().stop()


class Again:
    """A round to be executed again, on the memory on which it was executed before. It writes over what it left the last time."""

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
        for p, gradient in self.gradients:  # whoever looks at gradients sees those of this round
            p.grad = gradient
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


def stacked(logs: Logs) -> torch.Tensor:
    return torch.stack([value.float() for value in logs.values()])


def uncapturable(game: Game, dataset: Dataset | None = None) -> str | None:
    """What keeps the rounds of a game out of fixed places, as far as its parts know."""
    if distributed.size() > 1:
        return "several processes train together"
    if reason := refused(game, dataset):
        return reason
    for player in game.players.values():
        if player.schedules and not player.on_device:
            return f"the schedules of the {player.name}'s optimiser are read on the host, unless it has fused=true"
    return None


class Staged:
    """The batches of a round in fixed places of the device, for a graph to find; `fill` reads them before it is replayed."""

    position = 0  # it is the source that counts

    def __init__(self, source: Streamed):
        self.source = source
        self.places: list[Batch] = []
        self.given = 0

    @property
    def left(self) -> int:
        """Batches that were read for a round and not asked for."""
        return len(self.places) - self.given

    def prepare(self) -> None:
        """The source is prepared by who fills."""

    def fill(self) -> None:
        """Read as many batches as the last round asked for."""
        for place in self.places:
            batch = next(self.source)
            place.x.copy_(batch.x)
            if place.y is not None and batch.y is not None:
                place.y.copy_(batch.y)
        self.given = 0

    def __next__(self) -> Batch:
        if not self.left:  # the first round finds no places
            batch = next(self.source)
            self.places.append(Batch(batch.x.clone(), None if batch.y is None else batch.y.clone()))
        self.given += 1
        return self.places[self.given - 1]


def engine_of(
    name: Name,
    game: Game,
    say: Callable[[str], None],
    images: bool = True,
    dataset: Dataset | None = None,
    last: Callable[[int], Path | None] = lambda step: None,
) -> Engine:
    """The engine that trainer.engine names. last: gives the newest checkpoint of at most so many rounds.

    auto, where one process trains alone: CUDA graphs on a GPU; on a CPU a list of operations, unless the data are images, whose networks
    keep it busy long enough. Else operation by operation.
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
    """Let everything happen on a stream that can be captured: the default one cannot."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
