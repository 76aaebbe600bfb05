"""Penalties on the slope of D that are differences of two passes, differentiated once."""

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from gan_runner import tree
from gan_runner.game.penalty import Penalty
from gan_runner.game.play import DiscriminatorOutput, Play
from gan_runner.schedules import Schedule


class Approximate(Penalty):
    """D: weight E ((d(a(x + sigma n)) - d(a(x))) / sigma)^2, n standard normal, a one augmentation with one noise for both passes.

    For small sigma this is weight E |dD/dx|^2 in expectation over n. share: 1/k takes every k-th sample. The pass of the plain samples is
    shared with the loss, except in lower precision, where the difference would be rounding error, and for a share of samples that D
    couples, which are another batch than the loss sees: there both passes are computed as one more, in float32.
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
        if not torch.is_autocast_enabled(play.x.device.type) and not (self.one_in > 1 and play.D.couples_samples):
            plain = play.on_real if self.which == "real" else play.on_fake
            return play.judge(moved, y, like=self.which, rows=taken).logits - plain.logits[taken]

        def part(whole: Any) -> Any:
            return tree.map(lambda leaf: leaf[taken], whole)

        with torch.autocast(play.x.device.type, enabled=False):
            shown = part(play.augment(sample, play.draws.again())), part(play.augment(moved, play.draws))
            logits = DiscriminatorOutput(*play.D(tree.cat(*shown), None if y is None else tree.cat(part(y), part(y)))).logits
        before, after = logits.float().chunk(2)
        return after - before


class ApproximateR1(Approximate):
    """D: weight E ((D(x + sigma n) - D(x)) / sigma)^2 on real samples: for small sigma, r1 of weight 2 weight. Lin et al. 2025.

    arXiv 2501.08316. n is standard normal; both passes are under one augmentation.
    """

    which = "real"


class ApproximateR2(Approximate):
    """D: weight E ((D(y + sigma n) - D(y)) / sigma)^2 on samples y of G: for small sigma, r2 of weight 2 weight. Lin et al. 2025."""

    which = "fake"
