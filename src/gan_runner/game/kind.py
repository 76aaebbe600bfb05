"""The kinds of data: how samples are kept, rounded and looked at. `Spec.kind` chooses one from the shape and the number of symbols."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BLACK = 1  # the greatest value of nearly black images, of 255
GAP = 2  # pixels between the images of a grid
VISIBLE = 64  # pixels: a smaller image is enlarged until its longer side has them


def to_float(x: Tensor) -> Tensor:
    """Convert pixels 0 ... 255 (uint8) to numbers -1 ... 1, x / 127.5 - 1; other types stay as they are."""
    return x / 127.5 - 1 if x.dtype == torch.uint8 else x


def to_uint8(x: Tensor) -> Tensor:
    """Convert numbers -1 ... 1 to pixels 0 ... 255, rounded, clipped: the inverse of `to_float` on all 256 levels."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def grid(images: Tensor, columns: int = 8, scale: int | Literal["auto"] = 1) -> Tensor:
    """Lay out images (uint8, N C H W) row by row on white; grey ones are repeated to three channels, a fourth channel is opacity.

    scale: how many pixels wide and high a pixel of an image is drawn; auto: the least number for images of VISIBLE pixels. Raises
    ValueError where C is not 1, 3 or 4.
    """
    channels = images.shape[1]
    if channels not in (1, 3, 4):
        raise ValueError(f"an image to look at has 1, 3 or 4 channels, not {channels}")
    times = -(-VISIBLE // max(images.shape[2:])) if scale == "auto" else scale
    images = images.detach().cpu().repeat_interleave(times, 2).repeat_interleave(times, 3)
    n, _, height, width = images.shape
    if channels == 4:
        colour, opacity = images[:, :3].float(), images[:, 3:].float() / 255
        images = (colour * opacity + 255 * (1 - opacity)).round().to(torch.uint8)
    columns = min(columns, n)
    rows = -(-n // columns)
    cells = torch.full((rows * columns, 3, height + GAP, width + GAP), 255, dtype=torch.uint8)
    cells[:n, :, :height, :width] = images
    whole = cells.view(rows, columns, 3, height + GAP, width + GAP).permute(2, 0, 3, 1, 4).reshape(3, rows * (height + GAP), -1)
    return torch.nn.functional.pad(whole, (GAP, 0, GAP, 0), value=255)


class Kind:
    """Numbers of any size: points, sound, tables."""

    bounded = False
    """Whether every entry is between -1 and 1."""

    rounding: str | None = None
    """How a protocol describes the rounding of samples; None where there is none."""

    drawable = False
    """Whether samples are looked at as a grid of images."""

    pictured = 64
    """Samples of one picture."""

    walked = 10
    """Samples on the way from one latent to another."""

    suffix = "npz"
    """Of the file that holds one sample, or all of them."""

    def quantised(self, x: Tensor) -> Tensor:
        """Convert samples of a generator to data, N ...: as they would be read if they were stored."""
        return x.float() if x.is_floating_point() else x

    def as_bytes(self, x: Tensor) -> Tensor:
        """Convert samples to the type in which they are stored."""
        return x

    def nearly_black(self, x: Tensor) -> bool:
        """Return whether no value of these images exceeds 1 of 255, as of images that were meant to be scaled."""
        return False


class Images(Kind):
    """Pixels of 256 levels, C H W, as numbers from -1 to 1."""

    bounded = True
    rounding = "uint8, rounded"

    def __init__(self, channels: int):
        self.drawable = channels in (1, 3, 4)
        self.suffix = "png" if channels in (1, 3, 4) else "npz"

    def quantised(self, x: Tensor) -> Tensor:
        return torch.where(x.isfinite(), to_float(to_uint8(x)), x.float())

    def as_bytes(self, x: Tensor) -> Tensor:
        return to_uint8(x)

    def nearly_black(self, x: Tensor) -> bool:
        return int(to_uint8(x).max()) <= BLACK


class Points(Kind):
    """Points in the plane."""

    pictured = 2000
    walked = 100


class Symbols(Kind):
    """Whole numbers that name something, as characters or nodes."""

    def quantised(self, x: Tensor) -> Tensor:
        return x.long()

    def as_bytes(self, x: Tensor) -> Tensor:
        return x.to(torch.int16)
