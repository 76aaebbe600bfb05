"""Where configurations are read from, and what a file that is not the project's own may set. Imports no torch.

Of these files some are of strangers: a --config-dir that somebody sent. They choose and set the parts of a run, which are compared with the
classes that they name. Of Hydra's own settings, which make Hydra call code and write files, they may set those in SETTABLE.
"""

import codecs
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from gan_runner.config.command_line import named_packages, parsed
from gan_runner.config.groups import LINE_ONLY, LISTS, MAIN, config_dir
from gan_runner.config.home import all_at_home
from gan_runner.config.trust import BASIC, FILLED_IN, OPTUNA_SWEEPERS, OWN_LAUNCHERS
from gan_runner.errors import UserError, did_you_mean, printable
from gan_runner.storage.documents import MARK, SIZE, asks_only, document
from gan_runner.storage.untrusted import read_bounded

LOADS = 500  # files of one configuration
VALUES = 10_000  # in these files together
OUTPUTS = "outputs"  # the folder that a file may place runs in
NAME = re.compile(r"\w[\w.-]*")


def literal(value: Any) -> bool:
    """Return whether a setting has no interpolation."""
    return MARK not in str(value)


def is_place(value: Any) -> bool:
    """Return whether a setting can be a folder; its path is checked after it is resolved."""
    return isinstance(value, str)


def is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


ABSOLUTE = {"hydra.runtime.output_dir", "hydra.runtime.cwd", "hydra.run.dir", "hydra.sweep.dir"}  # folders, not names
OPEN = ABSOLUTE | {"hydra.job.override_dirname"}  # may lead anywhere: the last is made of values, in which .. may be
PLACES = ("run.dir", "sweep.dir", "sweep.subdir")
SETTABLE: dict[str, Callable[[Any], bool]] = {  # setting of Hydra's, with all that is below it -> which values a file may give it
    "mode": literal,
    "verbose": literal,
    "job.name": is_name,
    "output_subdir": lambda value: value is None,
    **dict.fromkeys(PLACES, is_place),
    "help": literal,
    "sweeper": literal,
    "launcher": literal,
}
UNSETTABLE = ("sweeper.storage",)  # an address, which only the line names
TRUSTED = {
    "sweeper": (f"{BASIC}.basic_sweeper.BasicSweeper", *OPTUNA_SWEEPERS),
    "launcher": (f"{BASIC}.basic_launcher.BasicLauncher", *OWN_LAUNCHERS),
}
PARAMS = "sweeper.params"  # what a study puts on the line of each job
WRITTEN = ("out", "export")  # keys of gan-sample, gan-eval and gan-rate that say where a file is written


# ---- reading ------------------------------------------------------------------------------------------------------------------------


def is_ours(path: str) -> bool:
    """Return whether a source of configurations belongs to the project, to Hydra, or to an installed Hydra plugin."""
    return path == f"file://{config_dir()}" or re.match(r"structured://|pkg://(hydra\.conf$|hydra_plugins\.)", path) is not None


class Files(ConfigSource):
    """The YAML files of a folder, read with limits on their size."""

    @staticmethod
    def scheme() -> str:
        return "file"

    def available(self) -> bool:
        return os.path.isdir(self.path)

    def place(self, config_path: str) -> str:
        return os.path.realpath(os.path.join(self.path, config_path))

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.place(self._normalize_file_name(config_path)))
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        data = read_bounded(path, SIZE)
        if data is not None:
            data = data.removeprefix(codecs.BOM_UTF8)  # which some editors write
        config = document(data, str(path), ours=is_ours(self.full_path()))
        assert data is not None, "refused by the line above"
        if b"~" in data:
            config = OmegaConf.create(all_at_home(OmegaConf.to_container(config)))
        try:
            header = ConfigSource._get_header_dict(data.decode()[:512])
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        if group in LISTS and "_target_" in config and header.get("package") is None:  # else the file has the part below its own name
            config = OmegaConf.create({name: config})
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)

    def is_group(self, config_path: str) -> bool:
        return os.path.isdir(self.place(config_path))

    def is_config(self, config_path: str) -> bool:
        return os.path.isfile(self.place(self._normalize_file_name(config_path)))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found = set()
        for entry in os.scandir(self.place(config_path)):
            if os.path.isdir(entry.path) and results_filter in (None, ObjectType.GROUP) and entry.name != "__pycache__":
                found.add(entry.name)
            elif entry.name.endswith(".yaml") and results_filter in (None, ObjectType.CONFIG) and os.path.isfile(entry.path):
                found.add(entry.name.removesuffix(".yaml"))
        return sorted(found)


