"""Images from any source, unchanged: a folder of image files, or an array in a .npz file."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets.dataset import Dataset, Items, Samples, Split
from gan_runner.datasets.decoding import BACKGROUND, VERSION, has_opacity, pixels
from gan_runner.datasets.listing import Images, Listing, listed, shown
from gan_runner.errors import UserError, printable
from gan_runner.game.spec import Spec
from gan_runner.storage.files import typed
from gan_runner.storage.untrusted import memory

LOSSY = {".jpeg", ".jpg"}
ARRAYS = ("samples", "images", "arr_0")  # as gan-sample and others call them
LABELS = ("labels", "arr_1")
NAMES = "class_names"  # of the labels, in their order
CLASSES = 1_000_000  # at most; metrics make room for each


class Pictures:
    """Image files of one size, decoded on demand; UserError for one of another size."""

    def __init__(self, paths: Sequence[Path], labels: Tensor | None):
        self.paths, self.labels = paths, labels
        self.shape = tuple(pixels(paths[0]).shape)

    @property
    def nbytes(self) -> int:
        return len(self.paths) * int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int | None]:
        image = pixels(self.paths[i])
        if tuple(image.shape) != self.shape:
            raise UserError(
                f"{shown(self.paths[i])} is {described(tuple(image.shape))}, and {shown(self.paths[0])} is {described(self.shape)}: "
                "all images of a folder that is judged must have one size and kind"
            )
        return image, None if self.labels is None else int(self.labels[i])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.stack([self[i][0] for i in indices.tolist()]), None if self.labels is None else self.labels[indices]


def described(shape: tuple[int, ...]) -> str:
    """Describe a shape C H W in words."""
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"


class Stored(Dataset):
    """The content of a folder of image files, or of a .npz file, without resizing.

    A folder contains images, or a folder of images for each class, or folders `train` and `test` (`val`, `valid`, `validation`) of either
    kind. Without them it is one split: the one requested first. Images are decoded as in training, transparent ones on white.

    A .npz file contains uint8 images (N C H W, N H W C or N H W) or float points (N D) as `samples`, `images` or `arr_0`,
    optionally with `labels`, and `class_names` in their order. UserError for anything else.
    """

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        self.served: Split | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def _listing(self) -> Listing | None:
        """The images of a folder; None for a .npz file. UserError for anything else."""
        if self.path.suffix == ".npz" and self.path.is_file():
            return None
        if not self.path.is_dir():
            raise UserError(f"{shown(self.path)} is neither a folder of images nor a .npz file")
        return listed(self.path)

    @cached_property
    def lossy(self) -> bool:
        """Whether some image has lossy compression, which changes every figure."""
        return any(path.suffix.lower() in LOSSY for files in self._splits.values() for path, _ in files)

    @property
    def _splits(self) -> dict[str, Images]:
        return self._listing.splits if self._listing else {}

    def summary(self) -> str | None:
        return self._listing.summary(self._splits) if self._listing else None

    def notes(self, split: Split) -> dict[str, str]:
        files = self._splits.get(split if self._has_splits else "", [])
        return {"opacity": f"laid on {BACKGROUND}"} if any(has_opacity(path) for path, _ in files) else {}

    @property
    def spec(self) -> Spec:
        items = self._anything
        x, labels, names = items[0][0], items.labels, self.class_names
        if labels is None:
            return Spec(tuple(x.shape))
        return Spec(tuple(x.shape), int(labels.max()) + 1 if names is None else len(names), class_names=names)

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Names in the order of the labels: class folders of all splits, in alphabetical order, or names in a .npz file; else None."""
        return names_in(self.path) if self._listing is None else self._listing.class_names or None

    @cached_property
    def _anything(self) -> Items:
        return self._read("train" if self._has_splits else None)

    @property
    def _has_splits(self) -> bool:
        return len(self._splits) > 1

    def open(self, split: Split) -> Items:
        if self._has_splits:
            return self._read(split)
        self.served = self.served or split
        if split != self.served:
            raise UserError(f"{self.path} is one set of samples, and a {split} split is asked for too: give a folder with train/ and test/")
        return self._anything

    def load(self, split: Split) -> Samples:
        items = self.open(split)
        return items if isinstance(items, Samples) else Samples(*items.take(torch.arange(len(items))))

    def checksum(self, split: Split) -> str:
        items = self.open(split)
        if not isinstance(items, Pictures):
            return super().checksum(split)
        digest = hashlib.sha256(f"{VERSION} ".encode() + str(None if items.labels is None else items.labels.tolist()).encode())
        for path in items.paths:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _read(self, split: Split | None) -> Items:
        if self._listing is None:
            return arrays(self.path)
        files, names = self._splits[split or ""], self.class_names
        if not files:
            raise UserError(f"there is no image in {shown(self.path / self._listing.places[split or ''])}")
        numbers = {name: i for i, name in enumerate(names or ())}
        labels = None if names is None else torch.tensor([numbers[name] for _, name in files])
        return Pictures([path for path, _ in files], labels)


