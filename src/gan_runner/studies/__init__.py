"""Studies: the tables and plots that summarise a sweep.

For one version, also the old home of OptunaSweeper, which copies of hydra/sweeper/gan_optuna.yaml may name.
"""

from gan_runner import lazy

__getattr__, __dir__, __all__ = lazy(__file__)
