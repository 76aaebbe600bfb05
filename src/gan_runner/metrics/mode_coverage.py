"""Mode coverage and sample quality, for data with known modes. Srivastava et al. 2017; Azadi et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from gan_runner.evaluation.metric import Metric
from gan_runner.game.spec import Spec

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor


def nearest_mode(samples: Tensor, modes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index (N) of the mode (M D) nearest to each sample (N D), and the Euclidean distance (N, float64) to it."""
    distance = (samples.double()[:, None] - modes.double()).square().sum(2).sqrt()  # no matrix product: it would cost the last digits
    nearest, index = distance.min(1)
    return index, nearest


def coverage(counts: Tensor, n: Tensor) -> dict[str, Tensor]:
    """Compute the figures from the number of high-quality samples at each of M modes (counts, M) and of all samples (n).

    covered: modes with at least 1, so that it grows with n. covered_well: modes with at least n / (20 M), a twentieth of their share.
    high_quality: share of all samples. kl: KL divergence in nats of the histogram over modes from the uniform one, 0 (even) ... log M (all
    at one mode), too large by about (M - 1) / (2 counts.sum()); NaN if no sample is of high quality.
    """
    m, p = len(counts), counts / counts.sum()
    return {
        "covered": (counts >= 1).sum().double(),
        "covered_well": ((counts >= n / (20 * m)) & (counts >= 1)).sum().double(),
        "high_quality": counts.sum() / n,
        "kl": torch.where(p == 0, 0, p * (p * m).log()).sum(),
    }


class ModeCoverage(Metric):
    """Number of modes that the samples cover, and share of samples within `radius_sigmas` standard deviations of a mode.

    Real samples have a high_quality of 1 - exp(-radius^2 / 2) in 2-D: 0.999665 at 4. Memory: one number for each mode.
    """

    reads = ("samples",)
    better = {"covered": "max", "covered_well": "max", "high_quality": "max", "kl": "min"}
    coverage = ("covered", "covered_well")
    modes: Tensor
    counts: Tensor
    n: Tensor

    def __init__(self, spec: Spec, radius_sigmas: Annotated[float, Gt(0)] = 4.0):
        super().__init__()
        if spec.exact is None or spec.exact.modes is None:
            raise ValueError(
                "mode_coverage needs data whose modes are known, such as gaussians25 or ring8, and this data set has none; "
                "take it out: ~metric.mode_coverage"
            )
        self.radius = radius_sigmas * spec.exact.sigma
        self.register_buffer("modes", spec.exact.modes.double(), persistent=False)
        self.add_state("counts", torch.zeros(len(spec.exact.modes), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def prefix(self, extractor: Extractor | None) -> str:
        return "modes"

    def update(self, samples: Tensor) -> None:
        index, distance = nearest_mode(samples, self.modes)
        self.counts.index_add_(0, index, (distance <= self.radius).double())
        self.n += len(samples)

    def compute(self) -> dict[str, Tensor]:
        self.near, self.all = float(self.counts.sum()), float(self.n)
        return coverage(self.counts, self.n)

    def notes(self) -> list[str]:
        m, found = len(self.modes), []
        if self.all < 10 * m:
            found.append(f"{self.all:.0f} samples for {m} modes: with fewer than 10 a mode, modes are missed by chance")
        if 0 < self.near < self.all / 2:
            found.append("modes/kl looks at the samples near a mode alone, and these are less than half of all")
        return found

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        covered, share = figures["modes/covered_well"] or 0.0, figures["modes/high_quality"] or 0.0
        return f"{covered:.0f} of {len(self.modes)} modes covered well, {share:.1%} of the samples of high quality"
