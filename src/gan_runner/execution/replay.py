"""A round as a list of operations on fixed places in memory: for a CPU what a CUDA graph is for a GPU.

Small networks spend a third of a round in Python and in the bookkeeping of gradients. `Recorder` takes down what is dispatched below both,
backward passes, optimisers and averages included; `Replay` calls just that, with the same results bit for bit.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
BUFFER = "make it once, in register_buffer, or write the plain number"
WHERE = frozenset({"dtype", "layout", "device", "pin_memory"})  # what a result that is there already has


class Operation(NamedTuple):
    """A call of one of torch's operations."""

    function: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def given(self) -> list[Tensor]:
        return tensors((self.args, self.kwargs))

    def made(self) -> dict[int, Tensor]:
        """Results in memory that the operation has not been given, and which of the results they are."""
        there = {place(t) for t in self.given()}
        return {i: t for i, t in enumerate(tensors(self.result)) if place(t) not in there}

    @property
    def is_view(self) -> bool:
        """Whether it computes nothing: another look at memory that is there."""
        return not self.function._schema.is_mutable and not self.made() and bool(tensors(self.result))


class Recorder(TorchDispatchMode):
    """Takes down every operation that is dispatched while it is entered; holds: on to what they have made, too, for a `Replay`.

    authors: the names of parts by the id of their objects and of the code of their functions.
    """

    def __init__(self, authors: Mapping[int, str] | None = None, holds: bool = True) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.lines: list[Line] = []
        self.authors, self.holds = authors or {}, holds
        self.made: dict[int, tuple[int, int]] = {}  # place in memory -> which result of which operation

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tuple(self.memory(x) if isinstance(x, Tensor) else x for x in tree_leaves((args, kwargs or {})))
        result = function(*args, **(kwargs or {}))
        if function.namespace != "profiler":
            operation = Operation(function, args, kwargs or {}, result)
            self.made.update({place(t): (len(self.lines), k) for k, t in operation.made().items()})
            asks = bool(tensors(args)) and not function._schema.is_mutable and not tensors(result)
            self.lines.append(Line(function, given, asks, author(sys._getframe(1), self.authors)))
            if self.holds:
                self.operations.append(operation)
        return result

    def memory(self, tensor: Tensor) -> Memory:
        return Memory(layout(tensor), self.made.get(place(tensor), place(tensor)))


def author(frame: FrameType | None, authors: Mapping[int, str]) -> str:
    """The part whose method or function is executed: the innermost of a stack, with file and line; "" where there is none."""
    while frame is not None and authors:
        code = frame.f_code
        own = authors.get(id(code))
        if own is None and code.co_argcount:
            own = authors.get(id(frame.f_locals.get(code.co_varnames[0])))
        if own is not None:
            return own and f"{own}, {Path(code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def place(tensor: Tensor) -> int:
    """The memory in which it lies."""
    return tensor.untyped_storage()._cdata


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """How it lies there."""
    return tensor.dtype, tensor.storage_offset(), tensor.size(), tensor.stride()


class Memory(NamedTuple):
    """A tensor that an operation is given, without its numbers."""

    layout: tuple[Any, ...]
    made: tuple[int, int] | int  # which result of which operation; else the place in memory


class Line(NamedTuple):
    """An operation as it is held against that of another round. It holds no memory."""

    function: OpOverload
    given: tuple[Any, ...]  # a Memory for each tensor; numbers as they are
    asks: bool  # whether it reads a tensor on the host
    author: str  # the part whose code has called it, and where

    def __str__(self) -> str:
        return f"{self.function}{f' of {self.author}' if self.author else ''}"


def difference(one: Sequence[Line], other: Sequence[Line]) -> str | None:
    """Why the operations of two rounds are no two plays of one list; None where they are: the same operations with the same numbers, on the
    same memory as far as it was there before the round.
    """
    for a, b in zip_longest(one, other):
        if a is None or b is None or a.function is not b.function:
            return f"rounds differ: {a or 'nothing'} in one, {b or 'nothing'} in the next"
        if a.asks:
            return f"{a} reads a tensor on the host"
        for x, y in zip_longest(a.given, b.given):
            if not isinstance(x, Memory) or not isinstance(y, Memory):
                if x is not y and x != y:
                    return f"{a} is given {x} in one round and {y} in the next"
            elif x.layout != y.layout:
                return f"{a} is given tensors of another shape in every round"
            elif x.made != y.made and a.function is aten.lift_fresh.default:
                return f"{a.author or 'a part'} makes a tensor of Python numbers in every round (torch.tensor, x[i] = number): {BUFFER}"
            elif x.made != y.made:
                return f"{a} is given memory that is new in every round; a tensor of an earlier round is kept in a buffer, by copy_"
    return None


