"""Decide whether rounds may be replayed: only if all parts declare that they execute the same operations in every round.

A replay executes no Python. So work that a part does in some rounds only (every tenth round, once in round 7) would be lost. Parts of
gan_runner and torch are known to do the same in every round; other classes declare it with `capturable = True`.
"""

from __future__ import annotations

import enum
import functools
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_modules
from torch.optim import optimizer as hooks_of_optimizers

if TYPE_CHECKING:
    from gan_runner.datasets.dataset import Dataset
    from gan_runner.game.game import Game


OURS = frozenset({"gan_runner", "torch"})
KNOWN = OURS | sys.stdlib_module_names | {"typing_extensions"}  # torch marks what is deprecated by it
DATA = (bool, int, float, complex, str, bytes, range, type(None), type, types.ModuleType, enum.Enum, torch.dtype, torch.device, PurePath)
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
FOREIGN_CODE = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch.fx.GraphModule)  # classes of torch with code of others
CONTAINERS = (list, tuple, set, frozenset, deque)
HOLDERS = (nn.Module, torch.optim.Optimizer, torch.amp.GradScaler, Tensor, types.SimpleNamespace)
CHILDREN = frozenset({"_modules", "_parameters", "_buffers"})  # attributes of a module whose items are known by their own names
OWN_NAMES = frozenset({"__dict__", "__weakref__", "__annotate__", "__annotate_func__"})  # what Python adds to a class
HEAP = 1 << 9  # the flag of classes that are written in Python


class Found(NamedTuple):
    """An object that belongs to a part."""

    path: str  # the key of the part, then names of attributes
    value: Any
    vouched: bool  # whether it is held by an object of a class that says capturable = True, which speaks for its functions, too


def parts_of(game: Game, dataset: Dataset | None = None) -> dict[str, Any]:
    """Return the parts of a game by their configuration keys, and torch's global hooks for modules and optimisers."""
    parts: dict[str, Any] = {f"architecture.{side}": player.net for side, player in game.players.items()}
    parts |= {name if name == "loss" else f"penalty.{name}": term for name, term in game.terms.items()}
    parts |= {"rule": game.rule} | {f"trick.{name}": trick for name, trick in game.tricks.items()}
    for side, player in game.players.items():
        parts |= {f"optimizer.{side}": player.optimizer}
        parts |= {f"optimizer.{side}.{key}": schedule for key, schedule in player.hyperparameters.schedules.items()}
    if dataset is not None:
        parts["dataset"] = dataset
    every = ((hooks_of_modules, "_global_"), (hooks_of_optimizers, "_global_optimizer_"))
    parts["torch"] = {name: value for module, prefix in every for name, value in vars(module).items() if name.startswith(prefix)}
    return parts


def walk(parts: Mapping[str, Any]) -> Iterator[Found]:
    """Yield every object reachable from the parts, once: attributes, items of containers, hooks, the objects of bound methods."""
    seen: set[int] = set()
    rest = [Found(path, value, False) for path, value in reversed(list(parts.items()))]
    while rest:
        found = rest.pop()
        if isinstance(found.value, DATA) or id(found.value) in seen:
            continue
        seen.add(id(found.value))
        yield found
        rest += reversed(list(below(found)))


def below(found: Found) -> Iterator[Found]:
    """Yield the objects that an object holds directly."""
    path, value, vouched = found
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        items = ((key if isinstance(key, str | int) else i, item) for i, (key, item) in enumerate(value.items()))
    elif isinstance(value, CONTAINERS):
        items = enumerate(value)
    elif isinstance(value, types.MethodType):
        answered = vouched or _speaks_for_itself(value.__self__)
        return iter([Found(f"{path}.self", value.__self__, vouched), Found(f"{path}.function", value.__func__, answered)])
    elif isinstance(value, functools.partial):
        items = iter([("function", value.func), ("args", value.args), ("keywords", value.keywords)])
    elif isinstance(value, Tensor):
        hooks = ("_backward_hooks", "_post_accumulate_grad_hooks")
        items = ((name, getattr(value, name)) for name in hooks)
    elif not isinstance(value, FUNCTIONS):
        vouched = _speaks_for_itself(value)
    every = [(name, item) for name, item in (*items, *attributes(value)) if not is_data(item)]
    names = (path if name in CHILDREN else f"{path}.{name}" for name, _ in every)
    return (Found(each, item, vouched and not each.endswith("_hooks")) for each, (_, item) in zip(names, every, strict=True))


