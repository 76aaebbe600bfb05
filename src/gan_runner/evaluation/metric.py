"""The interface of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from gan_runner import distributed

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor
    from gan_runner.evaluation.reference import Reference
    from gan_runner.sampling.subjects import Subject


Told = Callable[[int, int], None]  # how many are done, of how many
Field = Literal["samples", "y", "features", "logits"]
COUPLED = "D compares the samples of a batch with each other, so that its logit is not of one sample alone"
Need = Literal["reference", "extractor", "labels", "generator", "log_prob", "encoder", "discriminator", "snapshots", "clock"]
Direction = Literal["min", "max"]  # which way a figure is better


Reduction = Callable[[Any], Any]


def rows(parts: list[Tensor]) -> list[Tensor]:
    """Concatenate the rows of tensors to a list of one tensor; a scalar is one row. Returns an empty list for no tensors."""
    return [torch.cat([part.reshape(1) if part.ndim == 0 else part for part in parts])] if parts else []


REDUCTIONS: dict[str, Reduction] = {
    "sum": lambda stacked: stacked.sum(0),
    "mean": lambda stacked: stacked.mean(0),
    "max": lambda stacked: stacked.amax(0),
    "min": lambda stacked: stacked.amin(0),
    "cat": rows,
}


TORCHMETRICS: dict[bool | None, Direction] = {False: "min", True: "max"}  # its word `higher_is_better`


class State(NamedTuple):
    """An accumulator of a metric: its default, and the reduction over processes."""

    default: Tensor | None  # None: an empty list
    reduction: str | Reduction | None


def told_nobody(done: int, n: int) -> None:
    """Ignore progress."""


def over_processes(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a `compute` so that it uses the states of all processes."""

    @wraps(compute)
    def of_all(self: Metric, *given: Any, **named: Any) -> Any:
        with self.joined():
            return compute(self, *given, **named)

    return of_all