def departure(recorded: Sequence[Line], now: Sequence[Line]) -> tuple[str, str] | None:
    """Where a round leaves the list that was recorded, and the part whose code does; None where both are the same operations."""
    before, after = ([(each.function, each.author) for each in side] for side in (recorded, now))
    for tag, i, _, j, _ in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "delete":
            return f"{recorded[i].function} was recorded and is not executed in this round", recorded[i].author
        if tag != "equal":
            return f"{now[j].function} is executed in this round and was not recorded", now[j].author
    for a, b in zip(recorded, now, strict=True):
        if a.given != b.given and (reason := difference([a], [b])):
            return reason, b.author
    return None


@cache
def into(function: OpOverload) -> tuple[OpOverload, tuple[str, ...]] | None:
    """The overload that writes into given tensors what `function` would return, and how those are called; None where there is none."""
    wanted = [(each.name, str(each.type)) for each in function._schema.arguments if each.name not in WHERE]
    for name in function._overloadpacket.overloads():
        found = getattr(function._overloadpacket, name)
        arguments = found._schema.arguments
        if wanted == [(each.name, str(each.type)) for each in arguments if not each.is_out] and found._schema.is_mutable:
            return found, tuple(each.name for each in arguments if each.is_out)
    return None


class Step(NamedTuple):
    """A call of a replay; `copied`: which of its results go where, as it cannot write there itself."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    copied: dict[int, Tensor] = {}


def step(operation: Operation) -> Step:
    """The operation, with its result going to where it has gone."""
    function, args, kwargs, _ = operation
    made, writes = operation.made(), into(function)
    if not made or writes is None or len(writes[1]) != len(made):
        return Step(function, args, kwargs, made)
    kwargs = {name: value for name, value in kwargs.items() if name not in WHERE}
    return Step(writes[0], args, kwargs | dict(zip(writes[1], made.values())))


class Replay:
    """Plays recorded operations again, on the memory on which they were recorded.

    What they made on the way lies in memory that is used again as soon as nobody reads it; what is in `kept` stays until the next time.
    """

    def __init__(self, operations: list[Operation], kept: Iterable[Tensor]):
        steps = [step(each) for each in operations if not each.is_view]
        sizes = {place(t): t.untyped_storage().nbytes() for each in operations for t in each.made().values()}
        self.moved = moves(steps, sizes, {place(t) for t in kept})
        self.views: dict[Any, Tensor] = {}
        self.steps = [Step(each.function, *(tree_map_only(Tensor, self.now, part) for part in each[1:])) for each in steps]

    def now(self, tensor: Tensor) -> Tensor:
        """Where a tensor of the recording is now, without what autograd knows of it."""
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
    """Memory for whatever is made on the way, by where it was when it was recorded; `sizes`: its bytes."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, each in enumerate(steps):
        for found in {place(t) for t in tensors(each[1:])} & sizes.keys():
            first.setdefault(found, i)
            last[found] = i
    begins, ends = turned(first), turned({key: i for key, i in last.items() if key not in kept})
    free: defaultdict[int, list[torch.UntypedStorage]] = defaultdict(list)
    moved: dict[int, torch.UntypedStorage] = {}
    for i in range(len(steps)):
        for key in begins[i]:
            again = free[sizes[key]]
            moved[key] = again.pop() if again else torch.empty(sizes[key], dtype=torch.uint8).untyped_storage()
        for key in ends[i]:
            free[sizes[key]].append(moved[key])
    return moved


def turned(mapping: dict[int, int]) -> defaultdict[int, list[int]]:
    """value -> its keys."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for key, value in mapping.items():
        found[value].append(key)
    return found
