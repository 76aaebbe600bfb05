"""What --help prints: written for users, gathered from the YAML files themselves."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gan_runner.config import LISTS, SINGLE, config_dir


def train_help(config_dirs: Sequence[str]) -> str:
    """gan-train --help"""
    groups = catalogue(config_dirs)
    experiments = groups.get("experiment", {})
    first = "gaussians25" if "gaussians25" in experiments or not experiments else next(iter(experiments))

    def options(names: Sequence[str]) -> str:
        return "\n".join(f"  {group}\n{textwrap.indent(_table(list(groups[group].items())), '  ')}" for group in names if groups.get(group))

    return f"""\
gan-train trains a GAN from a configuration and leaves a run directory behind.

Usage
  gan-train +experiment=NAME [KEY=VALUE ...]
  gan-train -m +experiment=NAME KEY=VALUE,VALUE ...     every combination, one run after another
  gan-train resume=RUN_DIR [trainer.steps=N]            go on with a run
  gan-sample run=RUN_DIR                                look at what it learnt

Experiments (+experiment=NAME)
{_table(list(experiments.items()))}

Parts, one of each (GROUP=OPTION; the values of an option: GROUP.KEY=VALUE)
{options(SINGLE)}

Parts, any number of each (GROUP=[A,B], or +GROUP=A to add one, ~GROUP.A to take one away; values: GROUP.A.KEY=VALUE)
{options(LISTS)}

Prepared sweeps (study=NAME)
{_table(list(groups.get("study", {}).items()))}

Keys
{_documented("train.yaml")}
{_documented("trainer/default.yaml", "trainer.")}

Results
  outputs/NAME/DATE_TIME/              config.yaml, metrics.jsonl, checkpoints/, samples/, train.log and TensorBoard's files
  outputs/multirun/DATE_TIME/JOB/      the same for every job of a sweep, and table.txt beside them
  hydra.run.dir=DIR                    another place
  Exit code: 0 done, 1 failed, 2 the configuration is wrong (nothing was created), 3 diverged, 130 interrupted.

Examples
  gan-train +experiment={first}
  gan-train +experiment={first} loss=hinge penalty=[r1] penalty.r1.weight=1 trainer.steps=2000
  gan-train -m +experiment={first} loss=hinge,wasserstein seed=0,1
  gan-train +experiment=mine --config-dir my_configs      my_configs/experiment/mine.yaml and other files of your own
  tensorboard --logdir outputs

Flags
  --cfg job            print the configuration instead of running (--resolve: with interpolations filled in; -p KEY: one part of it)
  -m, --multirun       sweep over comma-separated values
  --config-dir DIR     also look for files in DIR/GROUP/*.yaml
  --info, --hydra-help what Hydra, which composes the configuration, can tell
  --version            print the version
  eval "$(gan-train -sc install=bash)"     TAB completes experiments, parts and keys in this shell"""


def sample_help() -> str:
    """gan-sample --help"""
    return f"""\
gan-sample draws samples from a run of gan-train; it needs nothing but the run directory.

Usage
  gan-sample run=RUN_DIR [KEY=VALUE ...]

Keys
{_documented("sample.yaml")}

Examples
  gan-sample run=outputs/NAME/DATE_TIME n=64
  gan-sample run=outputs/NAME/DATE_TIME checkpoint=last seed=1 class=3 format=png out=pictures
  gan-sample run=outputs/NAME/DATE_TIME export=model.safetensors

Flags
  --cfg job            print the configuration instead of sampling
  --version            print the version"""


def _documented(file: str, prefix: str = "") -> str:
    return _table([(f"{prefix}{key}={value}", comment) for key, value, comment in documented_keys(file)])


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(left) for left, _ in rows), default=0)
    return "\n".join(f"  {left.ljust(width)}  {right}".rstrip() for left, right in rows)


def catalogue(config_dirs: Sequence[str | Path] = ()) -> dict[str, dict[str, str]]:
    """Group -> option -> the first comment line of its file; what --help shows."""
    groups: dict[str, dict[str, str]] = {}
    for root in (config_dir(), *map(Path, config_dirs)):
        for file in sorted(root.glob("*/**/*.yaml")):
            group, *name = file.relative_to(root).with_suffix("").parts
            groups.setdefault(group, {}).setdefault("/".join(name), _first_comment(file))
    return {group: dict(sorted(options.items())) for group, options in groups.items()}


def _first_comment(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").rstrip()
        if line and not line.startswith("#"):
            break
    return ""


def documented_keys(file: str) -> list[tuple[str, str, str]]:
    """(key, default, comment) of every commented key at the top of a shipped YAML file, such as train.yaml or trainer/default.yaml."""
    text = (config_dir() / file).read_text(encoding="utf-8")
    return re.findall(r"^(\w+):[ ]+(\S.*?)[ ]+#[ ]+(.*)$", text, flags=re.MULTILINE)
