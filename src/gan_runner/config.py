"""What a configuration is, and what a command line says. Imports no torch."""

import copy
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gan_runner.errors import UserError, printable
from gan_runner.explain import bad_grammar
from gan_runner.storage.documents import MARK, asks_only, key_of, rendered, texts

SINGLE = ("dataset", "architecture", "loss", "rule", "optimizer", "trainer", "extractor")
LISTS = ("penalty", "trick", "metric", "callback", "logger")
PARTS = SINGLE + LISTS
PAIRS = ("architecture", "optimizer")  # one part for each player
OPTUNA_SWEEPER = "gan_runner.studies.OptunaSweeper"
OWN_PLUGINS = {"hydra.sweeper": (OPTUNA_SWEEPER,)}  # of our own code, all that Hydra's settings may name
BASIC = "hydra._internal.core_plugins"
OWN_LAUNCHERS = tuple(f"hydra_plugins.gan_runner_launchers.{name}" for name in ("GanLocal", "GanSlurm"))
CALLED = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")  # settings that Hydra makes objects of
FILLED_IN = frozenset(  # texts that Hydra fills in when a job begins
    f"hydra.{key}"
    for key in (
        "runtime.output_dir",
        "runtime.cwd",
        "job.name",
        "job.num",
        "job.id",
        "job.override_dirname",
        "run.dir",
        "sweep.dir",
        "sweep.subdir",
    )
)
MAIN = ("train", "evaluate", "sample", "rate")  # what the commands compose
LINE_ONLY = ("packages", "resume", "accept")  # a file must not decide whose code may run, which run goes on, or on what else
ACCEPTABLE = ("data", "config")  # what may be another than that of the state from which a run goes on

Names = tuple[str, ...]


def config_dir() -> Path:
    """The folder of the YAML files, in an installed wheel, an editable install and a source checkout alike."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here.parents[1] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError("the configs of gan-runner are missing: reinstall the package")


@dataclass
class Composed:
    """One configuration, and how it came about."""

    config: DictConfig  # without hydra, packages, resume and accept; interpolations not yet resolved
    hydra: DictConfig
    overrides: list[str]
    notes: list[str]  # what the repair dropped, a line each
    choices: dict[str, Any]  # group -> option, or the names in a list group
    packages: list[str]  # whose code the user allows besides gan_runner and torch.optim
    origins: dict[str, str] = field(default_factory=dict)  # key -> the experiment file that set it

    def plain(self) -> dict[str, Any]:
        """The configuration as `plain` gives it."""
        return plain(self.config)

    def yaml(self, resolve: bool = False) -> str:
        """What --cfg job prints; a value that is still missing is shown as ???."""
        try:
            return OmegaConf.to_yaml(self.config, resolve=resolve)
        except OmegaConfBaseException as error:
            raise UserError(rendered(error)) from error

    def sources(self, text: str) -> str:
        """Names the experiment files that set a key which `text` complains about: a line each, or nothing."""
        found = [key for key in self.origins if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text)]
        return "".join(f"\n  {key} is set in {self.origins[key]}" for key in found)


def compose(overrides: Sequence[str], config_dirs: Sequence[str | Path] = (), config_name: str = "train") -> Composed:
    """The configuration that a command line stands for."""
    from gan_runner.composer import Composer  # it is made of what stands here

    return Composer(config_dirs).compose(list(overrides), config_name)


def without_line_keys(loaded: DictConfig) -> DictConfig:
    """The configuration of a run: what was loaded, without Hydra's own settings and what belongs to the line alone."""
    config = copy.deepcopy(loaded)
    with open_dict(config):
        for key in ("hydra", *LINE_ONLY):
            config.pop(key, None)
    return config


def plain(config: Any) -> dict[str, Any]:
    """A configuration as dicts, lists and numbers, every interpolation resolved. UserError where a value is missing."""
    config = OmegaConf.create(config)
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UserError("\n".join(f"{key} has no value yet: add {key}=..." for key in missing))
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error
    assert isinstance(resolved, dict)
    for path, text in texts(resolved):  # of an interpolation behind a backslash, which would be resolved where the text is read again
        raise UserError(f"{key_of(path)}={printable(text, 100)}: a value must not hold {MARK}")
    return {str(key): value for key, value in resolved.items()}


def parsed(overrides: Sequence[str], loader: ConfigLoaderImpl | None = None) -> list[Override]:
    """The overrides, read by Hydra's grammar; loader: what knows the options of a group, for `loss=glob(*)`."""
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise UserError(bad_grammar(error.override, str(error))) from error


def recorded(overrides: Any) -> list[str]:
    """The overrides that Hydra recorded, as they were typed: `a=${b}` is not to be resolved where it is only remembered."""
    return [str(override) for override in overrides._iter_ex(resolve=False)]


def quoted(text: str) -> str:
    """A text as the value of an override."""
    return QuotedString(text, Quote.single).with_quotes()


