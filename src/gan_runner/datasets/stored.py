"""Images from any source, as they are: a folder of picture files, or an array in a .npz file."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets.dataset import Dataset, Items, Samples, Split
from gan_runner.datasets.folder import images
from gan_runner.datasets.spec import Spec
from gan_runner.errors import UserError

LOSSY = {".jpeg", ".jpg"}
ARRAYS = ("samples", "images", "arr_0")  # as gan-sample and others call them
LABELS = ("labels", "arr_1")
NAMES = "class_names"  # of the labels, in their order


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
    perhaps with `labels` and, in their order, `class_names`. UserError for anything else.
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
        x, labels, names = items[0][0], items.labels, self.class_names
        if labels is None:
            return Spec(tuple(x.shape))
        return Spec(tuple(x.shape), int(labels.max()) + 1 if names is None else len(names), class_names=names)

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """In the order of their labels: of the class folders of all splits, in alphabetical order, or as a .npz file says; else None."""
        if self.path.is_file():
            return names_in(self.path)
        splits = [self.path / split for split in ("train", "test")] if self._has_splits else [self.path]
        names = sorted({name for split in splits for _, name in images(split)})
        return tuple(names) if len(names) > 1 else None

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
        names = self.class_names
        labels = None if names is None else torch.tensor([names.index(name) for _, name in found])
        return Pictures([path for path, _ in found], labels)


def arrays(path: Path) -> Samples:
    """The samples in a .npz file. UserError where it has none that can be judged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            name = next((name for name in ARRAYS if name in file), None)
            x = None if name is None else file[name]
            y = next((file[name] for name in LABELS if name in file), None)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as arrays: {error}") from error
    if x is None:
        raise UserError(f"{path} has none of the arrays {', '.join(ARRAYS)}")
    if not len(x):
        raise UserError(f"{path} has no sample")
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        x = x[:, None] if x.ndim == 3 else x if x.shape[1] in (1, 3) else x.transpose(0, 3, 1, 2)
        if x.shape[1] not in (1, 3):
            raise UserError(f"{path} has images of {x.shape[1]} channels: expected N C H W or N H W C with 1 or 3")
    elif x.ndim == 2 and x.dtype.kind == "f":
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
    if y is not None and (y.min() < 0 or (names is not None and y.max() >= len(names))):
        raise UserError(f"{path} has labels from {y.min()} to {y.max()}: expected 0 or more" + (f", below {len(names)}" if names else ""))
    return Samples(torch.from_numpy(np.ascontiguousarray(x)), None if y is None else torch.from_numpy(y.astype(np.int64)))


def names_in(path: Path) -> tuple[str, ...] | None:
    """The names of the classes in a .npz file, in the order of the labels; None where it has none. UserError where they are no names."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.get(NAMES)
    except Exception as error:  # the readers raise whatever they like
        raise UserError(f"{path} cannot be read as arrays: {error}") from error
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind != "U" or len({*names.tolist()}) < max(len(names), 1):
        raise UserError(f"{path} has {NAMES} {names.dtype} of shape {names.shape}: expected the different names of its classes, as text")
    return tuple(names.tolist())
