"""How gradients become steps, where torch.optim has no such optimiser."""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
