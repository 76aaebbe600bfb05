"""A convolutional network with fixed random weights."""

import hashlib
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from gan_runner.draws import seeded
from gan_runner.evaluation.extractor import Extracted, Extractor, colour


class RandomConv(Extractor):
    """Four 3x3 convolutions of stride 2 with ReLU, and the mean over positions: `width` features of colour images of any size, no logits.

    Its features separate gross failures from roughly correct samples, for any images and without a download. Its figures are not comparable
    with published ones. Weights are normal with variance 2 / fan-in (He et al. 2015), without biases. The same seed gives the same network
    if torch's CPU generator gives the same numbers; `checksum` is computed from the weights.
    """

    preprocessing = "(x-128)/128, not resized"
    classifies = False

    def __init__(self, seed: Annotated[int, Ge(0)] = 0, width: Annotated[int, Ge(1)] = 256):
        super().__init__()
        self.name, self.features = f"random_conv_s{seed}_d{width}", width
        self.convolutions = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, 2, 1, bias=False) for inputs, outputs in pairwise((3, 32, 64, 128, width))
        )
        digest = hashlib.sha256()
        with torch.no_grad():
            for i, weight in enumerate(self.parameters()):
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=seeded("random_conv", seed, i))
                digest.update(weight.numpy().tobytes())
        self.requires_grad_(False)
        self.train(False)
        self._checksum, self.loaded = digest.hexdigest(), True

    def embed(self, images: Tensor) -> Extracted:
        h = (colour(images).float() - 128) / 128
        for convolution in self.convolutions:
            h = F.relu(convolution(h))
        return Extracted(h.mean((2, 3)), None)
