from gan_runner.evaluation.extractor import Extracted as Extracted
from gan_runner.evaluation.extractor import Extractor as Extractor
from gan_runner.extractors.cifar_resnet import CifarResNet as CifarResNet
from gan_runner.extractors.identity import Identity as Identity
from gan_runner.extractors.inception import InceptionV3TF as InceptionV3TF
from gan_runner.extractors.lenet import LeNet as LeNet
from gan_runner.extractors.random_conv import RandomConv as RandomConv
from gan_runner.extractors.torchvision_classifier import TorchvisionClassifier as TorchvisionClassifier
