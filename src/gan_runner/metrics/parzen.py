"""Log-likelihood under a Gaussian Parzen window around the samples. Breuleux et al. 2011; Goodfellow et al. 2014."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import chosen
from gan_runner.errors import UserError
from gan_runner.evaluation.metric import Metric

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

PAIRS = 2**22  # distances that are held at once: 34 MB, and a few times that on the way to a sum


def window_log_density(points: Tensor, centres: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Compute log 1/N sum_j N(x; c_j, sigma^2 I) in nats, S M float64, for S sigmas, points M D and centres N D; distances only once.

    Memory: under 200 MB beside points and centres in float64. ValueError without a centre, or if a number is not finite.
    """
    points, centres = points.double(), centres.double()
    if len(centres) == 0:
        raise ValueError("a Parzen window needs at least one centre")
    if not (points.isfinite().all() and centres.isfinite().all()):
        raise ValueError("points or centres of a Parzen window are not finite")
    n, dimensions = centres.shape
    middle = centres.mean(0)  # squares of large numbers would cost the digits of their difference
    points, centres = points - middle, centres - middle
    norms = centres.square().sum(1)
    found = []
    for part in points.split(max(1, PAIRS // n)):
        squares = (norms + part.square().sum(1, keepdim=True) - 2 * part @ centres.T).clamp_min(0)
        found.append(torch.stack([torch.logsumexp(squares / (-2 * sigma**2), 1) for sigma in sigmas]))
    constants = [math.log(n) + dimensions / 2 * math.log(2 * math.pi * sigma**2) for sigma in sigmas]
    return torch.cat(found, 1) - points.new_tensor(constants).unsqueeze(1)


def flattened(x: Tensor) -> Tensor:
    """Flatten samples to rows N D: images (N C H W in [-1, 1]) scaled to [0, 1], as in the protocol of 2014; points unchanged."""
    return ((x + 1) / 2).flatten(1) if x.ndim == 4 else x.flatten(1)


def finite(x: Tensor) -> Tensor:
    """Return x; UserError if samples are not finite."""
    if not x.isfinite().all():
        raise UserError("there are samples that are not finite: the generator has diverged, and a density of them means nothing")
    return x


class Parzen(Metric):
    """Mean log density of test samples, in nats, under a Gaussian window of width sigma on each of the n fakes; its standard error; sigma.

    sigma: the best of a geometric grid for n_validation training samples. The figure is over n_test test samples (or all, if fewer). Both
    are a fixed random choice. Images are scaled to [0, 1]: for MNIST it is the log-likelihood of 784 such numbers. The figure grows with n;
    published ones are for 10,000.

    Limits (Theis et al. 2016): in the dimensions of images it does not estimate the likelihood, for any n. Centres of k-means score higher
    than real images, so it ranks models neither by likelihood nor by the quality of their samples. Use it to compare with published
    figures. Memory: the fakes, N D float32, and under 200 MB.
    """

    reads = ("samples",)
    needs = frozenset({"reference"})
    better = {"log_likelihood": "max"}
    fakes: list[Tensor]

    def __init__(
        self,
        sigma_min: Annotated[float, Gt(0)] = 0.1,
        sigma_max: Annotated[float, Gt(0)] = 1.0,
        sigmas: Annotated[int, Ge(1)] = 10,
        n_validation: Annotated[int, Ge(1)] = 1000,
        n_test: Annotated[int, Ge(2)] = 10_000,
    ):
        super().__init__()
        if sigma_min > sigma_max:
            raise ValueError(f"sigma_min={sigma_min} is above sigma_max={sigma_max}")
        self.grid = torch.logspace(math.log10(sigma_min), math.log10(sigma_max), sigmas, dtype=torch.float64).tolist()
        self.n_validation, self.n_test = n_validation, n_test
        self.add_state("fakes", [], dist_reduce_fx="cat")

    def prefix(self, extractor: Extractor | None) -> str:
        return "parzen"

    def update(self, samples: Tensor) -> None:
        self.fakes.append(finite(samples.detach().float()))

    def compute(self) -> dict[str, Tensor]:
        fakes = flattened(torch.cat(self.fakes))
        train, test = self.reference.of("train"), self.reference.of("test")
        validation = flattened(train.at(chosen(self.n_validation, train.n, "parzen", "train")).to(fakes.device))
        best = int(window_log_density(validation, fakes, self.grid).mean(1).argmax())
        judged = flattened(test.at(chosen(self.n_test, test.n, "parzen", "test")).to(fakes.device))
        density = window_log_density(judged, fakes, [self.grid[best]])[0]
        return {
            "log_likelihood": density.mean(),
            "standard_error": density.std() / math.sqrt(len(density)),
            "sigma": density.new_tensor(self.grid[best]),
        }

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        mean, error, sigma = (figures[f"parzen/{key}"] for key in ("log_likelihood", "standard_error", "sigma"))
        if mean is None or sigma is None:
            return super().sentence(figures)
        end = len(self.grid) > 1 and sigma in (self.grid[0], self.grid[-1])
        spread = "" if error is None else f" +- {error:.2g}"
        return f"log-likelihood {mean:.5g}{spread} nats under a Parzen window, sigma {sigma:.3g}" + (", an end of its grid" if end else "")
