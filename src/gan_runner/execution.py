"""How a round is executed: operation by operation, through compiled networks, or as one CUDA graph.

The result is the same up to rounding. What an engine cannot execute is executed operation by operation, and the reason is told once.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from gan_runner import distributed, engine
from gan_runner.datasets import Resident, Streamed
from gan_runner.errors import Failed, UserError
from gan_runner.game import Batch, Game, Logs

Name = Literal["auto", "eager", "compile", "cuda_graph"]
Due = frozenset[str]  # the terms of a round


class Engine:
    """Executes rounds operation by operation."""

    def __init__(self, game: Game, say: Callable[[str], None]):
        self.game, self.say = game, say

    def turn(self, batches: Resident | Streamed) -> Logs:
        """The device's part of a round that `game.prepare` has prepared."""
        return self.game.turn(batches)


class Ambitious(Engine):
    """An engine that may turn out to be unable: then the state is put back, and rounds are executed operation by operation."""

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
        before = copy.deepcopy((dict(self.game.state_dict()), batches.state_dict(), engine.rng_state(device)))
        try:
            logs = self.execute(due, batches)
        except (UserError, Failed):
            raise
        except Exception as error:  # compilers and drivers have many ways of saying no
            self.give_up((str(error).strip().splitlines() or [type(error).__name__])[0])
            game, read, rng = before
            self.game.load_state_dict(game)
            batches.load_state_dict(read)
            engine.set_rng_state(rng, device)
            self.game.prepare(batches)
            return self.game.turn(batches)
        return logs

    def execute(self, due: Due, batches: Resident | Streamed) -> Logs:
        """Play a round of this set of terms, and add the set to `proven` once that needs no watching any more."""
        raise NotImplementedError

    def give_up(self, reason: str) -> None:
        """Be the plain engine from here on."""
        self.able = False
        self.say(f"trainer.engine={self.name} cannot execute this run, which goes on with eager: {reason[:300]}")


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

    def give_up(self, reason: str) -> None:
        self.game.passes = self.plain
        super().give_up(reason)


class Graphed(Ambitious):
    """A whole round is one CUDA graph: all moves, penalties, optimisers, averages, and the reading of data that lie on the device.

    There is a graph for every set of terms. The first rounds of a set are played operation by operation, so that whatever is made at first
    use is there; then a round is captured, and replayed from there on.
    """

    name = "cuda_graph"
    warm = 3

    def __init__(self, game: Game, say: Callable[[str], None]):
        super().__init__(game, say)
        for player in game.players.values():
            player.capturable = True
        warnings.filterwarnings("ignore", message=".*capturable=True.*")  # of optimisers, in the first rounds
        self.played: Counter[Due] = Counter()
        self.captured: dict[Due, Captured] = {}
        self.staged: Staged | None = None
        self.pool = torch.cuda.graph_pool_handle()
        if reason := uncapturable(game):
            self.give_up(reason)

    def execute(self, due: Due, batches: Resident | Streamed) -> Logs:
        if isinstance(batches, Streamed):
            self.staged = self.staged or Staged(batches)
            self.staged.fill()
        source: Any = self.staged or batches
        if due not in self.captured:
            if self.played[due] < self.warm:
                self.played[due] += 1
                logs = self.game.turn(source)
                if self.staged and self.staged.left:
                    raise RuntimeError("rounds read different numbers of batches")
                return logs
            self.captured[due] = Captured(self.game, source, self.pool)
            self.proven.add(due)
        return self.captured[due].replay(source)

    def give_up(self, reason: str) -> None:
        self.captured.clear()
        for player in self.game.players.values():
            player.capturable = False
        super().give_up(reason)


def uncapturable(game: Game) -> str | None:
    """What keeps the rounds of a game out of a CUDA graph, as far as its parts know."""
    if distributed.size() > 1:
        return "several processes train together"
    for part in (game.rule, *game.tricks.values()):
        if not part.capturable:
            return f"{type(part).__name__} decides on the host"
    for player in game.players.values():
        if player.schedules and not player.on_device:
            return f"the schedules of the {player.name}'s optimiser are read on the host, unless it has fused=true"
    return None


class Captured:
    """A round as a CUDA graph: recorded when it is made, executed by `replay`."""

    def __init__(self, game: Game, batches: Resident | Staged, pool: Any):
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(game.generator)
        start = batches.position
        with torch.cuda.graph(self.graph, pool=pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            logs = game.turn(batches)
            self.names, self.values = list(logs), torch.stack([value.float() for value in logs.values()])
        self.read, batches.position = batches.position - start, start  # it was recorded; nothing was read
        self.gradients = [(p, p.grad) for p in game.parameters()]

    def replay(self, batches: Resident | Staged) -> Logs:
        """Play a round. The graph writes over what it left the last time, so logs are copied out of it."""
        self.graph.replay()
        batches.position += self.read
        for p, gradient in self.gradients:  # whoever looks at gradients sees those of this round
            p.grad = gradient
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


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


def engine_of(name: Name, game: Game, say: Callable[[str], None]) -> Engine:
    """The engine that trainer.engine names; auto: CUDA graphs on a GPU that trains alone, else operation by operation."""
    on_gpu = game.generator.device.type == "cuda"
    if name == "auto":
        name = "cuda_graph" if on_gpu and distributed.size() == 1 else "eager"
    if name == "cuda_graph" and not on_gpu:
        raise UserError("trainer.engine=cuda_graph needs a CUDA device; say trainer.engine=auto")
    return {"eager": Engine, "compile": Compiled, "cuda_graph": Graphed}[name](game, say)


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
