"""Figures of samples, and the protocol of their measurement."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
