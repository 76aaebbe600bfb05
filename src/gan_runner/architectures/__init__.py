"""Generators and discriminators; each takes the data's spec first, then what its YAML file says."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
