"""Images that are moved pixel by pixel: differentiable any number of times, and of fixed shape."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.tree import Sample, leaves


def refuse_points(shape: Sequence[int], name: str) -> None:
    """Raise UserError where the samples are no images, C H W."""
    if len(shape) != 3:
        raise UserError(f"{name} changes images, and the samples are {' x '.join(map(str, shape))} numbers: drop the trick, or use images")


def refuse_no_images(sample: Sample, name: str) -> None:
    """Raise UserError where a leaf of a sample is no image."""
    for leaf in leaves(sample):
        refuse_points(leaf.shape[1:], name)


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows (H 1) and the columns (1 W) of the pixels of images (N C H W)."""
    return torch.arange(x.shape[2], device=x.device)[:, None], torch.arange(x.shape[3], device=x.device)


def taken(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels of images x (N C H W) at whole rows and columns that are inside, N H W each."""
    n, channels, height, width = x.shape
    index = (rows * width + columns).reshape(n, 1, height * width).expand(n, channels, height * width)
    return x.flatten(2).gather(2, index).view_as(x)


def inside(at: Tensor, side: int) -> Tensor:
    """Return where whole numbers are in 0 ... side - 1."""
    return (at >= 0) & (at < side)


def mirrored(at: Tensor, side: int) -> Tensor:
    """Reflect whole numbers into 0 ... side - 1 at the edges: -1 is 0, -2 is 1."""
    at = at.remainder(2 * side)
    return torch.minimum(at, 2 * side - 1 - at)


def interpolated(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images x (N C H W) at any rows and columns, N H W each, bilinearly; outside they go on as in a mirror."""
    above, left = rows.floor(), columns.floor()
    down, right = ((at - before)[:, None].to(x.dtype) for at, before in ((rows, above), (columns, left)))
    at = [mirrored(above.long() + i, x.shape[2]) for i in range(2)], [mirrored(left.long() + i, x.shape[3]) for i in range(2)]
    upper, lower = (torch.lerp(taken(x, row, at[1][0]), taken(x, row, at[1][1]), right) for row in at[0])
    return torch.lerp(upper, lower, down)
