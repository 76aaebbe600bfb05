"""Feature networks, which the metrics of images use."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
