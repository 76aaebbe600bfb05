"""The real samples that a figure compares with, and their features, cached on disk.

Features and moments are cached under a hash of data, weights and preprocessing, so that a stale entry cannot be hit.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets import Dataset, Items, Split
from gan_runner.datasets.classes import by_number, refuse_labels, translated
from gan_runner.datasets.dataset import unheard
from gan_runner.draws import chosen
from gan_runner.errors import Failed, UserError
from gan_runner.evaluation.extractor import Extractor
from gan_runner.evaluation.moments import Moments
from gan_runner.game.spec import Spec
from gan_runner.reporting import Tick, notice
from gan_runner.storage import cache, files

VERSION = 2  # of what is kept: since 2 with checksums


T = TypeVar("T")


def of_samples(compute: Callable[[Reference], T]) -> cached_property[T]:
    """Cache a property of the samples, once for all references that differ only in the extractor."""

    def get(self: Reference) -> T:
        return compute(self) if self._samples is self else getattr(self._samples, compute.__name__)

    return cached_property(wraps(compute)(get))


class Reference:
    """Real samples of one split, in a fixed order, and their features.

    n: number of samples, a fixed random choice; None: all. tick: called with the progress of a pass over the data. order: the class names
    whose positions are the labels, matched by name; None: those of the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split = "train",
        extractor: Extractor | None = None,
        *,
        n: int | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 500,
        tick: Tick = unheard,
        order: Spec | None = None,
    ):
        self.dataset, self.split, self.extractor, self.asked, self.order = dataset, split, extractor, n, order
        self.device, self.batch_size, self.tick = torch.device(device), batch_size, tick
        self._samples = self  # the reference that opens and reads them
        self._others: dict[tuple[Split, Extractor | None], Reference] = {(split, extractor): self}

    @property
    def name(self) -> str:
        """Name of the data set in a protocol."""
        return self.dataset.name

    @property
    def spec(self) -> Spec:
        return self.dataset.spec

    def of(self, split: Split) -> Reference:
        """Return the reference for another split of the same data. UserError if there is no such split."""
        key = split, self.extractor
        if key not in self._others:
            settings = {"n": self.asked, "device": self.device, "batch_size": self.batch_size, "tick": self.tick, "order": self.order}
            other = Reference(self.dataset, split, self.extractor, **settings)  # type: ignore[arg-type]
            other._others = self._others
            self._others[key] = other
        return self._others[key]

    def through(self, extractor: Extractor | None) -> Reference:
        """Return the reference of the same samples, which are opened and read once, with the features of this extractor."""
        key = self.split, extractor
        if key not in self._others:
            other = copy.copy(self)
            for kept in ("about", "_folder", "_features", "_moments"):
                vars(other).pop(kept, None)
            other.extractor = extractor
            self._others[key] = other
        return self._others[key]

    # ---- samples --------------------------------------------------------------------------------------------------------------------

    @of_samples
    def _items(self) -> Items:
        self.dataset.prepare()
        return self.dataset.open(self.split)

    @of_samples
    def _chosen(self) -> Tensor:
        """Indices of the samples, n."""
        return chosen(self.asked, len(self._items), "reference", self.split)

    @property
    def n(self) -> int:
        return len(self._chosen)

    @of_samples
    def labels(self) -> Tensor | None:
        """Labels, int64, n, as positions in `class_names`; None for data without labels. UserError if `order` has other classes."""
        labels = self._items.labels
        if labels is None:
            return None
        refuse_labels(labels, self.spec, f"the {self.split} split of {self.name}")
        return labels[self._chosen] if self.order is None else translated(labels[self._chosen], self.spec, self.order)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the labels; None if the classes have no names."""
        return (self.order and self.order.class_names) or self.spec.class_names

    def protocol(self) -> dict[str, Any]:
        """Describe the real samples for a protocol; if labels were used, also their classes."""
        found = {"real": f"{self.name}:{self.split}", "n_real": self.n, "real_sha256": self.checksum}
        if self.n < len(self._items):
            found["real_chosen"] = f"{self.n} of {len(self._items)} at random, the same for every seed"
        if any(vars(other).get("labels") is not None for other in self._others.values()):
            if self.class_names is not None:
                found["classes"] = list(self.class_names)
            if self.order is not None and by_number(self.spec, self.order):
                found["labels"] = "taken as numbers: a side has no class names"
        return found | {f"real_{name}": note for name, note in self.notes.items()}

    def at(self, indices: Tensor) -> Tensor:
        """Return the samples with these indices as data: N ..., float32. UserError if one is not finite."""
        x = self._items.take(self._chosen[indices])[0]
        if not x.isfinite().all():
            raise UserError(f"not all samples of {self.name} ({self.split}) are finite (nan or inf)")
        return self.dataset.to_float(x)

    @of_samples
    def nearly_black(self) -> bool:
        """Whether 64 images that are spread over all of them are nearly black."""
        x, _ = self._items.take(self._chosen[torch.linspace(0, self.n - 1, 64, dtype=torch.float64).long()])
        return self.spec.kind.nearly_black(self.dataset.to_float(x))

    def samples(self) -> Tensor:
        """Return all samples as data: n ..., float32."""
        return self.at(torch.arange(self.n))

    # ---- features -------------------------------------------------------------------------------------------------------------------

    def features(self) -> Tensor:
        """Return the features, n F, float32, on the CPU; memory-mapped if they are in the cache."""
        if "_features" not in vars(self):
            self._look(features=True)
        return self._features

    def moments(self) -> Moments:
        """Return the moments of the features, float64. Memory: one batch and a few matrices F F."""
        if "_moments" not in vars(self):
            self._look(features=False)
        return self._moments

    @of_samples
    def checksum(self) -> str:
        """SHA-256 of the whole split."""
        return self.dataset.checksum(self.split)

    @of_samples
    def notes(self) -> dict[str, str]:
        """Notes for a protocol on the origin of the samples, by name."""
        return self.dataset.notes(self.split)

    @cached_property
    def about(self) -> dict[str, Any]:
        """The cache key of the features: data, extractor and preprocessing."""
        assert self.extractor is not None
        return {
            "version": VERSION,
            "data": self.checksum,
            "n": self.n,
            "extractor": self.extractor.name,
            "extractor_sha256": self.extractor.checksum,
            "preprocessing": self.extractor.preprocessing,
        }

    @cached_property
    def _folder(self) -> Path:
        key = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()
        return cache.cache_folder() / f"{self.name}-{self.split}-{self.about['extractor']}-n{self.n}-{key[:16]}"

    def _look(self, features: bool) -> None:
        """Set `_moments`, and `_features` if requested: from the cache, else by a pass over the data. Reports a damaged cache."""
        if (self._folder / "about.json").exists():  # it is written last: the others should be there
            try:
                if json.loads((self._folder / "about.json").read_text()) != self.about:
                    raise cache.Damaged("they are of something else")
                with np.load(io.BytesIO(cache.read(self._folder / "moments.npz")), allow_pickle=False) as kept:
                    moments = Moments(*(torch.from_numpy(kept[name]) for name in Moments._fields))
                if features:
                    self._features = self._mapped(len(moments.mean))
                self._moments = moments
                return
            except (OSError, ValueError, KeyError, EOFError, cache.Damaged) as error:
                notice.warning("features in %s are damaged (%s); they are made again", self._folder, error)
        self._pass(features)

    def _mapped(self, features: int) -> Tensor:
        path = self._folder / "features.npy"
        cache.verify(path)
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # copy on write: nothing is written back
        if array.shape != (self.n, features) or array.dtype != np.float32:
            raise cache.Damaged(f"{path.name} holds {array.dtype} of shape {array.shape}")
        return torch.from_numpy(array)

    def _pass(self, features: bool) -> None:
        """Compute the features of every sample once, and cache them. Disk errors are ignored: they cost time, not the figure."""
        assert self.extractor is not None
        self.extractor.to(self.device)
        moments: Moments | None = None
        rows_kept: list[Tensor] = []
        file = _Rows(self._folder / "features.npy", self.n)
        for start in range(0, self.n, self.batch_size):
            x, _ = self._items.take(self._chosen[start : start + self.batch_size])
            rows = self.extractor(x.to(self.device)).features.cpu()
            part = Moments.of(rows)
            moments = part if moments is None else moments.merged(part)
            file.add(rows.numpy())
            rows_kept += [rows] if features else []
            self.tick(f"{self.name} ({self.split}) through {self.extractor.name}", start + len(rows), self.n)
        if moments is None:
            raise UserError(f"{self.name} has no sample in its {self.split} split to compare with")
        if not bool(moments.scatter.isfinite().all()):
            raise UserError(f"extractor {self.extractor.name} gives features of {self.name} that are not finite")
        self._moments = moments
        if features:
            self._features = torch.cat(rows_kept)
        with contextlib.suppress(OSError, Failed):
            file.close()
            buffer = io.BytesIO()
            np.savez(buffer, **{name: value.numpy() for name, value in moments._asdict().items()})
            cache.write(self._folder / "moments.npz", buffer.getbuffer())
            files.write_bytes(self._folder / "about.json", json.dumps(self.about, indent=2).encode())  # last: the others are there


class _Rows:
    """Writer of n rows of float32 to a .npy file with a checksum at its end; the file is created atomically."""

    def __init__(self, path: Path, n: int):
        self.path, self.n = path, n
        self.part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self.error: OSError | None = None
        self.checksum: int | None = None  # of what is written; None before anything is

    def add(self, rows: np.ndarray) -> None:
        """Append rows; a disk error is stored and raised by `close`."""
        data = np.ascontiguousarray(rows, "<f4").tobytes()
        if self.checksum is None:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (self.n, rows.shape[1])})
            data = header.getvalue() + data
        self._write(data)

    def close(self) -> None:
        """Move the file to its final path. OSError if this or an earlier write failed."""
        self._write(cache.seal(self.checksum or 0))
        if self.error is not None:
            raise self.error
        os.replace(self.part, self.path)

    def _write(self, data: bytes) -> None:
        if self.error is not None:
            return
        try:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            with self.part.open("wb" if self.checksum is None else "ab") as file:
                file.write(data)
            self.checksum = zlib.crc32(data, self.checksum or 0)
        except OSError as error:
            self.error = error
            with contextlib.suppress(OSError):
                self.part.unlink(missing_ok=True)
