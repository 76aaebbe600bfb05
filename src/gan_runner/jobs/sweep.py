"""Run sweeps: compose and check all jobs before the first folder is created, run them, and print a table of the results."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from gan_runner.config.command_line import accepted, gathered, lasting, parsed, quoted, recorded
from gan_runner.config.composed import Composed
from gan_runner.config.composer import Composer
from gan_runner.config.trust import OPTUNA_SWEEPERS
from gan_runner.errors import DONE, FAILED, UserError, handled, say, shell_line
from gan_runner.inventory import summary
from gan_runner.jobs import submitit_launcher
from gan_runner.jobs.job import Job, Outcome, check, composed_with_all_mistakes, refuse_missing, refused, runner, started_by_others
from gan_runner.jobs.space import line_of
from gan_runner.jobs.table import report, state_of, sum_up
from gan_runner.storage import contents
from gan_runner.storage.documents import rendered
from gan_runner.storage.labels import key_of

if TYPE_CHECKING:
    from gan_runner.jobs.search import OptunaSweeper as Search


BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"

Jobs = Mapping[int, list[str]]
"""The overrides of a job, by its number."""


class Planned(NamedTuple):
    """A planned job: its overrides, folder and composed configuration."""

    overrides: list[str]
    folder: Path
    composed: Composed


def sweep(composer: Composer, name: str, overrides: list[str], typed: list[str]) -> int:
    """Run every job that has not finished in the folder of the sweep; all are composed and checked before anything is created or changed.

    typed: the line with its flags.
    """
    if started_by_others():
        return refused("a sweep is not for torchrun or srun: its jobs start their own processes with trainer.devices=N")
    overrides = gathered(overrides)
    frame = composer.load_configuration(name, overrides, RunMode.MULTIRUN)
    refuse_missing(frame.hydra, "sweep.dir", "sweeper", "launcher")
    submitit_launcher.check(frame.hydra.launcher)
    try:
        folder = Path(frame.hydra.sweep.dir).absolute()
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error
    if "${" in str(frame.hydra.sweep._get_node("dir")._value()):  # a date, which would be another one each time it is asked for
        overrides = [*overrides, f"hydra.sweep.dir={quoted(str(folder))}"]
        frame = composer.load_configuration(name, overrides, RunMode.MULTIRUN)

    known: dict[int, Planned] = {}
    search: Search | None = None
    if frame.hydra.sweeper._target_ in OPTUNA_SWEEPERS:
        from gan_runner.jobs.search import OptunaSweeper

        search = OptunaSweeper.of(frame)
        ends = checked(composer, frame, search.ends(), "trial")
        search.follow(ends[0].composed)
        asked = ends[0].composed
        known = checked(composer, frame, search.taken_up(folder))
    elif frame.hydra.sweeper._target_ == BASIC_SWEEPER:
        known = checked(composer, frame, _jobs(composer, frame))
        asked = known[0].composed
    else:  # only the sweeper knows its jobs
        asked = checked(composer, frame, {0: _without_sweeps(overrides)})[0].composed
    contents.refuse_foreign_sweep(folder, [job.folder for job in known.values()])
    refuse_others(known, accepted(overrides))
    asks = asked.summary() or summary.DEFAULT | ({"columns": [":".join(map(str, search.followed))]} if search else {})
    summary.made(asks, asked.packages)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the sweep directory: {error}; choose another with hydra.sweep.dir=...") from error

    from gan_runner.storage.directory import locked

    with locked(folder, "writing the sweep"), stopping():
        summary.record(folder, typed, _names(folder, known, search), asks, _varied(composer, frame))
        try:
            outcomes = run(composer, name, overrides, folder, known, search, asked.packages)
        except (SystemExit, KeyboardInterrupt):
            say("gan-train", f"go on with the sweep by  {line_again(typed, folder)}")
            raise
    failures = {outcome.state for outcome in outcomes} - {"finished"}
    if search and failures == {"diverged"} and len(outcomes) > sum(outcome.state == "diverged" for outcome in outcomes):
        return DONE  # that some of its trials diverge is what a search finds out
    return FAILED if failures else DONE


def run(
    composer: Composer,
    name: str,
    overrides: list[str],
    folder: Path,
    known: Mapping[int, Planned],
    search: "Search | None",
    packages: list[str],
) -> list[Outcome]:
    """Run the jobs, and report all jobs of the folder, also after an error. Returns their outcomes."""
    task = Job(jobs=search.n_trials if search else len(known), returns_outcome=bool(search or known))
    hydra = runner("gan-train", composer)
    returned: Any = None
    try:
        if search:
            returned = search.run(hydra, name, overrides, task)
        else:
            returned = hydra.multirun(config_name=name, task_function=task, overrides=overrides)
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error
    finally:
        if task.returns_outcome and returned is not None:  # the jobs may have run in other processes
            task.outcomes = [one.return_value for batch in returned for one in batch]
        ended = {outcome.number: outcome for outcome in task.outcomes}
        jobs = search.jobs(folder) if search else {number: (job.overrides, job.folder) for number, job in known.items()}
        stood = {number: Outcome(number, *job, state_of(job[1])) for number, job in jobs.items() if number not in ended}
        outcomes = [outcome for _, outcome in sorted({**stood, **ended}.items())]
        report(folder, outcomes, search.followed if search else None)
        sum_up(folder, packages)
    return outcomes


def line_again(typed: Sequence[str], folder: Path) -> str:
    """Return the line that goes on with a sweep: what was typed, and its folder where Hydra has chosen it."""
    from gan_runner.lifecycle import messages

    chosen = any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in typed)
    return messages.command("gan-train", *typed, *([] if chosen else messages.named("hydra.sweep.dir", messages.short(folder), [])))


@contextmanager
def stopping() -> Iterator[None]:
    """End a sweep in order when a signal arrives between its runs."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    with handled((signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1), stop):
        yield


