"""A folder of the user's images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.utils.data import get_worker_info

from gan_runner.datasets.dataset import Dataset, Items, Samples, Split, Workers, unheard
from gan_runner.datasets.decoded import Decoded, readable_mark
from gan_runner.datasets.decoding import BACKGROUND, VERSION, colour, decode, has_opacity, refuse_unreadable
from gan_runner.datasets.fingerprint import Fingerprint, of_files
from gan_runner.datasets.listing import Images, Listing, listed, shown, some
from gan_runner.datasets.pack import Encoded
from gan_runner.datasets.packs import is_packed
from gan_runner.errors import Failed, UserError
from gan_runner.game.spec import Spec
from gan_runner.reporting import Tick, notice
from gan_runner.storage import cache


class Files:
    """Images that are decoded on demand: C, resolution, resolution."""

    def __init__(
        self, paths: Sequence[Encoded], labels: Sequence[int] | None, resolution: int, channels: int, background: str = BACKGROUND
    ):
        self.paths, self.resolution, self.channels, self.background = paths, resolution, channels, background
        self.labels = None if labels is None else torch.tensor(labels, dtype=torch.int64)

    @property
    def nbytes(self) -> int:
        return len(self.paths) * self.channels * self.resolution**2

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int | None]:
        return self.image(i), None if self.labels is None else int(self.labels[i])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        images = torch.empty(len(indices), self.channels, self.resolution, self.resolution, dtype=torch.uint8)
        order = indices.argsort()  # rows of a table that are stored together are unpacked together
        with ThreadPoolExecutor(1 if get_worker_info() else os.cpu_count()) as pool:
            for row, image in zip(order.tolist(), pool.map(self.image, indices[order].tolist())):
                images[row] = image
        return images, None if self.labels is None else self.labels[indices]

    def image(self, i: int) -> Tensor:
        """Decode image i: uint8, C resolution resolution."""
        return decode(self.paths[i], self.resolution, self.channels, self.background)


class ImageFiles(Dataset):
    """Image files of any size, in a folder or packed in one file; a subclass lists them.

    A subclass sets path, resolution, channels, background, test_fraction, split_seed and keep_decoded: see ImageFolder.
    """

    path: Path
    resolution: int
    channels: int
    background: str
    test_fraction: float
    split_seed: int
    keep_decoded: bool

    @property
    def spec(self) -> Spec:
        names = self.class_names
        named = names if names and not self._images.numbered else None
        return Spec((self.channels, self.resolution, self.resolution), len(names) or None, class_names=named)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels; empty without labels."""
        return self._listing[0]

    def prepare(self) -> None:
        self.open("train")

    def verify(self, tick: Tick = unheard) -> None:
        """Decode every image of both splits, unless these very files were decoded before, which the cache remembers.

        Training images that are kept decoded are decoded for that.
        """
        train, test = ([path for path, _ in self._listing[1][split]] for split in ("train", "test"))
        mark = readable_mark([*train, *test])
        if mark.exists():
            return
        try:
            kept = isinstance(self.at_hand("train", tick), Decoded)
        except UserError:
            kept = False
        refuse_unreadable(test if kept else [*train, *test], tick)
        with suppress(Failed, OSError):  # then they are decoded again next time
            mark.parent.mkdir(parents=True, exist_ok=True)
            cache.write(mark, b"")

    def open(self, split: Split) -> Files:
        names, files = self._listing
        if not files[split]:
            raise UserError(
                f"{shown(self.path)} has no image for the {split} split; "
                + ("put some there" if self._images.places else f"test_fraction={self.test_fraction} says which share is kept for it")
            )
        paths = [path for path, _ in files[split]]
        numbers = {name: i for i, name in enumerate(names)}
        labels = [numbers[name] for _, name in files[split]] if names else None
        return Files(paths, labels, self.resolution, self.channels, self.background)

    def checksum(self, split: Split) -> str:
        """Return the SHA-256 of the files' bytes and of the preprocessing settings; nothing is decoded."""
        digest = hashlib.sha256(f"{VERSION} {self.resolution} {self.channels} {colour(self.background)} {self.class_names!a}".encode())
        for path, name in self._listing[1][split]:
            digest.update(os.fsencode(f"{name} ") + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def summary(self) -> str:
        splits = dict[str, Images](self._listing[1].items())
        return self._images.summary(splits, "" if self._images.places else f", chosen by a hash of their {self._images.split_by}")

    def notes(self, split: Split) -> dict[str, str]:
        if self.channels == 4 or not any(has_opacity(path) for path, _ in self._listing[1][split]):
            return {}
        return {"opacity": f"laid on {self.background}"}

    def load(self, split: Split) -> Samples:
        files = self.open(split)
        return Samples(*files.take(torch.arange(len(files))))

    def at_hand(self, split: Split, tick: Tick = unheard) -> Items:
        files = self.open(split)
        if not self.keep_decoded:
            return files
        decoded = Decoded(files, files.paths, self.spec.shape, str(colour(self.background)))
        try:
            decoded.fill(tick)
        except (Failed, OSError) as error:
            notice.warning("decoded images are not kept: %s", error)
            return files
        return decoded

    @property
    def _images(self) -> Listing:
        """The images, by splits and classes."""
        raise NotImplementedError

    @cached_property
    def _listing(self) -> tuple[tuple[str, ...], dict[Split, Images]]:
        """Names of the classes, and (path, class) of the files of each split, in alphabetical order."""
        names, splits = self._images.class_names, self._images.splits
        if not self._images.places:
            return names, self._by_chance(splits[""])
        if untrained := sorted(set(names) - {name for _, name in splits["train"]}):
            train, test = (shown(self._images.places[split]) for split in ("train", "test"))
            raise UserError(
                f"{shown(self.path)} has classes with images in {test}/ and none in {train}/: {some(untrained)}; add or remove some"
            )
        return names, {"train": splits["train"], "test": splits["test"]}

    def _by_chance(self, files: Images) -> dict[Split, Images]:
        """Split by a hash of each path: a share is for testing, except the greatest hash of each class."""
        hashes = [self._hash(path) for path, _ in files]
        greatest: dict[str, int] = {}
        for (_, name), number in zip(files, hashes):
            greatest[name] = max(number, greatest.get(name, 0))
        splits: dict[Split, Images] = {"train": [], "test": []}
        for file, number in zip(files, hashes):
            splits["test" if number < self.test_fraction * 2**64 and number < greatest[file[1]] else "train"].append(file)
        return splits

    def fingerprint(self, split: Split, items: Items) -> Fingerprint:
        """Return number, names and sizes of all image files, and a hash of the bytes of 1,000 of them; nothing is decoded."""
        return of_files(self.path, [path for path, _ in self._listing[1][split]])

    def _hash(self, file: Encoded) -> int:
        """Return the hash of a path below the folder, from 0 to 2^64 - 1."""
        name = file.relative_to(self.path).as_posix() if isinstance(file, Path) else file.name
        digest = hashlib.sha256(os.fsencode(f"{self.split_seed}/{name}")).digest()
        return int.from_bytes(digest[:8], "big")


class ImageFolder(ImageFiles):
    """Images of any size in a folder: class folders, whose names are the classes in alphabetical order, or all together without labels.

    path: the folder; a single class folder means no labels. If it contains folders `train` and `test` (or `val`, `valid`, `validation`),
    these are the splits. Otherwise a share `test_fraction` is for testing, chosen by a hash of `split_seed` and the file's path below the
    folder; files added later do not change the split of others. The image with the greatest hash of each class is always for training;
    only this one may move to the test split when its class gets more files.

    Each file counts once, also with several links to it; names that begin with a dot are ignored. resolution: pixels per side; the
    shorter side is resized (bilinear, antialiased), and the centre cropped. channels: 1 grey, 3 RGB, 4 RGB and opacity. background: the
    colour behind transparent images, or of invisible pixels with four channels. flip: mirror training images left to right with
    probability 1/2. resident_mb, workers: see Dataset. keep_decoded: cache the decoded training images on disk for later epochs and runs.
    ValueError if `background` is not a colour name of Pillow.
    """

    def __init__(
        self,
        path: str,
        resolution: Annotated[int, Gt(0)],
        channels: Literal[1, 3, 4] = 3,
        background: str = BACKGROUND,
        flip: bool = False,
        test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.1,
        split_seed: Annotated[int, Ge(0)] = 0,
        resident_mb: Annotated[int, Ge(0)] = 4096,
        workers: Workers = 2,
        keep_decoded: bool = True,
    ):
        colour(background)
        self.path, self.resolution, self.channels, self.flip = Path(path).expanduser(), resolution, channels, flip
        self.background, self.test_fraction, self.split_seed = background, test_fraction, split_seed
        self.resident_mb, self.workers, self.keep_decoded = resident_mb, workers, keep_decoded

    @cached_property
    def _images(self) -> Listing:
        if not self.path.is_dir():
            way_out = "it should hold images, or a folder of images for each class"
            if is_packed(self.path):
                way_out = "dataset=packed reads such a file"
            raise UserError(f"dataset.path={shown(self.path)} is not a folder; {way_out}")
        return listed(self.path)
