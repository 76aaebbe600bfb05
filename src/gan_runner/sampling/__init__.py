"""Provide samples in a fixed order, from a generator or from files."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
