"""Compare the results of a round that is executed twice: by an engine, and operation by operation."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gan_runner.draws import seeded
from gan_runner.execution import hardware
from gan_runner.execution.capturable import DATA, Found, namespace
from gan_runner.storage.checkpoint import in_keys

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Logs


Outcome = dict[str, Tensor]
FACTOR = 10  # times the difference of two eager plays


class Remembered:
    """Copy the contents of objects, to restore them in place: attributes, items, values of tensors, states of random generators."""

    def __init__(self, found: Iterable[Found]):
        self.holds: list[tuple[Any, Any]] = []
        self.numbers: list[tuple[Tensor, Tensor]] = []
        self.states: list[tuple[torch.Generator, Tensor]] = []
        for _, value, _ in found:
            if isinstance(value, Tensor):
                self.numbers.append((value, value.detach().clone()))
            elif isinstance(value, torch.Generator):
                self.states.append((value, value.get_state()))
            elif isinstance(value, dict | list | set | deque):
                self.holds.append((value, copy.copy(value)))
            if attributes := namespace(value):
                self.holds.append((attributes, dict(attributes)))

    @torch.no_grad()
    def restore(self, counts: bool = True) -> None:
        """Restore everything. counts=False: except plain data, such as a count of rounds."""
        for holder, held in self.holds:
            if isinstance(holder, dict):
                stays = {} if counts else {k: v for k, v in holder.items() if isinstance(v, DATA) and isinstance(held.get(k), DATA)}
                holder.clear()
                holder.update({**held, **stays})
            elif counts or not all(isinstance(item, DATA) for item in holder):
                holder.clear()
                (holder.update if isinstance(holder, set) else holder.extend)(held)
        for tensor, numbers in self.numbers:
            if tensor.shape != numbers.shape:
                tensor.data = numbers.clone()
            elif not same(tensor, numbers):
                tensor.copy_(numbers)
        for generator, state in self.states:
            generator.set_state(state)


class Watched:
    """The tensors that a round of a game may change.

    theirs: foreign objects, whose attributes a round may change as well.
    """

    def __init__(self, game: Game, theirs: Sequence[Found]):
        self.game, self.theirs = game, theirs
        self.places = dict(in_place(game))
        self.weights = {in_keys(name): p for name, p in game.named_parameters()}

    def outcome(self, logs: Logs, read: Sequence[int], kept: bool = True) -> Outcome:
        """Return the whole state after a round. read: the number of samples read; kept: copied."""
        found = {f"the log {name}": value for name, value in logs.items()}
        found |= {f"the gradient of {name}": p.grad for name, p in self.weights.items() if p.grad is not None}
        found |= {name: value.detach().clone() if kept else value for name, value in {**self.places, **self.attributes()}.items()}
        found |= {f"the random state {name}": state for name, state in random_states(self.game).items()}
        return found | {"the number of samples that are read": torch.tensor(read)}

    def attributes(self) -> Outcome:
        """Return the tensors that foreign objects hold as attributes or items."""
        found: Outcome = {}
        for path, value, _ in self.theirs:
            items = [*namespace(value).items(), *(value.items() if isinstance(value, dict) else ())]
            items += enumerate(value) if isinstance(value, list | tuple) else ()
            found |= {f"{path}.{name}": item for name, item in items if isinstance(item, Tensor) and not isinstance(item, nn.Parameter)}
        return found


class Before:
    """A copy of the state of a game and of its data source, to restore it in place: a captured round uses that memory."""

    def __init__(self, watched: Watched, source: Any):
        self.watched, self.source = watched, source
        self.position = {name: value for name, value in vars(source).items() if type(value) is int}
        self.numbers = [tensor.detach().clone() for tensor in watched.places.values()]
        self.gradients = [p.grad for p in watched.weights.values()]
        self.random = random_states(watched.game)
        self.theirs = Remembered(watched.theirs)

    @torch.no_grad()
    def restore(self, counts: bool = True) -> None:
        """Restore the state. counts=False: except counts of foreign parts in Python, which a replay does not advance."""
        self.theirs.restore(counts)
        for tensor, numbers in zip(self.watched.places.values(), self.numbers, strict=True):
            tensor.copy_(numbers)
        for p, gradient in zip(self.watched.weights.values(), self.gradients, strict=True):
            p.grad = gradient
        vars(self.source).update(self.position)
        self.watched.game.generator.set_state(self.random["draws"])
        hardware.set_rng_state(self.random, self.watched.game.generator.device)


def random_states(game: Game) -> dict[str, Tensor]:
    return {"draws": game.generator.get_state(), **hardware.rng_state(game.generator.device)}


def in_place(game: Game) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a round writes in place: weights, buffers, and the state of optimisers and gradient scalers."""
    names: dict[Tensor, str] = {p: in_keys(name) for name, p in game.named_parameters()}
    yield from ((name, p) for p, name in names.items())
    yield from ((in_keys(name), buffer) for name, buffer in game.named_buffers())
    for side, player in game.players.items():
        for p, kept in player.optimizer.state.items():
            yield from (
                (f"{key} of optimizer.{side} for {names.get(p)}", value) for key, value in kept.items() if isinstance(value, Tensor)
            )
        scaler = vars(player.scaler).items()
        yield from ((f"{key} of the gradient scaler of the {side}", value) for key, value in scaler if isinstance(value, Tensor))


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal; nan equals nan."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


