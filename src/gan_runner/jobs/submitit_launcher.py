"""Launch the jobs of a sweep in other processes: several at once on this machine, or on a SLURM cluster.

Base of Hydra's launchers `gan_local` and `gan_slurm`, on submitit. A preempted job saves after its round, is requeued, and resumes in the
same directory. Every command imports this module, so it imports neither torch nor submitit.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import signal
import tempfile
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra import version
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from gan_runner.config.command_line import recorded
from gan_runner.errors import Failed, UserError, handled, say, shell_line
from gan_runner.storage.files import make_folder
from gan_runner.storage.streams import courteous
from gan_runner.storage.untrusted import parsed_json, read_bounded

POLL_S = 0.5
FOREVER_MIN = 60 * 24 * 365  # submitit ends a local job after two minutes, if nothing else is said


class Task:
    """A job of a sweep for another process. Calling it returns (result of Hydra's runner, outcomes of the job)."""

    def __init__(self, context: Any, function: Any, config: DictConfig, devices: Sequence[str]):
        self.context, self.function, self.config = context, function, config
        self.devices = list(devices)  # of CUDA_VISIBLE_DEVICES; none: as it is

    @property
    def number(self) -> int:
        return self.config.hydra.job.num

    @property
    def overrides(self) -> list[str]:
        return recorded(self.config.hydra.overrides.task)

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir, str(self.config.hydra.sweep.subdir)).absolute()

    def __call__(self) -> tuple[JobReturn, list[Any]]:
        with courteous():
            return self.returned()

    def returned(self) -> tuple[JobReturn, list[Any]]:
        """Run the job in this process."""
        if self.devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices)
        requeue: Any = signal.getsignal(_preemption())  # submitit's, for the time after the state was saved
        function = copy.copy(self.function)
        function.outcomes = []
        version.setbase("1.3")  # else Hydra would change the working directory, and paths that were typed lead elsewhere
        setup_globals()
        try:
            returned = run_job(
                task_function=function,
                config=self.config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self.context,
            )
        except SystemExit as leaving:
            # scancel sends SIGTERM, as does SLURM before it requeues by itself: only a warning asks submitit to requeue.
            if isinstance(leaving.code, int) and leaving.code - 128 in (signal.SIGUSR1, _preemption()) and callable(requeue):
                requeue(leaving.code - 128, None)
            raise
        return returned, function.outcomes

    def checkpoint(self) -> Any:
        """Return the call for submitit to make after a requeue: the same one, which resumes the run in its directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _preemption() -> signal.Signals:
    """Return the signal by which submitit warns a job."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


class SubmititLauncher(Launcher):
    """Base of the launchers. UserError if submitit is not installed, or a setting cannot be written in one line of a script."""

    def __init__(self, **settings: Any) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise UserError("hydra/launcher needs submitit, which is not installed: pip install submitit")
        for key, value in settings.items():
            refuse_lines(f"hydra.launcher.{key}", value)
        self.settings = settings

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.context, self.function, self.config = hydra_context, task_function, config

    @abstractmethod
    def executor(self, folder: Path) -> Any:
        """Create submitit's executor, with its files in this folder."""

    @abstractmethod
    def submit(self, executor: Any, waiting: list[Task], running: dict[int, Any]) -> list[tuple[Task, Any]]:
        """Submit the waiting tasks that may start, and remove them from `waiting`. Returns each with its job."""

    @abstractmethod
    def stop(self, jobs: Sequence[Any]) -> None:
        """End the launch after a signal: stop the running jobs, or leave them running and raise SystemExit."""

    def tasks(self, job_overrides: Sequence[Sequence[str]], first: int) -> Iterator[Task]:
        """Compose the jobs."""
        for number, overrides in enumerate(job_overrides, first):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
                config.hydra.sweep.dir = str(Path(self.config.hydra.sweep.dir).absolute())  # the date of the sweep, not that of the job
            yield Task(self.context, self.function, config, ())

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        sweep = Path(self.config.hydra.sweep.dir).absolute()
        refuse_lines("hydra.sweep.dir", str(sweep))
        sweep.mkdir(parents=True, exist_ok=True)
        waiting = list(self.tasks(job_overrides, initial_job_idx))
        make_folder(sweep / ".submitit", sweep)
        executor = self.executor(Path(tempfile.mkdtemp(prefix="", dir=sweep / ".submitit")) / "%j")  # nobody has put results there before
        tasks: dict[int, Task] = {task.number: task for task in waiting}
        running: dict[int, Any] = {}
        returned: dict[int, JobReturn] = {}
        outcomes: dict[int, list[Any]] = {}
        with noted_signals() as signals:
            told = 0
            while waiting or running:
                if len(signals) > told:
                    told = len(signals)
                    waiting.clear()
                    self.stop(list(running.values()))
                for task, job in self.submit(executor, waiting, running):
                    running[task.number] = job
                    say(
                        "gan-train",
                        f"job {task.number}: {shell_line(task.overrides)}: handed over as {job.job_id}; log: {job.paths.stderr}",
                    )
                for number in [number for number, job in running.items() if job.done()]:
                    returned[number], outcomes[number] = result(tasks[number], running.pop(number))
                if running:
                    time.sleep(POLL_S)
        self.function.outcomes += [outcome for number in sorted(outcomes) for outcome in outcomes[number]]
        if signals:
            raise SystemExit(128 + signals[0])
        return [returned[number] for number in tasks]


def result(task: Task, job: Any) -> tuple[JobReturn, list[Any]]:
    """Return the result of a finished job; if it returned nothing, the outcome that its status.json records."""
    from gan_runner.jobs.job import Outcome

    try:
        returned, outcomes = job.result()
    except Exception as error:  # submitit's own, with the trace of the job's
        said = parsed_json(read_bounded(task.folder / "status.json"))
        state = said.get("state") if isinstance(said, dict) else None
        state = state if state in ("interrupted", "diverged") else "failed"
        outcome = Outcome(task.number, task.overrides, task.folder, state)
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        returned, outcomes = JobReturn(task.overrides), [outcome]
        returned.status = JobStatus.COMPLETED if task.function.returns_outcome else JobStatus.FAILED
        returned.return_value = outcome if task.function.returns_outcome else Failed(lines[-1])
        if state != "interrupted":
            say("gan-train", f"job {task.number}: {lines[-1]}; log: {job.paths.stderr}")
    for outcome in outcomes:
        say("gan-train", f"job {outcome.number}: {outcome.state}")
    return returned, outcomes


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Record SIGHUP, SIGINT, SIGTERM and SIGUSR1 in a list inside the context, instead of their default actions."""
    numbers: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        numbers.append(number)

    with handled((signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1), note):
        yield numbers


def refuse_lines(key: str, value: Any) -> None:
    """Raise UserError for a text of several lines: submitit quotes for the shell, but a line break would end the comment for sbatch."""
    if isinstance(value, str) and (not value.isprintable() or "%" in value):
        raise UserError(f"{key}={value!r}: expected one line of text without %, as it becomes part of a script")


def check(launcher: DictConfig) -> None:
    """Check the settings of a launcher of gan_runner against its signature. UserError with all mistakes."""
    ours = "hydra_plugins.gan_runner_launchers"
    if not str(launcher.get("_target_")).startswith(f"{ours}."):
        return

    from gan_runner.assembly.parts import Part, make, mistakes_in

    node: Any = OmegaConf.to_container(launcher, resolve=True)
    if mistakes := list(mistakes_in(Part("hydra.launcher", node, Launcher), [ours])):
        raise UserError("\n".join(mistakes))
    make(node, [ours], Launcher, "hydra.launcher")