class Metric(nn.Module):
    """A figure of merit, fed in batches; states are float64, or rows in the order of the samples, and are joined over processes.

    The verbs are those of torchmetrics: a constructor calls `add_state`, `update` adds a batch without building a graph, `compute` sees the
    states of all processes, `reset` begins again. A class of torchmetrics becomes a metric as `class Mine(ClassOfTorchmetrics, Metric)`,
    and then keeps its own states.

    A subclass says in `reads` what it is fed for N samples, in the order in which `update` takes it: `samples` as data (N ...; images in
    [-1, 1], quantised to 256 levels), their labels `y` (N), the `features` (N F) or `logits` (N K) that the extractor gives. It says in
    `needs` what else there must be: the real samples to compare with (`reference`), the extractor itself, labels of real and fake samples,
    a generator, one that tells how probable data are (`log_prob`) or from which latents they come (`encoder`), a discriminator, the
    snapshots of a run, or a clock, which gan-eval alone gives; what is missing makes its figures null, with the reason. A metric that needs
    to know the data takes `spec` first in its constructor.
    """

    reads: tuple[Field, ...] = ()
    needs: frozenset[Need] = frozenset()

    better: Direction | Mapping[str, Direction] | None = None
    """Which way its figures are better: one word for all, or a word for each by the rest of its key ("" is the one that has the prefix for
    its key). What is not there is better neither way. Where it is None, `higher_is_better` of a class of torchmetrics counts."""

    coverage: tuple[str, ...] = ()
    """The rests of the keys of its figures that fall where samples cover less of the data."""

    mean_key: str | None = None
    """Key of the mean over networks of its figure with the rest "", where it looks through several; None: there is no such mean."""

    reference: Reference
    """The real samples; there while update, examine, compute and pictures are called, where `needs` names it."""

    tick: Told = staticmethod(told_nobody)
    """To be called in a long examine or compute: so many of n are done."""

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        for name, wrap in (("update", torch.no_grad()), ("compute", over_processes)):
            owner = next(kind for kind in cls.__mro__ if name in vars(kind))
            if owner is cls or not issubclass(owner, Metric):  # what another metric has is wrapped there
                setattr(cls, name, wrap(vars(owner)[name]))

    def __init__(self) -> None:
        super().__init__()
        self._states: dict[str, State] = {}
        self._device, self._is_joined = torch.get_default_device(), False
        self._network: tuple[Extractor | None] = (None,)  # a tuple: it is no part of the metric

    def look_through(self, network: Extractor | None) -> Self:
        """Set the network whose features and logits the metric reads; returns the metric."""
        self._network = (network,)
        return self

    @property
    def network(self) -> Extractor | None:
        """The network that it looks through, shared with other metrics; None: it looks at samples, or no network is chosen."""
        return self._network[0] if self.extracts else None

    @property
    def extractor(self) -> Extractor:
        """The same for a metric that needs one: loaded while update, examine, compute and pictures are called."""
        assert self.network is not None
        return self.network

    @property
    def device(self) -> torch.device:
        """The device of its states."""
        return self._device

    def add_state(self, name: str, default: Tensor | list, dist_reduce_fx: str | Reduction | None = None) -> None:
        """Make `self.name` a state: it moves with the metric, and `reset` sets it to its default, a tensor or an empty list.

        dist_reduce_fx reduces the states of P processes: "sum", "mean", "max" or "min" of tensors; "cat": rows of a list, in rank order;
        a function of the stacked tensors, P ..., or of a list of all elements; None: that stack or list. ValueError for anything else.
        """
        if not isinstance(default, Tensor) and default != []:
            raise ValueError(f"the default of state {name} must be a tensor or an empty list")
        fits = {True: ("sum", "mean", "max", "min"), False: ("cat",)}[isinstance(default, Tensor)]
        if not (dist_reduce_fx is None or callable(dist_reduce_fx) or dist_reduce_fx in fits):
            raise ValueError(f"dist_reduce_fx of state {name} must be a function, None or one of {', '.join(fits)}, not {dist_reduce_fx!r}")
        self._states[name] = State(default.detach().clone() if isinstance(default, Tensor) else None, dist_reduce_fx)
        self._begin(name)

    def reset(self) -> None:
        """Reset all states to their defaults."""
        for name in self._states:
            self._begin(name)

    def _begin(self, name: str) -> None:
        default = self._states[name].default
        setattr(self, name, [] if default is None else default.clone().to(self.device))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Context: every process has the reduced states of all processes; afterwards each has its own again."""
        if self._is_joined or distributed.size() == 1:
            yield
            return
        own = {name: getattr(self, name) for name in self._states}
        for name, (default, reduction) in self._states.items():
            mine = own[name] if default is None else [own[name]]
            parts = distributed.everyones_tensors(rows(mine) if reduction == "cat" else mine, self.device)
            reduce = REDUCTIONS[reduction] if isinstance(reduction, str) else reduction or (lambda whole: whole)
            setattr(self, name, reduce(parts if default is None else torch.stack(parts)))
        self._is_joined = True
        try:
            yield
        finally:
            self._is_joined = False
            for name, value in own.items():
                setattr(self, name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Metric:
        """Move the states with the module; their dtypes do not change."""
        super()._apply(fn, recurse)
        self._device = fn(torch.empty(0, device=self._device)).device
        for name in self._states:
            value = getattr(self, name)
            moved = value.to(self._device) if isinstance(value, Tensor) else [part.to(self._device) for part in value]
            setattr(self, name, moved)
        return self

    @property
    def extracts(self) -> bool:
        """Whether it uses an extractor."""
        return bool({"features", "logits", "extractor"} & {*self.reads, *self.needs})

    def prefix(self, extractor: Extractor | None) -> str:
        """Return the key of its figures in metrics.jsonl, for this extractor (None: it needs none): "modes", "cs/lenet"."""
        raise NotImplementedError

    def update(self, *values: Any, **none: Any) -> None:
        """Add N samples: the values that `reads` lists."""

    def examine(self, subject: Subject) -> None:
        """Examine more than samples, such as the networks; called once, after the samples and before compute."""

    def compute(self) -> dict[str, Tensor]:
        """Return figures, float64 scalars, by the key without prefix; "" is the figure whose key is the prefix. NaN: undefined."""
        raise NotImplementedError

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        """Return pictures (uint8, 3 H W) by the key without prefix; called after compute; by default none."""
        return {}

    def notes(self) -> list[str]:
        """Return warnings on its figures, such as too few samples: half sentences; called after compute; by default none."""
        return []

    def direction(self, rest: str) -> Direction | None:
        """Say which way the figure with this rest of its key is better; None: neither, or the metric does not say it."""
        said = self.better if self.better is not None else TORCHMETRICS.get(getattr(self, "higher_is_better", None))
        return said.get(rest) if isinstance(said, Mapping) else said

    def figures(self, extractor: Extractor | None) -> dict[str, Tensor]:
        """Return the figures of compute under their full keys: {"modes/covered": ...}, {"cs/lenet": ..., "cs/lenet/std": ...}."""
        prefix = self.prefix(extractor)
        return {f"{prefix}/{key}" if key else prefix: value for key, value in self.compute().items()}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        """Describe the figures (by full key) for a reader; None is a figure that could not be computed."""
        return "  ".join(f"{key} {'null' if value is None else f'{value:.4g}'}" for key, value in figures.items())
