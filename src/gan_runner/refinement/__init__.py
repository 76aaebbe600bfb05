"""Refine samples by what the trained discriminator knows of the density ratio: the interface of refiners and what they stand on."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
