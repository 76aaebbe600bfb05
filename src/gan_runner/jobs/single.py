"""Start a single run."""

from pathlib import Path

from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from gan_runner.config.command_line import accepted, recorded
from gan_runner.config.composer import Composer
from gan_runner.errors import DONE, UserError, say
from gan_runner.jobs.job import Job, check, composed_with_all_mistakes, joined, refuse_missing, refused, runner, speaks
from gan_runner.storage.documents import rendered

NO_AUTO = "resume=auto is for one run; a sweep goes on by itself where its folder is named, hydra.sweep.dir=DIR"


def run(composer: Composer, name: str, overrides: list[str], typed: list[str], goes_on: bool = False) -> int:
    """Check the configuration of a run, then create its directory and play it. Returns the exit code.

    goes_on: a run that is in the directory is resumed.
    """
    composed = composed_with_all_mistakes(lambda: composer.compose(overrides, name))
    if composed.hydra.mode == RunMode.MULTIRUN:  # an experiment that is a sweep
        if goes_on:
            raise UserError(NO_AUTO)
        from gan_runner.jobs.sweep import sweep

        return sweep(composer, name, overrides, typed)
    for note in composed.notes if speaks() else ():
        say("gan-train", f"note: {note}")
    refuse_missing(composed.hydra, "run.dir")
    if goes_on and "${now:" in str(composed.hydra.run._get_node("dir")._value()):
        raise UserError("resume=auto starts the run of one folder, or goes on with it: name the folder, hydra.run.dir=DIR")
    accepted(overrides)
    with joined() as with_others:
        if not with_others:
            check(composed)
            return _run(composer, name, overrides, goes_on)

        from gan_runner import distributed
        from gan_runner.lifecycle.runs import start_or_resume, train

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
            return _run(composer, name, overrides, goes_on)
        play = start_or_resume if goes_on else train  # in the directory that the first has made
        play(composed.config, Path(), recorded(composed.hydra.overrides.task), composed.packages)
        return DONE


def _run(composer: Composer, name: str, overrides: list[str], goes_on: bool) -> int:
    """Play a run in the directory that Hydra creates."""
    job = Job(goes_on=goes_on)
    try:
        runner("gan-train", composer).run(config_name=name, task_function=job, overrides=overrides)
    except OSError as error:  # what happens inside the run is in job.error
        raise UserError(f"cannot create the run directory: {error}; choose another with hydra.run.dir=...") from error
    except OmegaConfBaseException as error:
        raise UserError(rendered(error)) from error
    if job.error is not None:
        raise job.error
    return DONE
