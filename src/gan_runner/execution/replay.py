"""Replay a round as a list of operations in static memory: the counterpart of a CUDA graph on a CPU.

Small networks spend a third of a round in Python and in autograd's bookkeeping. `Recorder` records the operations that are dispatched
below both, those of backward passes, optimisers and averages included; `Replay` calls only these, with the same results bit for bit.
Removing this file and its line in engines.py removes the engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

from gan_runner.datasets import Resident
from gan_runner.execution.captured import CapturedRound, CapturingEngine, Staged
from gan_runner.execution.recording import WHERE, Operation, Recorder, difference, layout, place, tensors
from gan_runner.game.game import Game, Phase
from gan_runner.game.play import Logs


class Replayed(CapturingEngine):
    """Replay a whole round as one list of operations, once two rounds of the same phase have recorded the same list."""

    name = "replay"
    one_in = 200
    holds = True
    tries = 4

    def __init__(self, game: Game, say: Callable[[str], None], *more: Any):
        self.seen: dict[Phase, list[Recorder]] = {}
        super().__init__(game, say, *more)

    def approach(self, phase: Phase, source: Resident | Staged) -> Logs:
        start = source.position
        logs, values, recorder = self.taken_down(source)
        seen = self.seen.setdefault(phase, [])
        seen.append(recorder)
        differs = difference(*(each.lines for each in seen[-2:])) if len(seen) > 1 else "it has been played once"
        if differs is None:
            gradients = {p: p.grad for p in self.game.parameters() if p.grad is not None}
            replay = Replay(recorder.operations, [values, *gradients.values()])
            kept = [(p, replay.now(grad)) for p, grad in gradients.items()]
            self.ready[phase] = CapturedRound(replay, source.position - start, list(logs), replay.now(values), kept)
            self.lines[phase] = recorder.lines
            self.proven.add(phase)
            del self.seen[phase]
        elif len(seen) == self.tries:
            self.give_up(differs)
        return logs

    def stop(self) -> None:
        self.seen.clear()
        super().stop()


@cache
def into(function: OpOverload) -> tuple[OpOverload, tuple[str, ...]] | None:
    """Return the `out=` overload of `function` and the names of its out arguments; None if it has none."""
    wanted = [(each.name, str(each.type)) for each in function._schema.arguments if each.name not in WHERE]
    for name in function._overloadpacket.overloads():
        found = getattr(function._overloadpacket, name)
        arguments = found._schema.arguments
        if wanted == [(each.name, str(each.type)) for each in arguments if not each.is_out] and found._schema.is_mutable:
            return found, tuple(each.name for each in arguments if each.is_out)
    return None


class Step(NamedTuple):
    """A call of a replay. copied: tensors into which results are copied, by index, where the operation has no `out=` overload."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    copied: dict[int, Tensor] = {}


def step(operation: Operation) -> Step:
    """Turn a recorded operation into a call that writes its results into the recorded memory."""
    function, args, kwargs, _ = operation
    made, writes = operation.made(), into(function)
    if not made or writes is None or len(writes[1]) != len(made):
        return Step(function, args, kwargs, made)
    kwargs = {name: value for name, value in kwargs.items() if name not in WHERE}
    return Step(writes[0], args, kwargs | dict(zip(writes[1], made.values())))


class Replay:
    """Execute recorded operations again, on the memory of the recording.

    Intermediate results get buffers that are reused after their last reader; those in `kept` stay until the next replay.
    """

    def __init__(self, operations: list[Operation], kept: Iterable[Tensor]):
        steps = [step(each) for each in operations if not each.is_view and not each.is_inference]
        sizes = {place(t): t.untyped_storage().nbytes() for each in operations for t in each.made().values()}
        self.moved = moves(steps, sizes, {place(t) for t in kept})
        self.views: dict[Any, Tensor] = {}
        self.steps = [Step(each.function, *(tree_map_only(Tensor, self.now, part) for part in each[1:])) for each in steps]

    def now(self, tensor: Tensor) -> Tensor:
        """Return the tensor that replaces one of the recording in this replay, detached."""
        if place(tensor) not in self.moved:
            return tensor.detach()
        key = place(tensor), layout(tensor)
        if key not in self.views:
            self.views[key] = torch.empty(0, dtype=tensor.dtype).set_(self.moved[place(tensor)], *layout(tensor)[1:])
        return self.views[key]

    @torch.no_grad()
    def __call__(self) -> None:
        for function, args, kwargs, copied in self.steps:
            result = function(*args, **kwargs)
            if copied:
                results = tensors(result)
                for i, there in copied.items():
                    there.copy_(results[i])


def moves(steps: list[Step], sizes: dict[int, int], kept: set[int]) -> dict[int, torch.UntypedStorage]:
    """Return assign a buffer to every intermediate result, reusing a buffer after its last reader. Returns recorded storage -> new storage.

    sizes: bytes of each recorded storage; kept: storages that are not reused.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, each in enumerate(steps):
        for found in {place(t) for t in tensors(each[1:])} & sizes.keys():
            first.setdefault(found, i)
            last[found] = i
    begins, ends = inverted(first), inverted({key: i for key, i in last.items() if key not in kept})
    free: defaultdict[int, list[torch.UntypedStorage]] = defaultdict(list)
    moved: dict[int, torch.UntypedStorage] = {}
    for i in range(len(steps)):
        for key in begins[i]:
            again = free[sizes[key]]
            moved[key] = again.pop() if again else torch.empty(sizes[key], dtype=torch.uint8).untyped_storage()
        for key in ends[i]:
            free[sizes[key]].append(moved[key])
    return moved


def inverted(mapping: dict[int, int]) -> defaultdict[int, list[int]]:
    """Map each value to its keys."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for key, value in mapping.items():
        found[value].append(key)
    return found