def gathered(overrides: Sequence[str]) -> list[str]:
    """The line with `+penalty=a +penalty=b` written as `+penalty=[a,b]`: Hydra's sweeper keeps only the last of two equal keys."""
    line: dict[str, list[str]] = {}
    for number, override in enumerate(parsed(overrides)):
        value, text = override.value() if not override.is_sweep_override() else None, text_of(override)
        if override.is_add() and override.key_or_group in LISTS and isinstance(value, str | list):
            line.setdefault(f"+{override.key_or_group}", []).extend(map(str, value if isinstance(value, list) else [value]))
        else:
            line[f"{number} {text}"] = [text]
    return [f"{key}=[{','.join(said)}]" if key.startswith("+") else said[0] for key, said in line.items()]


def allowed_packages() -> list[str]:
    """The packages that GAN_RUNNER_PACKAGES names."""
    return [name.strip() for name in os.environ.get("GAN_RUNNER_PACKAGES", "").split(",") if name.strip()]


def named_packages(overrides: Sequence[Override]) -> list[str]:
    """The packages that `_target_` may name: those on the line, then those in GAN_RUNNER_PACKAGES."""
    names: list[str] = []
    for override in overrides:
        if override.key_or_group == "packages" and not override.is_delete() and not override.is_sweep_override():
            value: Any = override.value()
            names += value if isinstance(value, list) else [] if value is None else [value]
    names += allowed_packages()
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"packages: expected names of Python packages, as in packages=[mypkg]; got {name!r}")
    return list(dict.fromkeys(names))


def accepted(overrides: Sequence[str]) -> list[str]:
    """Which of ACCEPTABLE the line accepts, as in accept=data and accept=[data,config]. UserError for anything else."""
    names: list[str] = []
    for override in parsed(overrides):
        if override.key_or_group == "accept" and not override.is_delete():
            value: Any = None if override.is_sweep_override() else override.value()
            names = value if isinstance(value, list) else [value]
    if any(name not in ACCEPTABLE for name in names):
        raise UserError(
            "accept: what may differ when a run is resumed is data, config or both: accept=data, accept=config, 'accept=[data,config]'"
        )
    return names


def lasting(overrides: Sequence[str]) -> list[str]:
    """The overrides that make a run what it is: all but what the line accepts this time."""
    return [text for text in overrides if parsed([text])[0].key_or_group != "accept"]


def says(line: Sequence[Override], key: str) -> bool:
    """Whether a line gives a value to this key, by itself or within a mapping."""
    for override in line:
        value: Any = None if override.is_sweep_override() else override.value()
        rest = key.removeprefix(override.key_or_group)
        for part in rest.split(".")[1:]:
            value = value.get(part, ...) if isinstance(value, dict) else ...
        if rest[:1] in ("", ".") and rest != key and not override.is_delete() and value is not ...:
            return True
    return False


def text_of(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def is_part(node: Any) -> bool:
    return isinstance(node, DictConfig) and "_target_" in node


def chosen_names(loaded: DictConfig, group: str) -> list[str]:
    entries: Any = loaded.get(group)
    return [str(name) for name in entries or () if is_part(entries._get_node(name))]


def is_of(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name is one in a module of these packages; `hydra._internal.utils.os.system` is one of `os`."""
    if not any(name.startswith(f"{package}.") for package in packages):
        return False
    try:
        return importlib.util.find_spec(name.rpartition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def refuse_foreign_code(hydra: DictConfig, packages: Sequence[str]) -> None:
    """Refuse names of code in Hydra's settings that are not Hydra's own, a plugin's or of these packages. UserError.

    Hydra makes its callbacks, launcher, sweeper and log handlers of these names. So that what is read here is what Hydra will use, an
    interpolation among them may only ask for the texts of FILLED_IN.
    """

    def visit(node: Any, path: str, trusted: Sequence[str], names: Sequence[str]) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            where, shown = f"{path}.{key}", printable(str(value), 100)
            own = OWN_PLUGINS.get(path, ()) if key == "_target_" else ("ext://sys.stdout", "ext://sys.stderr")
            names_code = key in names or (isinstance(value, str) and value.startswith("ext://"))  # how logs name what is imported
            if names_code and value not in own and not is_of(str(value).removeprefix("ext://"), trusted):
                raise UserError(f"{where}={shown} is refused: only code of {', '.join(trusted)}, or of packages=[...], runs there")
            if isinstance(value, str) and not asks_only(value, FILLED_IN):
                raise UserError(f"{where}={shown} is refused: Hydra makes objects of what is below {path}, so write the value itself")
            if isinstance(value, dict | list):
                visit(value, where, trusted, names)

    raw = OmegaConf.to_container(hydra, resolve=False)
    assert isinstance(raw, dict)
    for name in CALLED:
        log = name.endswith("logging")
        own = ["logging", "colorlog", "rich"] if log else ["hydra.experimental.callbacks", BASIC, "hydra_plugins"]
        visit({name: raw.get(name)}, "hydra", [*own, *packages], ["class", "()"] if log else ["_target_"])
