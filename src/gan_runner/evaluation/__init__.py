"""The figures of samples and the protocol by which they are measured."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
