"""Networks of games that are small enough to be solved by hand, for samples of any shape."""

import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from gan_runner.architectures.latents import LatentGenerator
from gan_runner.game.network import Discriminator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.game.prior import Prior
from gan_runner.game.spec import Spec
from gan_runner.tree import Sample


class LinearGenerator(LatentGenerator):
    """x = A z + b. At first A is `scale` times the identity, and every entry of b is `shift`.

    prior: the law of z; None: N(0, I). Under `Signs`, a batch of a multiple of 2^latent samples has mean b and covariance A A' exactly.
    """

    def __init__(self, spec: Spec, latent: Annotated[int, Gt(0)] = 1, scale: float = 1.0, shift: float = 0.0, prior: Prior | None = None):
        super().__init__(latent, prior)
        self.shape, entries = spec.shape, math.prod(spec.shape)
        self.scale = nn.Parameter(scale * torch.eye(entries, latent))
        self.shift = nn.Parameter(torch.full((entries,), float(shift)))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Sample:
        return (z @ self.scale.T + self.shift).unflatten(1, self.shape)


class QuadraticDiscriminator(Discriminator):
    """D(x) = sum over the entries of square x^2 + slope x, with weights for each entry. The features are x.

    slope, square: what all of them are at first; square=None: it is 0 and stays so, which makes D linear.
    """

    def __init__(self, spec: Spec, slope: float = 0.1, square: float | None = 0.1):
        super().__init__()
        self.features = math.prod(spec.shape)
        self.slope = nn.Parameter(torch.full((self.features,), float(slope)))
        self.square = None if square is None else nn.Parameter(torch.full((self.features,), float(square)))

    def forward(self, sample: Sample, y: Tensor | None = None) -> DiscriminatorOutput:
        assert isinstance(sample, Tensor)
        x = sample.flatten(1)
        logits = (self.slope * x).sum(1)
        return DiscriminatorOutput(logits if self.square is None else logits + (self.square * x.square()).sum(1), x)
