"""What is judged: samples in a fixed order, made by a generator or collected from files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_runner.datasets import Items, to_float, to_uint8
from gan_runner.datasets.classes import refuse_labels
from gan_runner.draws import NumberedDraws, chosen
from gan_runner.errors import UserError
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.spec import Spec


def samples(
    generator: Generator, n: int, *, seed: int = 0, y: Tensor | int | None = None, batch_size: int = 500, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """n samples as data (N ..., float), a batch at a time; sample i is a function of the seed and of i alone.

    y: labels (N) or one label for all; None: uniform over the classes of a conditional generator. ValueError where it takes no labels, or
    not these.
    """
    return (x for x, _ in drawn(generator, n, seed=seed, y=y, batch_size=batch_size, device=device))


def drawn(
    generator: Generator, n: int, *, seed: int = 0, y: Tensor | int | None = None, batch_size: int = 500, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The same samples, and their labels (N); None of an unconditional generator."""
    return Generated(generator, n, NO_SPEC, seed=seed, y=y, device=device).batches(range(n), batch_size)


NO_SPEC = Spec(())  # samples are left as the generator shows them

NOT_FINITE = "not all samples are finite (nan or inf)"


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

    clock: Callable[[], float] | None = None
    """Tells the time in seconds; None in training, so that figures are the same whenever a run was stopped and resumed."""

    device: torch.device = torch.device("cpu")

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """(samples as data, N ..., float32, images quantised to 256 levels but for nan and inf; labels N or None) of these indices."""
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

    y: labels (n, whole numbers) or one label for all; None: uniform over the classes of a conditional generator. ValueError where it takes
    no labels, or not these.
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
        clock: Callable[[], float] | None = None,
    ):
        self.n, self.spec, self.seed, self.device = n, spec, seed, torch.device(device)
        self.generator, self.discriminator, self.snapshots, self.clock = generator, discriminator, snapshots, clock
        self.y = None if y is None else labels_for(generator, n, y)
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
        return torch.where(x.isfinite(), to_float(to_uint8(x)), x) if self.spec.is_image else x, y


def labels_for(generator: Generator, n: int, y: Tensor | int) -> Tensor:
    """The labels of n samples, int64 n, from such labels or from one for all. ValueError where the generator does not take them."""
    if generator.classes is None:
        raise ValueError("this generator takes no labels")
    try:
        labels = torch.as_tensor(y, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"y is a class number, or {n} of them, and not {type(y).__name__}") from error
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.shape not in ((), (n,)):
        raise ValueError(f"y is a class number, or {n} of them, and not {labels.dtype} of shape {tuple(labels.shape)}")
    labels = labels.long().expand(n)
    if wrong := labels[(labels < 0) | (labels >= generator.classes)][:1].tolist():
        raise ValueError(f"y={wrong[0]}: a class number of this generator is 0 to {generator.classes - 1}")
    return labels


class Collected(Subject):
    """Samples in memory or in files, n of them: a random choice by the seed; None, or n >= all of them: all.

    UserError where a label is no class of the spec.
    """

    def __init__(self, items: Items, spec: Spec, n: int | None = None, device: torch.device | str = "cpu", seed: int = 0):
        refuse_labels(items.labels, spec, "the set of samples")
        self.items, self.spec, self.device, self.seed = items, spec, torch.device(device), seed
        self.chosen = chosen(n, len(items), "samples", seed)
        self.n, self.labelled = len(self.chosen), items.labels is not None

    def protocol(self) -> dict[str, Any]:
        return {} if self.n == len(self.items) else {"seed": self.seed, "chosen": f"{self.n} of {len(self.items)} at random"}

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        x, y = self.items.take(self.chosen[indices])
        return to_float(x.to(self.device)), None if y is None else y.to(self.device)


def finite(x: Tensor) -> Tensor:
    """x itself; UserError where samples are not finite."""
    if not x.isfinite().all():
        raise UserError(NOT_FINITE)
    return x


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
