"""What people make of the samples: a page that asks which of two images is real, and the score of their answers."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
