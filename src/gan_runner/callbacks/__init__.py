"""Observe a run: callbacks for logs, checkpoints, pictures and metrics."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
