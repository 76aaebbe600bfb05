"""The Inception network of 2015-12-05 of published FID and Inception scores. Szegedy et al. 2016, Heusel et al. 2017."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import Extracted, Extractor, colour
from gan_runner.extractors.downloads import Remote, fetch

FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")  # two names of one file
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
PUBLISHED = Remote(f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILES[0]}", 95_628_359, SHA256)
VARIABLE = "GAN_RUNNER_INCEPTION"
SIDE, FEATURES, CLASSES = 299, 2048, 1008
SPATIAL = 7  # channels of a map that are looked at
EPSILON = 0.001  # of its batch norms

# ---- the network --------------------------------------------------------------------------------------------------------------------
# A convolution is written outputs@kernel, and keeps the size of its input; "valid" is one without padding, "/2" one that halves as well.
# Steps of a branch follow each other; those joined by "+" see the same input in parallel. Names are those of the weights.

Branches = dict[str, str]


def at_35(pooled: int) -> Branches:
    return {"branch1x1": "64@1x1", "branch5x5": "48@1x1 64@5x5", "branch3x3dbl": "64@1x1 96@3x3 96@3x3", "branch_pool": f"{pooled}@1x1"}


def at_17(n: int) -> Branches:
    long = f"{n}@1x1 {n}@7x1 {n}@1x7 {n}@7x1 192@1x7"
    return {"branch1x1": "192@1x1", "branch7x7": f"{n}@1x1 {n}@1x7 192@7x1", "branch7x7dbl": long, "branch_pool": "192@1x1"}


AT_8 = {
    "branch1x1": "320@1x1",
    "branch3x3": "384@1x1 384@1x3+384@3x1",
    "branch3x3dbl": "448@1x1 384@3x3 384@1x3+384@3x1",
    "branch_pool": "192@1x1",
}
TO_17 = {"branch3x3": "384@3x3/2", "branch3x3dbl": "64@1x1 96@3x3 96@3x3/2", "branch_pool": ""}
TO_8 = {"branch3x3": "192@1x1 320@3x3/2", "branch7x7x3": "192@1x1 192@1x7 192@7x1 192@3x3/2", "branch_pool": ""}

MIXED = (  # name, channels of its input, pool of branch_pool, branches
    ("Mixed_5b", 192, "mean", at_35(32)),
    ("Mixed_5c", 256, "mean", at_35(64)),
    ("Mixed_5d", 288, "mean", at_35(64)),
    ("Mixed_6a", 288, "halve", TO_17),
    ("Mixed_6b", 768, "mean", at_17(128)),
    ("Mixed_6c", 768, "mean", at_17(160)),
    ("Mixed_6d", 768, "mean", at_17(160)),
    ("Mixed_6e", 768, "mean", at_17(192)),
    ("Mixed_7a", 768, "halve", TO_8),
    ("Mixed_7b", 1280, "mean", AT_8),
    ("Mixed_7c", 2048, "max", AT_8),  # the paper has a mean here; the published weights were trained with a maximum
)
POOLS: dict[str, Callable[[], nn.Module]] = {
    "mean": partial(nn.AvgPool2d, 3, 1, 1, count_include_pad=False),  # of the pixels that are there
    "max": partial(nn.MaxPool2d, 3, 1, 1),
    "halve": partial(nn.MaxPool2d, 3, 2),
}


class Convolution(nn.Conv2d):
    """A convolution with its batch norm folded in, and ReLU. published: name of its weights in the file."""

    def __init__(self, published: str, inputs: int, text: str):
        found = re.fullmatch(r"(\d+)@(\d)x(\d)(valid|/2)?", text)
        assert found is not None
        outputs, *kernel = (int(number) for number in found.groups()[:3])
        padding = [0, 0] if found[4] else [side // 2 for side in kernel]
        super().__init__(inputs, outputs, (kernel[0], kernel[1]), 2 if found[4] == "/2" else 1, (padding[0], padding[1]))
        self.published = published

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x), inplace=True)


class Beside(nn.ModuleList):
    """Modules with the same input; their outputs are concatenated over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([module(x) for module in self], 1)