def is_data(value: Any) -> bool:
    """Return whether a value cannot hold parts. Tuples of data count: a folder of images is a list of a million (path, class)."""
    return isinstance(value, DATA) or (type(value) is tuple and all(isinstance(item, DATA) for item in value))


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object, slots included; none for objects of torch and Python that hold no parts."""
    yield from namespace(value).items()
    for cls in type(value).__mro__ if _is_foreign(type(value)) else ():  # type: ignore[arg-type]
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in OWN_NAMES:
                yield name, getattr(value, name)


def namespace(value: Any) -> dict[str, Any]:
    """Return the `__dict__` of an object that may hold parts; empty for other objects."""
    holds = isinstance(value, HOLDERS) or _is_foreign(type(value)) or root(type(value).__module__) == "gan_runner"  # type: ignore[arg-type]
    return getattr(value, "__dict__", {}) if holds and not isinstance(value, (*FUNCTIONS, *FOREIGN_CODE)) else {}


def _speaks_for_itself(value: Any) -> bool:
    """Return whether an object is of a foreign class with capturable = True."""
    return _is_foreign(type(value)) and refusal(value) is None  # type: ignore[arg-type]


def root(module: Any) -> str:
    """Return the top-level package in the name of a module: gan_runner_extra is not gan_runner."""
    return str(module or "torch").partition(".")[0]


@functools.cache
def _is_foreign(cls: type) -> bool:
    """Return whether a class, or one of its bases, is foreign: not of gan_runner, torch or Python."""
    return any(not _is_known(each) for each in cls.__mro__)


def _is_known(cls: type) -> bool:
    return root(cls.__module__) in KNOWN or not cls.__flags__ & HEAP


def is_native(function: Any) -> bool:
    """Return whether a function, and any function that it wraps, is of gan_runner, torch or Python."""
    origins = (getattr(function, "__module__", None), getattr(function, "__globals__", {}).get("__name__"))
    wrapped = getattr(function, "__wrapped__", None)
    return all(root(origin) in KNOWN for origin in origins) and (wrapped is None or is_native(wrapped))


def refusal(value: Any, vouched: bool = False) -> str | None:
    """Return why an object forbids replaying rounds; None if it does not."""
    if isinstance(value, FUNCTIONS):
        allowed = vouched or is_native(value) or getattr(value, "capturable", False) is True
        return None if allowed else f"is the function {value.__module__}.{value.__qualname__}, {HOW}"
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, FOREIGN_CODE):
        return None if vars(value).get("capturable") is True else f"is a {name}, whose code is not torch's, {HOW}"
    if getattr(value, "capturable", None) is False:
        return f"is a {name}, which says capturable = False"
    return _refused(type(value), name)  # type: ignore[arg-type]


HOW = "which does not say capturable = True; let it say so if it executes the same operations in every round (docs/extending.md)"


@functools.cache
def _refused(cls: type, name: str) -> str | None:
    """Return why objects of a class are refused; None if they are not. A class that sets `capturable` covers its bases as well."""
    answered: set[type] = set()
    for each in cls.__mro__:
        if each in answered:
            continue
        if _is_known(each):
            changed = [key for key, item in vars(each).items() if isinstance(item, types.FunctionType) and not is_native(item)]
            if root(each.__module__) in OURS and changed:
                return f"is a {name}, whose {changed[0]} was replaced by a function of somebody else"
        elif "capturable" in vars(each):
            answered.update(each.__mro__)
        elif any(hasattr(type(item), "__get__") and key not in OWN_NAMES for key, item in vars(each).items()):
            inherits = f": {each.__qualname__} defines methods, and what it inherits from cannot answer for them" if each is not cls else ""
            return f"is a {name}, {HOW}{inherits}"
    return None


def authors(game: Game) -> dict[int, str]:
    """Return readable names of parts, by the id of their objects and of the code of their functions."""
    named = {id(game): "", **{id(each): "" for player in game.players.values() for each in (player, player.objective)}}
    parts = parts_of(game)
    for path, value, _ in walk(parts):
        if isinstance(value, types.FunctionType):
            if not is_native(value):
                named[id(value.__code__)] = f"{path} ({value.__module__}.{value.__qualname__})"
        elif path in parts or (isinstance(value, HOLDERS) and root(type(value).__module__) != "torch") or _is_foreign(type(value)):  # type: ignore[arg-type]
            named.setdefault(id(value), f"{path} ({type(value).__module__}.{type(value).__qualname__})")
    return named


def theirs(game: Game) -> list[Found]:
    """List the foreign objects in a game, and all that they hold."""
    found: list[Found] = []
    inside: list[str] = []
    for each in walk(parts_of(game)):
        if _is_foreign(type(each.value)) or (isinstance(each.value, FUNCTIONS) and not is_native(each.value)):  # type: ignore[arg-type]
            inside.append(each.path)
        if any(each.path == path or each.path.startswith(f"{path}.") for path in inside):
            found.append(each)
    return found


def refused(game: Game, dataset: Dataset | None = None) -> str | None:
    """Return the first object, by the key of its part, that forbids replaying rounds, and the reason; None if there is none."""
    _refused.cache_clear()  # a method may have been replaced since
    for found in walk(parts_of(game, dataset)):
        if reason := refusal(found.value, found.vouched):
            return f"{found.path} {reason}"
    return None
