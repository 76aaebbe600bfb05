"""Play runs: `train` starts one, `resume` continues one, `start_or_resume` and `complete` do whichever is needed to finish one."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from gan_runner import distributed
from gan_runner.assembly.build import assemble, check, plain
from gan_runner.assembly.parts import make_one, whole_numbers
from gan_runner.config.command_line import accepted, allowed_packages, lasting, parsed
from gan_runner.datasets.batches import translate_lost_workers
from gan_runner.errors import Diverged, Failed, Interrupted, UserError, place_in, some
from gan_runner.execution import hardware
from gan_runner.execution.capturable import parts_of
from gan_runner.execution.hardware import devices_of
from gan_runner.game.game import Game
from gan_runner.lifecycle import messages
from gan_runner.lifecycle.initial import load, recorded
from gan_runner.lifecycle.launch import launch
from gan_runner.reporting import Reporter, log
from gan_runner.schedules import Schedule
from gan_runner.storage import checkpoint, contents, directory
from gan_runner.storage.records import read
from gan_runner.storage.untrusted import flat, parsed_yaml, read_bounded
from gan_runner.training import provenance
from gan_runner.training.disk_room import refuse_shortage
from gan_runner.training.loop import play
from gan_runner.training.run import Run
from gan_runner.training.signals import Signals

RESUMABLE = ("trainer", "callback", "logger", "dataset.root", "dataset.path")  # what the line of a resume may change


def train(config: Any, folder: Path, overrides: Sequence[str] = (), packages: Sequence[str] = ()) -> float | None:
    """Play a run from its first round, into `folder`. Returns the best value of the metric that best.pt follows, or None.

    UserError if the folder holds a run already; Diverged, Interrupted and Failed as in their docstrings.
    """
    first = distributed.is_first()
    if first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be created: {error.strerror}") from error
    folder = Path(distributed.shared(str(folder)))
    contents.refuse_foreign(folder)
    with directory.locked(folder) if first else nullcontext():
        config = recorded(whole_numbers(OmegaConf.create(config), packages))
        if first:
            directory.lay_out(folder, config, lasting(overrides))
        return played(folder, config, packages, None)


def resume(folder: Path, overrides: Sequence[str] = (), packages: Sequence[str] = ()) -> float | None:
    """Resume the run in `folder` from its newest readable state, as if it had never stopped.

    overrides: keys of RESUMABLE, and accept; else UserError. A larger trainer.steps stretches schedules that follow the length of the run.
    UserError if config.yaml or the data differ from those of the state, unless accept=config or accept=data is given.
    """
    contents.refuse_foreign(folder)
    saved = directory.read_config(folder)
    return go_on(folder, saved, change(saved, lasting(overrides)), overrides, packages)


def start_or_resume(config: Any, folder: Path, overrides: Sequence[str] = (), packages: Sequence[str] = ()) -> float | None:
    """Resume the run in `folder`, or start it where there is none, or none with a checkpoint. A finished run is not played again.

    What the line says differently from config.yaml is treated as on the line of a resume. Returns and raises as `train` and `resume`.
    """
    folder = Path(distributed.shared(str(folder)))
    contents.refuse_foreign(folder)
    if distributed.shared((folder / "status.json").exists()):
        saved = directory.read_config(folder)
        config = changed(folder, saved, config, overrides)
        status = directory.status_of(folder)
        if status.get("state") == "finished" and status.get("step") == config.trainer.steps:
            with Reporter(silent=not distributed.is_first()) as reporter:
                reporter.say(f"{folder} has finished before; it is not run again")
            finished = read(folder, folder.parent)
            return finished.objective(*finished.own)
        if checkpoint.candidates(folder / "checkpoints"):
            return go_on(folder, saved, config, overrides, packages)
        if distributed.is_first():
            with directory.locked(folder), Reporter() as reporter:
                moved = directory.move_aside(folder)
                reporter.say(f"starts again from the first round; what there was, without a checkpoint, is in {moved}")
        distributed.shared(None)
    return train(config, folder, overrides, packages)


def go_on(folder: Path, saved: DictConfig, config: DictConfig, overrides: Sequence[str], packages: Sequence[str]) -> float | None:
    """Resume the run in `folder`, whose config.yaml is `saved`, with the configuration `config`."""
    accept, config = accepted(overrides), whole_numbers(config, packages)
    assembly = check(config, packages, overrides)
    first = distributed.is_first()
    if first:
        refuse_shortage(assembly, folder)
    with directory.locked(folder) if first else nullcontext():
        with Reporter(folder / "train.log" if first else None, silent=not first) as reporter:
            path, state = directory.newest(folder, reporter.say)
            step, steps = state["step"], config.trainer.steps
            if step > steps or (step == steps and directory.state_of(folder) == "finished"):  # else it was killed after its last round
                raise UserError(f"{folder} has played its {step} rounds; to go on, say trainer.steps=N with a larger N")
            other_data = provenance.refuse_others(path, state, saved, assembly.dataset, accept, reporter.say)
            report_changes(saved, config, assembly.game, reporter.say)
        del state, assembly
        return played(folder, config, packages, path, other_data)


def complete(config: Any, folder: Path, overrides: Sequence[str] = (), packages: Sequence[str] = ()) -> float | None:
    """Play the run in `folder` to its end, from its newest state if there is one. The result equals that of an uninterrupted run.

    A finished run is not played again. An interrupted or killed run is resumed from its newest readable state. A run that failed or
    diverged, or has no such state, is moved aside and restarted from the first round. Returns and raises as `train`. UserError, without
    changes on disk, if the folder holds a run of another configuration, or its state has another configuration or other data that
    `overrides` do not accept. Call it in one process; it starts the workers for trainer.devices.
    """
    contents.refuse_foreign(folder)
    config = whole_numbers(OmegaConf.create(config), packages)
    if (folder / "status.json").exists():
        with directory.locked(folder):
            state = directory.state_of(folder)
            with Reporter(folder / "train.log" if state != "finished" else None) as reporter:
                config = config_for(folder, config, overrides, reporter.say)
                if state == "finished":
                    finished = read(folder, folder.parent)
                    reporter.say(f"{folder} has finished before; it is not run again")
                    return finished.objective(*finished.own)
                start = saved_state(folder, config, packages, accepted(overrides), reporter.say) if state in directory.GOES_ON else None
                if start is None:
                    moved = directory.move_aside(folder)
                    reporter.say(f"starts again from the first round; what there was ({state}) is in {moved}")
            if start is not None:
                return played(folder, config, packages, *start)
    return train(config, folder, overrides, packages)


def config_for(folder: Path, config: Any, overrides: Sequence[str], say: Callable[[str], None], shipped: bool = True) -> Any:
    """Return the configuration with which a job is resumed in its folder. UserError, with a difference, if the folder holds another job.

    The same command line composes another configuration if a recipe of the project has changed since. Then the job keeps the config.yaml
    in its folder, and this is reported. But if config.yaml differs from that of the newest state, it was edited; if a recipe is not
    `shipped` with the project, its user edited it. Both count as another job.
    """
    there, here = parsed_yaml(read_bounded(folder / "overrides.yaml", 2**24)), lasting(overrides)
    pairs = zip_longest(directory.line_of(there if isinstance(there, list) else here), directory.line_of(here), fillvalue="nothing")
    other = next(((before, now) for before, now in pairs if before != now), None)
    if not (folder / "config.yaml").is_file():
        saved, changed = config, []
    else:
        saved = directory.read_config(folder)
        changed = list(directory.differences(directory.portable(saved), directory.as_read(config)))
    if other and not (changed and "nothing" in other):
        raise UserError(f"{folder} holds another job: {other[0]} there and {other[1]} here")
    if not changed:
        return config
    try:
        made = directory.newest(folder, lambda message: None)[1].get("config")
    except UserError:  # there is no state
        made = None
    if other or not shipped or (made is not None and any(directory.differences(made, directory.made_with(saved)))):
        raise UserError(f"{folder} holds another job: {changed[0].key} is {changed[0].before} there and {changed[0].now} here")
    say(f"{folder} keeps its configuration, since a recipe has changed after it began: {some(map(str, changed), 3)}")
    keep_watchers(saved, config)
    return saved


def saved_state(
    folder: Path, config: Any, packages: Sequence[str], accept: Sequence[str], say: Callable[[str], None]
) -> tuple[Path, bool] | None:
    """Return (file of the newest readable state, whether the data differ); None if there is no such state.

    UserError if the state has another configuration or other data, unless `accept` names them.
    """
    try:
        path, state = directory.newest(folder, say)
    except UserError:
        return None
    dataset = make_one(plain(config), packages, "dataset")
    dataset.prepare()
    return path, provenance.refuse_others(path, state, config, dataset, accept, say)


def played(folder: Path, config: Any, packages: Sequence[str], start: Path | None, other_data: bool = False) -> float | None:
    """Call `work` in one process per device of the run."""
    path, n = folder / "status.json", devices_of(config.trainer.devices, config.trainer.accelerator)
    before = path.stat().st_mtime_ns if path.exists() else None
    try:
        return launch(partial(work, other_data=other_data), n, folder, config, packages, start)
    except (Failed, Interrupted, UserError) as error:
        begun = start is None or path.stat().st_mtime_ns != before
        if begun and n > 1 and distributed.size() == 1:
            record(folder, error)
        raise


def record(folder: Path, error: Exception) -> None:
    """Record why the workers ended, on behalf of workers that died before they could."""
    state = ending(error)
    if state == "interrupted" == directory.state_of(folder):
        return
    with suppress(Failed, OSError), Reporter(folder / "train.log", silent=True):
        log.error("\n".join([str(error), *getattr(error, "__notes__", ())]))
        last = directory.status_of(folder)
        directory.Status(folder).write(state, last.get("step", 0), last.get("images", 0), str(error))


def work(folder: Path, config: Any, packages: Sequence[str], start: Path | None, other_data: bool = False) -> float | None:
    """Build the run and play it from its first round, or from the state in the file `start`; write status.json and train.log.

    other_data: the data may differ from those of the state. Every rank calls this; only rank 0 writes and prints.
    """
    first = distributed.is_first()
    with Reporter(folder / "train.log" if first else None, silent=not first) as reporter, Signals() as signals:
        status, run = directory.Status(folder, writes=first), None
        begun = start is None  # a resume that is refused leaves the run as it was
        try:
            with distributed.translate_lost_peers(), translate_lost_workers():
                if begun:
                    status.write("running", 0, 0)
                assembly = assemble(config, packages, initial=load if start is None else None)
                hardware.determine(assembly.config["deterministic"])
                hardware.use_threads(assembly.trainer.threads)
                hardware.draw_apart(assembly.config["seed"])
                run = Run(assembly, folder, reporter)
                reporter.say(messages.beginning(run))
                if begun and (random := messages.left_random(run)):
                    reporter.say(random)
                if slow := hardware.slower_than_float32(assembly.trainer.precision, run.device):
                    reporter.say(f"note: {slow}")
                if distributed.size() > 1:
                    reporter.say(together(run))
                if start is not None:
                    state = checkpoint.load(start, root=folder)
                    run.restore(state, other_data)
                    begun = True
                    if first:
                        provenance.record(folder, state, run)
                        directory.write_config(folder, config)
                        directory.forget_after(folder, run.step)
                    del state
                    status.write("running", run.step, run.images)
                    reporter.say(f"going on after round {run.step}")
                if first:
                    directory.write_environment(folder)
                    for logger in assembly.loggers.values():
                        run.log_to(logger)
                play(run, signals)
        except BaseException as error:
            if begun and is_unexpected(error):
                place = place_in([*packages, *allowed_packages()], error)
                log.error("".join(traceback.format_exception(error)))
                error.add_note(f"{f'raised in {place}; ' if place else ''}the traceback is in {folder / 'train.log'}")
            if begun:
                finish(run, status, ending(error), str(error) or type(error).__name__)
            if isinstance(error, Interrupted) and (said := messages.interrupted(folder, packages)):
                reporter.say(said)
            raise
        if refused := finish(run, status, "finished", None):
            raise Failed(str(refused)) from refused
        reporter.say(messages.finished(run, packages))
        return run.objective


def together(run: Run) -> str:
    """Describe the processes of this run, and how batch norm works with them."""
    said = f"{distributed.size()} processes, {run.batch_size // distributed.size()} samples each"
    norms = [module for module in run.game.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if any(not isinstance(module, torch.nn.SyncBatchNorm) for module in norms):
        said += "; batch norm sees those of its own process only" + (
            ", unless trainer.sync_batch_norm=true" if run.device.type == "cuda" else ", as synchronised statistics need GPUs"
        )
    return said


def ending(error: BaseException) -> directory.State:
    """Return the state of a run that an error has ended."""
    if isinstance(error, Interrupted):
        return "interrupted"
    if isinstance(error, Diverged):
        return "diverged"
    return "failed"


def is_unexpected(error: BaseException) -> bool:
    """Return whether an error is one of the code, of which only the traceback tells more."""
    return isinstance(error, Exception) and not isinstance(error, Interrupted | Diverged | Failed | UserError)


def finish(run: Run | None, status: directory.Status, state: directory.State, error: str | None) -> Failed | OSError | None:
    """Close loggers, data and writer, then write the final status. Returns the first disk error; with one, the run counts as failed."""
    acts: list[Callable[[], None]] = [partial(logger.close, state) for logger in run.loggers] if run else []
    acts += [run.batches.close, run.writer.close] if run else []
    refused: Failed | OSError | None = None
    for act in acts:
        try:
            act()
        except (Failed, OSError) as trouble:
            log.error("%s", trouble)
            refused = refused or trouble
    if state == "finished" and refused:
        state, error = "failed", str(refused)
    try:
        status.write(state, run.step if run else 0, run.images if run else 0, error)
    except Failed as trouble:
        log.error("%s", trouble)
        refused = refused or trouble
    return refused


def change(saved: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply the command line of a resume to the saved configuration. UserError for a key that must not change."""
    config = saved.copy()
    for override in parsed(overrides):
        key = override.key_or_group
        if override.is_delete() or override.is_add() or not is_resumable(key):
            raise UserError(
                f"{override.input_line}: a resumed run stays what it is; its line may change trainer.*, callback.*, logger.* and "
                "dataset.root or dataset.path; anything else is a new run"
            )
        if OmegaConf.select(config, key, default=...) is ...:
            raise UserError(f"{override.input_line}: this run has no key {key}")
        OmegaConf.update(config, key, override.value())
    return config


