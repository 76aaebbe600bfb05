"""Base class of callbacks. Callbacks do not affect training: without any, the weights are bit for bit the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


class Callback:
    """Base of callbacks; every method is optional."""

    order: int = 0
    """Among the callbacks of a step, smaller comes first; then the order of the list counts."""

    everywhere: bool = False
    """Of several processes, whether all have it rather than the first alone: because its work is shared, or takes all of them."""

    def begin(self, run: Run) -> None:
        """Called before the first round, also after a resume."""

    def after_round(self, run: Run, logs: Logs) -> None:
        """Called after each round; `logs` are scalars on the device."""

    def end(self, run: Run) -> None:
        """Called after the last round, or when a signal stops the run."""

    def follows(self) -> list[str]:
        """Return the names of the metrics by which runs are compared."""
        return []

    def states(self) -> int:
        """Return how many checkpoints of the run it keeps on disk at most."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resume restores."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of state_dict."""
