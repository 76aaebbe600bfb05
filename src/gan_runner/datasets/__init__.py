"""Data sets, and the streams of batches that are read from them."""

from gan_runner.datasets.batches import Resident, Streamed, stream
from gan_runner.datasets.cifar import CIFAR10
from gan_runner.datasets.dataset import Dataset, Items, Samples, Split, to_float, to_uint8
from gan_runner.datasets.folder import ImageFolder
from gan_runner.datasets.mnist import MNIST, FashionMNIST
from gan_runner.datasets.points import Gaussians25, Mixture, Points, Ring8, Spiral, SwissRoll
from gan_runner.datasets.spec import Exact, Spec
from gan_runner.datasets.stored import Stored
from gan_runner.datasets.triangles import Triangles

__all__ = [
    "CIFAR10",
    "MNIST",
    "Dataset",
    "Exact",
    "FashionMNIST",
    "Gaussians25",
    "ImageFolder",
    "Items",
    "Mixture",
    "Points",
    "Resident",
    "Ring8",
    "Samples",
    "Spec",
    "Spiral",
    "Split",
    "Stored",
    "Streamed",
    "SwissRoll",
    "Triangles",
    "stream",
    "to_float",
    "to_uint8",
]
