"""What a move may minimise."""

from torch import Tensor, nn

from gan_runner.game.network import Discriminator
from gan_runner.game.play import Play
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
    """True where it reads `play.fake_y`: refused with a generator that is not conditional."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    def build(self, spec: Spec, discriminator: Discriminator | None) -> None:
        """Make what depends on the data and on D's features (a head)."""

    def due(self, step: int) -> bool:
        """Whether the round `step` carries this term."""
        return True

    def discriminator(self, play: Play) -> Tensor | None:
        """What is added to D's objective."""
        return None

    def generator(self, play: Play) -> Tensor | None:
        """What is added to G's objective."""
        return None
