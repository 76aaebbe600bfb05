"""What changes the way the game is played: what is built, seen or kept."""

from gan_runner.tricks.clipping import GradientClip, WeightClip
from gan_runner.tricks.ema import EMA
from gan_runner.tricks.instance_noise import InstanceNoise
from gan_runner.tricks.label_smoothing import LabelSmoothing
from gan_runner.tricks.spectral_norm import SpectralNorm
from gan_runner.tricks.trick import Trick

__all__ = ["EMA", "GradientClip", "InstanceNoise", "LabelSmoothing", "SpectralNorm", "Trick", "WeightClip"]
