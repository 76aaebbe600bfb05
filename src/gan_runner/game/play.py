"""A batch, the samples of G and the outputs of D on both, each computed once and only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from torch import Tensor
from torch.utils._pytree import tree_map_only

from gan_runner import distributed, tree
from gan_runner.draws import Draws
from gan_runner.tree import Sample

if TYPE_CHECKING:
    from gan_runner.game.network import Discriminator, Generator


Logs = dict[str, Tensor]  # scalars on the device, named <term>/<d or g>


class Batch(NamedTuple):
    """What a data set hands to a move."""

    x: Tensor  # N ...
    y: Tensor | None  # N


class BatchLike(Protocol):
    """A Batch, or what reads one when it is asked for x or y."""

    @property
    def x(self) -> Tensor: ...

    @property
    def y(self) -> Tensor | None: ...


class Batches(Protocol):
    """An endless stream of this process's share of the global batches."""

    def prepare(self) -> None:
        """Prepare on the host what the next round reads."""

    def __next__(self) -> BatchLike: ...


class DiscriminatorOutput(NamedTuple):
    """What D says of N samples."""

    logits: Tensor  # N    raw, high = real; N P of P critics (patches, scales, domains)
    features: Tensor  # N F

    @property
    def per_sample(self) -> Tensor:
        """One logit for each sample, N: the mean over critics."""
        return self.logits.reshape(len(self.logits), -1).mean(1)


class NoDiscriminator(Exception):
    """A term asks for D, and the architecture has none."""


