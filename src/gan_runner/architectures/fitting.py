"""What a network asks of a data set before it can be built for it, and the forms in which it takes labels."""

from typing import NamedTuple

import torch
from torch import Tensor

from gan_runner.game.network import one_hot
from gan_runner.game.spec import Spec


class Scales(NamedTuple):
    """The sides of an image, from the coarsest: side, 2 side, ..., 2^doublings side."""

    side: int
    doublings: int


def scales(spec: Spec, maker: str) -> Scales:
    """Return the scales of square images whose side is 4 or 7 times 2, 4, 8, ...; ValueError for any other shape."""
    if spec.kind.bounded and spec.shape[1] == spec.shape[2]:
        for side in (4, 7):
            times, rest = divmod(spec.shape[1], side)
            if not rest and times >= 2 and times & (times - 1) == 0:
                return Scales(side, times.bit_length() - 1)
    raise ValueError(
        f"{maker} makes square images of side 8, 16, 32, 64, ... or 14, 28, 56, ..., and the data set has shape "
        f"{'x'.join(map(str, spec.shape))}; choose another dataset.resolution or architecture (mlp makes any shape)"
    )


def symbols(spec: Spec, maker: str) -> int:
    """Return the number of symbols; ValueError where entries are numbers."""
    if spec.symbols is None:
        raise ValueError(
            f"{maker} makes symbols, and the data are numbers of shape {'x'.join(map(str, spec.shape))}: choose a data set of symbols"
        )
    return spec.symbols


def classes(spec: Spec, conditional: bool, maker: str) -> int | None:
    """Return the number of labels that a network is given, None where it is not conditional; ValueError where the data have none."""
    if conditional and spec.classes is None:
        raise ValueError(
            f"{maker} is conditional and the data set has no labels; set architecture.conditional=false or choose a labelled data set"
        )
    return spec.classes if conditional else None


def given(y: Tensor | None) -> Tensor:
    """Return the labels; ValueError where a conditional network is called without them."""
    if y is None:
        raise ValueError("a conditional network is called without labels: give y, one class number per sample")
    return y


def with_labels(x: Tensor, y: Tensor | None, classes: int | None) -> Tensor:
    """Join the one-hot label to the channels of x: N C becomes N (C + K), N C H W becomes N (C + K) H W. Mirza & Osindero 2014."""
    if classes is None:
        return x
    labels = one_hot(given(y), classes).to(x.dtype)
    return torch.cat([x, labels if x.ndim == 2 else labels[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
