"""Images from any source, as they are: a folder of picture files, or an array in a .npz file."""

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
from gan_runner.datasets.folder import images
from gan_runner.datasets.spec import Spec
from gan_runner.errors import UserError
from gan_runner.inside import typed
from gan_runner.untrusted import memory, printable

LOSSY = {".jpeg", ".jpg"}
ARRAYS = ("samples", "images", "arr_0")  # as gan-sample and others call them
LABELS = ("labels", "arr_1")
CLASSES = 1_000_000  # at most; metrics make room for each


class Pictures:
    """Picture files of one size, decoded when they are asked for; UserError for one of another size."""

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
                f"{self.paths[i]} is {described(tuple(image.shape))}, and {self.paths[0]} is {described(self.shape)}: "
                "all images of a folder that is judged must have one size and kind"
            )
        return image, None if self.labels is None else int(self.labels[i])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.stack([self[i][0] for i in indices.tolist()]), None if self.labels is None else self.labels[indices]


def described(shape: tuple[int, ...]) -> str:
    """A shape C H W in words."""
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"


def pixels(path: Path) -> Tensor:
    """A picture file as uint8, C H W, 1 channel or 3. UserError where it cannot be read or is of 16 bits."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise UserError(f"{path} has more than 8 bits a channel; save it with 8")
            array = np.array(file.convert("L" if file.mode in ("1", "L", "LA") else "RGB"))
    except UserError:
        raise
    except Exception as error:  # the decoders raise whatever they like
        raise UserError(f"cannot decode the image {path} ({error}); replace or remove it") from error
    return torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1)


class Stored(Dataset):
    """What a folder of picture files, or a .npz file, holds, without resizing anything.

    A folder has pictures, or a folder of them for each class, or folders `train` and `test` of either kind; else it is one split, whichever
    is asked for first. A .npz file has uint8 images (N C H W, N H W C or N H W) or float points (N D) as `samples`, `images` or `arr_0`,
    perhaps with `labels`. UserError for anything else.
    """

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        self.served: Split | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def lossy(self) -> bool:
        """Whether some image was compressed with loss, which moves every figure."""
        return self.path.is_dir() and any(path.suffix.lower() in LOSSY for path, _ in images(self.path))

    @property
    def spec(self) -> Spec:
        items = self._anything
        x, labels = items[0][0], items.labels
        return Spec(tuple(x.shape), None if labels is None else int(labels.max()) + 1)

    @cached_property
    def _anything(self) -> Items:
        return self._read("train" if self._has_splits else None)

    @property
    def _has_splits(self) -> bool:
        return (self.path / "train").is_dir() and (self.path / "test").is_dir()

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
        digest = hashlib.sha256(str(None if items.labels is None else items.labels.tolist()).encode())
        for path in items.paths:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _read(self, split: Split | None) -> Items:
        if self.path.suffix == ".npz" and self.path.is_file():
            return arrays(self.path)
        folder = self.path / split if split else self.path
        if not folder.is_dir():
            raise UserError(f"{self.path} is neither a folder of images nor a .npz file")
        found = images(folder)
        if not found:
            raise UserError(f"there is no image in {folder}")
        names = sorted({name for _, name in found})
        labels = torch.tensor([names.index(name) for _, name in found]) if len(names) > 1 else None
        return Pictures([path for path, _ in found], labels)


def arrays(path: Path) -> Samples:
    """The samples in a .npz file. UserError where it has none that can be judged."""
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
    if y is not None and not 0 <= int(y.min()) <= int(y.max()) < CLASSES:
        raise UserError(f"{path} has labels from {y.min()} to {y.max()}: expected 0, 1, 2 ..., fewer than {CLASSES:,}")
    return Samples(torch.from_numpy(np.ascontiguousarray(x)), None if y is None else torch.from_numpy(y.astype(np.int64)))


def first_array(path: Path, names: Sequence[str]) -> np.ndarray[Any, Any] | None:
    """The first of these arrays that a .npz file has; None where it has none. UserError where it is damaged or does not fit into memory."""
    try:
        with open(typed(path), "rb") as file, zipfile.ZipFile(file) as archive:
            there = set(archive.namelist())
            return next((array_in(archive, f"{name}.npy") for name in names if f"{name}.npy" in there), None)
    except Exception as error:  # the zip reader and the parser of headers have a dozen ways of saying so
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as arrays: {printable(reason, 200)}") from error


def array_in(archive: zipfile.ZipFile, name: str) -> np.ndarray[Any, Any]:
    """An array of an archive, once its header and the length of its file agree. ValueError where they do not."""
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
