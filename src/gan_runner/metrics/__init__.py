"""Figures of merit of samples."""

from gan_runner.metrics.adversarial_probing import AdversarialProbing
from gan_runner.metrics.annealed_importance import AnnealedImportance
from gan_runner.metrics.birthday import Birthday
from gan_runner.metrics.classifier_score import ClassifierScore, classifier_score
from gan_runner.metrics.diversity import MSSSIM
from gan_runner.metrics.flaws import FlawCritics
from gan_runner.metrics.frechet import FrechetDistance, IntraClassFrechet, frechet
from gan_runner.metrics.frechet_infinity import FrechetInfinity
from gan_runner.metrics.geometry_score import GeometryScore
from gan_runner.metrics.kernel_density import KernelDensity
from gan_runner.metrics.kernel_distance import KernelDistance, kernel_distance
from gan_runner.metrics.memorisation import Memorisation
from gan_runner.metrics.metric import Metric
from gan_runner.metrics.mode_coverage import ModeCoverage, coverage, nearest_mode
from gan_runner.metrics.moments import Moments
from gan_runner.metrics.parzen import Parzen
from gan_runner.metrics.prd import PRD
from gan_runner.metrics.precision_recall import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from gan_runner.metrics.skill_rating import SkillRating
from gan_runner.metrics.support_precision import SupportPrecisionRecall
from gan_runner.metrics.two_sample import TwoSampleTest

__all__ = [
    "MSSSIM",
    "PRD",
    "AdversarialProbing",
    "AnnealedImportance",
    "Birthday",
    "ClassifierScore",
    "DensityCoverage",
    "FlawCritics",
    "FrechetDistance",
    "FrechetInfinity",
    "GeometryScore",
    "IntraClassFrechet",
    "KernelDensity",
    "KernelDistance",
    "Memorisation",
    "Metric",
    "ModeCoverage",
    "Moments",
    "Parzen",
    "PrecisionRecall",
    "SkillRating",
    "SupportPrecisionRecall",
    "TwoSampleTest",
    "classifier_score",
    "coverage",
    "density_coverage",
    "frechet",
    "kernel_distance",
    "nearest_mode",
    "precision_recall",
]
