"""The law of the latents: what a generator draws z from."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
