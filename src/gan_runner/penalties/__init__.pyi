from gan_runner.game.penalty import Penalty as Penalty
from gan_runner.penalties.approximate import ApproximateR1 as ApproximateR1
from gan_runner.penalties.approximate import ApproximateR2 as ApproximateR2
from gan_runner.penalties.auxiliary_classifier import AuxiliaryClassifier as AuxiliaryClassifier
from gan_runner.penalties.feature_matching import FeatureMatching as FeatureMatching
from gan_runner.penalties.gradient import R1 as R1
from gan_runner.penalties.gradient import R2 as R2
from gan_runner.penalties.gradient import GradientPenalty as GradientPenalty
