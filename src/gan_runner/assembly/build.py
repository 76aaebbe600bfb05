"""From configuration to objects.

The one schema of a part is its constructor's typed signature. `check` holds a whole configuration against the signatures and builds the
game once, so that all mistakes are reported before anything is created; `assemble` builds what a run needs. A `_target_` is imported only
if it is in gan_runner, in torch.optim or in a package that the user named, and used only if it is of the kind that its place asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from gan_runner import distributed
from gan_runner.assembly.below import share_extractors
from gan_runner.assembly.parts import PLAIN, SIDES, Part, locate, make, make_list, make_one, mistakes_in, parts_of, sides_of, whole_numbers
from gan_runner.assembly.signatures import mistyped, signature
from gan_runner.config.command_line import parsed, says
from gan_runner.config.composed import plain
from gan_runner.datasets import Dataset
from gan_runner.draws import seeded
from gan_runner.errors import UserError, did_you_mean, printable
from gan_runner.evaluation.extractor import Extractor
from gan_runner.evaluation.findings import aim, looks_through, refuse_same_keys, unfit
from gan_runner.evaluation.metric import Metric
from gan_runner.execution import hardware
from gan_runner.execution.hardware import devices_of
from gan_runner.game.game import Game
from gan_runner.game.rule import Rule
from gan_runner.game.spec import Spec
from gan_runner.game.term import Term, takes_discriminator
from gan_runner.reporting import Countdown, Reporter, notice
from gan_runner.schedules import Schedule
from gan_runner.storage import directory
from gan_runner.storage.records import best_of
from gan_runner.storage.untrusted import flat, refuse_too_large
from gan_runner.trainer import Trainer
from gan_runner.training.run import Assembly

Initial = Callable[[dict[str, torch.nn.Module], dict[str, Any], Sequence[str]], None]  # (networks, configuration, packages)


def build_game(
    config: dict[str, Any],
    packages: Sequence[str],
    trainer: Trainer,
    spec: Spec,
    device: torch.device,
    optimizer: Callable[..., Any] | None = None,
    initial: Initial | None = None,
) -> Game:
    """Build the game of a resolved configuration, for data of this spec. UserError where its parts do not fit together.

    optimizer: instead of the classes that the configuration names, which take long to import; it is given the same arguments.
    initial: loads weights into the networks before tricks wrap them.
    """
    hardware.seed_weights(config["seed"])
    sides = sides_of(config)
    nets = {side: make(config["architecture"][side], packages, SIDES[side], f"architecture.{side}", spec=spec) for side in sides}
    loss, rule = make_one(config, packages, "loss"), make_one(config, packages, "rule")
    penalties, tricks = (make_list(config, packages, group) for group in ("penalty", "trick"))
    terms = {"loss": loss, **penalties}
    refuse_mismatch(nets, terms, rule, spec)
    lists = {"architecture": nets, "penalty": penalties, "trick": tricks}
    share_extractors({"loss": loss} | {f"{group}.{name}": part for group, parts in lists.items() for name, part in parts.items()}, spec)
    if initial is not None:
        initial(nets, config, packages)
    if trainer.sync_batch_norm and device.type == "cuda":
        nets = {side: torch.nn.SyncBatchNorm.convert_sync_batchnorm(net) for side, net in nets.items()}
    if trainer.channels_last:
        nets = {side: hardware.lay_out(net, device) for side, net in nets.items()}
    precision = hardware.precision_of(trainer.precision, device, spec.kind.bounded)
    optimizers = {}
    for side in nets:
        node = {**config["optimizer"][side], "_partial_": True}
        made = make(node, packages, torch.optim.Optimizer, f"optimizer.{side}")
        optimizers[side] = partial(optimizer or made.func, **made.keywords)
        refuse_rates(f"optimizer.{side}", optimizers[side], trainer.steps)
    for term in terms.values():
        if takes_discriminator(term):
            say_old_signature(type(term).__name__)

    def again(number: int) -> Game:
        """Build this game with the first weights of restart `number`."""
        seed = seeded("restart", config["seed"], number).initial_seed()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return build_game(config | {"seed": seed}, packages, trainer, spec, device, optimizer)

    try:
        game = Game(
            nets,
            optimizers,
            terms,
            rule,
            tricks,
            spec=spec,
            batch_size=config["batch_size"],
            steps=trainer.steps,
            accumulate=trainer.accumulate,
            seed=config["seed"],
            device=device,
            precision=hardware.autocast(precision, device),
            scaler=partial(hardware.gradient_scaler, precision, device),
            again=None if starts_elsewhere(config) else again,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    refuse_idle(game)
    return game


def starts_elsewhere(config: dict[str, Any]) -> bool:
    """Return whether the first weights of a run are given by `init_from`, which only its first start reads."""
    said = config.get("init_from") or {}
    return any(said.get(key) is not None for key in ("run", *SIDES))


def assemble(config: Any, packages: Sequence[str] = (), device: torch.device | None = None, initial: Initial | None = None) -> Assembly:
    """Build a run; the files of its data are there after it. device: instead of the trainer's; initial: as in build_game."""
    given, config = config, plain(config)
    trainer: Trainer = make_one(config, packages, "trainer")
    device = device or hardware.device_of(trainer.accelerator)
    dataset: Dataset = make_one(config, packages, "dataset")
    dataset.prepare()
    spec = dataset.spec
    game = build_game(config, packages, trainer, spec, device, initial=initial)
    metrics = judges(config, packages, spec)
    callbacks, loggers = (make_list(config, packages, group) for group in ("callback", "logger"))
    return Assembly(config, dataset, spec, trainer, game, metrics, callbacks, loggers, directory.made_with(given))


