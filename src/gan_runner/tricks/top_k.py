"""Training of G on its best samples."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt, Le
from torch import Tensor

from gan_runner.game.play import DiscriminatorOutput, Play
from gan_runner.game.term import Term
from gan_runner.game.trick import Part, Trick
from gan_runner.schedules import Schedule, schedule
from gan_runner.tricks.shown import Shown, View

if TYPE_CHECKING:
    from gan_runner.game.game import Game

Share = Annotated[float, Gt(0), Le(1)] | Schedule


class Best(View):
    """A play in which only the samples with the highest logits, a share of all, hand a gradient to G."""

    def __init__(self, play: Play, share: Tensor):
        super().__init__(play)
        self.share = share

    def cut(self, out: DiscriminatorOutput) -> DiscriminatorOutput:
        """Return the same values. The gradients of the k best samples are multiplied by n/k, those of the others by 0."""
        n = len(out.logits)
        rank = out.per_sample.detach().argsort(descending=True, stable=True).argsort()
        k = (self.share * n).round().clamp(1, n)
        weight = (rank < k) * (n / k)

        def weighted(value: Tensor) -> Tensor:
            still = value.detach()
            return still + weight.view(-1, *[1] * (value.dim() - 1)) * (value - still)

        return DiscriminatorOutput(*map(weighted, out))

    @cached_property
    def on_fake(self) -> DiscriminatorOutput:
        return self.cut(self.play.on_fake)

    @cached_property
    def on_both(self) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        real, fake = self.play.on_both
        return real, self.cut(fake)


class BestOnly(Shown):
    """A loss of which G's part follows the best samples. It is computed from the samples of all processes, which are ranked together."""

    def __init__(self, loss: Term, share: Schedule):
        super().__init__(loss)
        self.share, self.coupled = share, True

    def view(self, side: str, play: Play) -> Any:
        return Best(play, self.share.value) if side == "generator" else play


class TopK(Trick):
    """G follows only those of its samples that D takes for the most real: a `share` of the batch of all processes. Sinha et al. 2020.

    The gradient of a loss that is a mean is that of the mean over these samples. The loss that is logged is that of all samples.
    """

    def __init__(self, share: Share = 0.5):
        super().__init__()
        self.share = schedule(share)

    def build(self, game: Game) -> None:
        if game.accumulate > 1:
            raise ValueError(f"trainer.accumulate={game.accumulate} cuts the batch, and top_k ranks all of it: use accumulate=1")

    def wrap(self, part: Part, name: str) -> Any:
        return BestOnly(part, self.share) if name == "loss" else part  # type: ignore[arg-type]
