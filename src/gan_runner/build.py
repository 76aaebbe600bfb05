"""From configuration to objects.

The one schema of a part is its constructor's typed signature. `check` holds a whole configuration against the signatures and builds the
game once, so that all mistakes are told before anything is created; `assemble` builds what a run needs. A `_target_` is imported only if it
lies in gan_runner, in torch.optim or in a package that the user named, and used only if it is of the kind that its place asks for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pydantic
import torch
from hydra.core.override_parser.types import Override
from hydra.utils import instantiate

from gan_runner import distributed, engine
from gan_runner.callbacks import Callback
from gan_runner.config.command_line import allowed_packages, parsed, says
from gan_runner.config.composed import plain
from gan_runner.datasets import Dataset
from gan_runner.errors import UserError, printable
from gan_runner.evaluation.extractor import Extractor
from gan_runner.evaluation.findings import refuse_same_keys, unfit
from gan_runner.evaluation.metric import Metric
from gan_runner.game.game import Game
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.penalty import Penalty
from gan_runner.game.rule import Rule
from gan_runner.game.spec import Spec
from gan_runner.game.term import Term
from gan_runner.game.trick import Trick
from gan_runner.launch import devices_of
from gan_runner.loggers import Logger
from gan_runner.schedules import Schedule
from gan_runner.storage import directory
from gan_runner.storage.documents import MARK
from gan_runner.trainer import Assembly, Trainer

ONE: dict[str, type] = {"dataset": Dataset, "loss": Term, "rule": Rule, "trainer": Trainer}
LIST: dict[str, type] = {"penalty": Penalty, "trick": Trick, "metric": Metric, "callback": Callback, "logger": Logger}
OPTIONAL: dict[str, type] = {"extractor": Extractor}
SIDES: dict[str, type] = {"generator": Generator, "discriminator": Discriminator}
PLAIN = {"seed": int, "batch_size": int, "deterministic": bool}
GIVEN = frozenset({"self", "spec", "params"})  # what the build supplies itself


class Part(NamedTuple):
    """A node of the configuration that becomes an object."""

    path: str
    node: Any
    base: type


def parts_of(config: dict[str, Any]) -> Iterator[Part]:
    """Every part of a run, and what kind of object its place asks for."""
    for group, base in ONE.items():
        yield Part(group, config.get(group), base)
    for group, base in OPTIONAL.items():
        if config.get(group) is not None:
            yield Part(group, config[group], base)
    for group, base in LIST.items():
        for name, node in (config.get(group) or {}).items():
            yield Part(f"{group}.{name}", node, base)
    for side, base in SIDES.items():
        yield Part(f"architecture.{side}", (config.get("architecture") or {}).get(side), base)
        yield Part(f"optimizer.{side}", (config.get("optimizer") or {}).get(side), torch.optim.Optimizer)


# ---- classes ------------------------------------------------------------------------------------------------------------------------


def locate(target: Any, base: type, path: str, packages: Sequence[str]) -> type:
    """The class that a `_target_` names. UserError unless it may be imported and is a subclass of `base`."""
    roots = ("gan_runner", "torch.optim", *packages, *allowed_packages())
    if not isinstance(target, str) or not any(target.startswith(f"{root}.") for root in roots):
        raise UserError(
            f"{path}._target_={target} is not allowed: parts come from gan_runner or torch.optim, "
            "or from a package of yours that you name by packages=[...] on the line or by GAN_RUNNER_PACKAGES"
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        unseen = isinstance(error, ModuleNotFoundError) and error.name == target.partition(".")[0]
        raise UserError(
            f"{path}._target_={target} cannot be imported: {error}"
            + ("; install that package, or start with PYTHONPATH=FOLDER, the folder that it lies in" if unseen else "")
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{path}._target_={target} is not a {base.__name__}")
    return found


def signature(cls: type) -> dict[str, tuple[Any, Any]]:
    """name -> (annotation, default) of the constructor's parameters that a configuration gives; `...` where there is no default."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    return {
        name: (hints.get(name, Any), ... if p.default is p.empty else p.default)
        for name, p in inspect.signature(cls.__init__).parameters.items()  # type: ignore[misc]
        if name not in GIVEN and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def mistakes_in(part: Part, packages: Sequence[str]) -> Iterator[str]:
    """All that the signature of the part's class says against its node."""
    path, node, base = part
    if not isinstance(node, dict) or "_target_" not in node:
        yield f"{path} is not chosen" if node is None else f"{path} has no _target_: it is not a part that can be built"
        return
    try:
        cls = locate(node["_target_"], base, path, packages)
    except UserError as error:
        yield str(error)
        return
    known = signature(cls)
    values: dict[str, Any] = {}
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            yield f"unknown key {path}.{key}; {cls.__name__} takes {', '.join(known) or 'no keys'}" + (
                f" (did you mean {near[0]}?)" if near else ""
            )
        elif isinstance(value, dict) and "_target_" in value:
            nested = list(mistakes_in(Part(f"{path}.{key}", value, Schedule), packages))
            yield from nested
            if not nested:
                try:
                    number: Schedule = make(value, packages, Schedule, f"{path}.{key}")
                except UserError as error:
                    yield str(error)
                else:  # an optimiser of torch knows no schedules: it is given their numbers
                    values[key] = number.at(0, 1) if issubclass(cls, torch.optim.Optimizer) else number
        else:
            values[key] = value
    missing = [key for key, (_, default) in known.items() if default is ... and key not in node]
    if missing:
        yield f"{path} needs {', '.join(missing)}; {cls.__name__} has no default for it"
    yield from mistyped(path, {key: known[key][0] for key in values}, values)


