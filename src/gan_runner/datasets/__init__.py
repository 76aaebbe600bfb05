"""Data sets, and the streams of batches that are read from them."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