class Repository(ConfigRepository):
    """Hydra's repository with `Files`. main: the folder whose train.yaml, sample.yaml, ... take precedence over all others."""

    def __init__(self, path: ConfigSearchPath, main: Path):
        self.main = f"file://{main}"
        super().__init__(path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.sources = [Files(one.provider, one.full_path()) if one.scheme() == "file" else one for one in self.sources]

    def _find_object_source(self, config_path: str, object_type: ObjectType | None) -> ConfigSource | None:
        parts = config_path.split("/")
        if os.path.isabs(config_path) or ".." in parts or "\0" in config_path or max(map(len, parts)) > 200:
            raise UserError(f"{printable(config_path, 100)}: not a file of a folder of configurations, which is named by GROUP/NAME")
        if object_type == ObjectType.CONFIG and config_path.removesuffix(".yaml") in MAIN:
            return next((source for source in self.sources if source.full_path() == self.main and source.is_config(config_path)), None)
        return super()._find_object_source(config_path, object_type)


class Bounded(CachingConfigRepository):
    """The files of one configuration: at most LOADS files and VALUES values, each counted as often as it is loaded."""

    def __init__(self, repository: ConfigRepository):
        super().__init__(repository)
        self.values = 0
        self.loads: Counter[str] = Counter()
        self.sizes: dict[str, int] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        result = super().load_config(config_path)
        if config_path not in self.sizes:
            self.sizes[config_path] = values(OmegaConf.to_container(result.config, resolve=False)) if result is not None else 0
        self.loads[config_path] += 1
        self.values += self.sizes[config_path]
        if self.loads.total() > LOADS or self.values > VALUES:
            where = "back to itself" if self.loads[config_path] > LOADS / 10 else f"to more than {LOADS:,} files, or {VALUES:,} values"
            raise UserError(f"{printable(config_path)}.yaml: its defaults lead {where}")
        return result


def values(tree: Any) -> int:
    """Count the values in a configuration."""
    return 1 + sum(map(values, tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()))


# ---- what a file may set ------------------------------------------------------------------------------------------------------------


def settings_of(name: str, config: Any) -> list[str]:
    """Return the Hydra settings in a file of others, by dotted name without `hydra`. UserError if they are not allowed."""
    tree: Any = OmegaConf.to_container(config, resolve=False)
    for key in (*LINE_ONLY, *WRITTEN):
        if tree.get(key) not in (None, []):
            raise UserError(f"{name} sets {key}, which is read from the command line only: {key}=...")
    found = list(_leaves(tree.get("hydra", {}), ""))
    for key, value in found:
        if not any(_is_below(key, allowed) and fits(value) for allowed, fits in SETTABLE.items()) or key in UNSETTABLE:
            shown = printable(f"hydra.{key}", 100)
            raise UserError(
                f"{name}: {shown}={printable(str(value), 60)} is refused: of Hydra's settings a file may give "
                f"{', '.join(f'hydra.{one}' for one in SETTABLE)}{did_you_mean(key, list(SETTABLE))}; say it on the line: {shown}=..."
            )
        if key == PARAMS:
            refuse_params(name, value)
    return [key for key, _ in found]


def _is_below(key: str, parent: str) -> bool:
    return key == parent or key.startswith(f"{parent}.")


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict) or path == PARAMS:
        yield path, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def refuse_searchpath(primary: ConfigResult | None, line: Sequence[Override]) -> None:
    """Raise UserError for search paths set by a file, and for packages that the user does not allow: an import would run them."""
    if primary is not None and not is_ours(primary.path) and OmegaConf.select(primary.config, "hydra.searchpath") is not None:
        raise UserError("hydra.searchpath is read from the command line only: 'hydra.searchpath=[FOLDER]'")
    packages = named_packages(line)
    for override in line:
        found = override.value() if override.key_or_group == "hydra.searchpath" and not override.is_delete() else []
        for place in found if isinstance(found, list) else [found]:
            name = str(place).removeprefix("pkg://").replace("/", ".")
            if str(place).startswith("pkg://") and not any(_is_below(name, package) for package in packages):
                raise UserError(
                    f"hydra.searchpath={printable(str(place), 100)} is refused: name a folder, or add 'packages=[{name.split('.')[0]}]'"
                )


def refuse_params(name: str, params: Any) -> None:
    """Raise UserError if a study sets keys in its params that only the user may set on the line."""
    for key, value in params.items() if isinstance(params, dict) else ():
        for override in parsed([f"{key}={value}"]):
            root = re.split(r"[./@]", override.key_or_group)[0]
            if root in ("hydra", "logger", *LINE_ONLY, *WRITTEN):
                raise UserError(f"{name}: hydra.sweeper.params: {root} is read from the command line only: say {root}... there")


def refuse_placed(hydra: DictConfig, given: dict[str, str], line: Sequence[Override]) -> None:
    """Check the Hydra settings of files in the composed configuration. UserError if they are not allowed.

    given: setting -> its file. A folder must be below `outputs`; settings of a launcher or sweeper are allowed only for our own.
    """
    typed = {override.key_or_group for override in line}
    for key, file in given.items():
        group = key.split(".")[0]
        if key in PLACES and f"hydra.{key}" not in typed:
            text = str(hydra[group]._get_node(key.split(".")[1])._value())
            if not _is_inside(hydra, key, text):
                raise UserError(
                    f"{file}: hydra.{key}={printable(text, 100)} is refused: a file places runs below {OUTPUTS}/ only; "
                    f"say it on the line: hydra.{key}=..."
                )
        elif group in TRUSTED:
            target = hydra[group].get("_target_")
            if target not in TRUSTED[group]:
                raise UserError(
                    f"{file}: hydra.{key} is refused: a file may not give settings to {target}; say them on the line: hydra.{key}=..."
                )


def _is_inside(hydra: DictConfig, key: str, text: str) -> bool:
    """Return whether a path set by a file is allowed."""
    if key == "sweep.subdir":  # it is resolved once a job has its number
        return asks_only(text, FILLED_IN - OPEN) and not PurePath(text).is_absolute() and ".." not in PurePath(text).parts
    place = PurePath(str(OmegaConf.select(hydra, key)))
    return len(place.parts) > 1 and place.parts[0] == OUTPUTS and ".." not in place.parts
