"""What a game is about: exactly one of these is its loss."""

from gan_runner.losses.hinge import Hinge
from gan_runner.losses.logistic import Minimax, NonSaturating
from gan_runner.losses.term import Term
from gan_runner.losses.wasserstein import Wasserstein

__all__ = ["Hinge", "Minimax", "NonSaturating", "Term", "Wasserstein"]
