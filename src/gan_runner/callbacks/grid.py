"""Draw pictures of fixed latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge

from gan_runner.sampling import subjects
from gan_runner.storage import directory
from gan_runner.training.callback import Callback

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


class Grid(Callback):
    """A picture of the samples of fixed latents, every `every_steps` rounds and at the end: samples/step_N.png and samples/fixed_z."""

    def __init__(self, every_steps: Annotated[int, Ge(1)] = 1000, n: Annotated[int, Ge(1)] = 64, seed: int = 0):
        self.every_steps, self.n, self.seed = every_steps, n, seed

    def begin(self, run: Run) -> None:
        self.drawn_at = -1
        if run.step == 0:
            self.draw(run)

    def after_round(self, run: Run, logs: Logs) -> None:
        if run.step % self.every_steps == 0:
            self.draw(run)

    def end(self, run: Run) -> None:
        if self.drawn_at != run.step and run.step == run.steps:
            self.draw(run)

    def draw(self, run: Run) -> None:
        made = subjects.samples(run.game.sampler, self.n, seed=self.seed, device=run.device)
        picture = run.dataset.picture(torch.cat([part.cpu() for part in made]))
        directory.write_picture(run.folder / "samples" / f"step_{run.step:08d}.png", picture, run.folder)
        run.draw("samples/fixed_z", picture)
        self.drawn_at = run.step
