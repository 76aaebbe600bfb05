"""Data sets, and streams of batches from them."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
