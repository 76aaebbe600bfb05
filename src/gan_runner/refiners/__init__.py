"""How samples of a trained generator are refined by its discriminator."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
