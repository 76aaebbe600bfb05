"""Images from any source: a folder of image files, an array in a .npz or .npy file, or images packed in one file."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets.dataset import Dataset, Items, Samples, Split
from gan_runner.datasets.decoding import BACKGROUND, JPEG, VERSION, has_colour, has_opacity, pixels, squared
from gan_runner.datasets.folder import Files
from gan_runner.datasets.listing import SUFFIXES, Images, Listing, listed, shown
from gan_runner.datasets.pack import Encoded
from gan_runner.datasets.packs import PACKED, is_packed, unpacked
from gan_runner.datasets.tables import CLASSES, TABLES
from gan_runner.errors import UserError, printable
from gan_runner.game.spec import Spec
from gan_runner.storage.files import typed
from gan_runner.storage.untrusted import memory

LOSSY = {".jpeg", ".jpg"}
ARRAYS = ("samples", "images", "arr_0")  # as gan-sample and others call them
LABELS = ("labels", "arr_1")
NAMES = "class_names"  # of the labels, in their order
FILES = (".npz", ".npy")
CHANNELS = (1, 3)  # of images; 4, with opacity, where no axis has one of these


class Pictures:
    """Image files of one size, decoded on demand; UserError for one of another size."""

    def __init__(self, paths: Sequence[Encoded], labels: Tensor | None, way_out: str = ""):
        self.paths, self.labels, self.way_out = paths, labels, way_out
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
                f"all images that are judged must have one size and kind{self.way_out}"
            )
        return image, None if self.labels is None else int(self.labels[i])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        images = torch.empty(len(indices), *self.shape, dtype=torch.uint8)
        for row in indices.argsort().tolist():  # rows of a table that are stored together are unpacked together
            images[row] = self[int(indices[row])][0]
        return images, None if self.labels is None else self.labels[indices]


def described(shape: tuple[int, ...]) -> str:
    """Describe a shape C H W in words."""
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"


class Stored(Dataset):
    """The content of a folder of image files, of a .npz or .npy file, or of a .zip, .parquet or .arrow file of images.

    A folder contains images, or a folder of images for each class, or folders `train` and `test` (`val`, `valid`, `validation`) of either
    kind. Without them it is one split: the one requested first. Images are decoded as in training, transparent ones on white. A zip is
    read as a folder is; a .parquet or .arrow file has a column of images, and possibly one of labels: see Packed.

    A .npz file contains images (N C H W, N H W C or N H W; whole numbers 0 ... 255) or points (N D) as `samples`, `images` or `arr_0`,
    optionally with `labels`, and `class_names` in their order; a .npy file contains one such array. UserError for anything else.

    resize: pixels a side, to which images are resized as in training, and those of several kinds made RGB; None: unchanged. column: of a
    table with several columns of images. keys: whether the line that named the path has the keys `resize` and `column`.
    """

    def __init__(self, path: str, resize: int | None = None, column: str | None = None, keys: bool = False):
        self.path, self.resize, self.column, self.keys = Path(path).expanduser(), resize, column, keys
        self.served: Split | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def _listing(self) -> Listing | None:
        """The images of a folder, or packed in a file; None for an array. UserError for anything else."""
        if self.path.suffix.lower() in FILES and self.path.is_file():
            return None
        if is_packed(self.path):
            return unpacked(self.path, self.column if self.path.suffix.lower() in TABLES else None, key="" if self.keys else None)
        if not self.path.is_dir():
            others = f"{', '.join((*FILES, *PACKED[:-1]))} or {PACKED[-1]} file"
            raise UserError(f"{shown(self.path)} is neither a folder of images nor a {others}")
        return listed(self.path)

    @cached_property
    def lossy(self) -> bool:
        """Whether some image has lossy compression, which changes every figure."""
        return any(is_lossy(file) for files in self._splits.values() for file, _ in files)

    @cached_property
    def channels(self) -> Literal[1, 3]:
        """Channels of images that are resized: 3 where one of them has colour."""
        return 3 if any(has_colour(file) for files in self._splits.values() for file, _ in files) else 1

    @property
    def _splits(self) -> dict[str, Images]:
        return self._listing.splits if self._listing else {}

    def summary(self) -> str | None:
        return self._listing.summary(self._splits) if self._listing else None

    def notes(self, split: Split) -> dict[str, str]:
        files = self._splits.get(split if self._has_splits else "", [])
        resized = {"resized": f"{self.resize} x {self.resize}"} if self.resize is not None else {}
        return resized | ({"opacity": f"laid on {BACKGROUND}"} if any(has_opacity(path) for path, _ in files) else {})

    @property
    def spec(self) -> Spec:
        items = self._anything
        x, labels, names = items[0][0], items.labels, self.class_names
        if labels is None:
            return Spec(tuple(x.shape))
        if self._listing is not None and self._listing.numbered:
            return Spec(tuple(x.shape), len(names or ()))
        return Spec(tuple(x.shape), int(labels.max()) + 1 if names is None else len(names), class_names=names)

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Names in the order of the labels: class folders of all splits, in alphabetical order, or names in a .npz file; else None."""
        if self._listing is not None:
            return self._listing.class_names or None
        return None if self.path.suffix.lower() == ".npy" else names_in(self.path)

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
        if not isinstance(items, Pictures | Files):
            return super().checksum(split)
        how = "" if self.resize is None else f"{self.resize} {self.channels} "
        digest = hashlib.sha256(f"{VERSION} {how}".encode() + str(None if items.labels is None else items.labels.tolist()).encode())
        for path in items.paths:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _read(self, split: Split | None) -> Items:
        if self._listing is None:
            samples = arrays(self.path)
            if self.resize is None:
                return samples
            if samples.x.ndim != 4:
                raise UserError(f"resize={self.resize}: {shown(self.path)} has points, not images; say resize=null")
            return Samples(squared(samples.x, self.resize), samples.y)
        files, names = self._splits[split or ""], self.class_names
        if not files:
            raise UserError(f"there is no image in {shown(self.path / self._listing.places[split or ''])}")
        numbers = {name: i for i, name in enumerate(names or ())}
        labels = None if names is None else [numbers[name] for _, name in files]
        paths = [path for path, _ in files]
        if self.resize is not None:
            return Files(paths, labels, self.resize, self.channels)
        way_out = "; resize=SIDE makes them so" if self.keys else ""
        return Pictures(paths, None if labels is None else torch.tensor(labels), way_out)


