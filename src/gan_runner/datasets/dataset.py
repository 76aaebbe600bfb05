"""The interface of data sets: a spec, two splits, and pictures of samples."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Ge, Le
from torch import Tensor

from gan_runner.datasets import pictures
from gan_runner.datasets.fingerprint import Fingerprint, of_items
from gan_runner.game.kind import grid, to_float, to_uint8
from gan_runner.game.spec import Spec
from gan_runner.reporting import Tick

Split = Literal["train", "test"]
Workers = Annotated[int, Ge(0), Le(1024)]  # many more cannot be started


class Items(Protocol):
    """Samples with random access, from memory or from files."""

    @property
    def nbytes(self) -> int:
        """Size of all samples in memory, without labels."""

    @property
    def labels(self) -> Tensor | None:
        """int64, N; None if there are none."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[Tensor, int | None]:
        """Return sample i and its label; IndexError past the end."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the samples `indices` (N) as x (N ...) and y (N)."""


@dataclass(frozen=True)
class Samples:
    """Samples in memory."""

    x: Tensor
    """Images: uint8, N C H W. Points: float32, N D."""

    y: Tensor | None = None
    """Labels: int64, N; None where there are none."""

    @property
    def nbytes(self) -> int:
        return self.x.nbytes

    @property
    def labels(self) -> Tensor | None:
        return self.y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int | None]:
        return self.x[i], None if self.y is None else int(self.y[i])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.x[indices], None if self.y is None else self.y[indices]


def unheard(what: str, done: int, n: int) -> None:
    """Ignore progress."""


class Dataset:
    """A named collection of samples in two splits. A subclass defines `spec` and `load`; its constructor opens no file."""

    flip: bool = False
    """Whether a training image is mirrored left to right half of the times that it is seen."""

    resident_mb: int = 4096
    """Up to how many MB (10^6 bytes) the training samples are kept on the device; above, they are read while training."""

    workers: int = 0
    """Processes that read and decode samples while training, where those are not kept on the device."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    @property
    def spec(self) -> Spec:
        """Shape of a sample as input of the networks (C H W for images), number of classes, and the exact distribution if known."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Ensure that the files exist undamaged, and download them if possible; a second call costs nothing.

        Raises UserError, which names the missing files and their folder.
        """

    def verify(self, tick: Tick = unheard) -> None:
        """Read once what training will read, before there is a run. UserError that names all samples that cannot be read."""

    def load(self, split: Split) -> Samples:
        """Load all samples of a split into memory."""
        raise NotImplementedError

    def open(self, split: Split) -> Items:
        """Open the samples of a split, not necessarily in memory."""
        return self.load(split)

    def at_hand(self, split: Split, tick: Tick = unheard) -> Items:
        """Open the samples of a split for repeated reading in training, after preparation that is done once, such as decoding."""
        return self.open(split)

    def to_float(self, x: Tensor) -> Tensor:
        """Convert samples from how they are kept (N ...) to how networks see them: uint8 to numbers -1 ... 1, other types unchanged.

        The only conversion there is: a data set that keeps sound as int16 overrides it by x / 32768.
        """
        return to_float(x)

    @property
    def name(self) -> str:
        """Name in protocols."""
        return type(self).__name__.lower()

    def summary(self) -> str | None:
        """Return one line for the start of a run: what was found, and what was left out and why; None if the name is enough."""
        return None

    def notes(self, split: Split) -> dict[str, str]:
        """Return notes for a protocol on the origin of the samples of a split, by name."""
        return {}

    def checksum(self, split: Split) -> str:
        """Return the SHA-256 of the samples of a split and their labels: equal for equal content at any path."""
        samples = self.load(split)
        digest = hashlib.sha256(f"{samples.x.dtype} {tuple(samples.x.shape)}".encode())
        for part in (samples.x, samples.y):
            if part is not None:
                digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    def fingerprint(self, split: Split, items: Items) -> Fingerprint:
        """Return what identifies the samples of a split. A state has it for the training samples, and resumes only on the same ones.

        items: the samples, from `open` or `at_hand`. This default reads 1,000 of them; override it if that takes long.
        """
        return of_items(items)

    def picture(
        self, samples: Tensor, columns: int = 8, *, scale: int | Literal["auto"] = 1, title: str = "", joined: bool = False
    ) -> Tensor:
        """Draw samples: uint8, 3 H W.

        Images (N C H W, -1 ... 1) as a grid of `columns`, without reading files, each pixel `scale` pixels wide and high (auto: small
        images are enlarged); points in the plane (N 2) as a scatter plot over the real distribution, with a title; numbers (N 1) as a
        histogram beside that of the real ones. joined: the `columns` samples of a row lead from one latent to another, and points are
        drawn as a curve. A subclass may take fewer of the keywords.
        """
        if samples.ndim == 4:
            return grid(to_uint8(samples), columns, scale)
        if samples.shape[1:] == (2,):
            draw = pictures.curves if joined else pictures.scatter
            shown = samples.unflatten(0, (-1, columns)) if joined else samples
            return draw(shown, self.load("test").x, self.spec.exact, title)
        if samples.shape[1:] == (1,):
            return pictures.histogram(samples, self.load("test").x, title)
        raise NotImplementedError(f"{type(self).__name__} has samples of shape {tuple(samples.shape[1:])}: override `picture` to show them")

    def drawn(self, samples: Tensor, columns: int = 8, **look: Any) -> Tensor:
        """Return `picture` with those of its keywords `scale`, `title` and `joined` that this class takes."""
        taken = inspect.signature(self.picture).parameters
        every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        return self.picture(samples, columns, **{name: value for name, value in look.items() if every or name in taken})

    def files(self, samples: Tensor) -> dict[str, bytes]:
        """Encode samples (N ..., on the CPU) as files beside the picture, by suffix: {"txt": ...}, {"wav": ...}; none for images and
        points."""
        return {}
