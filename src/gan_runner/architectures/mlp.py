"""Multilayer perceptrons, for samples of any shape."""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from gan_runner.architectures import fitting
from gan_runner.architectures.latents import LatentGenerator
from gan_runner.game.network import Discriminator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.game.prior import Prior
from gan_runner.game.spec import Spec
from gan_runner.tree import Sample

Activation = Literal["relu", "leaky_relu", "tanh"]


def hidden(inputs: int, width: int, depth: int, activation: Activation) -> nn.Sequential:
    """Build `depth` layers of `width` units, each followed by its activation. PyTorch's default initialisation."""
    nonlinearity: dict[str, nn.Module] = {"relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.2), "tanh": nn.Tanh()}
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nonlinearity[activation]]
        inputs = width
    return nn.Sequential(*layers)


class MLPGenerator(LatentGenerator):
    """Fully connected layers from the latent to a sample; tanh at the end where the sample is an image. Goodfellow et al. 2014.

    prior: the law of z; None: N(0, I). The paper's code has a uniform one of variance 1, from -sqrt 3 to sqrt 3.
    Labels are joined to the latent as one-hot vectors.
    """

    def __init__(
        self,
        spec: Spec,
        latent: Annotated[int, Gt(0)] = 8,
        width: Annotated[int, Gt(0)] = 128,
        depth: Annotated[int, Gt(0)] = 3,
        activation: Activation = "relu",
        conditional: bool = False,
        prior: Prior | None = None,
    ):
        super().__init__(latent, prior)
        self.shape = spec.shape
        self.classes = fitting.classes(spec, conditional, "the generator of mlp")
        self.body = hidden(latent + (self.classes or 0), width, depth, activation)
        self.head = nn.Linear(width, math.prod(spec.shape))
        self.squash = nn.Tanh() if spec.kind.bounded else nn.Identity()

    def forward(self, z: Tensor, y: Tensor | None = None) -> Sample:
        return self.squash(self.head(self.body(fitting.with_labels(z, y, self.classes)))).unflatten(1, self.shape)


class MLPDiscriminator(Discriminator):
    """Fully connected layers from a flattened sample to a logit; the features are the last hidden layer.

    Labels are joined to the sample as one-hot vectors.
    """

    def __init__(
        self,
        spec: Spec,
        width: Annotated[int, Gt(0)] = 128,
        depth: Annotated[int, Gt(0)] = 3,
        activation: Activation = "relu",
        conditional: bool = False,
    ):
        super().__init__()
        self.features = width
        self.classes = fitting.classes(spec, conditional, "the discriminator of mlp")
        self.body = hidden(math.prod(spec.shape) + (self.classes or 0), width, depth, activation)
        self.head = nn.Linear(width, 1)

    def forward(self, sample: Sample, y: Tensor | None = None) -> DiscriminatorOutput:
        assert isinstance(sample, torch.Tensor)
        features = self.body(fitting.with_labels(sample.flatten(1), y, self.classes))
        return DiscriminatorOutput(self.head(features).squeeze(1), features)
