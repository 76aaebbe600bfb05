"""Build the texts of --help, with options and keys from the YAML files."""

import os
import re
import textwrap
from collections.abc import Sequence
from itertools import islice, takewhile
from pathlib import Path

from gan_runner.config.groups import LISTS, ONE, composed_groups, config_dir
from gan_runner.errors import printable, shell_line
from gan_runner.storage.untrusted import read_bounded

MOST = 1000  # files of a folder that are listed


def train_help(config_dirs: Sequence[str]) -> str:
    """Return the text of gan-train --help."""
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
  gan-train -m ... hydra.sweep.dir=DIR                  the same line again finishes a sweep that was stopped, or in which jobs failed
  gan-train -m ... hydra/sweeper=gan_optuna 'KEY=interval(A,B)'   search with Optuna
  gan-train resume=RUN_DIR [trainer.steps=N]            go on with a run
  gan-train +experiment=NAME resume=auto hydra.run.dir=DIR [KEY=VALUE ...]     start the run in DIR, or go on with it if it is there
  gan-train resume=RUN_DIR accept=data                  on other data than before, else refused; accept=config: with an edited config.yaml
  gan-sample run=RUN_DIR                                look at what it learnt
  gan-eval run=RUN_DIR 'metric=[A,B]'                   measure it
  gan-rate run=RUN_DIR                                  have people judge it
RUN_DIR may be latest (the newest run), a folder of runs for its newest one, RUN_DIR:best, or a checkpoint of a run.

Experiments (+experiment=NAME)
{_table(list(experiments.items()))}

Parts, one of each (GROUP=OPTION; the values of an option: GROUP.KEY=VALUE)
{options(ONE)}

Parts, any number of each ('GROUP=[A,B]', or +GROUP=A to add one, ~GROUP.A to take one away; values: GROUP.A.KEY=VALUE)
{options([group for group in LISTS if group in composed_groups("train")])}

Prepared sweeps (study=NAME)
{_table(list(groups.get("study", {}).items()))}

Keys
{_documented("train.yaml")}
{_documented("trainer/default.yaml", "trainer.")}

Results
  outputs/NAME/DATE_TIME/              config.yaml, metrics.jsonl, checkpoints/, samples/, train.log and TensorBoard's files
  outputs/multirun/DATE_TIME/JOB/      the same for every job of a sweep; beside them table.txt and the summary, page.md
  hydra.run.dir=DIR                    another place
  Exit code: 0 done, 1 failed, 2 the configuration is wrong (nothing was created), 3 diverged, 130 interrupted.

Examples
  gan-train +experiment={first}
  gan-train +experiment={first} loss=hinge 'penalty=[r1]' penalty.r1.weight=1 trainer.steps=2000
  gan-train -m +experiment={first} loss=hinge,wasserstein seed=0,1
  gan-train +experiment=mine --config-dir my_configs      my_configs/experiment/mine.yaml and other files of your own
  tensorboard --logdir outputs

