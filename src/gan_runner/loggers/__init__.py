"""Write the numbers and pictures of a run to files and trackers."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
