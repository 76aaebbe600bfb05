"""A new start for a run that collapsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from gan_runner import distributed, tree
from gan_runner.game.trick import Trick
from gan_runner.reporting import notice
from gan_runner.tree import Sample

if TYPE_CHECKING:
    from gan_runner.game.game import Game, Player
    from gan_runner.game.play import Logs, Play

ROWS = 64  # samples of which distances are computed


def spread(sample: Sample) -> Tensor:
    """Compute the mean distance between samples of all processes, at the finest scale."""
    rows = distributed.gather(tree.leaves(sample)[-1][:ROWS].flatten(1))
    return torch.pdist(rows[:ROWS]).mean()


class RestartOnCollapse(Trick):
    """Start again from other first weights, with lower learning rates, when the samples of G have become nearly the same.

    Every `every` rounds the mean distance between samples of G is compared with that between real ones: below `ratio` times it for
    `patience` checks in a row is a collapse. Then weights, averages and all else that was learnt are those of a new run, drawn by the seed
    and the number of the restart; optimisers are empty; learning rates, and their schedules, are multiplied by `factor`. Rounds, schedules
    and the log go on, and best.pt may stay that of an earlier attempt. At most `times` restarts: after them the run goes on as it is.
    """

    distances: Tensor
    bad: Tensor
    restarts: Tensor
    checked: Tensor

    def __init__(
        self,
        ratio: Annotated[float, Gt(0), Lt(1)] = 0.1,
        every: Annotated[int, Ge(1)] = 100,
        patience: Annotated[int, Ge(1)] = 3,
        factor: Annotated[float, Gt(0), Lt(1)] = 0.5,
        times: Annotated[int, Ge(1)] = 3,
    ):
        super().__init__()
        self.ratio, self.every, self.patience, self.factor, self.times = ratio, every, patience, factor, times
        self.register_buffer("distances", torch.ones(2))  # between samples of G, between real ones
        for name in ("bad", "restarts", "checked"):  # checks in a row; restarts; the round of the last check
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def build(self, game: Game) -> None:
        if "discriminator" not in game.rule.players:
            raise ValueError("restart_on_collapse looks at what D is trained on, and no D moves: drop the trick")
        if game.micro_batch_size * distributed.size() < 2:
            raise ValueError("restart_on_collapse compares samples of a batch, and there is one at a time: use a larger batch_size")
        if game.again is None:
            raise ValueError("restart_on_collapse draws other first weights, and those of this run are given (init_from): drop the trick")
        if game.G.overrides("initialise"):
            raise ValueError("restart_on_collapse draws other first weights, and this generator sets its own from data: drop the trick")

    def watch(self, play: Play, player: Player) -> None:
        real, fake = play.known("real"), play.known("fake")
        if player.name == "discriminator" and real is not None and fake is not None:
            self.distances.copy_(torch.stack([spread(fake), spread(real)]))

    def prepare(self, game: Game) -> None:
        if game.step == 0 or game.step % self.every or int(self.checked) == game.step:
            return
        self.checked.fill_(game.step)
        fake, real = self.distances.tolist()
        self.bad.copy_(self.bad + 1 if fake < self.ratio * real else torch.zeros_like(self.bad))
        if int(self.bad) >= self.patience and int(self.restarts) < self.times:
            self.restart(game, fake / real)

    def restart(self, game: Game, now: float) -> None:
        """Make the state of the game that of a new one, but for the round, its random numbers and the learning rates."""
        assert game.again is not None
        number = int(self.restarts) + 1
        factors = {name: player.hyperparameters.rate_factor * self.factor for name, player in game.players.items()}
        state = game.again(number).state_dict()
        game.load_state_dict(state | {"_extra_state": game.get_extra_state()})
        for name, player in game.players.items():
            player.scale_rate(factors[name])
        self.restarts.fill_(number)
        self.checked.fill_(game.step)
        if distributed.is_first():
            notice.warning(
                "round %d: samples of G are %.2g times as far from each other as real ones, a collapse: restart %d of %d, with learning "
                "rates x %g",
                game.step, now, number, self.times, self.factor,
            )  # fmt: skip

    def after_round(self, game: Game) -> Logs:
        return {"collapse/ratio": self.distances[0] / self.distances[1].clamp_min(1e-12), "collapse/restarts": self.restarts.float()}
