"""The training step, and the base classes of its parts."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
