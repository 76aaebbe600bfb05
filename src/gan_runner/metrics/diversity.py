"""How similar the samples are to each other. Wang, Simoncelli and Bovik 2003; Odena, Olah and Shlens 2017."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.metric import Metric
from gan_runner.game.spec import Spec
from gan_runner.sampling.subjects import finite

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor
    from gan_runner.sampling.subjects import Subject

WINDOW, DEVIATION = 11, 1.5  # of the Gaussian, in pixels
C1, C2 = 0.01**2, 0.03**2  # for pixels in [0, 1]
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
CHUNK = 2**20  # numbers in the images of the pairs compared at once, which bounds memory to some 100 MB
BLOCK = 500  # samples made at once where only their labels matter


def scales_of(height: int, width: int) -> int:
    """Count the scales at which the window fits: 5 (the most) from 161 pixels on the shorter side, 4 from 81, 3 from 41, 2 from 21.

    0 below 11.
    """
    side, scales = min(height, width), 0
    while side >= WINDOW and scales < len(WEIGHTS):
        side, scales = -(-side // 2), scales + 1
    return scales


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Compute the multi-scale structural similarity of pairs of images (N C H W, in [0, 1]): N, float64, from 0 to 1 (equal images).

    The product over scales s of cs_s ^ w_s, and of l at the coarsest. Both are means over channels and windows inside the image, with

        cs = (2 cov(a, b) + C2) / (var a + var b + C2)      l cs = cs (2 mean a mean b + C1) / (mean a^2 + mean b^2 + C1)

    Each scale is the 2x2 mean of the previous one (at an odd edge, of the pixels that exist). A negative mean counts as 0. Images of less
    than 161 pixels have fewer scales (`scales_of`), and the weights are divided by their sum. ValueError below 11 pixels.

    torchmetrics' function differs: at the coarsest scale only, it includes windows beyond the edge, filled by reflection. On digits at
    one scale it returns 0.41, this function 0.20.
    """
    if a.shape != b.shape or a.ndim != 4 or not (scales := scales_of(*a.shape[2:])):
        raise ValueError(f"pairs of images are N C H W of at least {WINDOW} pixels a side, not {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.double(), b.double()
    weights = torch.tensor(WEIGHTS[:scales], dtype=a.dtype, device=a.device)
    product = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(weights / weights.sum(), 1):
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = (blur(x * x) - mean * mean for x, mean in ((a, mean_a), (b, mean_b)))
        similarity = (2 * (blur(a * b) - mean_a * mean_b) + C2) / (var_a + var_b + C2)
        if scale == scales:
            similarity = similarity * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        product = product * similarity.flatten(1).mean(1).relu() ** weight
        a, b = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (a, b))
    return product


def blur(x: Tensor) -> Tensor:
    """Average N C H W under a Gaussian window, at every position inside the image: N C H-10 W-10."""
    line = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    line = (-(line**2) / (2 * DEVIATION**2)).softmax(0)
    height, width = (band(line, n) for n in x.shape[2:])
    return height @ x @ width.T  # products with band matrices: ten times as fast as convolutions in float64


def band(line: Tensor, n: int) -> Tensor:
    """Build the band matrix n-10 n: row i contains the window from column i on."""
    rows = torch.zeros(n - WINDOW + 1, n, dtype=line.dtype, device=line.device)
    for k, weight in enumerate(line):
        rows.diagonal(k).fill_(weight)
    return rows


def random_pairs(n: int, pairs: int, generator: torch.Generator, labels: Tensor | None = None) -> Tensor:
    """Draw `pairs` pairs of different samples of one label (None: of all n). Returns indices, 2 pairs.

    The first is uniform over samples that have a partner, the second over its partners. ValueError where there is no pair.
    """
    y = torch.zeros(n, dtype=torch.int64) if labels is None else labels.cpu()
    order = y.argsort(stable=True)
    _, group, sizes = y[order].unique_consecutive(return_inverse=True, return_counts=True)
    starts = sizes.cumsum(0) - sizes
    eligible = (sizes[group] > 1).nonzero()[:, 0]
    if not len(eligible):
        raise ValueError("there are no two samples" + ("" if labels is None else " of one label"))
    first = eligible[torch.randint(len(eligible), (pairs,), generator=generator)]
    start, size = starts[group[first]], sizes[group[first]]
    step = 1 + (torch.rand(pairs, generator=generator, dtype=torch.float64) * (size - 1)).long()  # 1 ... size - 1: never itself
    return torch.stack([order[first], order[start + (first - start + step) % size]])


class MSSSIM(Metric):
    """Mean MS-SSIM of random pairs of fakes: ms_ssim; the higher, the less diverse. Of real pairs: ms_ssim/real, the value to reach.

    If samples and real samples have labels, both of a pair have the same one; UserError if their classes differ. The pairs depend on the
    seed of the samples. ms_ssim/scales: how many scales the size of the images allows; do not compare figures of different sizes.
    Samples are generated a second time, two for each pair, and once more with labels. Memory: some 100 MB.
    """

    needs = frozenset({"reference"})
    better = None  # best where it is that of real pairs

    def __init__(self, spec: Spec, pairs: Annotated[int, Gt(0)] = 10_000):
        super().__init__()
        if not spec.kind.bounded or not scales_of(*spec.shape[1:]):
            raise ValueError(
                f"ms_ssim needs images of at least {WINDOW} x {WINDOW} pixels, and this data set has none; take it out: ~metric.ms_ssim"
            )
        self.pairs, self.scales, self.chunk = pairs, scales_of(*spec.shape[1:]), max(1, CHUNK // math.prod(spec.shape))
        self.found: dict[str, Tensor] = {}

    def prefix(self, extractor: Extractor | None) -> str:
        return "ms_ssim"

    def examine(self, subject: Subject) -> None:
        labels, real_labels = None, self.reference.labels if subject.labelled else None
        if real_labels is not None:
            labels = torch.cat([y.cpu() for _, y in subject.batches(range(subject.n), BLOCK) if y is not None])
        fake = self.mean("fake", subject.n, labels, subject.seed, lambda indices: finite(subject.at(indices)[0]))
        real = self.mean("real", self.reference.n, None if labels is None else real_labels, subject.seed, self.reference.at)
        self.found = {"": fake, "real": real}

    def mean(self, kind: str, n: int, labels: Tensor | None, seed: int, at: Callable[[Tensor], Tensor]) -> Tensor:
        """Average over the pairs of one kind, of n samples that `at` returns by index. UserError where there is no pair."""
        try:
            pairs = random_pairs(n, self.pairs, seeded("pairs", kind, seed), labels)
        except ValueError as error:
            raise UserError(f"ms_ssim of {kind} samples: {error}") from error
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in pairs.split(self.chunk, dim=1):
            images = (at(part.flatten()).to(self.device) + 1) / 2
            total += ms_ssim(*images.chunk(2)).sum()
        return total / self.pairs

    def compute(self) -> dict[str, Tensor]:
        return self.found | {"scales": torch.tensor(float(self.scales), dtype=torch.float64)}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        fake, real = (figures.get(key) or float("nan") for key in ("ms_ssim", "ms_ssim/real"))
        return f"MS-SSIM {fake:.3f} between samples, {real:.3f} between real ones ({self.scales} of {len(WEIGHTS)} scales)"
