"""Record the operations of a round, and compare two recordings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
        """Return the results that alias no argument, by their index among the results."""
        there = {place(t) for t in self.given()}
        return {i: t for i, t in enumerate(tensors(self.result)) if place(t) not in there}

    @property
    def is_view(self) -> bool:
        """True for a view: the result aliases an argument."""
        return not self.function._schema.is_mutable and not self.made() and bool(tensors(self.result))

    @property
    def is_inference(self) -> bool:
        """True where only a shape is computed: the results have no numbers."""
        return bool(found := tensors(self.result)) and all(t.is_meta for t in found)


class Recorder(TorchDispatchMode):
    """Record every operation that is dispatched inside the context. holds: keep their results alive as well, for a `Replay`.

    authors: the names of parts by the id of their objects and of the code of their functions.
    """

    def __init__(self, authors: Mapping[int, str] | None = None, holds: bool = True) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.lines: list[Line] = []
        self.authors, self.holds = authors or {}, holds
        self.made: dict[int, tuple[int, int]] = {}  # storage -> (operation, index of the result) that made it

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
    """Name the innermost part on a call stack, with file and line; "" if there is none."""
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
    """List the tensors in a tree of arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def place(tensor: Tensor) -> int:
    """Identify the storage of a tensor."""
    return tensor.untyped_storage()._cdata


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """Return dtype, offset, sizes and strides of a tensor in its storage."""
    return tensor.dtype, tensor.storage_offset(), tensor.size(), tensor.stride()


class Memory(NamedTuple):
    """A tensor argument of an operation, without its values."""

    layout: tuple[Any, ...]
    made: tuple[int, int] | int  # (operation, index of the result) that made it; else its storage


class Line(NamedTuple):
    """A recorded operation, as it is compared with that of another round. It keeps no memory alive."""

    function: OpOverload
    given: tuple[Any, ...]  # a Memory for each tensor; other arguments as they are
    asks: bool  # whether it reads a tensor on the host
    author: str  # the part whose code called it, with file and line

    def __str__(self) -> str:
        return f"{self.function}{f' of {self.author}' if self.author else ''}"


def difference(one: Sequence[Line], other: Sequence[Line]) -> str | None:
    """Return the first difference that forbids replaying these two rounds as one list; None if there is none.

    Without one, both rounds called the same operations with the same numbers, on the same memory as far as it existed before the round.
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
    """Return the first operation of a round that is not the recorded one, and the part that called it; None if both rounds are the same."""
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
