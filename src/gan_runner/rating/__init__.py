"""Rating by people: a page with pairs of images, where a rater chooses the real one, and the score of the answers."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
