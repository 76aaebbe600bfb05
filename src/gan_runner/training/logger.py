"""Base class of loggers, which write the numbers and pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from gan_runner.training.run import Run


class Logger:
    """Base of loggers; a step is the number of rounds played.

    addresses: keys of the constructor that determine where data are sent. Only values from the command line are used for them.
    """

    addresses: ClassVar[tuple[str, ...]] = ()

    def shown_by(self, folder: Path) -> list[str]:
        """Return the command that shows what was logged of the run in `folder`; empty if the logger says so itself."""
        return []

    def begin(self, run: Run) -> None:
        """Called when the run starts, or is resumed after `run.step` rounds."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        """Log a picture, uint8 3 H W."""

    def write_file(self, step: int, name: str, suffix: str, content: bytes) -> None:
        """Log samples as a file: text (txt), sound (wav), or what else the data set writes."""

    def flush(self) -> None:
        """Write all buffered entries to disk."""

    def close(self, state: str) -> None:
        """Called when the run ends; `state` is that of status.json."""
