"""Penalties on the slope of D that are differences of two passes, differentiated once."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from gan_runner import tree
from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.schedules import Schedule
from gan_runner.tree import Sample


class Approximate(Penalty):
    """D: weight E ((d(a(x + sigma n)) - d(a(x))) / sigma)^2, n standard normal, a one augmentation with one noise for both passes.

    For small sigma this is weight E |dD/dx|^2 in expectation over n. share: 1/k takes every k-th sample. The pass of the plain samples is
    shared with the loss. In lower precision the difference would be rounding error: there both passes are made once more, in float32.
    Where D couples samples, it is given the whole batch for any share.
    """

    which: Literal["real", "fake"]

    def __init__(
        self,
        weight: float | Schedule = 0.1,
        every: Annotated[int, Ge(1)] = 1,
        sigma: Annotated[float, Gt(0)] = 0.01,
        share: Annotated[float, Gt(0), Le(1)] = 1.0,
    ):
        super().__init__(weight, every)
        self.sigma, self.share, self.one_in = sigma, share, round(1 / share)
        if abs(self.one_in * share - 1) > 0.015:  # 0.33 is a third
            raise ValueError(f"share={share} is not 1/k, and every k-th sample is taken: use 1, 0.5, 0.33, 0.25, ...")

    def discriminator(self, play: Play) -> Tensor:
        size, here = play.draws.size, range(play.draws.size)[play.draws.rows]
        taken = slice(-here.start % self.one_in, None, self.one_in)
        slopes = self.change(play, taken)[:, None].flatten(1).sum(1) / self.sigma
        share = len(range(0, size, self.one_in)) / size
        return self.scaled(slopes.square().sum() / (share * len(here)))

    def change(self, play: Play, taken: slice) -> Tensor:
        """Return by how much noise changes the logits of the samples that are taken."""
        sample, y = (play.real, play.y) if self.which == "real" else (play.fake, play.fake_y)
        moved = tree.map(lambda leaf: leaf + self.sigma * play.draws.normal(*leaf.shape[1:]), sample)
        plain = (play.on_real if self.which == "real" else play.on_fake).logits
        whole = play.D.couples_samples

        def logits(sample: Sample) -> Tensor:
            """Return the logits of the samples that are taken, seen as the loss sees them."""
            found = play.judge(sample, y, like=self.which, rows=None if whole else taken).logits
            return found[taken] if whole else found

        if not torch.is_autocast_enabled(play.x.device.type):
            return logits(moved) - plain[taken]
        with torch.autocast(play.x.device.type, enabled=False):
            return logits(moved) - logits(sample)


class ApproximateR1(Approximate):
    """D: weight E ((D(x + sigma n) - D(x)) / sigma)^2 on real samples: for small sigma, r1 of weight 2 weight. Lin et al. 2025.

    arXiv 2501.08316. n is standard normal; both passes are under one augmentation.
    """

    which = "real"


class ApproximateR2(Approximate):
    """D: weight E ((D(y + sigma n) - D(y)) / sigma)^2 on samples y of G: for small sigma, r2 of weight 2 weight. Lin et al. 2025."""

    which = "fake"
