"""What networks, terms and metrics may know of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from gan_runner.game.kind import Images, Kind, Points, Symbols


class Exact(Protocol):
    """What is known of a distribution that was written down rather than collected."""

    modes: Tensor | None
    """Centres, M D; None where it has none."""

    sigma: float
    """Standard deviation, per axis, around a mode or the support."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats, N, of points N D; NotImplementedError for a surface in the space of images, where there is none."""

    def support_distance(self, x: Tensor) -> Tensor:
        """Return Euclidean distance, N, of samples N ... to the nearest mode, or to the curve or surface that the data lie on or
        surround."""


class Spec(NamedTuple):
    """Shape of one sample as the networks see it, number of classes (None: no labels), exact knowledge where there is any.

    class_names: label k is of the class class_names[k]; None where the classes have no names.
    symbols: entries are whole numbers 0 ... symbols - 1 that name something, as characters or nodes; None: entries are numbers.
    """

    shape: tuple[int, ...]
    classes: int | None = None
    exact: Exact | None = None
    class_names: tuple[str, ...] | None = None
    symbols: int | None = None

    @property
    def kind(self) -> Kind:
        """How samples are kept, rounded and looked at: symbols, images (C H W), points in the plane or numbers."""
        if self.symbols is not None:
            return Symbols()
        if self.shape == (2,):
            return Points()
        return Images(self.shape[0]) if len(self.shape) == 3 else Kind()

    def saved(self) -> dict[str, Any]:
        """Return what a checkpoint or an exported generator keeps of the spec, in plain values."""
        names = None if self.class_names is None else list(self.class_names)
        return {"shape": list(self.shape), "classes": self.classes, "class_names": names, "symbols": self.symbols}

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Spec:
        """Return the spec that `saved` gave; states of older versions have no names. ValueError where it is none."""
        shape, classes, names, symbols = saved["shape"], saved["classes"], saved.get("class_names"), saved.get("symbols")
        if not all(type(side) is int and side > 0 for side in shape) or (classes is not None and (type(classes) is not int or classes < 1)):
            raise ValueError(f"a spec has a shape of whole numbers and a number of classes, not {shape} and {classes}")
        if symbols is not None and (type(symbols) is not int or symbols < 1):
            raise ValueError(f"a number of symbols is a whole number, 1 or more, not {symbols}")
        if names is not None and (not all(isinstance(name, str) for name in names) or len({*names}) != len(names) or len(names) != classes):
            raise ValueError(f"there should be {classes} different class names")
        return cls(tuple(shape), classes, class_names=None if names is None else tuple(names), symbols=symbols)
