"""What people make of the samples: a page that asks which of two images is real, and the score of their answers."""

from gan_runner.rating.page import make
from gan_runner.rating.scorer import score

__all__ = ["make", "score"]