Flags
  --help experiment=NAME   what an experiment is, what to expect of it, and its published figures
  --cfg job            print the configuration instead of running (--resolve: with interpolations filled in; -p KEY: one part of it)
  -m, --multirun       sweep over comma-separated values
  --config-dir DIR     also look for files in DIR/GROUP/*.yaml
  --info, --hydra-help what Hydra, which composes the configuration, can tell
  --version            print the version
  eval "$(gan-train -sc install=bash)"     TAB completes experiments, parts and keys in this shell; in zsh type first
                       autoload -Uz compinit bashcompinit; compinit; bashcompinit"""


def experiment_help(name: str, config_dirs: Sequence[str]) -> str:
    """Return the text of gan-train --help experiment=NAME: the head of its file, and its published figures."""
    from gan_runner.config.published import file_of_experiment, published  # a fifth of a second that --help does not need

    lines = (read_bounded(file_of_experiment(name, config_dirs), cut=True) or b"").decode(errors="replace").splitlines()
    head = [line.removeprefix("#").removeprefix(" ") for line in takewhile(lambda line: line.startswith("#"), lines)]
    story = "\n".join(printable(line, 300) for line in head if not line.startswith("@package"))
    rows = [(f"{each.figure}  {each.text}", each.told) for each in published(name, config_dirs)]
    return f"{story}\n" + (f"\nPublished figures (gan-runs --published compares runs with them)\n{_table(rows)}" if rows else "")


def sample_help() -> str:
    """Return the text of gan-sample --help."""
    return f"""\
gan-sample draws samples from a run of gan-train; it needs nothing but the run directory.

Usage
  gan-sample run=RUN_DIR [KEY=VALUE ...]

Keys
{_documented("sample.yaml")}

Refiners (refiner=NAME; values: refiner.NAME.KEY=VALUE)
{_table(list(catalogue()["refiner"].items()))}

Examples
  gan-sample run=outputs/NAME/DATE_TIME n=64
  gan-sample run=outputs/NAME/DATE_TIME refiner=dgflow trajectory=true
  gan-sample run=outputs/NAME/DATE_TIME checkpoint=last seed=1 class=3 format=png out=pictures
  gan-sample run=outputs/NAME/DATE_TIME export=model.safetensors

Flags
  --cfg job            print the configuration instead of sampling
  --version            print the version"""


def evaluate_help() -> str:
    """Return the text of gan-eval --help."""
    groups = catalogue()

    def options(group: str) -> str:
        return textwrap.indent(_table(list(groups[group].items())), "  ")

    return f"""\
gan-eval measures the samples of a run, or samples from any source, and says by which protocol.

Usage
  gan-eval run=RUN_DIR ['metric=[A,B]'] ['extractor=[C,D]'] [KEY=VALUE ...]
  gan-eval 'run=[A,B]' [KEY=VALUE ...]                     several runs, in one table
  gan-eval samples=SOURCE reference=SOURCE 'metric=[A,B]' ['extractor=[C,D]'] [KEY=VALUE ...]

Sources (samples=SOURCE reference=SOURCE)
  FOLDER                  images, one folder for each class or all together; or folders train and test of these
  FILE.zip                the same, packed; it is read where it is, nothing is unpacked
  FILE.parquet, .arrow    a column of encoded images (several: column=NAME), and one of labels: label, labels or class, where there is one
  FILE.npz                images or points as samples, images or arr_0; labels and class_names, where there are any
  FILE.npy                images of whole numbers 0 ... 255, N C H W or N H W C, or points, N D
  NAME                    a data set (below); a file or folder of that name comes first

Data sets (reference=NAME; values: dataset.KEY=VALUE)
{options("dataset")}

Metrics ('metric=[A,B]'; values: metric.A.KEY=VALUE)
{options("metric")}

Feature networks ('extractor=[C,D]'; values: extractor.C.KEY=VALUE, or extractor.KEY=VALUE with one of them)
{options("extractor")}

Refiners ('refiner=[A,B]'; values: refiner.A.KEY=VALUE): samples that are refined are judged beside those that are not
{options("refiner")}

Keys
{_documented("evaluate.yaml")}

Results
  On standard output a table of figures (a dash: undefined here), their 95 % intervals and numbers of samples; where that is no terminal,
  a line of JSON with the protocol (format=...). With run=... or out=DIR the line of JSON is added to DIR/metrics.jsonl, curves and
  pictures to TensorBoard's files there, and pictures to DIR/evaluations/. With watch=true all of this is added to RUN_DIR/evaluations/.
  Features of real data are kept in $GAN_RUNNER_CACHE (else ~/.cache/gan-runner), found again by content.

Examples
  gan-eval run=outputs/NAME/DATE_TIME
  gan-eval run=outputs/NAME/DATE_TIME checkpoint=all 'metric=[frechet_distance,precision_recall]' extractor=inception_v3_tf n=10000
  gan-eval run=outputs/NAME/DATE_TIME 'refiner=[dgflow,obrs]' n=2500 every=5
  gan-eval run=outputs/NAME/DATE_TIME watch=true accelerator=cpu             while it trains: each new checkpoint, until it has ended
  gan-eval samples=pictures reference=cifar10 split=test 'metric=[frechet_distance]' extractor=cifar_resnet seeds=1
  gan-eval samples=made.zip reference=photographs.parquet resize=64 'metric=[frechet_distance]' extractor=inception_v3_tf format=csv

Flags
  --cfg job            print the configuration instead of measuring
  --config-dir DIR     also look for files in DIR/GROUP/*.yaml
  --version            print the version"""


def rate_help() -> str:
    """Return the text of gan-rate --help."""
    return f"""\
gan-rate asks people which of two images is real, on a page that needs no server, and scores what they answered.

Usage
  gan-rate run=RUN_DIR [out=DIR] [KEY=VALUE ...]        write DIR/page/index.html, to send, and DIR/key.json, to keep
  gan-rate out=DIR 'answers=[A.json,B.json]'            score what came back: error rate and 95 % interval

Keys
{_documented("rate.yaml")}

Examples
  gan-rate run=outputs/NAME/DATE_TIME out=rating
  gan-rate fake=samples.npz real=photographs out=rating questions=40
  gan-rate out=rating 'answers=[anna.json,ben.json]'

Flags
  --cfg job            print the configuration
  --version            print the version"""


def _documented(file: str, prefix: str = "") -> str:
    return _table(
        [(shell_line([f"{prefix}{key}={value.replace('???', 'VALUE')}"]), comment) for key, value, comment in documented_keys(file)]
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(left) for left, _ in rows), default=0)
    return "\n".join(f"  {left.ljust(width)}  {right}".rstrip() for left, right in rows)


def catalogue(config_dirs: Sequence[str | Path] = ()) -> dict[str, dict[str, str]]:
    """Return group -> option -> the first comment line of its file, for --help."""
    groups: dict[str, dict[str, str]] = {}
    for root in (config_dir(), *map(Path, config_dirs)):
        for file in sorted(islice(root.glob("*/**/*.yaml"), MOST)):
            group, *name = file.relative_to(root).with_suffix("").parts
            groups.setdefault(group, {}).setdefault("/".join(name), _first_comment(file))
    return {group: dict(sorted(options.items())) for group, options in groups.items()}


def _first_comment(file: Path) -> str:
    for line in (read_bounded(Path(os.path.realpath(file)), cut=True) or b"").decode(errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return printable(line.lstrip("# ").rstrip(), 200)
        if line and not line.startswith("#"):
            break
    return ""


def documented_keys(file: str) -> list[tuple[str, str, str]]:
    """Return (key, default, comment) of commented top-level keys of a shipped YAML file, such as train.yaml or trainer/default.yaml."""
    text = (config_dir() / file).read_text(encoding="utf-8")
    return re.findall(r"^(\w+):[ ]+(\S.*?)[ ]+#[ ]+(.*)$", text, flags=re.MULTILINE)


HELP = {"gan-sample": sample_help, "gan-eval": evaluate_help, "gan-rate": rate_help}
