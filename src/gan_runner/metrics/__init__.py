"""Figures of merit of samples."""

from gan_runner.metrics.classifier_score import ClassifierScore, classifier_score
from gan_runner.metrics.metric import Metric
from gan_runner.metrics.mode_coverage import ModeCoverage, coverage, nearest_mode

__all__ = ["ClassifierScore", "Metric", "ModeCoverage", "classifier_score", "coverage", "nearest_mode"]