def changed(folder: Path, saved: DictConfig, config: Any, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration with which a run goes on by the line that starts it. UserError for a key that must not change.

    A line that has not changed keeps the configuration, as `config_for` says.
    """
    made = saved.copy()
    there, here = parsed_yaml(read_bounded(folder / "overrides.yaml", 2**24)), lasting(overrides)
    same = isinstance(there, list) and directory.line_of(there) == directory.line_of(here)
    if same:
        with Reporter(silent=not distributed.is_first()) as reporter:
            config_for(folder, config, overrides, reporter.say)
    for key, before, now in () if same else directory.differences(directory.portable(saved), directory.as_read(config)):
        if not is_resumable(key) or directory.NOT_SET in (before, now):
            raise UserError(f"{folder} holds another run: {key} is {before} there and {now} here; choose another folder, hydra.run.dir=DIR")
        OmegaConf.update(made, key, now)
    keep_watchers(made, config)
    return made


def is_resumable(key: str) -> bool:
    """Return whether the line of a resume may change a key."""
    return any(key == name or key.startswith(f"{name}.") for name in RESUMABLE)


def keep_watchers(made: DictConfig, config: Any) -> None:
    """Take over the callbacks that only watch, whose settings do not tell runs apart."""
    for key in directory.WATCHERS:
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(made, key, OmegaConf.select(config, key), force_add=True)


def report_changes(saved: DictConfig, config: DictConfig, game: Game, say: Callable[[str], None]) -> None:
    """Report what the command line changed, and which schedules follow the length of the run."""
    before, after = (dict(flat(directory.portable(each))) for each in (saved, config))
    for key, value in after.items():
        if before.get(key) != value:
            say(f"changed: {key} from {before.get(key)} to {value}")
    parts = ((key, part) for key, part in parts_of(game).items() if isinstance(part, torch.nn.Module))
    below = ((f"{key}.{name}".rstrip("."), each) for key, part in parts for name, each in part.named_modules())
    moving = [name for name, each in below if isinstance(each, Schedule) and each.follows_run]
    if before["trainer.steps"] != after["trainer.steps"] and moving:
        say(f"these schedules follow the length of the run, and end later now: {', '.join(moving)}")
