"""Penalties on the slope of D. They are computed in float32, whatever the precision of the run."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from gan_runner import distributed, tree
from gan_runner.game.penalty import Penalty
from gan_runner.game.play import DiscriminatorOutput, Play
from gan_runner.penalties.piecewise import NoSecondDerivative
from gan_runner.schedules import Schedule
from gan_runner.tree import Sample


def logits_of(out: DiscriminatorOutput) -> Tensor:
    return out.logits


def slopes(play: Play, sample: Sample, y: Tensor | None, of: Callable[[DiscriminatorOutput], Tensor] = logits_of) -> Tensor:
    """Compute dD/dx at each sample, all leaves side by side: N P, differentiable.

    of: the function of D's output whose slope is asked for, N or N P: the logits, or one of the features. It is a slope per sample only
    for a D that does not couple samples: batch norm mixes the gradients of its batch.
    """
    sample = tree.map(lambda leaf: leaf.detach().requires_grad_(), sample)
    with torch.autocast(tree.leaves(sample)[0].device.type, enabled=False):
        with NoSecondDerivative():
            out = DiscriminatorOutput(*map(Tensor.float, play.D(play.augment(sample, play.draws), y)))
        grads = torch.autograd.grad(of(out).sum(), tree.leaves(sample), create_graph=True)
    return torch.cat([grad.flatten(1) for grad in grads], 1)


def between(play: Play) -> Sample:
    """Draw points uniformly on the lines between a real and a fake sample: one mix per sample, the same on every leaf."""
    mix = play.draws.uniform()
    return tree.map(lambda real, fake: torch.lerp(real, fake, mix.view(-1, *[1] * (real.dim() - 1))), play.real, play.fake)


class R1(Penalty):
    """D: weight/2 E |dD/dx|^2 on real samples. Mescheder et al. 2018."""

    def __init__(self, weight: float | Schedule = 10.0, every: Annotated[int, Ge(1)] = 1):
        super().__init__(weight, every)

    def discriminator(self, play: Play) -> Tensor:
        return self.scaled(slopes(play, play.real, play.y).square().sum(1).mean() / 2)


class R2(R1):
    """D: weight/2 E |dD/dx|^2 on samples of G. Mescheder et al. 2018; beside R1: Huang et al. 2024."""

    def discriminator(self, play: Play) -> Tensor:
        return self.scaled(slopes(play, play.fake, play.fake_y).square().sum(1).mean() / 2)


SIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "two": lambda norm: norm - 1,
    "one": lambda norm: F.relu(norm - 1),
    "zero": lambda norm: norm,
}
"""How far a slope is from where it should be: at 1, at 1 or below, or at 0."""


class GradientPenalty(Penalty):
    """D: weight E (|dD/dx| - 1)^2 at points drawn uniformly on the lines between a real and a fake sample. Gulrajani et al. 2017.

    side: "one" penalises only slopes above 1 (Petzka et al. 2018), "zero" is weight E |dD/dx|^2 (Thanh-Tung et al. 2019).
    norm: "max" counts only the steepest slope of the batch of all processes; with side="zero" that is Zhou et al. 2019.

    One mix per sample, the same on every leaf. The points carry the label of the real one. Where D is flat the norm has the
    subgradient 0.
    """

    def __init__(
        self,
        weight: float | Schedule = 10.0,
        every: Annotated[int, Ge(1)] = 1,
        side: Literal["two", "one", "zero"] = "two",
        norm: Literal["mean", "max"] = "mean",
    ):
        super().__init__(weight, every)
        self.side, self.coupled = side, norm == "max"

    def discriminator(self, play: Play) -> Tensor:
        own = play.own
        norm = torch.linalg.vector_norm(slopes(own, between(own), own.y), dim=1)
        if self.coupled:
            norm = distributed.gather(norm).max()
        return self.scaled(SIDES[self.side](norm).square().mean())


class Dragan(Penalty):
    """D: weight E (|dD/dx| - 1)^2 at x + a std(x)/2 u, x real, a ~ U(0, 1) per sample, u ~ U(0, 1) per entry. Kodali et al. 2017.

    std(x) is one number for each leaf, of the batch of all processes.
    """

    coupled = True

    def __init__(self, weight: float | Schedule = 10.0, every: Annotated[int, Ge(1)] = 1):
        super().__init__(weight, every)

    def discriminator(self, play: Play) -> Tensor:
        own = play.own
        share = own.draws.uniform()

        def moved(leaf: Tensor, everyones: Tensor) -> Tensor:
            delta = everyones.std() / 2 * own.draws.uniform(*leaf.shape[1:])
            return leaf + share.view(-1, *[1] * (leaf.dim() - 1)) * delta

        norm = torch.linalg.vector_norm(slopes(own, tree.map(moved, own.real, play.real), own.y), dim=1)
        return self.scaled((distributed.gather(norm) - 1).square().mean())