def judges(config: dict[str, Any], packages: Sequence[str], spec: Spec) -> dict[str, Metric]:
    """Make the metrics of a run, with the networks that they look through. UserError where they do not fit together, or to the data."""
    metrics = make_metrics(config, packages, spec)
    refuse_unfit(metrics, spec)
    name, mode = best_of(dict(flat(config)))
    if name is not None and mode is None and (found := aim(name, metrics)) and found[1] is None:
        raise UserError(f"is a large {name} good? Its metric does not say it; say callback.evaluate.best.mode=max or min")
    return metrics


def make_metrics(config: dict[str, Any], packages: Sequence[str], spec: Spec) -> dict[str, Metric]:
    """Make every metric, once for each network that it looks through: by `name`, or by `name.network` where there are several.

    UserError where two have the same key, or where `through` names a network that is not chosen.
    """
    networks: dict[str, Extractor] = make_list(config, packages, "extractor")
    made: dict[str, Metric] = {}
    for name, node in (config.get("metric") or {}).items():
        metric: Metric = make(node, packages, Metric, f"metric.{name}", spec=spec)
        through = chosen_networks(name, metric, node.get("through"), networks)
        if not through:
            made[name] = metric
        for network in through:
            each = metric if network == through[0] else make(node, packages, Metric, f"metric.{name}", spec=spec)
            made[name if len(through) == 1 else f"{name}.{network}"] = each.look_through(networks[network])
    refuse_same_keys(made)
    return made


def chosen_networks(name: str, metric: Metric, through: list[str] | None, networks: dict[str, Extractor]) -> list[str]:
    """Return the names of the networks that a metric looks through: those of its `through`, else all that give what it reads. UserError
    where `through` names another one."""
    if not metric.extracts:
        if through is not None:
            raise UserError(f"metric.{name}.through={shown(through)}: this metric looks through no network")
        return []
    if through is not None:
        if unknown := [each for each in through if each not in networks]:
            hint = did_you_mean(unknown[0], list(networks))
            raise UserError(f"metric.{name}.through={shown(through)}: {unknown[0]} is not chosen; extractor={shown(list(networks))}{hint}")
        return through
    silent = [each for each, network in networks.items() if "logits" in metric.reads and not network.classifies]
    if silent and len(networks) > 1:
        say_skipped(name, ", ".join(silent))
    rest = [each for each in networks if each not in silent]
    return rest or list(networks)[:1]


def shown(names: list[str]) -> str:
    """Return names as they are typed: [a,b]."""
    return f"[{','.join(names)}]"


@cache
def say_skipped(metric: str, networks: str) -> None:
    """Say, once, through which networks a metric is not measured."""
    notice.warning("%s reads the outputs of a classifier: it is not measured through %s", metric, networks)


@cache
def say_old_signature(name: str) -> None:
    """Say, once for each class, that the signature of a term is of a version before."""
    notice.warning(
        "%s.build(spec, discriminator) is an old signature, which version 0.3 will not call: write build(self, spec, nets) and read "
        "nets.get('discriminator')",
        name,
    )


