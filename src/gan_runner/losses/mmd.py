"""The maximum mean discrepancy of D's features."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.game.loss import Balanced, Loss
from gan_runner.game.play import Play
from gan_runner.penalties.gradient import between, slopes
from gan_runner.schedules import Schedule

Positive = Annotated[float, Gt(0)]
Kernel = Callable[[Tensor, Sequence[float]], Tensor]  # of squared distances, summed over parameters


def rational_quadratic(squares: Tensor, alphas: Sequence[float]) -> Tensor:
    """Compute sum over alpha of (1 + |a - b|^2 / (2 alpha))^-alpha."""
    return torch.stack([(torch.log1p(squares / (2 * alpha)) * -alpha).exp() for alpha in alphas]).sum(0)  # faster than a power


def rbf(squares: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Compute sum over h of exp(-|a - b|^2 / (2 h^2))."""
    return torch.stack([(squares / (-2 * h**2)).exp() for h in bandwidths]).sum(0)


KERNELS: dict[str, Kernel] = {"rational_quadratic": rational_quadratic, "rbf": rbf}


def squared_distances(rows: Tensor, others: Tensor | None = None) -> Tensor:
    """Compute |a - b|^2 of all pairs of rows (N F) with the others (M F; None: themselves); N M. It is made of products, which lose fewest
    digits around the mean of the rows."""
    with torch.autocast(rows.device.type, enabled=False):
        centre = rows.mean(0)
        one = rows - centre
        other = one if others is None else others - centre
        return (one.square().sum(1)[:, None] + other.square().sum(1) - 2 * one @ other.T).clamp_min(0)


def unbiased_mmd(kernel: Tensor) -> Tensor:
    """Compute MMD^2 from the kernel of all pairs of N samples and N others, 2N 2N, without those of a sample with itself."""
    n = len(kernel) // 2
    within, between = kernel[:n, :n].sum() + kernel[n:, n:].sum() - kernel.trace(), kernel[:n, n:].sum()
    return within / (n * (n - 1)) - 2 * between / n**2


class MMD(Loss):
    """D: -MMD^2 of f(x) and f(G(z));  G: MMD^2. f: the features of D. Li et al. 2017; rational quadratic: Binkowski et al. 2018.

    MMD^2 = E k(f(x), f(x')) + E k(f(y), f(y')) - 2 E k(f(x), f(y)), y = G(z), over all pairs of different samples of the batch of all
    processes: unbiased, so that it may be below 0. k is the sum of `kernel` over `alphas` or `bandwidths`.

    gp: D's objective has gp E (|dw/dx| - 1)^2 as well, at points between real samples and fakes, w(x) = E k(f(x), f(x')) - E k(f(x), f(y))
    the witness function of the batch (Binkowski et al. 2018, who let D move 5 times). Something has to keep the features Lipschitz: with
    gp=0 that is the trick spectral_norm or weight_clip. Penalties on the slope of D's logit do not limit them. The logit is not trained,
    and refiners learn nothing from it. gp is 0 where it is not given, as in runs that were saved before it existed; new runs have 1.
    """

    coupled = True
    shift_invariant = True

    def __init__(
        self,
        kernel: Literal["rational_quadratic", "rbf"] = "rational_quadratic",
        alphas: tuple[Positive, ...] = (0.2, 0.5, 1.0, 2.0, 5.0),
        bandwidths: tuple[Positive, ...] = (1.0, 2.0, 4.0, 8.0, 16.0),
        gp: Annotated[float, Ge(0)] = 0.0,
        generator_weight: float | Schedule | Balanced = 1.0,
    ):
        super().__init__(generator_weight)
        self.gp = gp
        self.kernel, self.parameters_of_kernel = KERNELS[kernel], alphas if kernel == "rational_quadratic" else bandwidths
        if not self.parameters_of_kernel:
            raise ValueError(f"kernel={kernel} needs one of {'alphas' if kernel == 'rational_quadratic' else 'bandwidths'} or more")

    def check(self, batch_size: int) -> None:
        if batch_size < 2:
            raise ValueError("mmd compares pairs of samples, and batch_size=1 has none: use batch_size=2 or more")

    def discrepancy(self, play: Play) -> Tensor:
        """Compute MMD^2."""
        real, fake = (out.features for out in play.on_both)
        return unbiased_mmd(self.kernel(squared_distances(torch.cat([real, fake])), self.parameters_of_kernel))

    def witness(self, features: Tensor, play: Play) -> Tensor:
        """Compute E k(f, f(x)) - E k(f, f(y)) of features f, N F: it is high where real samples are dense, y = G(z)."""
        real, fake = (self.kernel(squared_distances(features, out.features), self.parameters_of_kernel).mean(1) for out in play.on_both)
        return real - fake

    def discriminator(self, play: Play) -> Tensor:
        value = -self.discrepancy(play)
        if self.gp:
            norm = torch.linalg.vector_norm(slopes(play, between(play), play.y, lambda out: self.witness(out.features, play)), dim=1)
            value = value + self.gp * (norm - 1).square().mean()
        return value

    def generator(self, play: Play) -> Tensor:
        return self.discrepancy(play)
