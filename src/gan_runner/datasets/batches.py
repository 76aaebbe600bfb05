"""Streams of training batches: the order in which samples are read, from the device or through worker processes."""

from __future__ import annotations

import atexit
import re
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from gan_runner import distributed
from gan_runner.datasets.classes import refuse_labels
from gan_runner.datasets.dataset import Dataset, Items, Samples, Split, unheard
from gan_runner.datasets.fingerprint import Fingerprint
from gan_runner.draws import seeded
from gan_runner.errors import Failed, UserError, handled
from gan_runner.game.kind import to_float
from gan_runner.game.play import Batch, BatchLike
from gan_runner.reporting import Tick, notice

AHEAD = 64  # batches that a round may read: at least so many are kept on the device
PREFETCH = 4  # batches that a worker holds ready
GRACE_S = 20  # seconds that a worker goes on after SIGTERM
LOOK_S = 1.0  # seconds after which a process that waits for its workers looks up
TIMED_OUT = "DataLoader timed out"  # how torch begins the error that says so
LARGER = "give the container more (docker run --shm-size=1g, or --ipc=host), or say dataset.workers=0"


class Order:
    """The order in which n samples are read: for each epoch a permutation and flips, drawn on the CPU from (seed, epoch)."""

    def __init__(self, n: int, seed: int, flip: bool):
        if n == 0:
            raise ValueError("there is no sample to read")
        self.n, self.seed, self.flip = n, seed, flip
        self._recent = lru_cache(maxsize=2)(self.epoch)  # a batch may span two

    def epoch(self, e: int) -> tuple[Tensor, Tensor]:
        """Return indices (n, int64), and whether each image is mirrored (n, bool)."""
        generator = seeded("order", self.seed, e)
        order = torch.randperm(self.n, generator=generator)
        flips = torch.rand(self.n, generator=generator) < 0.5 if self.flip else torch.zeros(self.n, dtype=torch.bool)
        return order, flips

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return indices and flips of the positions start ... stop - 1, counted from the first sample of epoch 0."""
        pieces = []
        for e in range(start // self.n, (stop - 1) // self.n + 1):
            rows = slice(max(start - e * self.n, 0), stop - e * self.n)
            pieces.append([t[rows] for t in self._recent(e)])
        indices, flips = map(torch.cat, zip(*pieces))
        return indices, flips


class Stream:
    """Infinite stream of batches; a batch may span two epochs, so that all have one size.

    batch_size is the total over all processes; each process gets its rows of every batch, in rank order. `position`, the number of samples
    read by all processes, is the whole state. The number of samples is saved with it, to detect other data.
    """

    fingerprint: Fingerprint
    """Of the samples, where `stream` made this."""

    to_float: Callable[[Tensor], Tensor] = staticmethod(to_float)
    """The conversion from samples as they are kept to samples as networks see them: that of the data set, where `stream` made this."""

    waiting: Callable[[], None] = staticmethod(lambda: None)
    """Called every LOOK_S seconds while the data of a round are waited for; may raise, to end the wait."""

    def __init__(self, n: int, batch_size: int, seed: int, device: torch.device | str, flip: bool):
        self.order, self.batch_size, self.device, self.position = Order(n, seed, flip), batch_size, torch.device(device), 0
        self.share = distributed.share(batch_size, 1)
        self.first = distributed.rank() * self.share  # row of the batch

    def prepare(self) -> None:
        """Prepare the data of a round; called on the host before the round."""

    def __iter__(self) -> Iterator[BatchLike]:
        return self

    def __next__(self) -> BatchLike:
        raise NotImplementedError

    def take(self, indices: Tensor) -> Tensor:
        """Return the samples `indices` (N) as stored in the data set, on the host: to be displayed, not for training."""
        raise NotImplementedError

    def first_batch(self) -> Tensor:
        """Return the samples (N ...) of the first batch of all processes, as the networks see them."""
        indices, flips = self.order.read(0, self.batch_size)
        return self.batch(self.take(indices).to(self.device), None, flips.to(self.device)).x

    def close(self) -> None:
        """Stop the worker processes."""

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "samples": self.order.n}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume at the position of a stream of the same data. UserError if the number of samples differs."""
        if state["samples"] != self.order.n:
            raise UserError(
                f"the data have changed: {state['samples']} training samples when the run began, {self.order.n} now; "
                "restore the ones it had, say accept=data to go on with these, or begin a new run"
            )
        self.position = state["position"]

    def batch(self, x: Tensor, y: Tensor | None, flips: Tensor | None) -> Batch:
        """Convert samples to the input of the networks; images are mirrored where `flips` is true."""
        if self.order.flip and flips is not None:
            x = torch.where(flips[:, None, None, None], x.flip(-1), x)
        return Batch(self.to_float(x), y)


