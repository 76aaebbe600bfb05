"""MNIST and Fashion-MNIST, from their idx files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets.archives import Archive, Check, md5_is, obtain
from gan_runner.datasets.dataset import Samples, Split
from gan_runner.datasets.images import PublicImages

SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
MD5 = {  # of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class MNIST(PublicImages):
    """60,000 training and 10,000 test images of handwritten digits, 1 28 28. LeCun et al. 1998.

    Files: root/MNIST/raw/train-images-idx3-ubyte, ..., as torchvision keeps them.
    """

    native = (1, 28, 28)
    class_names: tuple[str, ...] = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    title = "MNIST"
    checks: dict[str, Check] = {name: md5_is(md5) for name, md5 in MD5.items()}

    @property
    def folder(self) -> Path:
        return self.root / type(self).__name__ / "raw"

    def archives(self) -> list[Archive]:
        import torchvision  # takes seconds: only where a file is missing

        published = getattr(torchvision.datasets, type(self).__name__)
        return [
            Archive(name, md5, tuple(mirror + name for mirror in published.mirrors), (name.removesuffix(".gz"),))
            for name, md5 in published.resources
        ]

    def prepare(self) -> None:
        obtain(self.title, self.folder, self.checks, self.archives)

    def load(self, split: Split) -> Samples:
        self.prepare()
        part = "train" if split == "train" else "t10k"
        images, labels = (idx(self.folder / f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        return Samples(self.resized(images[:, None]), labels.long())


def has_shape(shape: tuple[int, ...]) -> Check:
    """Build the check for an idx file of bytes of this shape: header and length, since there is no published checksum."""

    def check(path: Path) -> tuple[str, str]:
        words = (0x0800 + len(shape), *shape)
        with path.open("rb") as file:
            header = np.frombuffer(file.read(4 * len(words)), ">u1")
        found = tuple(int.from_bytes(word.tobytes(), "big") for word in np.split(header, range(4, len(header), 4)))
        return (
            f"the header {words} and {4 * len(words) + math.prod(shape)} bytes",
            f"the header {found} and {path.stat().st_size} bytes",
        )

    return check


class FashionMNIST(MNIST):
    """60,000 training and 10,000 test images of clothes, 1 28 28. Xiao et al. 2017.

    Files: root/FashionMNIST/raw/train-images-idx3-ubyte, ..., as torchvision keeps them.
    """

    title = "Fashion-MNIST"
    class_names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    checks = {name: has_shape(shape) for name, shape in SHAPES.items()}


def idx(path: Path) -> Tensor:
    """Read the array of bytes in a verified idx file."""
    content = np.fromfile(path, np.uint8)
    dimensions = int(content[3])
    shape = content[4 : 4 + 4 * dimensions].view(">u4").astype(int)
    return torch.from_numpy(content[4 + 4 * dimensions :].reshape(shape))
