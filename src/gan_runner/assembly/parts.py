"""Parts: check a node of the configuration against its class's signature, and construct the object."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from typing_extensions import TypedDict

from gan_runner.assembly.below import leave_out_extractors
from gan_runner.assembly.classes import locate
from gan_runner.assembly.signatures import converted, misnamed, mistyped, signature, whole
from gan_runner.config.command_line import allowed_packages
from gan_runner.config.composed import plain
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError, lack_of_memory, place_in, printable
from gan_runner.evaluation.extractor import Extractor
from gan_runner.evaluation.metric import Metric
from gan_runner.game.loss import Balanced
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.penalty import Penalty
from gan_runner.game.prior import Prior
from gan_runner.game.rule import Rule
from gan_runner.game.term import Term
from gan_runner.game.trick import Augmentation, Trick
from gan_runner.refinement.refiner import Refiner
from gan_runner.schedules import Schedule
from gan_runner.storage.documents import MARK
from gan_runner.trainer import Trainer
from gan_runner.training.callback import Callback
from gan_runner.training.logger import Logger

ONE: dict[str, type] = {"dataset": Dataset, "loss": Term, "rule": Rule, "trainer": Trainer}
LIST: dict[str, type] = {
    "penalty": Penalty,
    "trick": Trick,
    "metric": Metric,
    "extractor": Extractor,
    "callback": Callback,
    "logger": Logger,
    "refiner": Refiner,
}
SIDES: dict[str, type] = {"generator": Generator, "discriminator": Discriminator}
# parts that may be below a part, where the annotation of its constructor names them
BELOW: tuple[type, ...] = (Balanced, Schedule, Prior, Extractor, Augmentation, Refiner)


# keys that a place gives a part besides those of its constructor; through: names of the networks that a metric looks through
PLACE: dict[Any, dict[str, tuple[Any, Any]]] = {Metric: {"through": (list[str] | None, None)}}
TAKEN = frozenset({"loss", *SIDES, *dir(torch.nn.ModuleDict())})  # names that a penalty or a trick cannot have


class InitFrom(TypedDict):
    """From which weights a run starts."""

    run: str | None
    generator: str | None
    discriminator: str | None
    sha256: str | None


PLAIN: dict[str, Any] = {"seed": int, "batch_size": Annotated[int, Ge(1)], "deterministic": bool, "init_from": InitFrom}


class Part(NamedTuple):
    """A node of the configuration that becomes an object."""

    path: str
    node: Any
    base: type | tuple[type, ...]


def parts_of(config: dict[str, Any]) -> Iterator[Part]:
    """Yield every part of a run, and what kind of object its place asks for."""
    for group, base in ONE.items():
        yield Part(group, config.get(group), base)
    for group, base in LIST.items():
        for name, node in (config.get(group) or {}).items():
            yield Part(f"{group}.{name}", node, base)
    for side in sides_of(config):
        yield Part(f"architecture.{side}", (config.get("architecture") or {}).get(side), SIDES[side])
        yield Part(f"optimizer.{side}", (config.get("optimizer") or {}).get(side), torch.optim.Optimizer)


def sides_of(config: dict[str, Any]) -> list[str]:
    """Return the players of the architecture, D first, as it moves: a generator, and a discriminator where one is named."""
    there = config.get("architecture") or {}
    return [side for side in reversed(SIDES) if side == "generator" or there.get(side) is not None]


# ---- checks -------------------------------------------------------------------------------------------------------------------------


def mistakes_in(part: Part, packages: Sequence[str]) -> Iterator[str]:
    """Yield all that the signature of the part's class says against its node."""
    path, node, base = part
    group, _, name = path.partition(".")
    if group in ("penalty", "trick") and name in TAKEN:
        yield f"{path}: {name} is the name of something else; give this part another name"
    if not isinstance(node, dict) or "_target_" not in node:
        yield f"{path} is not chosen" if node is None else f"{path} has no _target_: it is not a part that can be built"
        return
    try:
        cls = locate(node["_target_"], base, path, packages)
    except UserError as error:
        yield str(error)
        return
    placed = PLACE.get(base, {})
    known, node = placed | signature(cls), without_weight(cls, node)
    yield from misnamed(path, cls, [key for key in node if key not in placed])
    values: dict[str, Any] = {}
    for key, value in node.items():
        if key not in known:
            continue
        nested = parts_below(f"{path}.{key}", value, known[key][0])
        mistakes = [said for each in nested for said in mistakes_in(each, packages)]
        yield from mistakes
        if not mistakes:
            try:
                made = [make(each.node, packages, each.base, each.path) for each in nested]
            except UserError as error:
                yield str(error)
            else:  # an optimiser of torch knows no schedules: it is given their numbers
                made = [each.at(0, 1) for each in made] if issubclass(cls, torch.optim.Optimizer) else made
                values[key] = value if not nested else made[0] if "_target_" in value else dict(zip(value, made))
    yield from mistyped(path, {key: known[key][0] for key in values}, values)