# ---------------------------------------------------------------------------------------------------------------------- before the start


def checked(composer: Composer, frame: DictConfig, jobs: Jobs, word: str = "job") -> dict[int, Planned]:
    """Compose and check the jobs. UserError with the mistakes of all jobs."""
    known: dict[int, Planned] = {}
    mistakes: dict[str, list[int]] = {}
    notes: dict[str, None] = {}
    good: set[str] = set()
    for number, job in jobs.items():
        try:
            composed = composed_with_all_mistakes(partial(composer.compose_job, frame, job))
            loaded = composer.load_sweep_config(frame, job)
            known[number] = Planned(lasting(recorded(loaded.hydra.overrides.task)), place_of(loaded, number), composed)
            notes.update(dict.fromkeys(composed.notes))
            kind = _but_for_the_seed(composed)
            if kind not in good:
                check(composed, "sweep.dir")
                good.add(kind)
        except UserError as error:
            for mistake in str(error).replace("\n  ", "\0").splitlines():  # an indented line belongs to the one before
                mistakes.setdefault(mistake.replace("\0", "\n  "), []).append(number)
    if mistakes:
        raise UserError("\n".join(f"{_jobs_named(numbers, jobs, word)}: {mistake}" for mistake, numbers in mistakes.items()))
    for note in notes:
        say("gan-train", f"note: {note}")
    return known


def place_of(loaded: DictConfig, number: int) -> Path:
    """Return the folder that Hydra will use for a job."""
    with open_dict(loaded):
        loaded.hydra.job.id = loaded.hydra.job.num = number
    HydraConfig.instance().set_config(loaded)
    try:
        return Path(loaded.hydra.sweep.dir).absolute() / str(loaded.hydra.sweep.subdir)
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error


def refuse_others(known: Mapping[int, Planned], accept: Sequence[str]) -> None:
    """Raise UserError if the folder of a job holds another job, or a state of other data. Changes nothing on disk."""
    begun = [job for job in known.values() if job.folder.exists()]
    if not begun:
        return

    from gan_runner.lifecycle.runs import config_for, saved_state
    from gan_runner.storage import directory

    def quiet(message: str) -> None:
        """Print nothing: the job itself prints the message later."""

    for job in begun:
        try:
            config = config_for(job.folder, job.composed.config, job.overrides, quiet, shipped=not job.composed.files)
        except UserError as error:
            raise UserError(f"{error}; choose another folder with hydra.sweep.dir=...") from error
        if directory.state_of(job.folder) in directory.GOES_ON:
            saved_state(job.folder, config, job.composed.packages, accept, quiet)


def _jobs(composer: Composer, frame: DictConfig) -> Jobs:
    """Return the overrides of every job, as Hydra's basic sweeper will generate them."""
    line = line_of(frame)
    if found := next((o for o in parsed(line, composer) if o.is_sweep_override() and not o.is_discrete_sweep()), None):
        raise UserError(f"{found.input_line}: an interval has no end of values; have it searched with hydra/sweeper=gan_optuna")
    try:
        jobs = BasicSweeper.split_arguments(parsed(line, composer), max_batch_size=None)[0]
    except HydraException as error:
        raise UserError(rendered(error)) from error
    if not jobs:
        raise UserError(f"{shell_line(line)}: there is nothing to sweep over, since a range(...) or glob(...) is empty")
    return {number: list(job) for number, job in enumerate(jobs)}


def _names(folder: Path, known: Mapping[int, Planned], search: "Search | None") -> list[str]:
    """The folders of all jobs, below that of the sweep."""
    return [str(number) for number in range(search.n_trials)] if search else [os.path.relpath(job.folder, folder) for job in known.values()]


def _varied(composer: Composer, frame: DictConfig) -> list[str]:
    """The keys that have several values on the line."""
    return [key_of(word.input_line or "") for word in parsed(line_of(frame), composer) if word.is_sweep_override()]


def _but_for_the_seed(composed: Composed) -> str:
    """Serialise a configuration without the value of its seed, which does not affect the check."""
    settings = composed.plain()
    seed = settings.pop("seed", None)
    return json.dumps([settings, composed.packages, type(seed) is int or str(seed)], default=str)


def _without_sweeps(overrides: list[str]) -> list[str]:
    return [o.input_line or "" for o in parsed(overrides) if not o.is_sweep_override() and not o.is_hydra_override()]


def _jobs_named(numbers: list[int], jobs: Jobs, word: str) -> str:
    if len(jobs) == 1 or len(numbers) == len(jobs):
        return f"every {word}" if len(jobs) > 1 else f"{word} {numbers[0]}"
    if word == "trial":  # they have no numbers yet
        return f"a trial with {' '.join(jobs[numbers[0]])}"
    if len(numbers) == 1:
        return f"job {numbers[0]} ({' '.join(jobs[numbers[0]])})"
    return f"jobs {', '.join(map(str, numbers))} (first: {' '.join(jobs[numbers[0]])})"
