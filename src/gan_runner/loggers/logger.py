"""Where numbers and pictures of a run go: the base class, and what loggers say of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from gan_runner.trainer import Run


class Logger:
    """A place for the numbers and pictures of a run; the step is the number of rounds played.

    addresses: the keys of the constructor that say to whom data are sent. They count only where the line names them.
    """

    addresses: ClassVar[tuple[str, ...]] = ()

    def begin(self, run: Run) -> None:
        """The run starts, or goes on after `run.step` rounds."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        """A picture, uint8 3 H W."""

    def flush(self) -> None:
        """What was written is on the disk after this."""

    def close(self, state: str) -> None:
        """The run ended in `state`, as status.json has it."""


def flat(config: dict[str, Any], path: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """The leaves of a configuration, by dotted name."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}.")
        else:
            yield path + key, value if isinstance(value, bool | int | float | str) else str(value)


def hyperparameters(config: dict[str, Any]) -> dict[str, int | float | str]:
    """What can make two runs differ, as a table shows it: a part by the name of its class, yes and no in words; not who watches."""
    shown: dict[str, int | float | str] = {}
    for key, value in flat({key: node for key, node in config.items() if key not in ("callback", "logger")}):
        if key.endswith("._target_"):
            shown[key.removesuffix("._target_")] = str(value).rpartition(".")[2]
        else:
            shown[key] = str(value).lower() if isinstance(value, bool) else value
    return shown
