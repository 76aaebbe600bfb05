"""The groups of the configuration, and the folder of its files."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

SINGLE = ("dataset", "architecture", "loss", "rule", "optimizer", "trainer")
LISTS = ("penalty", "trick", "metric", "extractor", "callback", "logger", "refiner")
PARTS = SINGLE + LISTS
BELOW = ("prior",)  # groups whose choice is a part below another one; the header of their files says where
ONE = SINGLE + BELOW  # of which one file is chosen
PAIRS = ("architecture", "optimizer")  # one part for each player
MAIN = {"train": "gan-train", "evaluate": "gan-eval", "sample": "gan-sample", "rate": "gan-rate"}  # what the commands compose
SWEEP_ONLY = ("summary",)  # keys that belong to a sweep as a whole, and to none of its jobs
LINE_ONLY = ("packages", "resume", "accept")  # a file must not decide whose code may run, which run goes on, or on what else

Names = tuple[str, ...]


def takes_no(main: str, group: str, text: str) -> str:
    """Explain that a command takes no parts of a group. main: the file that it composes. text: what the line says."""
    others = [command for name, command in MAIN.items() if group in composed_groups(name)]
    said = f"; {' and '.join(others)} {'does' if len(others) == 1 else 'do'}" if others else ""
    return f"{text}: {MAIN.get(main, main)} takes no {group}{said}"


@cache
def composed_groups(main: str) -> tuple[str, ...]:
    """Return the groups that a command composes: those under `defaults` of its file."""
    text = (config_dir() / f"{main}.yaml").read_text(encoding="utf-8")
    defaults = OmegaConf.create(text).defaults
    return tuple(str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry)


@cache
def config_dir() -> Path:
    """Return the folder of the YAML files: in an installed wheel, an editable install or a source checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "configs", here.parents[2] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError("the configs of gan-runner are missing: reinstall the package")


def file_of(group: str, name: str, config_dirs: Sequence[str | Path] = ()) -> Path | None:
    """Return the file of an option, the user's before a shipped one; None where there is none."""
    paths = (folder / group / f"{name}.yaml" for folder in (*map(Path, config_dirs), config_dir()))
    return next((path for path in paths if path.is_file()), None) if name and ".." not in name else None


def is_part(node: Any) -> bool:
    return isinstance(node, DictConfig) and "_target_" in node


def chosen_names(loaded: DictConfig, group: str) -> list[str]:
    entries: Any = loaded.get(group)
    return [str(name) for name in entries or () if is_part(entries._get_node(name))]