def chain(name: str, inputs: int, text: str) -> list[nn.Module]:
    """Build the steps of a branch: numbered if there are several, with letters if they are parallel."""
    steps: list[nn.Module] = []
    texts = text.split()
    for i, step in enumerate(texts, 1):
        numbered = name if len(texts) == 1 else f"{name}_{i}"
        if "+" in step:
            steps.append(Beside(Convolution(numbered + letter, inputs, one) for letter, one in zip("ab", step.split("+"), strict=True)))
        else:
            steps.append(Convolution(numbered, inputs, step))
            inputs = steps[-1].out_channels  # type: ignore[assignment]
    return steps


def mixed(name: str, inputs: int, pool: str, branches: Branches) -> Beside:
    """Build parallel branches; branch_pool begins with a pool."""
    return Beside(
        nn.Sequential(*([POOLS[pool]()] if branch == "branch_pool" else []), *chain(f"{name}.{branch}", inputs, text))
        for branch, text in branches.items()
    )


def trunk() -> nn.Sequential:
    """Build the network from images in [-1, 1], N 3 299 299, to features N 2048."""
    return nn.Sequential(
        Convolution("Conv2d_1a_3x3", 3, "32@3x3/2"),
        Convolution("Conv2d_2a_3x3", 32, "32@3x3valid"),
        Convolution("Conv2d_2b_3x3", 32, "64@3x3"),
        POOLS["halve"](),
        Convolution("Conv2d_3b_1x1", 64, "80@1x1"),
        Convolution("Conv2d_4a_3x3", 80, "192@3x3valid"),
        POOLS["halve"](),
        *(mixed(*row) for row in MIXED),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def folded(content: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Fold a batch norm into the convolution before it, in float64. Returns weight and bias."""
    scale, shift, mean, variance = (content[f"{name}.bn.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var"))
    scale = scale / (variance + EPSILON).sqrt()
    return content[f"{name}.conv.weight"].double() * scale[:, None, None, None], shift - mean * scale


# ---- what it sees -------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def tf1_matrix(inputs: int, outputs: int) -> Tensor:
    """Build the matrix (outputs x inputs) of bilinear interpolation in one direction, as in TensorFlow 1. Pixel i of the result is at
    i inputs / outputs, with corners aligned, and is a mean of its two neighbours at any scale (no antialiasing); in float32.
    """
    place = torch.arange(outputs, dtype=torch.float32) * torch.tensor(inputs / outputs, dtype=torch.float32)
    below = place.long()
    above, part, rows = (below + 1).clamp_max(inputs - 1), place - below, torch.arange(outputs)
    matrix = torch.zeros(outputs, inputs)
    matrix[rows, below] = 1 - part
    matrix[rows, above] += part
    return matrix


def tf1_resize(images: Tensor, side: int) -> Tensor:
    """Resize images N C H W in float32 to N C side side, by two products with tf1_matrix."""
    vertical, horizontal = (tf1_matrix(extent, side).to(images.device) for extent in images.shape[2:])
    return vertical @ (images @ horizontal.T)


class InceptionV3TF(Extractor):
    """Inception v3 as published FID uses it: 2048 features, and 1008 logits without the bias, as published Inception scores use them.

    weights: path of the published file (566 tensors; torch-fidelity and pytorch-fid use two names for it). By default the path is in the
    environment variable GAN_RUNNER_INCEPTION, or the file is in torch.hub's folder of checkpoints under either name, or, with `download`,
    it is downloaded there once (96 MB). If a path is given, no other is tried.
    sha256: of the file; any other file is refused. By default that of the published weights; only then are figures named
    .../inception_v3_tf. With another value, or null for any file, the name is inception_v3_custom_<first 8 digits of the SHA-256>.

    Images are resized as in TensorFlow 1. Features are those of a plain float32 pass up to rounding (batch norms are folded into the
    convolutions in float64), also on CUDA: TF32 is off during the pass. Memory: about 0.3 GB for 16 images at once.
    """

    preprocessing = "resize tf1-bilinear 299, (x-128)/128"
    features = FEATURES
    chunk = 16
    network = "inception_v3"  # in its name

    def __init__(self, weights: str | None = None, download: bool = True, sha256: str | None = SHA256):
        if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise UserError(f"extractor.sha256={sha256} is no SHA-256, which has 64 digits 0-9a-f; null takes any file")
        super().__init__(weights)
        self.download, self.sha256 = download, sha256
        self.standard = sha256 == SHA256  # no other file is ever read then
        self.name = f"{self.network}_tf" if self.standard else f"{self.network}_custom" + (f"_{sha256[:8]}" if sha256 else "")
        with torch.device("meta"):  # weights are still to come
            self.trunk, self.fc = trunk(), nn.Linear(FEATURES, CLASSES, bias=False)
        self.to_empty(device="cpu")
        self.train(False)

    def find(self) -> Path:
        given = self.weights or os.environ.get(VARIABLE)
        places = [Path(given).expanduser()] if given else [Path(torch.hub.get_dir(), "checkpoints", name) for name in FILES]
        for place in places:
            if os.path.isfile(place):  # False as well where one may not look
                return place
        if given:
            why = "nothing else was tried, as this path was named"
        elif not self.standard:
            why = "only the published file is downloaded, and extractor.sha256 asks for another"
        elif (failure := fetch(PUBLISHED, places[0], self.download)) is None:
            return places[0]
        else:
            why = failure
        raise UserError(
            f"extractor {self.name} needs the weights of Inception, and there is no file {' nor '.join(map(str, places))}; {why}. The "
            f"published ones are {PUBLISHED.url} ({PUBLISHED.size:,} bytes, SHA-256 {PUBLISHED.sha256}): put that file there, or name its "
            f"path by extractor.weights=PATH or by the environment variable {VARIABLE}; 'extractor=[random_conv]' needs no file"
        )

    def verify(self, path: Path, checksum: str) -> None:
        if self.sha256 not in (None, checksum):
            raise UserError(
                f"{path} is not the file that extractor {self.name} asks for: its SHA-256 is {checksum} and should be {self.sha256}. Put "
                f"the right one there, or use this one, named {self.network}_custom_{checksum[:8]}, by extractor.sha256={checksum}"
            )

    def own(self, content: Any) -> dict[str, Tensor]:
        state, foreign = {"fc.weight": content["fc.weight"]}, set(content) - {"fc.weight", "fc.bias"}
        for path, module in self.named_modules():
            if isinstance(module, Convolution):
                name = module.published
                state[f"{path}.weight"], state[f"{path}.bias"] = folded(content, name)
                foreign -= {f"{name}.conv.weight"} | {
                    f"{name}.bn.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
                }
        if foreign:
            raise KeyError(*sorted(foreign)[:1])
        return state

    def load(self) -> None:
        if self.loaded:
            return
        super().load()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster layout for convolutions of many channels
        if self.sha256 is None:
            self.name += f"_{str(self._checksum)[:8]}"

    def seen(self, images: Tensor) -> Tensor:
        """Return the input of the first layer, N 3 299 299."""
        return colour(tf1_resize((images.float() - 128) / 128, SIDE)).contiguous(memory_format=torch.channels_last)

    def embed(self, images: Tensor) -> Extracted:
        features = self.trunk(self.seen(images))
        return Extracted(features, self.fc(features))


class InceptionV3Spatial(InceptionV3TF):
    """A map of features in the middle of that network, in which they have a place in the image: the Frechet distance of these is sFID.

    The first 7 channels after branch1x1 of Mixed_6d, 7 x 17 x 17 = 2023 features (TensorFlow's mixed_6/conv). Nash et al. 2021. Weights and
    preprocessing are those of InceptionV3TF. Figures are named fd/inception_v3_spatial_tf, as fid/ is that of other features; no logits.
    """

    features = SPATIAL * 17 * 17
    classifies = False
    network = "inception_v3_spatial"

    def named(self, own: str, published: str) -> str:
        return f"{own}/{self.name}"

    def embed(self, images: Tensor) -> Extracted:
        before = [published for published, *_ in MIXED].index("Mixed_6d") - len(MIXED) - 2  # from the end, where two layers follow
        branch = cast(Beside, self.trunk[before])[0]
        return Extracted(branch(self.trunk[:before](self.seen(images)))[:, :SPATIAL].flatten(1), None)
