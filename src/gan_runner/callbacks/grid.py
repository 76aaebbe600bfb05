"""Draw pictures of fixed latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from gan_runner.sampling import subjects
from gan_runner.storage import directory, files
from gan_runner.training.callback import Callback

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


class Grid(Callback):
    """A picture of the samples of fixed latents, every `every_steps` rounds and at the end: samples/step_N.png and samples/fixed_z.

    n: samples; None: 64, or 2,000 points. scale: the pixels of an image are drawn so many times as wide and high; auto: until it has 64.
    Text, sound and other data have a file beside it, samples/step_N.txt or .wav. For a generator that works on data, the picture shows for
    items of the test split, side by side, the input, the sample and the real answer.
    """

    def __init__(
        self,
        every_steps: Annotated[int, Ge(1)] = 1000,
        n: Annotated[int, Ge(1), Le(1_000_000)] | None = None,
        seed: int = 0,
        scale: Annotated[int, Ge(1), Le(64)] | Literal["auto"] = "auto",
    ):
        self.every_steps, self.n, self.seed, self.scale = every_steps, n, seed, scale

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
        n = self.n or run.spec.kind.pictured
        x, columns = subjects.gallery(run.game.sampler, n, seed=self.seed, device=run.device, source=run.source)
        picture = run.dataset.drawn(x, columns, scale=self.scale, title=f"round {run.step:,}")
        path = run.folder / "samples" / f"step_{run.step:08d}.png"
        files.make_folder(path.parent, run.folder)  # old pictures may have been removed
        directory.write_picture(path, picture, run.folder)
        run.draw("samples/fixed_z", picture)
        for suffix, content in run.dataset.files(x).items():
            files.write_bytes(path.with_suffix(f".{suffix}"), content, run.folder)
            run.write_file("samples/fixed_z", suffix, content)
        self.drawn_at = run.step