class Resident(Stream):
    """Batches of samples in device memory.

    A few epochs of the order are on the device as well, and a batch reads its slice of them at a device counter. So every round executes
    the same operations without synchronisation, and a CUDA graph can capture it. A replay must add the samples it read to `position`.
    """

    def __init__(
        self, samples: Samples, batch_size: int, seed: int = 0, device: torch.device | str = "cpu", flip: bool = False, ahead: int = AHEAD
    ):
        super().__init__(len(samples), batch_size, seed, device, flip)
        self.x, self.y = samples.x.to(device), None if samples.y is None else samples.y.to(device)
        n = len(samples)
        self.epochs = 2 + ahead * batch_size // n  # the one that is read, and as many as can be begun by then
        self.indices = torch.zeros(self.epochs, n, dtype=torch.int64, device=device)  # epoch e in row e % epochs
        self.flips = torch.zeros(self.epochs, n, dtype=torch.bool, device=device)
        self.cursor = torch.zeros((), dtype=torch.int64, device=device)  # where the round begins
        self.given = 0  # samples since then
        self.prepared = 0  # how often
        self.rows = torch.arange(self.first, self.first + self.share, device=device)
        self.laid = 0  # epochs before this one have been laid out

    def prepare(self) -> None:
        now = self.position // self.order.n
        for e in range(max(self.laid, now), now + self.epochs):
            for laid, drawn in zip((self.indices, self.flips), self.order.epoch(e)):
                laid[e % self.epochs].copy_(drawn)
        self.laid = now + self.epochs
        self.cursor.fill_(self.position % self.indices.numel())
        self.given = 0
        self.prepared += 1

    def __next__(self) -> Unread:
        if self.position + self.batch_size > self.laid * self.order.n:  # a round of more than `ahead` batches
            self.prepare()
        batch = Unread(self, self.given)
        self.given += self.batch_size
        self.position += self.batch_size
        return batch

    def read(self, offset: int) -> Batch:
        """Read this process's rows of the batch that begins `offset` samples after the start of the round."""
        here = (self.cursor + (self.rows + offset)) % self.indices.numel()
        i = self.indices.view(-1)[here]
        return self.batch(self.x[i], None if self.y is None else self.y[i], self.flips.view(-1)[here] if self.order.flip else None)

    def take(self, indices: Tensor) -> Tensor:
        return self.x[indices.to(self.device)].cpu()

    def load_state_dict(self, state: dict[str, int]) -> None:
        super().load_state_dict(state)
        self.laid = 0


class Unread:
    """A resident batch that is gathered at its first use, within the same round: most steps of G use no real sample."""

    def __init__(self, batches: Resident, offset: int):
        self.batches, self.offset, self.prepared = batches, offset, batches.prepared

    @cached_property
    def read(self) -> Batch:
        if self.prepared != self.batches.prepared:
            raise RuntimeError("a batch is read for the first time in the round that gave it: ask for its x there, to keep it")
        return self.batches.read(self.offset)

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter(self.read)

    @property
    def x(self) -> Tensor:
        return self.read.x

    @property
    def y(self) -> Tensor | None:
        return self.read.y


class Streamed(Stream):
    """The same batches in the same order, prefetched by worker processes; workers=0 reads them on demand.

    `prepare` waits for the first batch of a round, so that a run whose data do not come can stop before the round has begun.
    Raises UserError if a file cannot be read, Failed if a worker dies.
    """

    def __init__(
        self, items: Items, batch_size: int, seed: int = 0, device: torch.device | str = "cpu", flip: bool = False, workers: int = 0
    ):
        super().__init__(len(items), batch_size, seed, device, flip)
        self.items, self.workers = items, workers
        self._batches: Iterator[Any] | None = None
        self._next: Read | None = None
        self._warned = False
        atexit.register(_close, weakref.ref(self))  # before multiprocessing waits for them

    def prepare(self) -> None:
        if self._batches is None:
            loader: DataLoader = DataLoader(
                _Reader(self.items),  # type: ignore[arg-type]
                sampler=_keys(self.order, self.position, self.batch_size, self.first, self.share),  # type: ignore[arg-type]
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=PREFETCH if self.workers else None,
                pin_memory=self.device.type == "cuda",
                collate_fn=_as_it_is,
                worker_init_fn=_outlive_signals,
                timeout=LOOK_S if self.workers else 0,
                generator=torch.Generator(),  # the loader seeds its workers from here, and not from torch's own generator
            )
            try:
                self._batches = iter(loader)
            except OSError as error:
                said = f"the workers that read the data could not be started ({error.strerror}); is /dev/shm full? {LARGER}"
                raise Failed(said) from error
        if self._next is None:
            self._next = self._read()

    def __next__(self) -> Batch:
        self.prepare()
        assert self._next is not None
        (x, y, flips), self._next = self._next, None
        self.position += self.batch_size
        x, flips = (t.to(self.device, non_blocking=True) for t in (x, flips))
        return self.batch(x, None if y is None else y.to(self.device, non_blocking=True), flips)

    def _read(self) -> Read:
        """Wait for the next batch of the workers."""
        assert self._batches is not None
        read: Any = None
        while read is None:
            try:
                with translate_lost_workers():
                    read = next(self._batches)
            except RuntimeError as error:
                if not str(error).startswith(TIMED_OUT):
                    raise
                try:
                    self.waiting()
                except BaseException:
                    self._kill()
                    raise
        if isinstance(read, str):
            self.close()
            raise UserError(read)
        if self.workers and isinstance(read[0], np.ndarray) and not self._warned:
            self._warned = True
            size = f"{self.workers} workers with {PREFETCH} batches of {read[0].nbytes / 2**20:.3g} MiB each"
            notice.warning("/dev/shm has no room for %s: batches come through pipes, which is slower; %s", size, LARGER)
        x, y, flips = (torch.from_numpy(t) if isinstance(t, np.ndarray) else t for t in read)
        return x, y, flips

    def _kill(self) -> None:
        """Kill workers that are stuck: they would not hear that they are to leave."""
        with handled((signal.SIGCHLD,), signal.SIG_DFL):  # that of torch would take it for a failure
            for worker in self._batches._workers:  # type: ignore[union-attr]
                worker.kill()
                worker.join()
        self.close()

    def take(self, indices: Tensor) -> Tensor:
        return self.items.take(indices)[0]

    def close(self) -> None:
        self._batches = self._next = None  # the loader's iterator stops its workers when it goes

    def load_state_dict(self, state: dict[str, int]) -> None:
        super().load_state_dict(state)
        self.close()


