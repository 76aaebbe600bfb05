"""What a game is about: exactly one of these is its loss."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
