"""Penalties on what a small change of a sample, or of its latent, does to D and to G."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from gan_runner import tree
from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.game.spec import Spec
from gan_runner.schedules import Schedule, schedule
from gan_runner.tree import Sample


def moved(image: Tensor, u: Tensor, flip: bool, shift: float) -> Tensor:
    """Shift images N C H W by whole pixels, up to the share `shift` of a side, and mirror half of them. What comes in is a reflection.

    u: uniform numbers, N 3, for rows, columns and mirroring.
    """
    n, channels, *sides = image.shape
    index = []
    for axis, side in enumerate(sides):
        most = int(shift * side)
        by = (u[:, axis] * (2 * most + 1)).floor().long() - most
        place = (torch.arange(side, device=image.device) + by[:, None]).abs()
        index.append(side - 1 - (side - 1 - place).abs())
    rows, columns = index
    if flip:
        columns = torch.where(u[:, 2, None] < 0.5, sides[1] - 1 - columns, columns)
    image = image.gather(2, rows[:, None, :, None].expand(n, channels, *sides))
    return image.gather(3, columns[:, None, None, :].expand(n, channels, *sides))


class Consistency(Penalty):
    """D: real E (D(T x) - D(x))^2 + fake E (D(T G(z)) - D(G(z)))^2, T a flip and a shift of images. Zhao et al. 2021 (bCR).

    With fake=0 it is CR-GAN (Zhang et al. 2020). T mirrors an image with probability 1/2 (`flip`) and moves it by whole pixels, at most
    the share `shift` of a side; it is one T for all scales of a sample. Both passes have one augmentation and one noise.
    """

    def __init__(
        self,
        real: float | Schedule = 10.0,
        fake: float | Schedule = 10.0,
        every: Annotated[int, Ge(1)] = 1,
        flip: bool = True,
        shift: Annotated[float, Ge(0), Lt(1)] = 0.125,
    ):
        super().__init__(every=every)
        kinds = {kind: schedule(weight) for kind, weight in (("real", real), ("fake", fake)) if weight != 0.0}
        if not kinds:
            raise ValueError("real=0 and fake=0 leave nothing to penalise: drop the penalty")
        self.weights: Mapping[str, Schedule] = nn.ModuleDict(kinds)  # type: ignore[assignment]
        if not (flip or shift):
            raise ValueError("flip=false and shift=0 leave every image as it is: drop the penalty")
        self.flip, self.shift = flip, shift

    def build(self, spec: Spec, nets: Mapping[str, nn.Module]) -> None:
        if not spec.kind.bounded:
            raise ValueError("consistency flips and shifts images, and the data are none: drop the penalty")

    def discriminator(self, play: Play) -> Tensor:
        values = []
        if "real" in self.weights:
            values.append(self.weights["real"].value * self.change(play, "real", play.real, play.y))
        if "fake" in self.weights:
            values.append(self.weights["fake"].value * self.change(play, "fake", play.fake, play.fake_y))
        return self.scaled(sum(values))  # type: ignore[arg-type]

    def change(self, play: Play, kind: Literal["real", "fake"], sample: Sample, y: Any) -> Tensor:
        """Compute the mean square by which T changes the logits of these samples."""
        u = play.draws.uniform(3)
        after = play.judge(tree.map(lambda leaf: moved(leaf, u, self.flip, self.shift), sample), y, like=kind)
        before = play.on_real if kind == "real" else play.on_fake
        return (after.logits - before.logits).square().mean()


class LatentConsistency(Penalty):
    """D: weight E (D(G(z)) - D(G(z + e)))^2;  G: -generator_weight E (G(z) - G(z + e))^2, e ~ N(0, sigma^2). Zhao et al. 2021 (zCR).

    The square of a sample is the mean over its entries, so that the weight means the same at every resolution; of a sample of several
    scales the mean over scales. D's passes have one augmentation and one noise.
    """

    def __init__(
        self,
        weight: float | Schedule = 5.0,
        generator_weight: float | Schedule = 0.5,
        every: Annotated[int, Ge(1)] = 1,
        sigma: Annotated[float, Gt(0)] = 0.05,
    ):
        super().__init__(weight, every)
        self.generator_weight, self.sigma = schedule(generator_weight), sigma

    def near(self, play: Play) -> Sample:
        """Return samples of latents that are a little off those of `play.fake`."""
        return tree.map(Tensor.float, play.G(play.z + self.sigma * play.draws.normal(*play.z.shape[1:]), play.fake_y))

    def discriminator(self, play: Play) -> Tensor:
        after = play.judge(self.near(play), play.fake_y, like="fake")
        return self.scaled((after.logits - play.on_fake.logits).square().mean())

    def generator(self, play: Play) -> Tensor:
        return -self.generator_weight.value * self.every * mean_square(play.fake, self.near(play))


def mean_square(one: Sample, other: Sample) -> Tensor:
    """Compute the mean square of the differences of two samples: over entries, then over leaves."""
    squares = [(a - b).square().mean() for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True)]
    return torch.stack(squares).mean()
