"""The residual networks of He et al. 2016, section 4.2, for CIFAR-10."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_runner.evaluation.extractor import Extracted, Extractor, aside, colour, resize, unit


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm; the shortcut has no weights (option A): every second pixel, new channels filled with 0."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.stride, self.missing = outputs // inputs, outputs - inputs
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return F.relu(h + F.pad(x, (0, 0, 0, 0, self.missing // 2, self.missing // 2)))


class CifarResNet(Extractor):
    """A residual network for colour images of 32x32, normalised by ImageNet's mean and deviation; 64 features, 10 classes.

    The weights are {"state_dict": ...} with keys that may begin with "module.". The weights in the tests classify 91.73 % (depth 20) and
    93.39 % (depth 56) of CIFAR-10's test set correctly. depth must match the file.
    """

    preprocessing = "resize bilinear antialiased 32, (x/255-[0.485, 0.456, 0.406])/[0.229, 0.224, 0.225]"
    features = 64
    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: str, depth: Literal[20, 56] = 56):
        super().__init__(weights)
        self.name = f"resnet{depth}"
        with aside():
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            blocks = (depth - 2) // 6
            self.layer1, self.layer2, self.layer3 = (
                nn.Sequential(*(Block(inputs if i == 0 else outputs, outputs) for i in range(blocks)))
                for inputs, outputs in ((16, 16), (16, 32), (32, 64))
            )
            self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        self.train(False)

    def load(self) -> None:
        """Read the weights, and fold the batch norms into the convolutions; this moves features by rounding only (5e-7 of the largest)."""
        if not self.loaded:
            super().load()
            for module in [module for module in self.modules() if isinstance(module, CifarResNet | Block)]:
                for i in ("1", "2") if isinstance(module, Block) else ("1",):
                    module.add_module(f"conv{i}", fuse_conv_bn_eval(getattr(module, f"conv{i}"), getattr(module, f"bn{i}")))
                    module.add_module(f"bn{i}", nn.Identity())
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def own(self, content: Any) -> dict[str, Tensor]:
        return {key.removeprefix("module."): value for key, value in content["state_dict"].items()}

    def embed(self, images: Tensor) -> Extracted:
        h = (resize(colour(unit(images)), 32) - self.mean) / self.deviation
        h = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(h))))))
        features = h.mean((2, 3))
        return Extracted(features, self.linear(features))