def refuse_mismatch(nets: dict[str, Any], terms: dict[str, Term], rule: Rule, spec: Spec) -> None:
    """Refuse parts that do not fit each other. UserError."""
    generator, discriminator, mover = nets["generator"], nets.get("discriminator"), type(rule).__name__
    if discriminator is not None and discriminator.classes is not None and generator.classes is None and not generator.overrides("given"):
        raise UserError("architecture.discriminator is conditional and the generator is not: set architecture.conditional for both")
    if spec.symbols is not None and not generator.overrides("view"):
        raise UserError(f"the data are symbols, and {type(generator).__name__} makes numbers: choose a generator of symbols")
    for side in rule.players:
        if side not in nets:
            raise UserError(f"the rule {mover} moves the {side}, and the architecture has none: use rule=solo, or another architecture")
    for name, term in terms.items():
        for side in SIDES:
            if side not in nets and term.has_summand(side):
                raise UserError(
                    f"{name} ({type(term).__name__}) has a part for the {side}, and the architecture has none: choose another {name}"
                )
        if not any(term.has_summand(side) for side in rule.players):
            raise UserError(
                f"{name} ({type(term).__name__}) has no part for the {' or the '.join(rule.players)}, and no other player moves"
            )
    for name, term in terms.items():
        if term.balanced is not None:
            against = term.balanced.against
            if against == name or against not in terms or not terms[against].has_summand("generator"):
                raise UserError(f"{name}.generator_weight.against={against} is no penalty with a part for the generator")
            try:
                term.balanced.weights(generator)
            except ValueError as error:
                raise UserError(str(error)) from error
    for side in rule.players:
        speaking = [term for term in terms.values() if term.has_summand(side)]
        if not any(all(term.due(step) for step in range(1, 1 + getattr(term, "every", 1))) for term in speaking):
            raise UserError(f"the {side} moves in every round, and no term of its objective is due in every round")


def refuse_idle(game: Game) -> None:
    """Refuse a player with weights that never moves, and one that should move and has none. UserError."""
    mover = type(game.rule).__name__
    for name, player in game.players.items():
        if player.can_move and name not in game.rule.players:
            raise UserError(
                f"the {name} has weights to train, and the rule {mover} never moves it: choose another rule, "
                "or an architecture without one, or freeze it"
            )
        if not player.can_move and name in game.rule.players:
            raise UserError(f"the rule {mover} moves the {name}, which has no weights to train: use rule=solo for the other player")


def refuse_unfit(metrics: dict[str, Metric], spec: Spec) -> None:
    """Raise UserError where a metric looks through an extractor that does not take images of this shape."""
    for network in looks_through(metrics) if spec.kind.bounded else []:
        if reason := unfit(network, spec):
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
    """Name the addresses that a logger would send data to and that are not on the line: a file must not choose where data go."""
    cls = locate(part.node["_target_"], part.base, part.path, packages)
    for name in getattr(cls, "addresses", ()):
        key, value, default = f"{part.path}.{name}", part.node.get(name), signature(cls)[name][1]
        if value not in (None, default) and not says(line, key):
            yield (
                f"{key}={printable(str(value), 200)} is in a file, and where data are sent is read from the command line only: repeat it "
                f"there, {key}=..., or say {key}={'null' if default is None else default}"
            )


def wrong_values(config: Any, packages: Sequence[str], line: Sequence[str] | None = None, whole: bool = True) -> list[str]:
    """Return all that the signatures say against a configuration. line: as in `check`; whole: False if groups may be missing."""
    config = plain(config, complete=False)
    there = [part for part in parts_of(config) if whole or part.path.split(".")[0] in config]
    mistakes = [said for part in there for said in mistakes_in(part, packages)]
    if line is not None and not mistakes:
        typed = parsed(line)
        mistakes += [said for part in there for said in unnamed_addresses(part, packages, typed)]
    plain_keys = {key: config.get(key) for key in PLAIN if whole}
    return mistakes + list(mistyped("", {key: PLAIN[key] for key in plain_keys}, plain_keys))


def check(config: Any, packages: Sequence[str] = (), line: Sequence[str] | None = None, initial: Initial | None = None) -> Assembly:
    """Hold a configuration against the signatures of its parts and build the run once, on the CPU. UserError with all mistakes.

    line: what was typed, which alone may name an address that data are sent to; None: the caller has made the whole configuration.
    initial: as in build_game. The files of the data set are there and verified after it.
    """
    config = whole_numbers(OmegaConf.create(config), packages)
    if mistakes := wrong_values(config, packages, line):
        raise UserError("\n".join(mistakes))
    config = plain(config)
    assembly = assemble(config, packages, torch.device("cpu"), initial)
    trainer = assembly.trainer
    hardware.device_of(trainer.accelerator)
    try:
        n = distributed.share(config["batch_size"], trainer.accumulate, devices_of(trainer.devices, trainer.accelerator))
    except ValueError as error:
        raise UserError(str(error)) from error
    refuse_too_large("batch_size", n * math.prod(assembly.spec.shape) * torch.float32.itemsize)
    with Reporter() as reporter:
        assembly.dataset.verify(Countdown(reporter).at)
    return assembly
