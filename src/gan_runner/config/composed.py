"""A composed configuration."""

import copy
import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gan_runner.config.groups import LINE_ONLY, SWEEP_ONLY
from gan_runner.errors import UserError, printable
from gan_runner.storage import older
from gan_runner.storage.documents import MARK, key_of, rendered, texts
from gan_runner.storage.starts import spelled


@dataclass
class Composed:
    """A configuration and its origin: choices, notes and files."""

    config: DictConfig  # without hydra, packages, resume and accept; interpolations not yet resolved
    hydra: DictConfig
    overrides: list[str]
    notes: list[str]  # what the repair dropped, a line each
    choices: dict[str, Any]  # group -> option, or the names in a list group
    packages: list[str]  # whose code the user allows besides gan_runner and torch.optim
    origins: dict[str, str] = field(default_factory=dict)  # key -> the experiment file that set it
    files: list[str] = field(default_factory=list)  # files of the user's that were read
    asked: DictConfig | None = None  # the summary of the sweep that this is a job of

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain dicts and lists; see the function `plain`."""
        return plain(self.config)

    def summary(self) -> Any:
        """The summary with every interpolation resolved; None where there is none."""
        try:
            return OmegaConf.to_container(self.asked, resolve=True, throw_on_missing=True) if self.asked is not None else None
        except OmegaConfBaseException as error:
            raise UserError(rendered(error)) from error

    def yaml(self, resolve: bool = False) -> str:
        """Return the output of --cfg job; a missing value is shown as ???."""
        try:
            return OmegaConf.to_yaml(self.config, resolve=resolve)
        except OmegaConfBaseException as error:
            raise UserError(rendered(error)) from error

    def sources(self, text: str) -> str:
        """Name the experiment files that set keys in the error message `text`: a line each, or nothing."""
        found = [key for key in self.origins if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text)]
        return "".join(f"\n  {key} is set in {self.origins[key]}" for key in found)


def without_line_keys(loaded: DictConfig) -> DictConfig:
    """Return the configuration of a run: without Hydra's settings and the keys that only the line may set."""
    config = copy.deepcopy(loaded)
    with open_dict(config):
        for key in ("hydra", *LINE_ONLY, *SWEEP_ONLY):
            config.pop(key, None)
    return config


def plain(config: Any, complete: bool = True) -> dict[str, Any]:
    """Convert a configuration to dicts, lists and numbers, with interpolations resolved.

    complete: whether a missing value is a UserError; else it is "???".
    """
    config = OmegaConf.create(config)
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing and complete:
            raise UserError("\n".join(f"{key} has no value yet: add {key}=..." for key in missing))
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error
    assert isinstance(resolved, dict)
    for path, text in texts(resolved):  # of an interpolation behind a backslash, which would be resolved where the text is read again
        raise UserError(f"{key_of(path)}={printable(text, 100)}: a value must not hold {MARK}")
    today = {str(key): value for key, value in older.translated(resolved).items()}
    return today | {"init_from": spelled(today.get("init_from"))}
