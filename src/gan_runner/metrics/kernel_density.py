"""Kernel density estimates of points, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import chosen
from gan_runner.evaluation.metric import Metric
from gan_runner.game.spec import Spec
from gan_runner.metrics.parzen import finite, window_log_density

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor


class KernelDensity(Metric):
    """Mean log density, in nats, of fakes under a Gaussian kernel density estimate of real test points, and of real under fake.

    fake_under_real falls if fakes are far from the data. real_under_fake falls if parts of the data are not covered; only it shows a
    collapse. Compare both with the values of real points: N(0, s^2 I) in D dimensions against itself, in the limit of many points, has
    -D/2 log(2 pi (s^2 + h^2)) - D s^2 / (2 (s^2 + h^2)). bandwidth: h, in units of the data; n_real: maximum number of test points, a
    fixed random choice. Memory: the fakes and under 200 MB.
    """

    reads = ("samples",)
    needs = frozenset({"reference"})
    better = {"real_under_fake": "max"}  # the other one is highest where all fakes are at the densest point
    fakes: list[Tensor]

    def __init__(self, spec: Spec, bandwidth: Annotated[float, Gt(0)] = 0.1, n_real: Annotated[int, Ge(1)] = 10_000):
        super().__init__()
        if len(spec.shape) != 1:
            raise ValueError("kernel_density is for points, such as ring8 or swiss_roll; for images there is 'metric=[parzen]'")
        self.bandwidth, self.n_real = bandwidth, n_real
        self.add_state("fakes", [], dist_reduce_fx="cat")

    def prefix(self, extractor: Extractor | None) -> str:
        return "kde"

    def update(self, samples: Tensor) -> None:
        self.fakes.append(finite(samples.detach().float()))

    def compute(self) -> dict[str, Tensor]:
        fakes, test = torch.cat(self.fakes), self.reference.of("test")
        real = test.at(chosen(self.n_real, test.n, "kde", "test")).to(fakes.device)
        return {
            "fake_under_real": window_log_density(fakes, real, [self.bandwidth]).mean(),
            "real_under_fake": window_log_density(real, fakes, [self.bandwidth]).mean(),
        }
