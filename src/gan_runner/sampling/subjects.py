"""Subjects of evaluation: samples in a fixed order, from a generator or from files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_runner import tree
from gan_runner.datasets import Dataset, Items, Split
from gan_runner.datasets.classes import refuse_labels
from gan_runner.draws import NumberedDraws, chosen
from gan_runner.errors import UserError
from gan_runner.game.kind import to_float
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.play import Batch
from gan_runner.game.spec import Spec


def samples(
    generator: Generator,
    n: int,
    *,
    seed: int = 0,
    y: Tensor | int | None = None,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
    source: Source | None = None,
) -> Iterator[Tensor]:
    """Yield n samples as data (N ..., not rounded), a batch at a time; sample i is a function of the seed, of i and of item i of the
    source.

    y: labels (N) or one label for all; None: uniform over the classes of a conditional generator. ValueError where it takes no labels, or
    not these. source: data that the samples are made for, where the generator needs them.
    """
    subject = Generated(generator, n, NO_SPEC, seed=seed, y=y, device=device, source=source)
    return (x for x, _ in subject.batches(range(n), batch_size))


def gallery(
    generator: Generator, n: int, *, seed: int = 0, y: Tensor | int | None = None, device: torch.device, source: Source | None = None
) -> Gallery:
    """Make samples to look at. With a source: for each sample, side by side, its input, the sample and the real answer."""
    subject = Generated(generator, n, NO_SPEC, seed=seed, y=y, device=device, source=source)
    made = torch.cat([x.cpu() for x, _ in subject.batches(range(n), 500)])
    if source is None:
        return Gallery(made, 8)
    truth = torch.cat([source.batch(rows).x for rows in torch.arange(n).split(500)])
    given = torch.cat([subject.condition(rows).cpu() for rows in torch.arange(n).split(500)])
    columns = [part for part in (given, made, truth) if part.shape == made.shape]
    return Gallery(torch.stack(columns, 1).flatten(0, 1), 3 * len(columns))


class Gallery(NamedTuple):
    """Samples as data, N ..., and in how many columns they are shown."""

    x: Tensor
    columns: int


class Source:
    """Data that samples are made for: sample i for item i, from the first again where there are more samples than items."""

    def __init__(self, dataset: Dataset, split: Split = "test"):
        self.dataset, self.split = dataset, split
        dataset.prepare()
        self.items = dataset.open(split)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Batch:
        """Return the items of these samples."""
        x, y = self.items.take(indices.cpu() % len(self.items))
        return Batch(self.dataset.to_float(x.to(device)), None if y is None else y.to(device))


def source_of(generator: Generator, dataset: Dataset) -> Source | None:
    """Return the test split, where the generator works on data; None where it needs no data."""
    return Source(dataset) if generator.overrides("asked") else None


NO_SPEC = Spec(())  # samples are left as the generator shows them

NOT_FINITE = "not all samples are finite (nan or inf)"


class Snapshot(NamedTuple):
    """The networks of a run after `step` rounds, in evaluation mode."""

    step: int
    generator: Generator
    discriminator: Discriminator | None


class Subject:
    """The input of a metric: n samples in a fixed order, and the networks they come from, if any."""

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
        """Return (samples, labels) of these indices: N ..., float32, images quantised to 256 levels except nan and inf; N or None."""
        raise NotImplementedError

    def protocol(self) -> dict[str, Any]:
        """Return the source of the samples, for the protocol of a figure."""
        return {}

    def batches(self, rows: range, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the samples `rows` in order, one batch at a time."""
        for start in range(rows.start, rows.stop, batch_size):
            yield self.at(torch.arange(start, min(start + batch_size, rows.stop)))


class Generated(Subject):
    """Samples of a generator: sample i depends only on the seed and i.

    y: labels (n, whole numbers) or one label for all; None: uniform over the classes of a conditional generator. ValueError if the
    generator takes no labels, or a label is out of range.
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
        source: Source | None = None,
        clock: Callable[[], float] | None = None,
    ):
        if source is None and generator.overrides("asked"):
            raise ValueError("this generator works on data: give the data that samples are made for")
        self.source = source
        self.n, self.spec, self.seed, self.device = n, spec, seed, torch.device(device)
        self.generator, self.discriminator, self.snapshots, self.clock = generator, discriminator, snapshots, clock
        self.y = None if y is None else labels_for(generator, n, y)
        self.labelled = generator.classes is not None and source is None

    def protocol(self) -> dict[str, Any]:
        made_for = {} if self.source is None else {"made_for": f"{self.source.dataset.name}:{self.source.split}"}
        return {"seed": self.seed} | made_for

    def condition(self, indices: Tensor) -> Tensor:
        """Return the first tensor of what these samples are made from, N ..."""
        with torch.no_grad(), evaluating(self.generator):  # type: ignore[arg-type]
            return tree.leaves(self.made(indices)[1])[0]

    @torch.no_grad()
    def at(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self.generator is not None
        with evaluating(self.generator):
            z, y = self.made(indices)
            x = self.spec.kind.quantised(self.generator.show(self.generator(z, y)))
        return x, y if self.labelled else None

    def made(self, indices: Tensor) -> tuple[Tensor, Any]:
        """Return the latents and the condition that these samples are made from."""
        assert self.generator is not None
        draws = NumberedDraws("evaluation", self.seed, indices=indices, device=self.device)
        z = self.generator.prior(draws)
        if self.source is not None:
            return z, self.generator.asked(self.source.batch(indices, self.device), draws)
        drawn = self.generator.labels(draws)
        return z, drawn if self.y is None else self.y[indices].to(self.device)


def labels_for(generator: Generator, n: int, y: Tensor | int) -> Tensor:
    """Convert n labels, or one for all, to int64 of shape n. ValueError if the generator does not accept them."""
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
    """n samples from memory or files, chosen at random by the seed; None, or n >= their number: all.

    UserError if a label is not a class of the spec.
    """

    def __init__(
        self,
        items: Items,
        spec: Spec,
        n: int | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        to_float: Callable[[Tensor], Tensor] = to_float,
    ):
        self.to_float = to_float
        refuse_labels(items.labels, spec, "the set of samples")
        self.items, self.spec, self.device, self.seed = items, spec, torch.device(device), seed
        self.chosen = chosen(n, len(items), "samples", seed)
        self.n, self.labelled = len(self.chosen), items.labels is not None

    def protocol(self) -> dict[str, Any]:
        return {} if self.n == len(self.items) else {"seed": self.seed, "chosen": f"{self.n} of {len(self.items)} at random"}

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        x, y = self.items.take(self.chosen[indices])
        return self.to_float(x.to(self.device)), None if y is None else y.to(self.device)


def finite(x: Tensor) -> Tensor:
    """Return x. UserError where samples are not finite."""
    if not x.isfinite().all():
        raise UserError(NOT_FINITE)
    return x


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Context: evaluation mode; the mode of every module is restored at the end."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
