"""The energy distance between minibatches, with optimal transport as the distance."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.game.loss import Balanced, Loss
from gan_runner.game.play import Logs, Play
from gan_runner.schedules import Schedule

SIGNS = (1.0, 1.0, 1.0, 1.0, -2.0, -2.0)  # of the pairs of `sides`


def sides(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Cut both batches (2N F) into halves x, x' and y, y', and return the pairs of halves to compare: 6 N F and 6 N F."""
    (x, other_x), (y, other_y) = real.chunk(2), fake.chunk(2)
    return torch.stack([x, x, other_x, other_x, x, y]), torch.stack([y, other_y, y, other_y, other_x, other_y])


@torch.no_grad()
def sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Compute transport plans between uniform masses from their costs, P N N, in the log domain.

    Columns of a plan have mass 1/N exactly, rows where the iterations have converged: more of them for smaller epsilon. Nothing is
    differentiated through a plan: at the optimum the slope of the transport by the cost is the plan itself.
    """
    mass, scores = -math.log(cost.shape[-1]), -cost / epsilon
    by_column = torch.zeros_like(scores[:, :1])
    for _ in range(iterations):
        by_row = mass - (scores + by_column).logsumexp(2, keepdim=True)
        by_column = mass - (scores + by_row).logsumexp(1, keepdim=True)
    return (scores + by_row + by_column).exp()


def energy(cost: Tensor, plans: Tensor) -> Tensor:
    """Compute W(x, y) + W(x, y') + W(x', y) + W(x', y') - 2 W(x, x') - 2 W(y, y') from costs and plans of these pairs, 6 N N each."""
    transport = (plans * cost).sum((1, 2))
    return sum(sign * each for sign, each in zip(SIGNS, transport, strict=True))  # type: ignore[return-value]


def missed(plans: Tensor) -> Tensor:
    """Compute the share of the mass that rows of plans (P N N) lack or have too much of, the mean over plans: 0 where they are exact."""
    return (plans.sum(2) - 1 / plans.shape[-1]).abs().sum(1).mean() / 2


class OptimalTransport(Loss):
    """D: -MED^2 of x and G(z);  G: MED^2, the minibatch energy distance of `energy`. Salimans et al. 2018 (OT-GAN).

    The cost of two samples is 1 - the cosine of their features of D. The two batches of each kind are the halves of the batch of all
    processes. W is <plan, cost>, the plan from `iterations` of Sinkhorn's algorithm at `epsilon`. `loss/missed` logs the share of the
    mass that the plans put wrongly: where it is not small, take more iterations or a larger epsilon. D's logit is not trained, and
    refiners learn nothing from it. Let G move three times for each move of D, as the paper does (rule.g_steps=3): otherwise D
    wins.
    """

    coupled = True
    shift_invariant = True

    def __init__(
        self,
        epsilon: Annotated[float, Gt(0)] = 0.002,
        iterations: Annotated[int, Ge(1)] = 100,
        generator_weight: float | Schedule | Balanced = 1.0,
    ):
        super().__init__(generator_weight)
        self.epsilon, self.iterations = epsilon, iterations
        self.missed: Tensor | None = None

    def check(self, batch_size: int) -> None:
        if batch_size % 2:
            raise ValueError(f"optimal_transport compares the halves of a batch, and batch_size={batch_size} is odd: use an even one")

    def distance(self, play: Play) -> Tensor:
        """Compute MED^2."""
        real, fake = (F.normalize(out.features, dim=1) for out in play.on_both)
        with torch.autocast(real.device.type, enabled=False):
            one, other = sides(real, fake)
            cost = 1 - one @ other.mT
            plans = sinkhorn(cost, self.epsilon, self.iterations)
            self.missed = missed(plans)
            return energy(cost, plans)

    def discriminator(self, play: Play) -> Tensor:
        return -self.distance(play)

    def generator(self, play: Play) -> Tensor:
        return self.distance(play)

    def logs(self) -> Logs:
        logs, self.missed = {} if self.missed is None else {"missed": self.missed}, None
        return logs
