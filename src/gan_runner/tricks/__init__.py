"""What changes the way the game is played: what is built, seen or kept."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
