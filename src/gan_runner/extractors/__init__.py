"""Feature networks: what the metrics of images look through."""

from gan_runner.extractors.cifar_resnet import CifarResNet
from gan_runner.extractors.extractor import Extracted, Extractor
from gan_runner.extractors.identity import Identity
from gan_runner.extractors.inception import InceptionV3TF
from gan_runner.extractors.lenet import LeNet
from gan_runner.extractors.random_conv import RandomConv
from gan_runner.extractors.torchvision_classifier import TorchvisionClassifier

__all__ = ["CifarResNet", "Extracted", "Extractor", "Identity", "InceptionV3TF", "LeNet", "RandomConv", "TorchvisionClassifier"]
