"""Base class of callbacks. A callback changes nothing of the training: without any, the weights are the same bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


class Callback:
    """Every verb is optional."""

    order: int = 0
    """Among the callbacks of a step, smaller comes first; then the order of the list counts."""

    everywhere: bool = False
    """Of several processes, whether all have it rather than the first alone: because its work is shared, or takes all of them."""

    def begin(self, run: Run) -> None:
        """Return the first round is about to be played, here or after a resume."""

    def after_round(self, run: Run, logs: Logs) -> None:
        """Return a round was played; `logs` are scalars on the device."""

    def end(self, run: Run) -> None:
        """Return the last round was played, or a signal came."""

    def follows(self) -> list[str]:
        """Return names of the metrics by which this run is to be compared with others."""
        return []

    def states(self) -> int:
        """Return how many states of the run it keeps on the disk at a time."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resume needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what state_dict gave."""
