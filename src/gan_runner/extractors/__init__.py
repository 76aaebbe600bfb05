"""Feature networks: what the metrics of images look through."""

from gan_runner.extractors.cifar_resnet import CifarResNet
from gan_runner.extractors.extractor import Extracted, Extractor
from gan_runner.extractors.identity import Identity
from gan_runner.extractors.lenet import LeNet

__all__ = ["CifarResNet", "Extracted", "Extractor", "Identity", "LeNet"]
