"""A round as a list of operations on fixed places in memory: for a CPU what a CUDA graph is for a GPU.

Small networks spend a third of a round in Python and in the bookkeeping of gradients. `Recorder` takes down what is dispatched below both,
backward passes, optimisers and averages included; `Replay` calls just that, with the same results bit for bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

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
    """Takes down every operation that is dispatched while it is entered, and holds on to what they have made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.namespace != "profiler":
            self.operations.append(Operation(function, args, kwargs or {}, result))
        return result


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def place(tensor: Tensor) -> int:
    """The memory in which it lies."""
    return tensor.untyped_storage()._cdata


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """How it lies there."""
    return tensor.dtype, tensor.storage_offset(), tensor.size(), tensor.stride()


def difference(one: list[Operation], other: list[Operation]) -> str | None:
    """Why the operations of two rounds are no two plays of one list; None where they are: the same operations with the same numbers, on the
    same memory as far as it was there before the round.
    """
    renamed: dict[int, int] = {}  # memory that a round has made, here and there
    for a, b in zip_longest(one, other):
        if a is None or b is None or a.function is not b.function:
            names = [str(each.function) if each else "nothing" for each in (a, b)]
            return f"rounds differ: {names[0]} in one, {names[1]} in the next"
        if tensors(a.args) and not a.function._schema.is_mutable and not tensors(a.result):
            return f"{a.function} reads a tensor on the host"
        for x, y in zip_longest(*(tree_leaves((each.args, each.kwargs)) for each in (a, b))):
            if not isinstance(x, Tensor) or not isinstance(y, Tensor):
                if x is not y and x != y:
                    return f"{a.function} is given {x} in one round and {y} in the next"
            elif layout(x) != layout(y):
                return f"{a.function} is given tensors of another shape in every round"
            elif renamed.get(place(x), place(x)) != place(y):
                return f"{a.function} is given memory that is new in every round"
        renamed.update(zip(map(place, a.made().values()), map(place, b.made().values())))
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
