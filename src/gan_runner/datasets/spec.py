"""What networks, terms and metrics may know of a data set."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Exact(Protocol):
    """What is known of a distribution that was written down rather than collected."""

    modes: Tensor | None
    """Centres, M D; None where it has none."""

    sigma: float
    """Standard deviation, per axis, around a mode or the support."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats, N, of points N D; NotImplementedError for a surface in the space of images, where there is none."""

    def support_distance(self, x: Tensor) -> Tensor:
        """Euclidean distance, N, of samples N ... to the nearest mode, or to the curve or surface that the data lie on or surround."""


class Spec(NamedTuple):
    """Shape of one sample as the networks see it, number of classes (None: no labels), exact knowledge where there is any."""

    shape: tuple[int, ...]
    classes: int | None = None
    exact: Exact | None = None

    @property
    def is_image(self) -> bool:
        """Whether a sample is C H W."""
        return len(self.shape) == 3
