"""The auxiliary classifier."""

from collections.abc import Mapping
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from gan_runner.game.penalty import Penalty
from gan_runner.game.play import Play
from gan_runner.game.spec import Spec
from gan_runner.schedules import Schedule, schedule


class AuxiliaryClassifier(Penalty):
    """A class head on D's features: D learns to name real samples, G to make samples that are named as asked. Odena et al. 2017.

    D: weight CE(head(f(x)), y);  G: generator_weight CE(head(f(G(z, y))), y). The head is trained by D's optimiser.
    """

    labelled = True

    def __init__(self, weight: float | Schedule = 1.0, generator_weight: float | Schedule = 0.1, every: Annotated[int, Ge(1)] = 1):
        super().__init__(weight, every)
        self.generator_weight = schedule(generator_weight)

    def build(self, spec: Spec, nets: Mapping[str, nn.Module]) -> None:
        if spec.classes is None:
            raise ValueError("auxiliary_classifier needs labels: choose a data set with classes, or drop the penalty")
        if nets["generator"].classes is None:
            raise ValueError("auxiliary_classifier needs a generator that takes labels: use architecture.conditional=true")
        self.head = nn.Linear(int(nets["discriminator"].features), spec.classes)  # type: ignore[arg-type]

    def discriminator(self, play: Play) -> Tensor:
        assert play.y is not None
        return self.scaled(F.cross_entropy(self.head(play.on_real.features), play.y))

    def generator(self, play: Play) -> Tensor:
        assert play.fake_y is not None
        return self.generator_weight.value * self.every * F.cross_entropy(self.head(play.on_fake.features), play.fake_y)
