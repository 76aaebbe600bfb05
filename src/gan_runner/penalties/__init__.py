"""What is added to the loss."""

from gan_runner.penalties.auxiliary_classifier import AuxiliaryClassifier
from gan_runner.penalties.feature_matching import FeatureMatching
from gan_runner.penalties.gradient import R1, GradientPenalty
from gan_runner.penalties.penalty import Penalty

__all__ = ["R1", "AuxiliaryClassifier", "FeatureMatching", "GradientPenalty", "Penalty"]