def arrays(path: Path) -> Samples:
    """Read the samples in a .npz file. UserError if it has none that can be evaluated."""
    x, y = (first_array(path, names) for names in (ARRAYS, LABELS))
    if x is None:
        raise UserError(f"{path} has none of the arrays {', '.join(ARRAYS)}")
    if 0 in x.shape:
        raise UserError(f"{path} has no sample, or samples without a value: its array has the shape {x.shape}")
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        x = x[:, None] if x.ndim == 3 else x if x.shape[1] in (1, 3) else x.transpose(0, 3, 1, 2)
        if x.shape[1] not in (1, 3):
            raise UserError(f"{path} has images of {x.shape[1]} channels: expected N C H W or N H W C with 1 or 3")
    elif x.ndim == 2 and x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise UserError(f"{path} has points that are not finite")
    else:
        raise UserError(
            f"{path} has an array {x.dtype} of shape {x.shape}: expected images as uint8, 0 ... 255 (N C H W, N H W C or N H W), "
            "or points as floats (N D)"
        )
    if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "iu"):
        raise UserError(f"{path} has labels {y.dtype} of shape {y.shape} for {len(x)} samples: expected a whole number for each")
    names = None if y is None else names_in(path)
    classes = CLASSES if names is None else len(names)
    if y is not None and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise UserError(f"{path} has labels from {y.min()} to {y.max()}: expected 0, 1, 2 ..., fewer than {classes:,}")
    return Samples(torch.from_numpy(np.ascontiguousarray(x)), None if y is None else torch.from_numpy(y.astype(np.int64)))


def names_in(path: Path) -> tuple[str, ...] | None:
    """Read the class names in a .npz file, in the order of the labels; None if it has none. UserError if they are not names."""
    names = first_array(path, (NAMES,))
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind != "U" or len({*names.tolist()}) < max(len(names), 1):
        raise UserError(f"{path} has {NAMES} {names.dtype} of shape {names.shape}: expected the different names of its classes, as text")
    return tuple(names.tolist())


def first_array(path: Path, names: Sequence[str]) -> np.ndarray[Any, Any] | None:
    """Read the first of these arrays in a .npz file; None if it has none. UserError if it is damaged or does not fit into memory."""
    try:
        with open(typed(path), "rb") as file, zipfile.ZipFile(file) as archive:
            there = set(archive.namelist())
            return next((array_in(archive, f"{name}.npy") for name in names if f"{name}.npy" in there), None)
    except Exception as error:  # the zip reader and the parser of headers have a dozen ways of saying so
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as arrays: {printable(reason, 200)}") from error


def array_in(archive: zipfile.ZipFile, name: str) -> np.ndarray[Any, Any]:
    """Read an array of an archive after checking its length against its header. ValueError if they differ."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
        size, there = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects, not numbers")
    if size != there or min(shape, default=0) < 0:
        raise ValueError(f"{name} is said to have {size:,} bytes, and has {there:,}")
    if size > memory() // 2:
        raise ValueError(f"{name} has {size / 2**30:.0f} GiB, more than fits into memory")
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
