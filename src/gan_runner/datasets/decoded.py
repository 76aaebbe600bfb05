"""Images of files, decoded once: arrays of bytes in the folder for caches, from which they are read at the speed of memory."""

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

from gan_runner import checkpoint, distributed
from gan_runner.datasets.dataset import Items
from gan_runner.reporting import Tick

SHARD = 2**24  # bytes of an array, about
VERSION = 1  # of how images are decoded


def cache_folder() -> Path:
    """Where decoded images and features of real data are kept: $GAN_RUNNER_CACHE, else gan-runner in the user's folder for caches."""
    if named := os.environ.get("GAN_RUNNER_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gan-runner"


class Decoded:
    """The images of `items`, read from arrays that `fill` has written.

    paths: their files, by whose size and time of change the arrays are found again; shape: C H W.
    """

    def __init__(self, items: Items, paths: Sequence[Path], shape: tuple[int, ...]):
        self.items, self.shape = items, shape
        digest = hashlib.sha256(f"{VERSION} {shape} ".encode())
        for path in paths:
            about = path.stat()
            digest.update(f"{path.absolute()} {about.st_size} {about.st_mtime_ns} ".encode())
        self.folder = cache_folder() / "decoded" / digest.hexdigest()[:32]
        self.rows = max(1, SHARD // math.prod(shape))  # images of an array

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
        """The arrays, looked at where they lie; a worker process opens its own."""
        return [np.load(path, mmap_mode="r") for path in self.paths()]

    def paths(self) -> list[Path]:
        return [self.folder / f"{i:06d}.npy" for i in range(-(-len(self) // self.rows))]

    def fill(self, tick: Tick) -> None:
        """Decode what is not there yet, array by array, so that an interruption loses one at most; several processes share the work.

        UserError where an image cannot be read; Failed where the disk takes no more.
        """
        paths = self.paths()
        first = distributed.rank() * len(paths) // distributed.size()
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for n, i in enumerate((*range(first, len(paths)), *range(first))):
                rows = range(i * self.rows, min((i + 1) * self.rows, len(self)))
                if not whole(paths[i], (len(rows), *self.shape)):
                    images = np.stack([image.numpy() for image, _ in pool.map(self.items.__getitem__, rows)])
                    file = io.BytesIO()
                    np.save(file, images)
                    self.folder.mkdir(parents=True, exist_ok=True)
                    checkpoint.write_bytes(paths[i], file.getbuffer())
                    tick("decoding images", min((n + 1) * self.rows, len(self)), len(self))


def whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether an array of bytes of this shape lies there."""
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return found.shape == shape and found.dtype == np.uint8
