"""Base class of loggers: where numbers and pictures of a run go."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from gan_runner.training.run import Run


class Logger:
    """A place for the numbers and pictures of a run; the step is the number of rounds played.

    addresses: the keys of the constructor that say to whom data are sent. They count only where the line names them.
    """

    addresses: ClassVar[tuple[str, ...]] = ()

    def begin(self, run: Run) -> None:
        """Start, or go on after `run.step` rounds."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        """Log a picture, uint8 3 H W."""

    def write_file(self, step: int, name: str, suffix: str, content: bytes) -> None:
        """Log samples as a file: text (txt), sound (wav), or what else the data set writes."""

    def flush(self) -> None:
        """Write everything to the disk."""

    def close(self, state: str) -> None:
        """Close, as the run ended in `state`, one of those of status.json."""
