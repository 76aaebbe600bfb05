"""A folder of one's own images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.utils.data import get_worker_info

from gan_runner.datasets.dataset import Dataset, Items, Samples, Split, unheard
from gan_runner.datasets.decoded import Decoded
from gan_runner.datasets.fingerprint import Fingerprint, of_files
from gan_runner.datasets.images import resize
from gan_runner.datasets.spec import Spec
from gan_runner.errors import Failed, UserError
from gan_runner.reporting import Tick, log

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # how Pillow calls images by their channels


class Files:
    """Images that are decoded when they are asked for: C, resolution, resolution."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int] | None, resolution: int, channels: int):
        self.paths, self.resolution, self.channels = paths, resolution, channels
        self.labels = None if labels is None else torch.tensor(labels, dtype=torch.int64)

    @property
    def nbytes(self) -> int:
        return len(self.paths) * self.channels * self.resolution**2

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int | None]:
        return decode(self.paths[i], self.resolution, self.channels), None if self.labels is None else int(self.labels[i])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        images = torch.empty(len(indices), self.channels, self.resolution, self.resolution, dtype=torch.uint8)
        with ThreadPoolExecutor(1 if get_worker_info() else os.cpu_count()) as pool:
            for row, image in enumerate(pool.map(lambda i: decode(self.paths[i], self.resolution, self.channels), indices.tolist())):
                images[row] = image
        return images, None if self.labels is None else self.labels[indices]


def decode(path: Path, resolution: int, channels: int) -> Tensor:
    """An image file as uint8, C, resolution, resolution: turned as its EXIF says, shorter side resized, the middle cut out.

    Raises UserError where it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 rather than scale them
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            pixels = np.array(image.convert(MODES[channels]))
    except Exception as error:  # the decoders raise whatever they like
        raise UserError(f"cannot decode the image {path} ({error}); replace or remove it") from error
    whole = torch.from_numpy(pixels).view(*pixels.shape[:2], channels).permute(2, 0, 1)
    whole = resize(whole[None], resolution)[0]
    top, left = ((side - resolution) // 2 for side in whole.shape[-2:])
    return whole[:, top : top + resolution, left : left + resolution].contiguous()


class ImageFolder(Dataset):
    """Images of any size in a folder: class folders, whose names are the classes in alphabetical order, or all together without labels.

    path: the folder; a single class folder counts as no labels. Where it holds folders `train` and `test`, these are the splits; else a
    share `test_fraction` is kept for testing, chosen by a hash of `split_seed` and the file's path below the folder, so that files added
    later move no other. resolution: pixels a side, the shorter one resized (bilinear, antialiased), the middle cut out. channels: 1 grey,
    3 RGB, 4 RGB and opacity. flip: mirror training images left to right half of the times. resident_mb, workers: see Dataset.
    keep_decoded: keep the decoded training images in the folder for caches, where later epochs and runs find them.
    """

    def __init__(
        self,
        path: str,
        resolution: Annotated[int, Gt(0)],
        channels: Literal[1, 3, 4] = 3,
        flip: bool = False,
        test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.1,
        split_seed: Annotated[int, Ge(0)] = 0,
        resident_mb: Annotated[int, Ge(0)] = 4096,
        workers: Annotated[int, Ge(0)] = 2,
        keep_decoded: bool = True,
    ):
        self.path, self.resolution, self.channels, self.flip = Path(path).expanduser(), resolution, channels, flip
        self.test_fraction, self.split_seed = test_fraction, split_seed
        self.resident_mb, self.workers, self.keep_decoded = resident_mb, workers, keep_decoded

    @property
    def spec(self) -> Spec:
        return Spec((self.channels, self.resolution, self.resolution), len(self.class_names) or None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of their labels; none where there are no labels."""
        return self._listing[0]

    def prepare(self) -> None:
        self.open("train")

    def open(self, split: Split) -> Files:
        names, files = self._listing
        if not files[split]:
            raise UserError(
                f"{self.path} has no image for the {split} split; test_fraction={self.test_fraction} says which share is kept for it"
            )
        paths = [path for path, _ in files[split]]
        return Files(paths, [names.index(name) for _, name in files[split]] if names else None, self.resolution, self.channels)

    def checksum(self, split: Split) -> str:
        """Of the files' bytes and of what is done to them, so that nothing need be decoded."""
        digest = hashlib.sha256(f"{self.resolution} {self.channels} {self.class_names}".encode())
        for path, name in self._listing[1][split]:
            digest.update(f"{name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def load(self, split: Split) -> Samples:
        files = self.open(split)
        return Samples(*files.take(torch.arange(len(files))))

    def at_hand(self, split: Split, tick: Tick = unheard) -> Items:
        files = self.open(split)
        if not self.keep_decoded:
            return files
        decoded = Decoded(files, files.paths, self.spec.shape)
        try:
            decoded.fill(tick)
        except (Failed, OSError) as error:
            log.warning("decoded images are not kept: %s", error)
            return files
        return decoded

    @cached_property
    def _listing(self) -> tuple[tuple[str, ...], dict[Split, list[tuple[Path, str]]]]:
        """Names of the classes; (path, class) of the files of each split, in alphabetical order."""
        if not self.path.is_dir():
            raise UserError(f"dataset.path={self.path} is not a folder; it should hold images, or a folder of images for each class")
        if (self.path / "train").is_dir() and (self.path / "test").is_dir():
            files: dict[Split, list[tuple[Path, str]]] = {"train": images(self.path / "train"), "test": images(self.path / "test")}
        else:
            files = {"train": [], "test": []}
            for path, name in images(self.path):
                files["test" if self._is_for_test(path) else "train"].append((path, name))
        names = {name for split in files.values() for _, name in split}
        if len(names) > 1 and "" in names:
            raise UserError(
                f"{self.path} holds both images and folders of images; keep one or the other, so that it is clear what a class is"
            )
        return tuple(sorted(names)) if len(names) > 1 else (), files

    def _is_for_test(self, path: Path) -> bool:
        digest = hashlib.sha256(f"{self.split_seed}/{path.relative_to(self.path).as_posix()}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.test_fraction * 2**64

    def fingerprint(self, split: Split, items: Items) -> Fingerprint:
        """Of the files: number, names and sizes of all images, and the bytes of 1,000 of them; nothing is decoded."""
        return of_files(self.path, self.open(split).paths)


def images(folder: Path) -> list[tuple[Path, str]]:
    """The image files below a folder in alphabetical order, each with the name of the folder on the first level that it lies in, or ""."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(parent).relative_to(folder).parts
        found += [
            (Path(parent) / name, below[0] if below else "")
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    if not found:
        raise UserError(f"there is no image in {folder} ({', '.join(sorted(SUFFIXES))})")
    return sorted(found)
