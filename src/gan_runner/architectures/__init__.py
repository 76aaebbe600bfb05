"""Generators and discriminators; each takes the data's spec first, then what its YAML file says."""

from gan_runner.architectures.dcgan import DCGANDiscriminator, DCGANGenerator
from gan_runner.architectures.mlp import MLPDiscriminator, MLPGenerator
from gan_runner.architectures.msg_gan import MSGDiscriminator, MSGGenerator
from gan_runner.architectures.network import Discriminator, Generator, one_hot
from gan_runner.architectures.resnet import ResNetDiscriminator, ResNetGenerator

__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Discriminator",
    "Generator",
    "MLPDiscriminator",
    "MLPGenerator",
    "MSGDiscriminator",
    "MSGGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "one_hot",
]
