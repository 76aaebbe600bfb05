"""Take data and discriminator from the run whose generator is a part of a configuration. Imports no torch."""

from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from gan_runner.config.command_line import said
from gan_runner.errors import UserError
from gan_runner.storage import contents, starts
from gan_runner.storage.configurations import portable, read_config

TRAINED = "gan_runner.architectures.Trained"  # the generator of another run
RUN, DISCRIMINATOR = "architecture.generator.run", "architecture.discriminator"
EXAMPLE = "'architecture.discriminator={_target_: gan_runner.architectures.MLPDiscriminator}'"


def run_behind(config: DictConfig, line: Sequence[Override]) -> str | None:
    """Return the run whose generator is that of a configuration; None where there is none, or a sweep names several.

    config: as its files compose it, without the values of the line.
    """
    generator = OmegaConf.select(config, "architecture.generator")
    if not isinstance(generator, DictConfig) or generator.get("_target_") != TRAINED:
        return None
    run = said(line, RUN)
    if run is ...:
        run = OmegaConf.select(config, RUN, default=None, throw_on_missing=False)
    return run if isinstance(run, str) and run.strip() else None


def complete(config: DictConfig, run: str, line: Sequence[Override], chosen: Collection[str], set_by_files: Collection[str]) -> list[str]:
    """Set `dataset` and `architecture.discriminator` to those of a run where nobody chooses others; returns which of them.

    chosen: the groups that the line or an experiment chooses. set_by_files: keys that experiments set; their values stay. UserError where
    the run is no run, or its discriminator is asked for and it has none.
    """
    starts.refuse_missing(run, "this architecture is the generator of")
    contents.refuse_foreign(Path(run))
    there = portable(read_config(Path(run)))
    taken = {} if "dataset" in chosen else {"dataset": there["dataset"]}
    if _is_named(line):
        config.architecture.discriminator = None  # what an experiment says is about that of the run
    elif OmegaConf.select(config, f"{DISCRIMINATOR}._target_", default=None) is None:
        if (node := there["architecture"].get("discriminator")) is None:
            raise UserError(f"{RUN}={run}: this run has no discriminator; choose one, for example {EXAMPLE}")
        taken[DISCRIMINATOR] = node
    for place, node in taken.items():
        kept = {key: OmegaConf.select(config, key) for key in set_by_files if key.startswith(f"{place}.")}
        OmegaConf.update(config, place, node, merge=False)
        for key, value in kept.items():
            OmegaConf.update(config, key, value)
    if DISCRIMINATOR in taken and all("conditional" in node for node in (config.architecture, config.architecture.discriminator)):
        if "architecture.conditional" not in set_by_files:
            config.architecture.conditional = config.architecture.discriminator.conditional
        config.architecture.discriminator.conditional = "${..conditional}"  # as in the files of architectures
    return list(taken)


def _is_named(line: Sequence[Override]) -> bool:
    """Return whether a mapping on the line is a whole discriminator."""
    key = f"{DISCRIMINATOR}._target_"
    return said([override for override in line if override.key_or_group != key], key) is not ...
