"""The losses of the original game: D is a logistic classifier of real against fake."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.game.loss import Balanced, Loss
from gan_runner.game.play import Play
from gan_runner.schedules import Schedule, schedule


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of -[t log sigmoid(d) + (1 - t) log(1 - sigmoid(d))] = softplus(d) - t d, over logits d (N) and one target t."""
    return (F.softplus(logits) - target * logits).mean()


class NonSaturating(Loss):
    """D: BCE(D(x), 1) + BCE(D(G(z)), 0);  G: -log sigmoid(D(G(z))). Goodfellow et al. 2014, section 3.

    The targets 1 and 0 are `targets`, which label smoothing replaces.
    """

    def __init__(self, generator_weight: float | Schedule | Balanced = 1.0):
        super().__init__(generator_weight)
        self.targets: Mapping[str, Schedule] = nn.ModuleDict({"real": schedule(1.0), "fake": schedule(0.0)})  # type: ignore[assignment]

    def discriminator(self, play: Play) -> Tensor:
        real, fake = play.on_both
        return cross_entropy(real.logits, self.targets["real"].value) + cross_entropy(fake.logits, self.targets["fake"].value)

    def generator(self, play: Play) -> Tensor:
        return F.softplus(-play.on_fake.logits).mean()


class Minimax(NonSaturating):
    """D: as non_saturating;  G: log(1 - sigmoid(D(G(z)))), whose gradient vanishes where D wins. Goodfellow et al. 2014, eq. 1."""

    def generator(self, play: Play) -> Tensor:
        return -F.softplus(play.on_fake.logits).mean()
