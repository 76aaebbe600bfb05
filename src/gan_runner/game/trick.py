"""What changes the way the game is played: what is built, seen or kept. A trick changes the result of training; a callback must not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from gan_runner.draws import Draws
from gan_runner.tree import Sample

if TYPE_CHECKING:
    from gan_runner.game.game import Game, Player
    from gan_runner.game.network import Generator
    from gan_runner.game.play import Logs, Play
    from gan_runner.game.term import Term


Part = TypeVar("Part", bound=nn.Module)


class Trick(nn.Module):
    """All verbs are optional; tricks are applied in the order of the list."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    averages: Mapping[float, Generator] = MappingProxyType({})
    """The averages of G that it keeps, by their half-life in thousand images."""

    def wrap(self, part: Part, name: str) -> Part:
        """Change a network ("generator", "discriminator") or a term (its key) before there are optimisers."""
        return part

    def build(self, game: Game) -> None:
        """Look at the game once it is there: its data, its players, the sizes of its batches.

        ValueError where the trick cannot work with them, in words that name the way out.
        """

    def prepare(self, game: Game) -> None:
        """Decide on the host before every round, also where rounds are replayed: read tensors, change the state in place."""

    def augment(self, sample: Sample, draws: Draws) -> Sample:
        """Change what D is shown, real and fake alike."""
        return sample

    def watch(self, play: Play, player: Player) -> None:
        """Look at a play of `player` that has been differentiated, without gradients, on the device.

        It is called once for each micro-batch, and must not draw or ask the play for what no term has computed.
        """

    def before_step(self, player: Player) -> None:
        """Change the averaged gradients of `player` before its optimiser steps."""

    def after_step(self, player: Player) -> None:
        """Change the weights of `player` after its optimiser has stepped."""

    def after_round(self, game: Game) -> Logs:
        """Act after a round; the returned scalars are logged."""
        return {}

    def sampler(self, generator: Generator) -> Generator:
        """Return the generator whose samples are measured.

        One that shares all weights with the given one, and differs in its buffers, names it: `stands_for = (generator,)`.
        """
        return generator


class Augmentation(Trick):
    """A trick that changes what D is shown, and does nothing else. Another part may have one below it and call `augment` itself."""

    def augment(self, sample: Sample, draws: Draws) -> Sample:
        raise NotImplementedError


def wrapped(
    tricks: Mapping[str, Trick], nets: dict[str, nn.Module], terms: dict[str, Term]
) -> tuple[dict[str, nn.Module], dict[str, Term]]:
    """Let tricks wrap networks and terms, in their order. ValueError for one that changes D.features, for which terms were built."""
    for key, trick in tricks.items():
        before = getattr(nets.get("discriminator"), "features", None)
        nets = {name: trick.wrap(net, name) for name, net in nets.items()}
        terms = {name: trick.wrap(term, name) for name, term in terms.items()}
        now = getattr(nets.get("discriminator"), "features", None)
        if now != before:
            raise ValueError(f"trick.{key} changes D.features from {before} to {now}, and terms were built for {before}")
    return nets, terms
