"""The outer loop: play rounds and call callbacks until the end of a run or a signal."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gan_runner import distributed
from gan_runner.errors import Interrupted
from gan_runner.execution import engines, hardware
from gan_runner.storage import files
from gan_runner.training.run import Run
from gan_runner.training.signals import Signals

PROFILED = {"wait": 20, "warmup": 3, "active": 5}  # rounds


def play(run: Run, signals: Signals) -> None:
    """Play rounds until the end of the run. Interrupted at a signal, after the state is saved; Diverged at a loss that is not finite."""
    callbacks = sorted(run.callbacks.values(), key=lambda callback: callback.order)
    callbacks = [callback for callback in callbacks if callback.everywhere or distributed.is_first()]
    signals.playing, run.batches.waiting = True, signals.refuse_to_wait
    with hardware.kept_memory(run.device), engines.one_stream(run.device), profiled(run) as next_round:
        executor = engines.engine_of(
            run.trainer.engine, run.game, run.reporter.say, run.spec.kind.bounded, run.dataset, run.last_checkpoint
        )
        if run.step == 0 and not run.pretrained and run.game.G.overrides("initialise"):
            run.game.initialise(run.batches.first_batch())
        for callback in callbacks:
            callback.begin(run)
        while run.step < run.steps and not signals.agreed():
            begun_at = run.batches.position
            try:
                logs = distributed.mean(run.game.round(run.batches, executor.turn))
            except Interrupted:
                if run.batches.position == begun_at and distributed.size() == 1:  # nothing has changed in this round
                    break
                raise
            next_round()
            run.writer.look()
            run.recent.append(logs)
            if run.step % run.trainer.check_every_steps == 0:
                run.look()
            if run.step % run.trainer.compare_every_steps == 0:
                distributed.compare(run.game)
            for callback in callbacks:
                callback.after_round(run, logs)
        run.look()
        for callback in callbacks:
            callback.end(run)
        run.writer.wait()
    if signals.received is not None and run.step < run.steps:
        raise Interrupted(signals.received)


@contextmanager
def profiled(run: Run) -> Iterator[Callable[[], None]]:
    """Profile a few rounds (trainer.profile) into a file for Perfetto or TensorBoard's profiler. Yields a function to call after each
    round."""
    if not (run.trainer.profile and distributed.is_first()):
        yield lambda: None
        return

    def write(profile: torch.profiler.profile) -> None:
        path = run.folder / "profile.pt.trace.json"
        with tempfile.TemporaryDirectory(prefix="gan-runner-") as room:  # the exporter would follow a link
            profile.export_chrome_trace(str(Path(room, path.name)))
            files.write_bytes(path, Path(room, path.name).read_bytes(), run.folder)
        device = "cuda" if run.device.type == "cuda" else "cpu"
        table = profile.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=12, max_name_column_width=40)
        run.reporter.say(f"{table}\nprofile of {PROFILED['active']} rounds: {path} (open it in ui.perfetto.dev)")

    with torch.profiler.profile(schedule=torch.profiler.schedule(**PROFILED, repeat=1), on_trace_ready=write) as profile:
        yield profile.step
