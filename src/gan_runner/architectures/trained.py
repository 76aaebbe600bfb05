"""The generator of another run as a part of this one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

import gan_runner
from gan_runner.draws import Draws
from gan_runner.errors import UserError
from gan_runner.game.network import Generator
from gan_runner.game.spec import Spec
from gan_runner.storage import starts
from gan_runner.tree import Sample


class Trained(Generator):
    """The generator of the run in the folder `run`, frozen and in evaluation mode; of the average where the run keeps one.

    It emits what that generator emits, and views real data as that one does; where the resolutions of images differ, it emits data that
    are resized (bilinear, antialiased). checkpoint: last or best. UserError where there is no such run, or it makes samples of another
    kind.
    """

    def __init__(self, spec: Spec, run: str, checkpoint: Literal["last", "best"] = "last", own_packages: Sequence[str] = ()):
        super().__init__()
        starts.refuse_missing(run, "this architecture is the generator of")
        there = gan_runner.load(run, checkpoint, own_packages)
        resizable = spec.kind.bounded and there.spec.kind.bounded and spec.shape[0] == there.spec.shape[0]
        if (spec.shape, spec.symbols) != (there.spec.shape, there.spec.symbols) and not resizable:
            shapes = ["x".join(map(str, each.shape)) for each in (there.spec, spec)]
            raise UserError(f"the run {run} makes samples of shape {shapes[0]}, and the data have {shapes[1]}")
        if there.generator.overrides("asked"):
            raise UserError(f"the generator of the run {run} works on data, and cannot be a part of another run")
        self.inner, self.side = there.generator, spec.shape[-1] if resizable and spec.shape != there.spec.shape else None
        self.latent, self.classes = self.inner.latent, self.inner.classes

    def train(self, mode: bool = True) -> Trained:
        """Stay in evaluation mode."""
        return super().train(False)

    def prior(self, draws: Draws) -> Tensor:
        return self.inner.prior(draws)

    def labels(self, draws: Draws) -> Tensor | None:
        return self.inner.labels(draws)

    def view(self, x: Tensor, draws: Draws) -> Sample:
        return self.inner.view(x, draws) if self.side is None else x

    def show(self, sample: Sample) -> Tensor:
        return self.inner.show(sample) if self.side is None else super().show(sample)

    def forward(self, z: Tensor, y: Any = None) -> Sample:
        made = self.inner(z, y)
        return made if self.side is None else nn.functional.interpolate(self.inner.show(made), self.side, mode="bilinear", antialias=True)
