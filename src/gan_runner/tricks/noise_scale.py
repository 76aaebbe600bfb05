"""How noisy gradients are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from gan_runner import distributed
from gan_runner.game.trick import Trick

if TYPE_CHECKING:
    from gan_runner.game.game import Game, Player
    from gan_runner.game.play import Logs, Play

MOST = 1e9  # what is logged where no gradient is left beside the noise


class Seen(NamedTuple):
    """What the micro-batches of one step have shown so far."""

    total: list[Tensor]  # the gradient, summed over them
    last: Tensor  # |what the last of them added|^2
    before: Tensor  # the same, summed over those before
    n: int


def square(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).square().sum()  # type: ignore[attr-defined]


class NoiseScale(Trick):
    """Log the noise scale of each player, noise/g and noise/d: the batch size at which noise is as large as the gradient.

    McCandlish et al. 2018: B = tr S / |G|^2, S the covariance of the gradient of one sample, G its mean. With the squared norm of the
    gradient of a micro-batch of b samples and that of the batch of B samples, |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b) and
    tr S = (|g_b|^2 - |g_B|^2) / (1/b - 1/B). Both are averaged over steps, as decay average + (1 - decay) new. It changes no weight.
    """

    def __init__(self, decay: Annotated[float, Ge(0), Lt(1)] = 0.99):
        super().__init__()
        self.decay = decay
        self.seen: dict[str, Seen] = {}

    def build(self, game: Game) -> None:
        if game.accumulate < 2:
            raise ValueError("noise_scale compares the gradients of micro-batches with that of the batch: use trainer.accumulate=2 or more")
        self.small, self.large = game.micro_batch_size, game.batch_size
        for name in game.rule.players:
            self.register_buffer(name, torch.zeros(2, device=game.generator.device))  # tr S and |G|^2

    def watch(self, play: Play, player: Player) -> None:
        total = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in player.weights()]
        if player.name not in self.seen:
            zero = total[0].new_zeros(())
            self.seen[player.name] = Seen(total, square(total), zero, 1)
        else:
            old = self.seen[player.name]
            added = square(torch._foreach_sub(total, old.total))  # type: ignore[arg-type]
            self.seen[player.name] = Seen(total, added, old.before + old.last, old.n + 1)

    @torch.no_grad()
    def before_step(self, player: Player) -> None:
        seen = self.seen.pop(player.name)
        # the last micro-batch is left out: several processes average its gradient with theirs before it can be seen
        of_small = distributed.mean({"small": seen.before * (seen.n**2 / (seen.n - 1))})["small"]
        of_large, b, B = square(seen.total), self.small, self.large
        trace, mean = (of_small - of_large) / (1 / b - 1 / B), (B * of_large - b * of_small) / (B - b)
        average = getattr(self, player.name)
        found = average.lerp(torch.stack([trace, mean]), 1 - self.decay)
        average.copy_(torch.where(found.isfinite().all(), found, average))

    def after_round(self, game: Game) -> Logs:
        logs: Logs = {}
        for name in game.rule.players:
            trace, mean = getattr(self, name).clamp_min(0).unbind()
            logs[f"noise/{name[0]}"] = (trace / mean.clamp_min(1e-30)).clamp(max=MOST)
        return logs
