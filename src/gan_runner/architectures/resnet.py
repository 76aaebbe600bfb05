"""Residual networks, in the forms of SNGAN (Miyato et al. 2018) and of WGAN-GP (Gulrajani et al. 2017).

The two share the layers: WGAN-GP's generator is narrower, and its discriminator averages over the image where SNGAN's sums. Spectral norm
is a trick and not part of the network. Widths are the same at every scale, as both have it for 32x32.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from gan_runner.architectures import fitting
from gan_runner.architectures.latents import LatentGenerator
from gan_runner.draws import Draws
from gan_runner.game.network import Discriminator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.game.prior import Prior
from gan_runner.game.spec import Spec
from gan_runner.tree import Sample

RESIDUAL, PLAIN = math.sqrt(2), 1.0  # gains of Glorot's uniform initialisation: on the residual path, elsewhere

Layer = nn.Conv2d | nn.Linear


def glorot(layer: Layer, gain: float) -> Layer:
    """Return the layer with weights uniform in +-gain sqrt(6 / (fan in + fan out)) and biases 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def conv3(inputs: int, outputs: int, gain: float = RESIDUAL) -> Layer:
    return glorot(nn.Conv2d(inputs, outputs, 3, padding=1), gain)


def conv1(inputs: int, outputs: int) -> Layer:
    return glorot(nn.Conv2d(inputs, outputs, 1), PLAIN)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose scale and shift belong to the class of the sample (Dumoulin et al. 2017); plain where classes is None."""

    def __init__(self, channels: int, classes: int | None):
        super().__init__()
        self.classes = classes
        self.norm = nn.BatchNorm2d(channels, affine=classes is None)
        if classes is not None:
            self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.classes is None:
            return x
        y = fitting.given(y)
        return x * self.scale(y)[:, :, None, None] + self.shift(y)[:, :, None, None]


class UpBlock(nn.Module):
    """Norm, ReLU, double the side, conv, norm, ReLU, conv; the shortcut is a 1x1 convolution, doubled."""

    def __init__(self, inputs: int, outputs: int, classes: int | None):
        super().__init__()
        self.norm1, self.norm2 = ConditionalBatchNorm2d(inputs, classes), ConditionalBatchNorm2d(outputs, classes)
        self.conv1, self.conv2, self.shortcut = conv3(inputs, outputs), conv3(outputs, outputs), conv1(inputs, outputs)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, y)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, y)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2)  # 1x1 convolution and doubling commute; this order costs a quarter


class DownBlock(nn.Module):
    """ReLU, conv, ReLU, conv, halve the side where asked; the shortcut is the identity, or a 1x1 convolution of the halved input.

    The first block of a network ("optimised") sees pixels and leaves out the first ReLU.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool, first: bool = False):
        super().__init__()
        middle = outputs if first else inputs
        self.first, self.halve = first, halve
        self.conv1, self.conv2 = conv3(inputs, middle), conv3(middle, outputs)
        self.shortcut = conv1(inputs, outputs) if halve or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv1(x if self.first else F.relu(x)))
        if self.halve:
            return halved_conv3(h, self.conv2) + self.shortcut(F.avg_pool2d(x, 2))
        return self.conv2(h) + self.shortcut(x)


def halved_conv3(x: Tensor, layer: Layer) -> Tensor:
    """Compute avg_pool2d(layer(x), 2) of a 3x3 convolution as one of 4x4 and stride 2, whose weights are the means of four shifted copies.

    The mean of the four outputs is linear in the input, so this is the same up to rounding, by 16 products an output instead of 36.
    """
    return F.conv2d(x, F.avg_pool2d(layer.weight, 2, stride=1, padding=1), layer.bias, stride=2, padding=1)


class ResNetGenerator(LatentGenerator):
    """A linear layer to 4x4 (or 7x7), one residual block per doubling, batch norm, ReLU, convolution, tanh.

    width: 256 in SNGAN, 128 in WGAN-GP. conditional: batch norms of the blocks conditioned on the label. dequantisation: real data get
    noise U(0, dequantisation) per pixel, which fills the steps between the grey levels (WGAN-GP: 1/128); 0 for none.
    prior: the law of z; None: N(0, I).
    """

    def __init__(
        self,
        spec: Spec,
        latent: Annotated[int, Gt(0)] = 128,
        width: Annotated[int, Gt(0)] = 256,
        conditional: bool = False,
        dequantisation: Annotated[float, Ge(0)] = 0.0,
        prior: Prior | None = None,
    ):
        super().__init__(latent, prior)
        self.dequantisation = dequantisation
        self.classes = fitting.classes(spec, conditional, "the generator of resnet")
        side, doublings = fitting.scales(spec, "resnet")
        self.start = nn.Sequential(glorot(nn.Linear(latent, width * side**2), PLAIN), nn.Unflatten(1, (width, side, side)))
        self.blocks = nn.ModuleList(UpBlock(width, width, self.classes) for _ in range(doublings))
        self.head = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), conv3(width, spec.shape[0], PLAIN), nn.Tanh())

    def view(self, x: Tensor, draws: Draws) -> Sample:
        return x + self.dequantisation * draws.uniform(*x.shape[1:]) if self.dequantisation else x

    def forward(self, z: Tensor, y: Tensor | None = None) -> Sample:
        h = self.start(z)
        for block in self.blocks:
            h = block(h, y)
        return self.head(h)


class ResNetDiscriminator(Discriminator):
    """Residual blocks that halve the side, at least once and down to 8 (or 7), two that keep it, ReLU, pool, linear layer.

    The features are what was pooled. pool: "sum" over the image (SNGAN) or its "mean" (WGAN-GP). conditional: projection,
    D(x, y) = psi(f(x)) + <V_y, f(x)> (Miyato & Koyama 2018).
    """

    def __init__(
        self,
        spec: Spec,
        width: Annotated[int, Gt(0)] = 128,
        conditional: bool = False,
        pool: Literal["sum", "mean"] = "sum",
    ):
        super().__init__()
        self.features, self.pool = width, pool
        self.classes = fitting.classes(spec, conditional, "the discriminator of resnet")
        side, doublings = fitting.scales(spec, "resnet")
        halvings = max(1, doublings - 1) if side == 4 else doublings
        self.body = nn.Sequential(
            DownBlock(spec.shape[0], width, halve=True, first=True),
            *(DownBlock(width, width, halve=True) for _ in range(halvings - 1)),
            *(DownBlock(width, width, halve=False) for _ in range(2)),
            nn.ReLU(),
        )
        self.head = glorot(nn.Linear(width, 1), PLAIN)
        if self.classes is not None:
            self.projection = nn.Embedding(self.classes, width)
            nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, sample: Sample, y: Tensor | None = None) -> DiscriminatorOutput:
        assert isinstance(sample, torch.Tensor)
        h = self.body(sample)
        features = h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))
        logits = self.head(features).squeeze(1)
        if self.classes is not None:
            logits = logits + (self.projection(fitting.given(y)) * features).sum(1)
        return DiscriminatorOutput(logits, features)
