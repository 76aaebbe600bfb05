"""A sample is a tree of tensors: one leaf for an image, one per scale for a multi-scale GAN."""

from collections.abc import Callable

import torch
from torch import Tensor

Sample = Tensor | tuple[Tensor, ...]  # leaves are N ...


def leaves(sample: Sample) -> tuple[Tensor, ...]:
    return (sample,) if isinstance(sample, Tensor) else tuple(sample)


def map(f: Callable[..., Tensor], sample: Sample, *more: Sample) -> Sample:
    """Apply f to every leaf, beside the matching leaves of `more`."""
    if isinstance(sample, Tensor):
        return f(sample, *more)
    return tuple(f(*leaf) for leaf in zip(sample, *more, strict=True))


def cat(a: Sample, b: Sample) -> Sample:
    """Return the samples of a, then those of b."""
    return map(lambda *leaf: torch.cat(leaf), a, b)
