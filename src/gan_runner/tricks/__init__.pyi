from gan_runner.game.trick import Augmentation as Augmentation
from gan_runner.game.trick import Trick as Trick
from gan_runner.tricks.clipping import GradientClip as GradientClip
from gan_runner.tricks.clipping import WeightClip as WeightClip
from gan_runner.tricks.ema import EMA as EMA
from gan_runner.tricks.instance_noise import InstanceNoise as InstanceNoise
from gan_runner.tricks.label_smoothing import LabelSmoothing as LabelSmoothing
from gan_runner.tricks.spectral_norm import SpectralNorm as SpectralNorm
