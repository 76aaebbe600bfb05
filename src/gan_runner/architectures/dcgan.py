"""Deep convolutional GAN. Radford et al. 2016."""

from itertools import pairwise
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


def initialise(net: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and scales of batch norms from N(1, 0.02); set biases to 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class DCGANGenerator(LatentGenerator):
    """A linear layer to 4x4 (or 7x7), then strided transposed convolutions; batch norm and ReLU between, tanh at the end.

    width: channels at half the final side; they double towards the coarse end (32x32: 256-128-64). prior: the law of z; None:
    N(0, I), where the paper has U(-1, 1). Labels are joined to the latent as one-hot vectors.
    """

    def __init__(
        self,
        spec: Spec,
        latent: Annotated[int, Gt(0)] = 100,
        width: Annotated[int, Gt(0)] = 64,
        conditional: bool = False,
        prior: Prior | None = None,
    ):
        super().__init__(latent, prior)
        self.classes = fitting.classes(spec, conditional, "the generator of dcgan")
        side, doublings = fitting.scales(spec, "dcgan")
        widths = [width << i for i in reversed(range(doublings))]
        self.start = nn.Sequential(
            nn.Linear(latent + (self.classes or 0), widths[0] * side**2, bias=False),
            nn.Unflatten(1, (widths[0], side, side)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.ConvTranspose2d(widths[-1], spec.shape[0], 4, 2, 1), nn.Tanh())
        initialise(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Sample:
        return self.head(self.body(self.start(fitting.with_labels(z, y, self.classes))))


class DCGANDiscriminator(Discriminator):
    """Strided convolutions down to 4x4 (or 7x7), LeakyReLU 0.2 between, then a linear layer; the features are its inputs.

    width: channels after the first convolution; they double towards the coarse end (32x32: 64-128-256). norm: batch norm behind every
    convolution but the first, or none (for spectral norm, or for a gradient penalty, which batch norm would couple across samples).
    Labels are joined to the image as one-hot planes.
    """

    def __init__(
        self,
        spec: Spec,
        width: Annotated[int, Gt(0)] = 64,
        conditional: bool = False,
        norm: Literal["batch", "none"] = "batch",
    ):
        super().__init__()
        self.classes = fitting.classes(spec, conditional, "the discriminator of dcgan")
        side, doublings = fitting.scales(spec, "dcgan")
        widths = [width << i for i in range(doublings)]
        layers: list[nn.Module] = [nn.Conv2d(spec.shape[0] + (self.classes or 0), width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for narrow, wide in pairwise(widths):
            layers.append(nn.Conv2d(narrow, wide, 4, 2, 1, bias=norm == "none"))
            layers += [nn.BatchNorm2d(wide)] if norm == "batch" else []
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.features = widths[-1] * side**2
        self.head = nn.Linear(self.features, 1)
        self.couples_samples = any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
        initialise(self)

    def forward(self, sample: Sample, y: Tensor | None = None) -> DiscriminatorOutput:
        assert isinstance(sample, torch.Tensor)
        features = self.body(fitting.with_labels(sample, y, self.classes))
        return DiscriminatorOutput(self.head(features).squeeze(1), features)
