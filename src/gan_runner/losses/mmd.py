"""The maximum mean discrepancy of D's features."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.game.loss import Balanced, Loss
from gan_runner.game.play import Play
from gan_runner.schedules import Schedule

Positive = Annotated[float, Gt(0)]
Kernel = Callable[[Tensor, Sequence[float]], Tensor]  # of squared distances, summed over parameters


def rational_quadratic(squares: Tensor, alphas: Sequence[float]) -> Tensor:
    """Compute sum over alpha of (1 + |a - b|^2 / (2 alpha))^-alpha."""
    return torch.stack([(1 + squares / (2 * alpha)).pow(-alpha) for alpha in alphas]).sum(0)


def rbf(squares: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Compute sum over h of exp(-|a - b|^2 / (2 h^2))."""
    return torch.stack([(squares / (-2 * h**2)).exp() for h in bandwidths]).sum(0)


KERNELS: dict[str, Kernel] = {"rational_quadratic": rational_quadratic, "rbf": rbf}


def squared_distances(rows: Tensor) -> Tensor:
    """Compute |a - b|^2 of all pairs of rows (N F); N N. It is made of products, which lose fewest digits around the mean of the rows."""
    with torch.autocast(rows.device.type, enabled=False):
        centred = rows - rows.mean(0)
        norms = centred.square().sum(1)
        return (norms[:, None] + norms - 2 * centred @ centred.T).clamp_min(0)


def unbiased_mmd(kernel: Tensor) -> Tensor:
    """Compute MMD^2 from the kernel of all pairs of N samples and N others, 2N 2N, without those of a sample with itself."""
    n = len(kernel) // 2
    within, between = kernel[:n, :n].sum() + kernel[n:, n:].sum() - kernel.trace(), kernel[:n, n:].sum()
    return within / (n * (n - 1)) - 2 * between / n**2


class MMD(Loss):
    """D: -MMD^2 of f(x) and f(G(z));  G: MMD^2. f: the features of D. Li et al. 2017; rational quadratic: Binkowski et al. 2018.

    MMD^2 = E k(f(x), f(x')) + E k(f(y), f(y')) - 2 E k(f(x), f(y)), y = G(z), over all pairs of different samples of the batch of all
    processes: unbiased, so that it may be below 0. k is the sum of `kernel` over `alphas` or `bandwidths`.

    Something has to keep the features Lipschitz: the trick spectral_norm or weight_clip. Penalties on the slope of D's logit do not limit
    them. The logit is not trained, and refiners learn nothing from it.
    """

    coupled = True
    shift_invariant = True

    def __init__(
        self,
        kernel: Literal["rational_quadratic", "rbf"] = "rational_quadratic",
        alphas: tuple[Positive, ...] = (0.2, 0.5, 1.0, 2.0, 5.0),
        bandwidths: tuple[Positive, ...] = (1.0, 2.0, 4.0, 8.0, 16.0),
        generator_weight: float | Schedule | Balanced = 1.0,
    ):
        super().__init__(generator_weight)
        self.kernel, self.parameters_of_kernel = KERNELS[kernel], alphas if kernel == "rational_quadratic" else bandwidths
        if not self.parameters_of_kernel:
            raise ValueError(f"kernel={kernel} needs one of {'alphas' if kernel == 'rational_quadratic' else 'bandwidths'} or more")

    def discrepancy(self, play: Play) -> Tensor:
        """Compute MMD^2. UserError for a batch of one sample, which has no pairs."""
        real, fake = (out.features for out in play.on_both)
        if len(real) < 2:
            raise UserError("mmd compares pairs of samples, and batch_size=1 has none: use batch_size=2 or more")
        return unbiased_mmd(self.kernel(squared_distances(torch.cat([real, fake])), self.parameters_of_kernel))

    def discriminator(self, play: Play) -> Tensor:
        return -self.discrepancy(play)

    def generator(self, play: Play) -> Tensor:
        return self.discrepancy(play)