def first_unequal(one: Outcome, other: Outcome) -> str | None:
    """Return the name of the first tensor that differs, bit for bit; None if all are equal."""
    return next((name for name in (one | other) if name not in one or name not in other or not same(one[name], other[name])), None)


def distance(one: Tensor | None, other: Tensor | None) -> float:
    """Return the maximum absolute difference of two tensors; inf if only one value is nan, one is missing, or shapes differ."""
    if one is None or other is None or one.shape != other.shape:
        return 0.0 if one is other else float("inf")
    if one.numel() == 0:
        return 0.0
    one, other = one.double(), other.double()
    equal = (one == other) | (one.isnan() & other.isnan())
    return float(torch.where(equal, 0.0, (one - other).abs()).nan_to_num(nan=float("inf")).amax())


def first_beyond(replayed: Outcome, plays: Sequence[Outcome]) -> str | None:
    """Return the name of the first tensor whose difference between a replayed round and every eager play exceeds rounding; or None.

    plays: at least two plays from the same state. Their difference, tensor by tensor, estimates rounding; it is at least the last place of
    the largest value. The tolerance is FACTOR times that, from the nearest play.
    """
    for name in dict.fromkeys(name for outcome in (replayed, *plays) for name in outcome):
        first, *others = (play.get(name) for play in plays)
        rounding = max(last_place(first), *(distance(first, other) for other in others))
        if min(distance(replayed.get(name), play.get(name)) for play in plays) > FACTOR * rounding:
            return name
    return None


def last_place(tensor: Tensor | None) -> float:
    """Return the relative precision of a tensor's dtype times its largest absolute value; 0 for integers."""
    if tensor is None or tensor.numel() == 0 or not tensor.is_floating_point():
        return 0.0
    return torch.finfo(tensor.dtype).eps * float(tensor.double().abs().nan_to_num(0.0, 0.0).amax())


def rounding_unit(game: Game) -> float:
    """Return the relative rounding error of matrix products in this game; that of TF32 on a GPU, which may use it."""
    device = game.generator.device.type
    with game.precision():
        if torch.is_autocast_enabled(device):
            return torch.finfo(torch.get_autocast_dtype(device)).eps
    return torch.finfo(torch.float32).eps if device == "cpu" else 2.0**-10


@torch.no_grad()
def shake(game: Game, *key: object) -> None:
    """Perturb every weight by one rounding unit, up or down at random, so that a round shows the effect of rounding."""
    generator, unit = seeded("rounding", *key, device=game.generator.device), rounding_unit(game)
    for p in game.parameters():
        sign = torch.randint(2, p.shape, generator=generator, device=p.device) * 2 - 1
        p.mul_(1 + unit * sign.to(p.dtype))
