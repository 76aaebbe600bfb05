"""Write checkpoints at intervals, and last.pt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from gan_runner import distributed
from gan_runner.storage import checkpoint, files
from gan_runner.training.callback import Callback

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


class Checkpoint(Callback):
    """Write step_N.pt and last.pt every `every_steps` rounds, at the end and at a signal; keep the newest `keep` of step_N.pt.

    The checkpoint of the last round is written after all other callbacks have ended, so a resume does not repeat their work.
    """

    order = 1  # after what the state of this step has to contain
    everywhere = True

    def __init__(self, every_steps: Annotated[int, Ge(1)] = 1000, keep: Annotated[int, Ge(1)] = 2):
        self.every_steps, self.keep = every_steps, keep

    def begin(self, run: Run) -> None:
        for part in (run.folder / "checkpoints").glob(".*.part") if distributed.is_first() else ():  # of a process that was killed
            files.unlink(part, run.folder)

    def after_round(self, run: Run, logs: Logs) -> None:
        if run.step % self.every_steps == 0 and run.step < run.steps:
            self.save(run)

    def states(self) -> int:
        return self.keep + 1  # an old one goes when the new one is there

    def end(self, run: Run) -> None:
        if run.saved_at != run.step:
            self.save(run)

    def save(self, run: Run) -> None:
        folder = run.folder / "checkpoints"
        path = folder / f"step_{run.step:08d}.pt"
        if distributed.is_first():
            files.make_folder(folder, run.folder)

        def name_it_last() -> None:
            files.link(path, folder / "last.pt", run.folder)
            for old in checkpoint.numbered(folder)[: -self.keep]:
                files.unlink(old, run.folder)

        run.save(path, name_it_last)
        run.saved_at = run.step