def is_lossy(file: Encoded) -> bool:
    """Return whether an image has lossy compression by its name, or by its first bytes where the name does not tell."""
    if isinstance(file, Path) or file.suffix in SUFFIXES:
        return file.suffix.lower() in LOSSY
    return file.read_bytes().startswith(JPEG)


def arrays(path: Path) -> Samples:
    """Read the samples in a .npz or .npy file. UserError if it has none that can be evaluated."""
    single = path.suffix.lower() == ".npy"
    x, y = (the_array(path), None) if single else (first_array(path, names) for names in (ARRAYS, LABELS))
    if x is None:
        raise UserError(f"{path} has none of the arrays {', '.join(ARRAYS)}")
    if 0 in x.shape:
        raise UserError(f"{path} has no sample, or samples without a value: its array has the shape {x.shape}")
    if x.dtype.kind in "iu" and x.ndim in (3, 4):
        x = channels_first(path, whole_to_bytes(path, x))
    elif x.ndim == 2 and (x.dtype.kind == "f" or (x.dtype.kind in "iu" and x.dtype != np.uint8)):
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
    names = None if y is None or single else names_in(path)
    classes = CLASSES if names is None else len(names)
    if y is not None and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise UserError(f"{path} has labels from {y.min()} to {y.max()}: expected 0, 1, 2 ..., fewer than {classes:,}")
    return Samples(torch.from_numpy(np.ascontiguousarray(x)), None if y is None else torch.from_numpy(y.astype(np.int64)))


def whole_to_bytes(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Cast whole numbers 0 ... 255 to uint8. UserError for others."""
    if x.dtype == np.uint8:
        return x
    low, high = int(x.min()), int(x.max())
    if low < 0 or high > 255:
        raise UserError(f"{path} has an array {x.dtype} of {low:,} to {high:,}: expected images of whole numbers 0 ... 255")
    return x.astype(np.uint8)


def channels_first(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return images N H W, N H W C or N C H W as N C H W, by which axis has 1, 3 or 4. UserError where both have, or none."""
    first, last = x.shape[1] in CHANNELS, x.shape[-1] in CHANNELS
    if x.ndim == 4 and not first and not last:
        first, last = x.shape[1] == 4, x.shape[-1] == 4
    if x.ndim == 3:
        if last:
            height, width, channels = x.shape
            raise UserError(
                f"{path} has an array of shape {x.shape}: it may be {height} grey images of {channels}x{width}, or one of {width}x{height} "
                f"and {channels} channels; write N C H W or N H W C"
            )
        return x[:, None]
    if first and last:
        raise UserError(
            f"{path} has an array of shape {x.shape}: the second axis may be the channels (N C H W), and the last one, too (N H W C); "
            "write images that are larger than 4 pixels a side"
        )
    if not first and not last:
        raise UserError(
            f"{path} has images of {x.shape[3]} channels: expected N C H W or N H W C with 1, 3 or 4, and the shape is {x.shape}"
        )
    return x if first else x.transpose(0, 3, 1, 2)


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
        raise unreadable(path, error) from error


def the_array(path: Path) -> np.ndarray[Any, Any]:
    """Read the array of a .npy file. UserError if it is damaged or does not fit into memory."""
    try:
        with open(typed(path), "rb") as file:
            check_header(file, os.fstat(file.fileno()).st_size, "it")
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # as above
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the error for a file that has no arrays."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(f"{path} cannot be read as arrays: {printable(reason, 200)}")


def array_in(archive: zipfile.ZipFile, name: str) -> np.ndarray[Any, Any]:
    """Read an array of an archive after checking its length against its header. ValueError if they differ."""
    with archive.open(name) as file:
        check_header(file, archive.getinfo(name).file_size, name)
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def check_header(file: IO[bytes], length: int, name: str) -> None:
    """Check the header of an array against the bytes there are. ValueError if they differ, are objects or do not fit into memory."""
    version = np.lib.format.read_magic(file)
    shape, _, dtype = (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    size, there = math.prod(shape) * dtype.itemsize, length - file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects, not numbers")
    if size != there or min(shape, default=0) < 0:
        raise ValueError(f"{name} is said to have {size:,} bytes, and has {there:,}")
    if size > memory() // 2:
        raise ValueError(f"{name} has {size / 2**30:.0f} GiB, more than fits into memory")
