"""What a move may minimise."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gan_runner.game.play import Logs, Play
from gan_runner.game.spec import Spec


class Term(nn.Module):
    """A summand of the players' objectives: a loss, or a penalty that is added to it.

    A subclass overrides `discriminator`, `generator` or both; each returns a scalar to be minimised, or None where it has nothing to say.
    """

    owner: str = "discriminator"
    """Whose optimiser trains this term's own weights; the generator's where that player is absent."""

    coupled: bool = False
    """True where the term is no mean over samples: it is handed `play.whole`, the play of all processes, and refuses micro-batches."""

    labelled: bool = False
    """True where it reads the labels of real samples, `play.y`: refused with data that have none."""

    paired: bool = False
    """True where it compares fake i with real i: a conditional G then makes its samples for the labels of the real ones."""

    averaged: bool = False
    """True where it reads the average of G, `play.average`: refused without a trick that keeps one."""

    shift_invariant: bool = False
    """True where its part for D stays the same when a constant is added to all logits: then the zero of a logit means nothing."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    def build(self, spec: Spec, nets: Mapping[str, nn.Module]) -> None:
        """Make what depends on the data and on the networks, such as a head on D's features.

        nets: "generator" and, where the architecture has one, "discriminator". ValueError where the term cannot work with them, in words
        that name the way out.
        """

    def check(self, batch_size: int) -> None:
        """Raise ValueError where the term cannot work with batches of this size, counted over all processes."""

    def due(self, step: int) -> bool:
        """Return whether the round `step` carries this term."""
        return True

    def discriminator(self, play: Play) -> Tensor | None:
        """Compute the summand of D's objective, a scalar; None where there is none."""
        return None

    def generator(self, play: Play) -> Tensor | None:
        """Compute the summand of G's objective, a scalar; None where there is none."""
        return None

    @property
    def balanced(self) -> Any:
        """What weighs the summand by gradients of the whole batch, so that micro-batches are refused; None: nothing does."""
        return None

    def weighed(self, side: str, value: Tensor, summands: Mapping[str, Tensor], net: nn.Module) -> Tensor:
        """Weigh the summand of a player, given all summands of its objective and its network."""
        return value

    def logs(self) -> Logs:
        """Return more scalars to log, by name, after a summand was computed: they are logged as TERM/NAME."""
        return {}

    def has_summand(self, side: str) -> bool:
        """Return whether the term adds something to the objective of this player."""
        return getattr(type(self), side) is not getattr(Term, side)


def takes_discriminator(term: Term) -> bool:
    """Return whether `build` has the signature that it had until version 0.1, (spec, discriminator). Version 0.2 is the last to call it."""
    return "discriminator" in inspect.signature(term.build).parameters
