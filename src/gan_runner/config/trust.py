"""Restrict the code that a configuration may name."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gan_runner.errors import UserError, printable
from gan_runner.storage.documents import asks_only

OPTUNA_SWEEPERS = ("gan_runner.jobs.search.OptunaSweeper", "gan_runner.studies.OptunaSweeper")  # the second is its name in version 0.1.0
OWN_PLUGINS = {"hydra.sweeper": OPTUNA_SWEEPERS}  # of our own code, all that Hydra's settings may name
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


def is_of(name: str, packages: Sequence[str]) -> bool:
    """Return whether a dotted name is defined in one of these packages; `hydra._internal.utils.os.system` belongs to `os`."""
    if not any(name.startswith(f"{package}.") for package in packages):
        return False
    try:
        return importlib.util.find_spec(name.rpartition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def refuse_foreign_code(hydra: DictConfig, packages: Sequence[str]) -> None:
    """Raise UserError for names of code in Hydra's settings that are not of Hydra, a plugin or these packages.

    Hydra instantiates its callbacks, launcher, sweeper and log handlers from these names. Interpolations among them may only refer to
    FILLED_IN, so that the values checked here are the values that Hydra uses.
    """

    def visit(node: Any, path: str, trusted: Sequence[str], names: Sequence[str]) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            where, shown = f"{path}.{key}", printable(str(value), 100)
            own = OWN_PLUGINS.get(path, ()) if key == "_target_" else ("ext://sys.stdout", "ext://sys.stderr")
            names_code = key in names or (isinstance(value, str) and value.startswith("ext://"))  # how logs name what is imported
            if names_code and value not in own and not is_of(str(value).removeprefix("ext://"), trusted):
                raise UserError(f"{where}={shown} is refused: only code of {', '.join(trusted)}, or of 'packages=[...]', runs there")
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
