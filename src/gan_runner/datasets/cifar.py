"""CIFAR-10, from its python batches."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gan_runner.datasets.archives import Archive, md5_is, obtain
from gan_runner.datasets.dataset import Samples, Split
from gan_runner.datasets.images import PublicImages
from gan_runner.errors import UserError

MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
FOLDER = "cifar-10-batches-py"


class CIFAR10(PublicImages):
    """50,000 training and 10,000 test photographs of ten classes, 3 32 32. Krizhevsky 2009.

    Files: root/cifar-10-batches-py/data_batch_1 ... 5 and test_batch, as stored by torchvision.
    """

    native = (3, 32, 32)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    checks = {f"{FOLDER}/{name}": md5_is(md5) for name, md5 in MD5.items()}

    def archives(self) -> list[Archive]:
        from torchvision.datasets import CIFAR10 as Published  # takes seconds: only where a file is missing

        return [Archive(Published.filename, Published.tgz_md5, (Published.url,), tuple(self.checks))]

    def prepare(self) -> None:
        obtain("CIFAR-10", self.root, self.checks, self.archives)

    def load(self, split: Split) -> Samples:
        self.prepare()  # nothing is unpickled that has not been checked
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        paths = [self.root / FOLDER / name for name in names]
        n = len(arrays(paths[0])["labels"])  # of every file
        x, y = torch.empty(len(paths), n, *self.native, dtype=torch.uint8), torch.empty(len(paths), n, dtype=torch.int64)
        for i, path in enumerate(paths):  # one at a time: all of them twice would be most of what a small run takes in memory
            part = arrays(path)
            x[i], y[i] = torch.from_numpy(part["data"]).view(n, *self.native), torch.tensor(part["labels"])
        return Samples(self.resized(x.flatten(0, 1)), y.flatten())


class _Arrays(pickle.Unpickler):
    """An unpickler for numpy arrays and plain containers; it calls nothing else."""

    allowed = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs") from None


def arrays(path: Path) -> dict[str, Any]:
    """Read a pickle that contains only arrays; UserError otherwise."""
    try:
        with path.open("rb") as file:
            return _Arrays(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
