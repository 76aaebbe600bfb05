"""Jobs: the task that Hydra's runner calls in a run directory, for a single run or a job of a sweep."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_runner.config.command_line import lasting, named_packages, parsed, recorded
from gan_runner.config.composed import Composed, without_line_keys
from gan_runner.config.composer import Composer
from gan_runner.config.mistakes import composed_or_rest, sets_values
from gan_runner.errors import DIVERGED, WRONG, Interrupted, UserError, say, shell_line, verdict
from gan_runner.storage.documents import rendered


def runner(command: str, composer: Composer) -> Hydra:
    """Create Hydra's runner with the composer as its configuration loader."""
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name=command, config_loader=composer)
    GlobalHydra.instance().initialize(hydra)
    return hydra


def started_by_others() -> bool:
    """Return whether torchrun or srun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 or (int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "MASTER_ADDR" in os.environ)


def speaks() -> bool:
    """Return whether this process prints for all: it is rank 0, or was not started by torchrun or srun."""
    return not started_by_others() or os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def refused(message: str) -> int:
    """Report an error that every rank has found: rank 0 raises UserError, the others return its exit code."""
    if speaks():
        raise UserError(message)
    return WRONG


@contextmanager
def joined() -> Iterator[bool]:
    """Context: join the process group of torchrun or srun. Yields whether there is one."""
    if not started_by_others():
        yield False
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DistributedDataParallel warns of find_unused_parameters in every process

    from gan_runner import distributed

    with distributed.translate_lost_peers():
        distributed.join_others()
        try:
            yield True
        except Interrupted:
            distributed.leave()
            raise
        distributed.leave()


def refuse_missing(hydra: DictConfig, *keys: str) -> None:
    """Raise UserError for empty settings of Hydra, as in `hydra.run.dir=$DIR` without such a variable: it would mean the working folder."""
    for key in keys:
        if _raw(hydra, key) in ("", None):
            raise UserError(f"hydra.{key} has no value")


def _raw(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node._get_node(part)
    return node._value()


def composed_with_all_mistakes(compose: Callable[[], Composed]) -> Composed:
    """Compose a run. UserError with all mistakes of the line: wrong words, and wrong values among the other words."""
    composed, mistakes = composed_or_rest(compose)
    if not mistakes:
        return composed
    if sets_values(composed):
        from gan_runner.assembly.build import wrong_values

        wrong = wrong_values(composed.config, composed.packages, composed.overrides)
        mistakes += [f"{each}{composed.sources(each)}" for each in wrong]
    raise UserError("\n".join(mistakes))


def check(composed: Composed, place: str = "run.dir") -> None:
    """Check a run before it starts. UserError with all mistakes, and the files that contain them.

    place: the setting of Hydra that has the folder.
    """
    from gan_runner.assembly.build import check
    from gan_runner.lifecycle.initial import load
    from gan_runner.training.disk_room import refuse_shortage

    try:
        assembly = check(composed.config, composed.packages, composed.overrides, load)
    except UserError as error:
        raise UserError(f"{error}{composed.sources(str(error))}") from error
    try:
        folder = OmegaConf.select(composed.hydra, place)
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error
    refuse_shortage(assembly, Path(folder))


@dataclass
class Outcome:
    """The result of a job of a sweep."""

    number: int
    overrides: list[str]
    folder: Path
    state: str
    value: float | None = None


class Job:
    """Train in a run directory; called by Hydra's runner. Stores the error of a single run. Picklable, for other processes.

    A job of a sweep resumes the run in its folder (`runs.complete`), so it can be called again after it was killed.
    """

    def __init__(self, jobs: int | None = None, returns_outcome: bool = False, goes_on: bool = False):
        self.jobs = jobs  # None: a single run
        self.goes_on = goes_on  # whether a single run is resumed where there is one
        self.returns_outcome = returns_outcome
        self.error: Exception | None = None
        self.outcomes: list[Outcome] = []

    def __call__(self, config: Any) -> Any:
        hydra = HydraConfig.get()
        overrides, folder = recorded(hydra.overrides.task), Path(hydra.runtime.output_dir)
        if self.jobs is None:
            try:
                return self._trained(config, folder, overrides)
            except Exception as error:
                self.error = error
                return None
        outcome = Outcome(hydra.job.num, lasting(overrides), folder, "interrupted")
        self.outcomes.append(outcome)
        say("gan-train", f"job {outcome.number} of {self.jobs}: {shell_line(overrides)}")
        try:
            outcome.value = self._trained(config, folder, overrides)
            outcome.state = "finished"
        except Interrupted as error:
            say("gan-train", f"job {outcome.number}: {error}; the jobs after it are not run")
            raise SystemExit(128 + error.signal) from error  # the only thing that Hydra's launchers let stop a sweep
        except Exception as error:
            code, message = verdict(error)
            outcome.state = "diverged" if code == DIVERGED else "failed"
            say("gan-train", f"job {outcome.number}: {message}")
            if not self.returns_outcome:
                raise
        return outcome if self.returns_outcome else outcome.value

    def _trained(self, config: Any, folder: Path, overrides: list[str]) -> float | None:
        from gan_runner.lifecycle.runs import complete, start_or_resume, train

        play = complete if self.jobs is not None else start_or_resume if self.goes_on else train
        return play(without_line_keys(config), folder, overrides, named_packages(parsed(overrides)))