Read = tuple[Tensor, Tensor | None, Tensor]  # samples, labels, flips


class _Reader:
    """Reads a key of `_keys` in a worker. Returns the message of a UserError: the loader would wrap the error in a traceback.

    Samples come in shared memory, or as an array, which goes through a pipe, where /dev/shm is full: a queue that finds no room for a
    tensor loses it, and waits for ever. For the same reason small things are arrays.
    """

    def __init__(self, items: Items):
        self.items = items

    def __getitem__(self, key: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor | np.ndarray, np.ndarray | None, np.ndarray] | str:
        indices, flips = key
        try:
            x, y = self.items.take(torch.from_numpy(indices))
        except UserError as error:
            return str(error)
        return _shared(x), None if y is None else y.numpy(), flips


def _shared(x: Tensor) -> Tensor | np.ndarray:
    """Move samples to shared memory in a worker; return an array where there is no room."""
    if get_worker_info() is None:
        return x
    try:
        return x.share_memory_()
    except RuntimeError:
        return x.numpy()


@contextmanager
def translate_lost_workers() -> Iterator[None]:
    """Translate the error by which torch says that a worker was killed, at any time, into Failed."""
    try:
        yield
    except RuntimeError as error:
        if not re.match(r"DataLoader worker \(pid.*(is killed by|exited unexpectedly)", str(error)):
            raise
        why = f"is the memory or /dev/shm full? Use fewer with dataset.workers=N, or {LARGER}"
        raise Failed(f"a worker that reads the data was killed: {why}; go on with resume=RUN_DIR") from error


def _keys(order: Order, position: int, batch_size: int, first: int, share: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for every batch from `position` on, the indices and flips of `share` rows from row `first`."""
    while True:
        indices, flips = order.read(position + first, position + first + share)
        yield indices.numpy(), flips.numpy()
        position += batch_size


def _as_it_is(read: Any) -> Any:
    return read


def _outlive_signals(worker: int) -> None:
    """Ignore signals in a worker: the whole process group gets them, but the main process needs its workers until the round ends.

    SIGTERM also ends workers that were not closed, so they exit GRACE_S seconds after it.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))


def _close(streamed: weakref.ref[Streamed]) -> None:
    if (alive := streamed()) is not None:
        alive.close()


def stream(
    dataset: Dataset,
    split: Split,
    batch_size: int,
    seed: int,
    device: torch.device | str,
    tick: Tick = unheard,
    labelled: bool = False,
) -> Resident | Streamed:
    """Create the batches of a split: from device memory if its samples fit `dataset.resident_mb`, else by `dataset.workers` processes.

    Both give the same batches. Only training images are mirrored. tick: called with the progress of reading that happens once.
    UserError for labels that are not classes of the data set, and for samples without labels if `labelled`.
    """
    items, flip = dataset.at_hand(split, tick), dataset.flip and split == "train"
    whose = f"the {split} split of {dataset.name}"
    refuse_labels(items.labels, dataset.spec, whose)
    if labelled and items.labels is None:
        raise UserError(f"the discriminator or a term reads the labels of real samples, and {whose} has none")
    if dataset.spec.symbols is not None and len(items) and items[0][0].dtype == torch.uint8:
        raise UserError(f"{whose} are symbols, which are kept as int16 or int64: as uint8 they would be taken for pixels")
    made: Resident | Streamed
    if items.nbytes <= dataset.resident_mb * 10**6:
        items = samples = items if isinstance(items, Samples) else Samples(*items.take(torch.arange(len(items))))
        made = Resident(samples, batch_size, seed, device, flip)
    else:
        made = Streamed(items, batch_size, seed, device, flip, dataset.workers)
    made.fingerprint, made.to_float = dataset.fingerprint(split, items), dataset.to_float
    return made
