"""Tricks that let D see how close the samples of a batch are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from gan_runner import distributed
from gan_runner.game.network import Discriminator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.game.trick import Part, Trick
from gan_runner.tree import Sample

if TYPE_CHECKING:
    from gan_runner.game.game import Game


class Closeness(nn.Module):
    """For each sample, `kernels` numbers that say how close the others of its batch are: from features N F to N B.

    With M = f T, T of F B C: o_b(i) = sum over j != i of exp(-|M_ib - M_jb|_1), from 0 (all are far away) to N - 1 (all are equal).
    """

    def __init__(self, features: int, kernels: int, dimensions: int):
        super().__init__()
        self.width = kernels
        self.tensor = nn.Parameter(0.05 * torch.randn(features, kernels, dimensions))

    def forward(self, features: Tensor) -> Tensor:
        rows = (features @ self.tensor.flatten(1)).unflatten(1, self.tensor.shape[1:])
        return torch.exp(-(rows[:, None] - rows).abs().sum(3)).sum(1) - 1


class Deviation(nn.Module):
    """For each sample, the standard deviation of the features in its group, averaged over features: from N F to N 1.

    Groups are `group` samples in a row; what is left at the end of a batch belongs to the last one.
    """

    width = 1

    def __init__(self, group: int):
        super().__init__()
        self.group = group

    def forward(self, features: Tensor) -> Tensor:
        n, width = features.shape
        groups = max(n // self.group, 1)
        first = (groups - 1) * self.group
        parts = [features[:first].view(groups - 1, self.group, width)] if first else []
        parts.append(features[first:][None])
        found = [(part.var(1, correction=0) + 1e-8).sqrt().mean(1)[:, None].expand(part.shape[:2]) for part in parts]
        return torch.cat([each.reshape(-1) for each in found])[:, None]


class WithStatistics(Discriminator):
    """A discriminator whose logit is also linear in statistics of the features of its batch. They are computed in float32."""

    couples_samples = couples_in_evaluation = True

    def __init__(self, net: Discriminator, statistics: Closeness | Deviation):
        super().__init__()
        self.net, self.statistics, self.more = net, statistics, nn.Linear(statistics.width, 1, bias=False)
        self.features, self.classes = net.features, net.classes

    def forward(self, sample: Sample, y: Any = None) -> DiscriminatorOutput:
        out = self.net(sample, y)
        with torch.autocast(out.features.device.type, enabled=False):
            said = self.more(self.compared(out.features.float()))
        return DiscriminatorOutput(out.logits.float() + said.view(-1, *[1] * (out.logits.dim() - 1)), out.features)

    def compared(self, features: Tensor) -> Tensor:
        """Compute the statistics of features (N F), in training over the samples of all processes."""
        if not self.training:
            return self.statistics(features)
        rows = distributed.gather_apart(features)
        return self.statistics(rows)[distributed.own(len(features)) if len(rows) > len(features) else slice(None)]


class MinibatchDiscrimination(Trick):
    """D reads for each sample how close the others of the batch are, and so notices a G of little variety. Salimans et al. 2016.

    D's logit becomes linear in its features and in the `kernels` numbers of `Closeness`. The others are the samples of all processes, in
    evaluation those that D is given at once. Spectral norm leaves the weights of `Closeness` free.
    """

    def __init__(self, kernels: Annotated[int, Ge(1)] = 100, dimensions: Annotated[int, Ge(1)] = 5):
        super().__init__()
        self.kernels, self.dimensions = kernels, dimensions

    def build(self, game: Game) -> None:
        if game.accumulate > 1:
            raise ValueError(
                f"trainer.accumulate={game.accumulate} cuts the batch, and minibatch_discrimination compares all of it: use accumulate=1"
            )

    def wrap(self, part: Part, name: str) -> Any:
        if name != "discriminator":
            return part
        assert isinstance(part, Discriminator)
        return WithStatistics(part, Closeness(part.features, self.kernels, self.dimensions))


class MinibatchStddev(Trick):
    """D reads how much its features vary within groups of samples. Karras et al. 2018; groups: Karras et al. 2020.

    D's logit becomes linear in its features and in the number of `Deviation`. Processes and micro-batches hold whole groups.
    """

    def __init__(self, group: Annotated[int, Ge(2)] = 4):
        super().__init__()
        self.group = group

    def build(self, game: Game) -> None:
        if game.micro_batch_size % self.group:
            raise ValueError(
                f"minibatch_stddev compares groups of {self.group}, and D is given {game.micro_batch_size} samples at a time: "
                "choose batch_size and trick.minibatch_stddev.group so that these are whole groups"
            )

    def wrap(self, part: Part, name: str) -> Any:
        if name != "discriminator":
            return part
        assert isinstance(part, Discriminator)
        return WithStatistics(part, Deviation(self.group))
