"""Resize images as the library Pillow does, which published feature networks use, on any device and with gradients."""

from functools import lru_cache

import torch
from torch import Tensor

BITS = 22  # after the binary point of Pillow's weights for images of 8 bits


@lru_cache(maxsize=32)
def pillow_matrix(inputs: int, outputs: int) -> Tensor:
    """Build the matrix (outputs x inputs, float64) of bicubic resizing in one direction, a = -0.5, wider where it reduces (antialiasing).

    Its entries are whole multiples of 2^-22, as Pillow rounds them, so that products with bytes are exact in float64.
    """
    scale = inputs / outputs
    wider = max(scale, 1.0)
    centre = (torch.arange(outputs, dtype=torch.float64) + 0.5) * scale
    first = (centre - 2 * wider + 0.5).trunc().clamp(min=0)[:, None]
    end = (centre + 2 * wider + 0.5).trunc().clamp(max=inputs)[:, None]
    place = torch.arange(inputs, dtype=torch.float64)
    d = ((place - centre[:, None] + 0.5) * (1 / wider)).abs()
    near, far = (1.5 * d - 2.5) * d * d + 1, ((d - 5) * d + 8) * d * -0.5 + 2  # Keys 1981, up to 1 and up to 2
    weights = torch.where(d < 1, near, torch.where(d < 2, far, 0.0)) * ((place >= first) & (place < end))
    weights = weights * (1 / weights.cumsum(1)[:, -1:])
    return (weights * 2**BITS + weights.sign() * 0.5).trunc() / 2**BITS


def pillow_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images N C H W in 0 ... 255 to N C height width, bicubic with antialiasing; float32.

    Bytes are resized as Pillow resizes bytes, bit for bit: rounded to whole numbers in 0 ... 255 after each direction. Of other images the
    result is the same without the rounding, with gradients, in their own precision. An image of this size is unchanged.
    """
    whole = not images.is_floating_point()
    home = images.device
    if whole:
        images = images.to("cpu" if home.type == "mps" else home, torch.float64)  # Apple's GPUs have no float64
    order = [(3, width), (2, height)]
    if height < images.shape[2] > 100 * images.shape[3]:
        order.reverse()  # as Pillow resizes images that are this narrow
    for direction, side in order:
        if images.shape[direction] != side:
            matrix = pillow_matrix(images.shape[direction], side).to(images.device, images.dtype)
            images = images @ matrix.T if direction == 3 else matrix @ images
            images = ((images + 0.5).floor() if whole else images).clamp(0, 255)
    return images.to(home, torch.float32)
