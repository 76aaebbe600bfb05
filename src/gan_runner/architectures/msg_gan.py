"""Multi-scale gradients GAN: every scale of the generator speaks to the discriminator. Karnewar & Wang 2020 (ProGAN form)."""

import math
from itertools import pairwise
from typing import Annotated, TypeVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from gan_runner.architectures import fitting
from gan_runner.architectures.latents import LatentGenerator
from gan_runner.draws import Draws
from gan_runner.game.network import Discriminator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.game.prior import Prior
from gan_runner.game.spec import Spec
from gan_runner.tree import Sample

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

Width = Annotated[int, Ge(2)]


class Equalised(nn.Module):
    """Multiplies a weight by a constant whenever it is used."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the parameter that gives this weight."""
        return weight / self.scale


def equalised(layer: Layer) -> Layer:
    """Return the layer with weights N(0, 1), used as sqrt(2 / fan in) of themselves, so that all layers learn at one rate. Karras et al.
    2018.

    A parametrisation, so that spectral norm, where it is asked for, sees the weight that is used.
    """
    scale = math.sqrt(2 / layer.weight[0].numel())
    nn.init.normal_(layer.weight, 0.0, scale)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    register_parametrization(layer, "weight", Equalised(scale))
    return layer


def conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    return equalised(nn.Conv2d(inputs, outputs, side, padding=side // 2))


def linear(inputs: int, outputs: int) -> nn.Linear:
    return equalised(nn.Linear(inputs, outputs))


def activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
    """Divide x by the root mean square over its channels, at every pixel."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def with_deviation(x: Tensor) -> Tensor:
    """Append one channel: the standard deviation over the batch, averaged over channels and pixels. Karras et al. 2018."""
    deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean()
    return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)


def widths(width: int, doublings: int) -> list[int]:
    """Return channels at every scale, from the coarsest: `width` for the first four, then half as many at each."""
    return [max(2, width >> max(0, i - 3)) for i in range(doublings + 1)]


class GeneratorBlock(nn.Module):
    """Double the side, then twice conv, LeakyReLU, pixel norm."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs), conv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(activate(self.conv1(F.interpolate(x, scale_factor=2))))
        return pixel_norm(activate(self.conv2(x)))


class MSGGenerator(LatentGenerator):
    """Emits an image at every scale, coarse to fine, by a 1x1 convolution (no tanh, as in the paper) on the features of that scale.

    width: channels of the four coarsest scales, at least 2. Real data are viewed as the pyramid of their averages; the finest image is
    shown, clamped to [-1, 1]. Labels are joined to the latent as one-hot vectors. prior: the law of z; None: N(0, I).
    """

    def __init__(
        self,
        spec: Spec,
        latent: Annotated[int, Gt(0)] = 512,
        width: Width = 512,
        conditional: bool = False,
        prior: Prior | None = None,
    ):
        super().__init__(latent, prior)
        self.classes = fitting.classes(spec, conditional, "the generator of msg_gan")
        side, self.doublings = fitting.scales(spec, "msg_gan")
        channels = widths(width, self.doublings)
        self.linear = linear(latent + (self.classes or 0), width * side**2)
        self.unflatten = nn.Unflatten(1, (width, side, side))
        self.conv = conv(width, width)
        self.blocks = nn.ModuleList(GeneratorBlock(a, b) for a, b in pairwise(channels))
        self.to_image = nn.ModuleList(conv(c, spec.shape[0], 1) for c in channels)

    def view(self, x: Tensor, draws: Draws) -> Sample:
        return (*(F.avg_pool2d(x, 2**i) for i in range(self.doublings, 0, -1)), x)

    def show(self, sample: Sample) -> Tensor:
        return sample[-1].clamp(-1, 1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Sample:
        h = activate(self.unflatten(self.linear(fitting.with_labels(z, y, self.classes))))
        h = pixel_norm(activate(self.conv(h)))
        images = [self.to_image[0](h)]
        for block, to_image in zip(self.blocks, self.to_image[1:]):
            h = block(h)
            images.append(to_image(h))
        return tuple(images)


class DiscriminatorBlock(nn.Module):
    """Twice conv, LeakyReLU, then halve the side."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, inputs), conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(activate(self.conv2(activate(self.conv1(x)))), 2)


class MSGDiscriminator(Discriminator):
    """Reads the finest image first; at every coarser scale a 1x1 convolution of that image is joined to what came down ("lin_cat").

    width: as in the generator. minibatch_stddev: one more channel before the last block, which couples the samples of a batch; leave it out
    (false) where a gradient penalty must not see across samples. Labels are joined to the input of the last block as one-hot planes.
    The features are the last hidden layer.
    """

    def __init__(self, spec: Spec, width: Width = 512, conditional: bool = False, minibatch_stddev: bool = True):
        super().__init__()
        self.features, self.couples_samples, self.couples_in_evaluation = width, minibatch_stddev, minibatch_stddev
        self.classes = fitting.classes(spec, conditional, "the discriminator of msg_gan")
        side, doublings = fitting.scales(spec, "msg_gan")
        channels = widths(width, doublings)
        read = [*(c // 2 for c in channels[:-1]), channels[-1]]  # half of a scale's channels come from its image; at the finest, all
        self.from_image = nn.ModuleList(conv(spec.shape[0], c, 1) for c in read)
        self.blocks = nn.ModuleList(DiscriminatorBlock(channels[i + 1], channels[i] - read[i]) for i in range(doublings))
        self.conv = conv(width + (self.classes or 0) + minibatch_stddev, width)
        self.linear = linear(width * side**2, width)
        self.head = linear(width, 1)

    def forward(self, sample: Sample, y: Tensor | None = None) -> DiscriminatorOutput:
        assert isinstance(sample, tuple)
        h = self.from_image[-1](sample[-1])
        for i in reversed(range(len(self.blocks))):
            h = torch.cat([self.from_image[i](sample[i]), self.blocks[i](h)], 1)
        if self.couples_samples:
            h = with_deviation(h)
        h = activate(self.conv(fitting.with_labels(h, y, self.classes)))
        features = activate(self.linear(h.flatten(1)))
        return DiscriminatorOutput(self.head(features).squeeze(1), features)
