"""Start a single run."""

from pathlib import Path

from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from gan_runner.config.command_line import accepted
from gan_runner.config.composer import Composer
from gan_runner.errors import DONE, UserError, say
from gan_runner.jobs.job import Job, check, joined, refuse_missing, refused, runner, speaks
from gan_runner.storage.documents import rendered


def run(composer: Composer, name: str, overrides: list[str], typed: list[str]) -> int:
    """Check the configuration of a run, then create its directory and play it. Returns the exit code."""
    composed = composer.compose(overrides, name)
    if composed.hydra.mode == RunMode.MULTIRUN:  # an experiment that is a sweep
        from gan_runner.jobs.sweep import sweep

        return sweep(composer, name, overrides, typed)
    for note in composed.notes if speaks() else ():
        say("gan-train", f"note: {note}")
    refuse_missing(composed.hydra, "run.dir")
    accepted(overrides)
    with joined() as with_others:
        if not with_others:
            check(composed)
            return _run(composer, name, overrides)

        from gan_runner import distributed
        from gan_runner.lifecycle.runs import train

        mistake = ""
        if distributed.is_first():
            try:
                check(composed)  # and download
            except UserError as error:
                mistake = str(error)
        if mistake := distributed.shared(mistake):
            distributed.leave()
            return refused(mistake)
        if distributed.is_first():
            return _run(composer, name, overrides)
        train(composed.config, Path(), overrides, composed.packages)  # in the directory that the first has made
        return DONE


def _run(composer: Composer, name: str, overrides: list[str]) -> int:
    """Play a run in the directory that Hydra creates."""
    job = Job()
    try:
        runner("gan-train", composer).run(config_name=name, task_function=job, overrides=overrides)
    except OSError as error:  # what happens inside the run is in job.error
        raise UserError(f"cannot create the run directory: {error}; choose another with hydra.run.dir=...") from error
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error
    if job.error is not None:
        raise job.error
    return DONE