class Play:
    """What the terms of a move may look at: real, fake and D's output on each, computed once and only when asked for."""

    average: Generator | None = None
    """The average of G that a trick keeps; None without one. Nothing is differentiated through it."""

    def __init__(
        self,
        G: Generator,
        D: Discriminator | None,
        batch: BatchLike,
        draws: Draws,
        augment: Callable[[Sample, Draws], Sample],
        passes: Mapping[str, Callable[..., Any]] | None = None,  # the networks as functions that are differentiated once
        paired: bool = False,  # whether fakes are made for the labels of the reals
    ):
        self.G, self.augment, self.draws, self.paired = G, augment, draws, paired
        self.passes = passes or {"generator": G, **({"discriminator": D} if D is not None else {})}
        self.batch, self._D = batch, D
        self._views: dict[str, Draws] = {}  # where the draws of the augmentation of real and fake begin
        self._vectors: dict[str, list[tuple[Tensor, Tensor]]] = {}  # the singular vectors of D in the passes on real and fake

    @property
    def D(self) -> Discriminator:
        """NoDiscriminator where the game has no discriminator."""
        if self._D is None:
            raise NoDiscriminator
        return self._D

    @cached_property
    def x(self) -> Tensor:
        return self.batch.x

    @cached_property
    def y(self) -> Any:
        return self.G.given(self.batch, self.draws)

    @cached_property
    def real(self) -> Sample:
        return self.G.view(self.x, self.draws)

    @cached_property
    def z(self) -> Tensor:
        return self.G.prior(self.draws)

    @cached_property
    def fake_y(self) -> Any:
        return self.y if self.paired else self.G.asked(self.batch, self.draws)

    @cached_property
    def fake(self) -> Sample:
        return tree.map(Tensor.float, self.passes["generator"](self.z, self.fake_y))

    @cached_property
    def on_real(self) -> DiscriminatorOutput:
        return self.on_both[0] if "on_both" in vars(self) else self._see("real", self.real, self.y)

    @cached_property
    def on_fake(self) -> DiscriminatorOutput:
        return self.on_both[1] if "on_both" in vars(self) else self._see("fake", self.fake, self.fake_y)

    @cached_property
    def on_both(self) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """(on_real, on_fake), from one pass of D where no sample in it touches another."""
        if self.D.couples_samples or vars(self).keys() & {"on_real", "on_fake"}:
            return self.on_real, self.on_fake
        shown = tree.cat(self._shown("real", self.real), self._shown("fake", self.fake))
        y = None if self.fake_y is None or self.y is None else tree.cat(self.y, self.fake_y)
        both = self.passes["discriminator"](shown, y)
        self._vectors = dict.fromkeys(("real", "fake"), self.D.singular_vectors())
        real, fake = zip(*(t.float().chunk(2) for t in both), strict=True)
        return DiscriminatorOutput(*real), DiscriminatorOutput(*fake)

    def judge(self, sample: Sample, y: Any, like: Literal["real", "fake"] | None = None, rows: slice | None = None) -> DiscriminatorOutput:
        """Evaluate D on one more sample, augmented as any other; may be differentiated twice.

        like: under the augmentation and noise under which `on_real` or `on_fake` was seen, and with the weights of that pass, which under
        spectral norm change with every other one: for a difference of two passes of D. rows: only these of the samples.
        """
        return self._judged(sample, y, self._seen_with(like) if like else self.draws, like, rows)

    def _judged(self, sample: Sample, y: Any, draws: Draws, like: str | None, rows: slice | None = None) -> DiscriminatorOutput:
        seen = self.augment(sample, draws), y
        shown, y = seen if rows is None else tree_map_only(Tensor, lambda leaf: leaf[rows], seen)
        with self.D.as_before(self._vectors[like]) if like else nullcontext():
            return DiscriminatorOutput(*map(Tensor.float, self.D(shown, y)))

    def _seen_with(self, which: str) -> Draws:
        getattr(self, f"on_{which}")
        return self._views[which].again()

    def _see(self, which: str, sample: Sample, y: Any) -> DiscriminatorOutput:
        critic = self.passes.get("discriminator", self.D)
        out = DiscriminatorOutput(*map(Tensor.float, critic(self._shown(which, sample), y)))
        self._vectors[which] = self.D.singular_vectors()
        return out

    def _shown(self, which: str, sample: Sample) -> Sample:
        self._views[which] = self.draws.again()
        return self.augment(sample, self.draws)

    @cached_property
    def whole(self) -> Play:
        """The same play over all processes, for a term that couples samples."""
        return _Whole(self)  # type: ignore[return-value]

    def known(self, name: str) -> Any:
        """Return an attribute that a term has asked for, without computing it; None where none has."""
        return vars(self).get(name)

    @property
    def seen(self) -> tuple[DiscriminatorOutput | None, DiscriminatorOutput | None]:
        """What D said of real samples and of fakes; None where no term has asked."""
        return self.known("on_both") or (self.known("on_real"), self.known("on_fake"))

    @property
    def own(self) -> Play:
        """The rows of this process: the play itself, or the one behind `whole`.

        A coupled term computes values of single rows, such as slopes, from these and gathers them (`distributed.gather`).
        """
        return self

    def verdicts(self) -> Logs:
        """Mean logits of whatever has been judged so far."""
        return {name: out.logits.detach().mean() for name, out in zip(("real", "fake"), self.seen, strict=True) if out is not None}


class _Whole:
    """A play whose tensors are those of every process."""

    def __init__(self, play: Play):
        self.own = play
        self.draws = play.draws.whole

    @property
    def D(self) -> Any:
        return _OnWhole(self.own.D)

    def judge(self, sample: Sample, y: Any, like: Literal["real", "fake"] | None = None) -> DiscriminatorOutput:
        """Evaluate D on samples of all processes, in every process."""
        draws = self.own._seen_with(like).whole if like else self.draws
        with distributed.same_rows():
            return self.own._judged(sample, y, draws, like)

    def __getattr__(self, name: str) -> Any:
        return tree_map_only(Tensor, distributed.gather, getattr(self.own, name))


class _OnWhole:
    """A discriminator that each process gives the samples of all processes."""

    def __init__(self, net: Discriminator):
        self.net = net

    def __call__(self, *given: Any, **named: Any) -> DiscriminatorOutput:
        with distributed.same_rows():
            return self.net(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)
