"""What every feature network promises."""

import hashlib
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Extracted(NamedTuple):
    """What a feature network says of N images."""

    features: Tensor  # N F
    logits: Tensor | None  # N K, None where it is no classifier


class Extractor(nn.Module):
    """A frozen network, always in evaluation mode, that takes images as uint8 and does its own resizing and scaling.

    weights: path of the file that a subclass reads. It is opened when first needed, so that a missing file is a reason why a figure is
    missing and not the end of a run.
    """

    name: str
    """Part of the keys in metrics.jsonl."""

    def __init__(self, weights: str):
        super().__init__()
        self.weights, self.loaded = Path(weights), False

    def embed(self, images: Tensor) -> Extracted:
        """Features and logits of uint8 images, N C H W."""
        raise NotImplementedError

    def own(self, content: Any) -> dict[str, Tensor]:
        """The state_dict of this network in what the file contains."""
        return content

    @torch.no_grad()
    def forward(self, images: Tensor) -> Extracted:
        """Features and logits of images, N C H W in 0 ... 255; TypeError unless they are uint8, UserError without usable weights."""
        if images.dtype != torch.uint8:
            raise TypeError(f"extractor {self.name} takes images as uint8, 0 ... 255, and was given {images.dtype}: quantise them first")
        self.load()
        return self.embed(images)

    def load(self) -> None:
        """Read the weights unless that is done; UserError where the file is missing or another network's."""
        if self.loaded:
            return
        if not self.weights.is_file():
            raise UserError(
                f"extractor {self.name} needs its weights, and there is no file {self.weights}; "
                f"put {self.weights.name} there, or set extractor.weights to its path"
            )
        try:
            self.load_state_dict(self.own(torch.load(self.weights, map_location="cpu", weights_only=True)))
        except Exception as error:  # whatever a damaged or foreign file can bring about
            raise UserError(
                f"{self.weights} does not hold the weights of {self.name} ({type(error).__name__}); "
                "replace the file, or set extractor.weights to the path of the right one"
            ) from error
        self.requires_grad_(False)
        self.loaded = True

    def available(self) -> str | None:
        """Why this extractor cannot be used; None where it can."""
        try:
            self.load()
        except UserError as error:
            return str(error)
        return None

    @cached_property
    def checksum(self) -> str | None:
        """SHA-256 of the weights file, for the protocol of a figure; None where there are no weights."""
        self.load()
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)


def aside() -> AbstractContextManager[None]:
    """Build layers without drawing from training's random numbers: their initial weights are overwritten anyway."""
    return torch.random.fork_rng(devices=[])


def unit(images: Tensor) -> Tensor:
    """uint8 as float32 in [0, 1]."""
    return images.float() / 255


def grey(images: Tensor) -> Tensor:
    """N 1 H W from one channel, or the luma of three; ValueError for another number."""
    if images.shape[1] == 3:
        return sum(w * images[:, i : i + 1] for i, w in enumerate(LUMA))  # type: ignore[return-value]
    return _channels(images, 1)


def colour(images: Tensor) -> Tensor:
    """N 3 H W from three channels, or one repeated; ValueError for another number."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else _channels(images, 3)


def _channels(images: Tensor, channels: int) -> Tensor:
    if images.shape[1] != channels:
        raise ValueError(f"this extractor sees images of 1 or 3 channels, not of {images.shape[1]}; choose no metric that looks through it")
    return images


def resize(images: Tensor, side: int) -> Tensor:
    """Square images of this side, by bilinear interpolation with antialiasing; untouched where they have it."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
