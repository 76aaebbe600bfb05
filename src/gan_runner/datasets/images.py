"""Base of the public image data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn.functional import interpolate

from gan_runner.datasets.dataset import Dataset, Workers
from gan_runner.game.spec import Spec

ROWS = 1024  # images that are resized at once: bounds the memory


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize the shorter side of images (uint8, N C H W) to `resolution` pixels: bilinear, antialiased, rounded, as in torchvision."""
    short, long = sorted(images.shape[-2:])
    if short == resolution:
        return images
    size = [resolution if side == short else resolution * long // short for side in images.shape[-2:]]
    return torch.cat([interpolate(part, size, mode="bilinear", antialias=True) for part in images.split(ROWS)])


class PublicImages(Dataset):
    """Square images with ten classes, in published files that are verified.

    root: folder of the files, or for their download. flip: mirror training images left to right with probability 1/2.
    resolution: pixels per side; None: unchanged. resident_mb, workers: see Dataset.
    """

    native: tuple[int, int, int]
    class_names: tuple[str, ...]
    """In the order of their labels."""

    def __init__(
        self,
        root: str = "data",
        flip: bool = False,
        resolution: Annotated[int, Gt(0)] | None = None,
        resident_mb: Annotated[int, Ge(0)] = 4096,
        workers: Workers = 2,
    ):
        self.root, self.flip, self.resolution = Path(root).expanduser(), flip, resolution
        self.resident_mb, self.workers = resident_mb, workers

    @property
    def spec(self) -> Spec:
        channels, height, width = self.native
        return Spec((channels, self.resolution or height, self.resolution or width), len(self.class_names), class_names=self.class_names)

    def resized(self, images: Tensor) -> Tensor:
        return images if self.resolution is None else resize(images, self.resolution)