def mistyped(path: str, annotations: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the type or range of each value."""
    settings = pydantic.ConfigDict(strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    for key, annotation in annotations.items():
        model = pydantic.create_model(key, __config__=settings, value=(annotation, ...))
        value = tuple(values[key]) if isinstance(values[key], list) and "tuple[" in str(annotation) else values[key]
        try:
            model(value=value)
        except pydantic.ValidationError as error:
            wanted = str(annotation).replace("typing.", "").replace("gan_runner.schedules.", "")
            wanted = getattr(annotation, "__name__", wanted) if isinstance(annotation, type) else wanted
            reasons = {line["msg"][0].lower() + line["msg"][1:] for line in error.errors() if line["type"] != "is_instance_of"}
            yield f"{path}.{key}={values[key]!r}: {'; '.join(sorted(reasons)) or f'should be {wanted}'}"


# ---- objects ------------------------------------------------------------------------------------------------------------------------


def refuse_hidden(value: Any, packages: Sequence[str], path: str) -> None:
    """Refuse what Hydra's instantiate would do with a part besides building it. UserError.

    It builds whatever it finds below a part, however deep: only schedules may be there. It resolves interpolations: none may be left.
    """
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(item, str) and MARK in item:
            raise UserError(f"{path}.{key}={printable(item, 100)}: a value must not hold {MARK}")
        if isinstance(item, dict) and "_target_" in item:
            locate(item["_target_"], Schedule, f"{path}.{key}", packages)
        refuse_hidden(item, packages, f"{path}.{key}")


def make(node: dict[str, Any], packages: Sequence[str], base: type, path: str, **given: Any) -> Any:
    """Build one part; the only call of Hydra's instantiate."""
    cls = locate(node["_target_"], base, path, packages)
    refuse_hidden(node, packages, path)
    accepted = {name: value for name, value in given.items() if name in inspect.signature(cls.__init__).parameters}  # type: ignore[misc]
    tuples = {
        key: tuple(node[key])
        for key, (annotation, _) in signature(cls).items()
        if isinstance(node.get(key), list) and "tuple[" in str(annotation)
    }
    try:
        return instantiate({**node, **tuples}, _convert_="all", **accepted)
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(
            cause, ValueError | TypeError | RuntimeError | OverflowError | MemoryError
        ):  # torch has several ways to say: too large
            raise UserError(f"{path}: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}") from error
        raise


def make_one(config: dict[str, Any], packages: Sequence[str], group: str, **given: Any) -> Any:
    """The part that is chosen of a group."""
    return make(config[group], packages, (ONE | OPTIONAL)[group], group, **given)


def make_list(config: dict[str, Any], packages: Sequence[str], group: str, **given: Any) -> dict[str, Any]:
    """The parts that are chosen of a list group, by name."""
    nodes = (config.get(group) or {}).items()
    return {name: make(node, packages, LIST[group], f"{group}.{name}", **given) for name, node in nodes}


def build_game(config: dict[str, Any], packages: Sequence[str], trainer: Trainer, spec: Spec, device: torch.device) -> Game:
    """The game of a resolved configuration, for data of this spec. UserError where its parts do not fit together."""
    engine.seed_weights(config["seed"])
    sides = list(reversed(SIDES.items()))  # D first, as it moves
    nets = {side: make(config["architecture"][side], packages, base, f"architecture.{side}", spec=spec) for side, base in sides}
    loss, rule = make_one(config, packages, "loss"), make_one(config, packages, "rule")
    terms = {"loss": loss, **make_list(config, packages, "penalty")}
    refuse_mismatch(nets, terms, rule)
    if trainer.sync_batch_norm and device.type == "cuda":
        nets = {side: torch.nn.SyncBatchNorm.convert_sync_batchnorm(net) for side, net in nets.items()}
    if trainer.channels_last:
        nets = {side: engine.lay_out(net, device) for side, net in nets.items()}
    precision = engine.precision_of(trainer.precision, device, spec.is_image)
    optimizers = {}
    for side in nets:
        node = {**config["optimizer"][side], "_partial_": True}
        optimizers[side] = make(node, packages, torch.optim.Optimizer, f"optimizer.{side}")
        refuse_rates(f"optimizer.{side}", optimizers[side], trainer.steps)
    try:
        return Game(
            nets,
            optimizers,
            terms,
            rule,
            make_list(config, packages, "trick"),
            spec=spec,
            batch_size=config["batch_size"],
            steps=trainer.steps,
            accumulate=trainer.accumulate,
            seed=config["seed"],
            device=device,
            precision=engine.autocast(precision, device),
            scaler=partial(engine.gradient_scaler, precision, device),
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def assemble(config: Any, packages: Sequence[str] = (), device: torch.device | None = None) -> Assembly:
    """Build a run; the files of its data are there after it. device: instead of the trainer's."""
    given, config = config, plain(config)
    trainer: Trainer = make_one(config, packages, "trainer")
    device = device or engine.device_of(trainer.accelerator)
    dataset: Dataset = make_one(config, packages, "dataset")
    dataset.prepare()
    spec = dataset.spec
    game = build_game(config, packages, trainer, spec, device)
    extractor = make_one(config, packages, "extractor") if config.get("extractor") is not None else None
    metrics = make_list(config, packages, "metric", spec=spec)
    refuse_same_keys(metrics, extractor)
    refuse_unfit(metrics, extractor, spec)
    callbacks, loggers = (make_list(config, packages, group) for group in ("callback", "logger"))
    return Assembly(config, dataset, spec, trainer, game, extractor, metrics, callbacks, loggers, directory.made_with(given))


def refuse_mismatch(nets: dict[str, Any], terms: dict[str, Term], rule: Rule) -> None:
    """Rules across parts."""
    generator = nets["generator"]
    if nets["discriminator"].classes is not None and generator.classes is None:
        raise UserError("architecture.discriminator is conditional and the generator is not: set architecture.conditional for both")
    for name, term in terms.items():
        if term.labelled and generator.classes is None:
            raise UserError(f"{name} asks for samples of a class, and the generator takes no labels: use architecture.conditional=true")
    for side in rule.players:
        speaking = [term for term in terms.values() if getattr(type(term), side) is not getattr(Term, side)]
        if not any(all(term.due(step) for step in range(1, 1 + getattr(term, "every", 1))) for term in speaking):
            raise UserError(f"the {side} moves in every round, and no term of its objective is due in every round")


def refuse_unfit(metrics: dict[str, Metric], extractor: Extractor | None, spec: Spec) -> None:
    """UserError where a metric looks through an extractor that does not take images of this shape."""
    if extractor is None or not spec.is_image or not any(metric.extracts for metric in metrics.values()):
        return
    if reason := unfit(extractor, spec):
        raise UserError(reason)


def refuse_rates(path: str, optimizer: partial, steps: int) -> None:
    """Try the optimiser on one weight, at both ends of its schedules."""
    for step in (0, steps):
        now = {key: value.at(step, steps) if isinstance(value, Schedule) else value for key, value in optimizer.keywords.items()}
        try:
            optimizer.func([torch.nn.Parameter(torch.zeros(()))], **now)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"{path}: {error}") from error


def unnamed_addresses(part: Part, packages: Sequence[str], line: Sequence[Override]) -> Iterator[str]:
    """What a logger would send to an address that is not on the line: a file of a stranger must not say where data go."""
    cls = locate(part.node["_target_"], part.base, part.path, packages)
    for name in getattr(cls, "addresses", ()):
        key, value, default = f"{part.path}.{name}", part.node.get(name), signature(cls)[name][1]
        if value not in (None, default) and not says(line, key):
            yield (
                f"{key}={printable(str(value), 200)} is in a file, and where data are sent is read from the command line only: repeat it "
                f"there, {key}=..., or say {key}={'null' if default is None else default}"
            )


def check(config: Any, packages: Sequence[str] = (), line: Sequence[str] | None = None) -> Assembly:
    """Hold a configuration against the signatures of its parts and build the run once, on the CPU. UserError with all mistakes.

    line: what was typed, which alone may name an address that data are sent to; None: the caller has made the whole configuration.
    The files of the data set are there and verified after it.
    """
    config = plain(config)
    mistakes = [line for part in parts_of(config) for line in mistakes_in(part, packages)]
    if line is not None and not mistakes:
        typed = parsed(line)
        mistakes += [said for part in parts_of(config) for said in unnamed_addresses(part, packages, typed)]
    mistakes += mistyped("", PLAIN, {key: config.get(key) for key in PLAIN})
    if not mistakes and config["batch_size"] < 1:
        mistakes.append(f"batch_size={config['batch_size']}: must be at least 1")
    if mistakes:
        raise UserError("\n".join(line.removeprefix(".") for line in mistakes))
    assembly = assemble(config, packages, device=torch.device("cpu"))
    trainer = assembly.trainer
    engine.device_of(trainer.accelerator)
    try:
        distributed.share(config["batch_size"], trainer.accumulate, devices_of(trainer.devices, trainer.accelerator))
    except ValueError as error:
        raise UserError(str(error)) from error
    return assembly
