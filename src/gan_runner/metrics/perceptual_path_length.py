"""How much samples change along a path between latents. Karras, Laine and Aila 2019, "A Style-Based Generator Architecture"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import Draws, NumberedDraws, noise_behind, seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import exact
from gan_runner.evaluation.metric import Metric
from gan_runner.sampling.subjects import evaluating

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor
    from gan_runner.sampling.subjects import Subject

PAIRS = 250  # that are made at once, or fewer where the extractor takes fewer images


def squared_speed(features: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, t: Tensor, epsilon: float) -> Tensor:
    """Compute |f(z(t + epsilon)) - f(z(t))|^2 / epsilon^2 on the lines z(t) = (1 - t) a + t b from a to b (N Z) at t (N): N, float64.

    `features` maps 2N latents to features (2N F); both ends of a step are in one pass. Latents are computed in float64 and have the dtype
    of a.
    """
    a64, b64, t64 = a.double(), b.double(), t.double()[:, None]
    line = torch.cat([torch.lerp(a64, b64, t64), torch.lerp(a64, b64, t64 + epsilon)])
    before, after = features(line.to(a.dtype)).double().flatten(1).chunk(2)
    return (after - before).square().sum(1) / epsilon**2


class PerceptualPathLength(Metric):
    """Mean squared speed of the features along lines between latents: ppl/<extractor>, and /standard_error.

    E |f(G(z(t + epsilon))) - f(G(z(t)))|^2 / epsilon^2, with z(t) = (1 - t) z_0 + t z_1 for two latents of the prior and t uniform. The
    line is straight in the latent under every prior: of a normal one, latents in the middle are shorter than is usual, and a generator
    with a mapping network is walked in its input. Both ends have one label. Samples are not rounded to 256 levels, which would hide a small
    step. Smoother generators have less; one that makes one sample has 0. Published figures are of the LPIPS features of VGG16.

    UserError for a prior that draws whole numbers, and for features that are not finite. G is in evaluation mode. Cost: 2n samples of G,
    and as many passes of the extractor; every process computes all of them.
    """

    needs = frozenset({"generator", "extractor"})
    better = {"": "min"}

    def __init__(self, n: Annotated[int, Ge(2)] = 10_000, epsilon: Annotated[float, Gt(0)] = 1e-4):
        super().__init__()
        self.n, self.epsilon = n, epsilon

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"ppl/{extractor.name}"

    @torch.no_grad()
    def examine(self, subject: Subject) -> None:
        generator, extractor = subject.generator, self.extractor
        assert generator is not None
        noise_behind(Draws(seeded("ppl"), 1), generator.prior)  # refuses whole numbers
        parts: list[Tensor] = []
        with evaluating(generator), exact(subject.device):
            for indices in torch.arange(self.n).split(max(1, min(PAIRS, extractor.chunk // 2))):
                draws, ends = (
                    NumberedDraws("ppl", end, subject.seed, indices=indices, device=subject.device) for end in ("first", "second")
                )
                a, y = generator.prior(draws), generator.labels(draws)
                both = None if y is None else y.repeat(2)

                def features(z: Tensor, both: Tensor | None = both) -> Tensor:
                    return extractor.extract(generator.show(generator(z.to(subject.device), both)).float()).features.cpu()

                t = draws.uniform()
                parts.append(squared_speed(features, a.cpu(), generator.prior(ends).cpu(), t.cpu(), self.epsilon))
                self.tick(int(indices[-1]) + 1, self.n)
        self.speeds = torch.cat(parts)
        if not self.speeds.isfinite().all():
            raise UserError("ppl: features along the path are not finite; does the generator emit nan?")

    def compute(self) -> dict[str, Tensor]:
        return {"": self.speeds.mean(), "standard_error": self.speeds.std() / math.sqrt(self.n)}
