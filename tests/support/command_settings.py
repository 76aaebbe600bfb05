"""Settings of gan-sample, gan-eval and gan-rate as a line would give them."""

from typing import Any, TypeVar

from omegaconf import OmegaConf

from gan_runner.commands.settings import read
from gan_runner.config.groups import config_dir

Settings = TypeVar("Settings")


def defaults(kind: type) -> dict[str, Any]:
    """The keys of a command and their defaults, as its YAML file has them; ??? where there is none."""
    keys: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / f"{kind.__name__.lower()}.yaml"), resolve=True)
    return {key: value for key, value in keys.items() if key not in ("defaults", "hydra")}


def settings_of(kind: type[Settings], **keys: Any) -> Settings:
    """The settings that these keys make with the defaults of the others."""
    return read(kind, {**defaults(kind), **keys})