def without_weight(cls: type, node: dict[str, Any]) -> dict[str, Any]:
    """Return the node of a loss without `generator_weight: 1.0`, which files of losses say, where its class is a Term that has none."""
    drop = issubclass(cls, Term) and "generator_weight" not in signature(cls) and node.get("generator_weight") == 1.0
    return {key: value for key, value in node.items() if key != "generator_weight"} if drop else node


def parts_below(path: str, value: Any, annotation: Any) -> list[Part]:
    """Return the parts that are the value of a parameter: one, or several by name where it is annotated so, dict[str, KIND]."""
    if not isinstance(value, dict):
        return []
    if "_target_" in value:
        return [Part(path, value, below(annotation))]
    named = typing.get_origin(annotation) is dict and typing.get_args(annotation)[1] in BELOW
    return [Part(f"{path}.{name}", node, below(annotation)) for name, node in value.items()] if named else []


def below(annotation: Any) -> tuple[type, ...]:
    """Return which kinds of parts an annotation of a constructor takes; a schedule, unless it names others of BELOW."""
    return tuple(kind for kind in BELOW if kind in (annotation, *typing.get_args(annotation))) or (Schedule,)


def whole_numbers(config: DictConfig, packages: Sequence[str]) -> DictConfig:
    """Return a configuration with 1e5 and 64.0 as whole numbers where a part takes these alone, so that it is saved as if typed so."""
    made, tree = config.copy(), plain(config, complete=False)
    changes = [(key, whole(annotation, tree.get(key))) for key, annotation in PLAIN.items() if isinstance(tree.get(key), float)]
    for part in parts_of(tree):
        changes += whole_in(part, packages)
    for key, value in changes:
        parent, _, name = key.rpartition(".")
        node: Any = OmegaConf.select(made, parent) if parent else made
        if not OmegaConf.is_interpolation(node, name):  # the key that it leads to is made whole itself
            OmegaConf.update(made, key, value)
    return made


def whole_in(part: Part, packages: Sequence[str]) -> list[tuple[str, Any]]:
    """Return (key, value) of the settings of a part that `whole` changes; none of a part that cannot be built."""
    try:
        known = signature(locate(part.node["_target_"], part.base, part.path, packages))
    except (UserError, TypeError, KeyError):
        return []
    changes = []
    for key in part.node.keys() & known.keys():
        value, annotation = part.node[key], known[key][0]
        if nested := parts_below(f"{part.path}.{key}", value, annotation):
            changes += [change for each in nested for change in whole_in(each, packages)]
        elif repr(made := whole(annotation, value)) != repr(value):
            changes.append((f"{part.path}.{key}", made))
    return changes


# ---- objects ------------------------------------------------------------------------------------------------------------------------


def refuse_hidden(value: Any, packages: Sequence[str], path: str) -> None:
    """Refuse what Hydra's instantiate would do with a part besides building it. UserError.

    It builds whatever it finds below a part, however deep: only parts of BELOW may be there. It resolves interpolations: none may be left.
    """
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(item, str) and MARK in item:
            raise UserError(f"{path}.{key}={printable(item, 100)}: a value must not hold {MARK}")
        if isinstance(item, dict) and "_target_" in item:
            locate(item["_target_"], BELOW, f"{path}.{key}", packages)
        refuse_hidden(item, packages, f"{path}.{key}")


def make(node: dict[str, Any], packages: Sequence[str], base: type | tuple[type, ...], path: str, **given: Any) -> Any:
    """Build one part; the only call of Hydra's instantiate."""
    cls = locate(node["_target_"], base, path, packages)
    node = {key: value for key, value in without_weight(cls, node).items() if key not in PLACE.get(base, {})}
    refuse_hidden(node, packages, path)
    given = {"own_packages": tuple(packages), **given}
    accepted = {name: value for name, value in given.items() if name in inspect.signature(cls.__init__).parameters}  # type: ignore[misc]
    typed = {key: converted(annotation, node[key]) for key, (annotation, _) in signature(cls).items() if key in node}
    try:
        made = instantiate({**node, **typed}, _convert_="all", **accepted)
        leave_out_extractors(made)
        return made
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        place = place_in([*packages, *allowed_packages()], error)
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, ValueError | TypeError | RuntimeError | OverflowError | MemoryError):
            said = lack_of_memory(cause) or (str(cause).splitlines()[0] if str(cause) else type(cause).__name__)
            raise UserError(f"{path}: {said}{f' ({place})' if place else ''}") from error
        if place:
            cause.add_note(f"{path}: raised in {place}; GAN_RUNNER_DEBUG=1 shows the traceback")
            raise cause from error.__context__
        raise


def make_one(config: dict[str, Any], packages: Sequence[str], group: str, **given: Any) -> Any:
    """Return the part that is chosen of a group."""
    return make(config[group], packages, ONE[group], group, **given)


def make_list(config: dict[str, Any], packages: Sequence[str], group: str, **given: Any) -> dict[str, Any]:
    """Return the parts that are chosen of a list group, by name."""
    nodes = (config.get(group) or {}).items()
    return {name: make(node, packages, LIST[group], f"{group}.{name}", **given) for name, node in nodes}
