"""Images of files, decoded once: a cache of byte arrays, which are memory-mapped."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gan_runner import distributed
from gan_runner.datasets.dataset import Items
from gan_runner.datasets.decoding import VERSION
from gan_runner.datasets.pack import Encoded
from gan_runner.errors import UserError
from gan_runner.reporting import Tick, notice
from gan_runner.storage import cache

SHARD = 2**24  # bytes of an array, about


class Decoded:
    """The images of `items`, read from arrays that `fill` has written or verified.

    paths: their files; size and modification time are in the cache key. shape: C H W; how: what else decoding depends on.
    """

    def __init__(self, items: Items, paths: Sequence[Encoded], shape: tuple[int, ...], how: str = ""):
        self.items, self.shape = items, shape
        digest = hashlib.sha256(f"{VERSION} {shape} {how} ".encode())
        for path in paths:
            digest.update(os.fsencode(identity(path)))
        self.folder = cache.cache_folder() / "decoded" / digest.hexdigest()[:32]
        self.rows = max(1, SHARD // math.prod(shape))  # images of an array
        self.verified: dict[Path, tuple[int, ...]] = {}  # arrays that are as they were written, by what changes when they are not

    @property
    def nbytes(self) -> int:
        return self.items.nbytes

    @property
    def labels(self) -> Tensor | None:
        return self.items.labels

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Tensor, int | None]:
        return torch.from_numpy(self.shards[i // self.rows][i % self.rows].copy()), None if self.labels is None else int(self.labels[i])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        images = np.empty((len(indices), *self.shape), np.uint8)
        for row, i in enumerate(indices.tolist()):
            images[row] = self.shards[i // self.rows][i % self.rows]
        return torch.from_numpy(images), None if self.labels is None else self.labels[indices]

    @cached_property
    def shards(self) -> list[np.ndarray]:
        """The memory-mapped arrays; each worker process opens its own. UserError if one has changed since `fill`."""
        return [self.shard(path) for path in self.paths()]

    def shard(self, path: Path) -> np.ndarray:
        """Open an array, and verify it only if it has changed since the last time."""
        try:
            if cache.identity(path) != self.verified.get(path):
                cache.verify(path)
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError, cache.Damaged) as error:
            raise UserError(f"{path} has changed while it was in use ({error}); start again, and it is made again") from error

    def paths(self) -> list[Path]:
        return [self.folder / f"{i:06d}.npy" for i in range(-(-len(self) // self.rows))]

    def fill(self, tick: Tick) -> None:
        """Decode missing and damaged arrays one by one, so that an interruption loses at most one; processes share the work.

        UserError if an image cannot be read; Failed if the disk is full.
        """
        paths = self.paths()
        first = distributed.rank() * len(paths) // distributed.size()
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for n, i in enumerate((*range(first, len(paths)), *range(first))):
                rows = range(i * self.rows, min((i + 1) * self.rows, len(self)))
                if not sound(paths[i], (len(rows), *self.shape)):
                    images = np.stack([image.numpy() for image, _ in pool.map(self.items.__getitem__, rows)])
                    file = io.BytesIO()
                    np.save(file, images)
                    self.folder.mkdir(parents=True, exist_ok=True)
                    cache.write(paths[i], file.getbuffer())
                    tick("decoding images", min((n + 1) * self.rows, len(self)), len(self))
                self.verified[paths[i]] = cache.identity(paths[i])


def readable_mark(files: Sequence[Encoded]) -> Path:
    """Return the file of the cache that is there once all these images were decoded without a mistake."""
    digest = hashlib.sha256(f"{VERSION} ".encode())
    for file in files:
        digest.update(os.fsencode(identity(file)))
    return cache.cache_folder() / "readable" / digest.hexdigest()[:32]


def identity(file: Encoded) -> str:
    """Return what changes when the bytes of an image file do: its place, size and time of change."""
    if not isinstance(file, Path):
        return file.identity
    about = file.stat()
    return f"{file.absolute()} {about.st_size} {about.st_mtime_ns} "


def sound(path: Path, shape: tuple[int, ...]) -> bool:
    """Verify that an array exists, with bytes of this shape and a correct checksum; reports damage."""
    try:
        cache.verify(path)
        found = np.load(path, mmap_mode="r")
        if found.shape != shape or found.dtype != np.uint8:
            raise cache.Damaged(f"it holds {found.dtype} of shape {found.shape}")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, cache.Damaged) as error:
        notice.warning("decoded images in %s are damaged (%s); they are decoded again", path, error)
        return False
    return True
