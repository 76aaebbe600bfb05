"""What is judged: samples in a fixed order, made by a generator or collected from files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_runner.architectures.network import Discriminator, Generator
from gan_runner.datasets import Items, Spec, to_float, to_uint8
from gan_runner.draws import NumberedDraws


class Snapshot(NamedTuple):
    """The networks of a run after `step` rounds, in evaluation mode."""

    step: int
    generator: Generator
    discriminator: Discriminator | None


class Subject:
    """n samples in a fixed order: what a metric is fed, and what it may look at besides."""

    n: int
    spec: Spec
    labelled: bool
    """Whether its samples have labels."""

    generator: Generator | None = None
    """Whose samples they are, in evaluation mode; None where only the samples are there."""

    discriminator: Discriminator | None = None
    seed: int = 0
    """Of whatever a metric draws."""

    snapshots: Callable[[], Iterable[Snapshot]] | None = None
    """Gives the networks of a whole run, oldest first, each loaded when it is asked for; None where there is no run."""

    device: torch.device = torch.device("cpu")

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """(samples as data, N ..., float32, images quantised to 256 levels, nan left as it is; labels N or None) of these indices."""
        raise NotImplementedError

    def protocol(self) -> dict[str, Any]:
        """Where the samples come from, for the protocol of a figure."""
        return {}

    def batches(self, rows: range, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The samples `rows`, in order, a batch at a time."""
        for start in range(rows.start, rows.stop, batch_size):
            yield self.at(torch.arange(start, min(start + batch_size, rows.stop)))


class Generated(Subject):
    """Samples of a generator: sample i is a function of the seed and of i alone.

    y: labels (N) or one label for all; None: uniform over the classes of a conditional generator. ValueError where it takes no labels.
    """

    def __init__(
        self,
        generator: Generator,
        n: int,
        spec: Spec,
        *,
        seed: int = 0,
        y: Tensor | int | None = None,
        device: torch.device | str = "cpu",
        discriminator: Discriminator | None = None,
        snapshots: Callable[[], Iterable[Snapshot]] | None = None,
    ):
        if y is not None and generator.classes is None:
            raise ValueError("this generator takes no labels")
        self.n, self.spec, self.seed, self.device = n, spec, seed, torch.device(device)
        self.generator, self.discriminator, self.snapshots = generator, discriminator, snapshots
        self.y = torch.full((n,), y) if isinstance(y, int) else y
        self.labelled = generator.classes is not None

    def protocol(self) -> dict[str, Any]:
        return {"seed": self.seed}

    @torch.no_grad()
    def at(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self.generator is not None
        draws = NumberedDraws("evaluation", self.seed, indices=indices, device=self.device)
        with evaluating(self.generator):
            z, drawn = self.generator.prior(draws), self.generator.labels(draws)
            y = drawn if self.y is None else self.y[indices].to(self.device)
            x = self.generator.show(self.generator(z, y)).float()
        return torch.where(x.isnan(), x, to_float(to_uint8(x))) if self.spec.is_image else x, y


class Collected(Subject):
    """Samples that lie in memory or in files."""

    def __init__(self, items: Items, spec: Spec, n: int | None = None, device: torch.device | str = "cpu"):
        self.items, self.spec, self.device = items, spec, torch.device(device)
        self.n = len(items) if n is None else n
        self.labelled = spec.classes is not None

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        x, y = self.items.take(indices)
        return to_float(x.to(self.device)), None if y is None else y.to(self.device)


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, without touching what training sees."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
