"""Log-likelihood of a generator by annealed importance sampling. Neal 2001; Wu et al. 2017; the bound on its error: Grosse et al. 2015."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import NumberedDraws, seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.metric import Metric
from gan_runner.metrics.decoder import Decoder, LogDensity
from gan_runner.sampling.subjects import Subject, evaluating

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

FIRST_STEP = 0.5  # of a pilot: what suits the prior
RATE = 0.5  # of its adaptation: fast enough for steps that shrink a hundredfold on the way
JITTER = 0.2  # a transition's step size varies by so much, so that no trajectory is a whole turn, which would end where it began
ROWS = 512  # chains whose samples are made at once: bounds the memory


class Annealed(NamedTuple):
    """The result of C chains for each of M targets, over T temperatures."""

    log_weights: Tensor  # C M
    step_sizes: Tensor  # T-2 M
    acceptance: Tensor  # M: mean over chains and transitions


class Point(NamedTuple):
    """The state of the chains: positions, and the two log densities and their gradients there."""

    z: Tensor  # C M Z
    prior: Tensor  # C M
    prior_slope: Tensor  # C M Z
    likelihood: Tensor
    likelihood_slope: Tensor

    def log_density(self, beta: Tensor) -> Tensor:
        return self.prior + beta * self.likelihood

    def slope(self, beta: Tensor) -> Tensor:
        return self.prior_slope + beta * self.likelihood_slope

    def moved(self, other: Point, accepted: Tensor) -> Point:
        """Return `other` where accepted (C M), self elsewhere."""
        return Point(*(torch.where(accepted if a.ndim == 2 else accepted[..., None], b, a) for a, b in zip(self, other)))


def sigmoid_spaced(n: int, steepness: float = 4.0) -> Tensor:
    """Return n inverse temperatures from 0 to 1, float64, dense at both ends: a logistic curve over [-steepness, steepness], rescaled."""
    if n < 2:
        raise ValueError(f"a path from prior to posterior has at least 2 temperatures, not {n}")
    curve = torch.linspace(-steepness, steepness, n, dtype=torch.float64).sigmoid()
    return (curve - curve[0]) / (curve[-1] - curve[0])


def annealed_importance(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    z: Tensor,
    temperatures: Tensor,
    generator: torch.Generator,
    *,
    step_sizes: Tensor | None = None,
    leapfrog: int = 10,
    target: float = 0.65,
) -> Annealed:
    """Return log w = sum_t (beta_t - beta_{t-1}) log p(x|z_{t-1}) along chains z_t moved by HMC under p(z) p(x|z)^beta_t. Neal 2001.

    z (C M Z, float64): exact draws at temperatures[0]; temperatures (T): from 0 to 1, then E w = p(x) and E log w is a lower bound of
    log p(x); or from 1 to 0, then E w = 1 / p(x), and -log w bounds log p(x) from above. generator: on the device of z.

    step_sizes (T-2 M): one for each transition and target. None: they are adapted to an acceptance of `target` during the run. Then a
    step depends on the history of the chain, and E w = p(x) does not hold: adapt in a pilot run, and pass its step sizes.
    """
    c, m, _ = z.shape
    point = _look(z, log_prior, log_likelihood)
    log_step = torch.full((m,), math.log(FIRST_STEP), dtype=z.dtype, device=z.device)
    log_weights = torch.zeros(c, m, dtype=z.dtype, device=z.device)
    used, accepted = [log_step.new_zeros(0, m)], [log_step.new_zeros(0, m)]
    for t in range(1, len(temperatures)):
        log_weights += (temperatures[t] - temperatures[t - 1]) * point.likelihood
        if t == len(temperatures) - 1:
            break  # nothing would be read off the chains any more
        step = log_step.exp() if step_sizes is None else step_sizes[t - 1]
        point, probability = _transition(point, temperatures[t], step, log_prior, log_likelihood, generator, leapfrog)
        used.append(step[None])
        accepted.append(probability.mean(0, keepdim=True))
        log_step += RATE * (probability.mean(0) - target)
    return Annealed(log_weights, torch.cat(used), torch.cat(accepted).mean(0))


def _look(z: Tensor, log_prior: LogDensity, log_likelihood: LogDensity) -> Point:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        prior, likelihood = log_prior(z), log_likelihood(z)
        slopes = [torch.autograd.grad(density.sum(), z)[0] for density in (prior, likelihood)]
    return Point(z.detach(), prior.detach(), slopes[0], likelihood.detach(), slopes[1])


def _transition(
    start: Point,
    beta: Tensor,
    step: Tensor,
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    generator: torch.Generator,
    leapfrog: int,
) -> tuple[Point, Tensor]:
    """Make one move of Hamiltonian Monte Carlo (Neal 2011) with unit masses. Returns the new point and acceptance probabilities (C M)."""
    like = {"generator": generator, "dtype": start.z.dtype, "device": start.z.device}
    momentum = torch.randn(start.z.shape, **like)  # type: ignore[call-overload]
    epsilon = (step * (1 + JITTER * (2 * torch.rand(start.prior.shape, **like) - 1)))[..., None]  # type: ignore[call-overload]
    kinetic = momentum.square().sum(2) / 2
    momentum, end = momentum + epsilon / 2 * start.slope(beta), start
    for i in range(leapfrog):
        end = _look(end.z + epsilon * momentum, log_prior, log_likelihood)
        momentum = momentum + (epsilon if i < leapfrog - 1 else epsilon / 2) * end.slope(beta)
    gain = end.log_density(beta) - momentum.square().sum(2) / 2 - start.log_density(beta) + kinetic
    probability = gain.clamp_max(0).exp().nan_to_num(0)  # nan: a trajectory that left for infinity
    return start.moved(end, torch.rand(probability.shape, **like) < probability), probability  # type: ignore[call-overload]


class Bounds(NamedTuple):
    """Bounds of log p(x) for M targets, in expectation; upper requires an exact draw from the posterior."""

    lower: Tensor  # M
    upper: Tensor | None
    acceptance: Tensor  # M


def bidirectional(
    log_likelihood: LogDensity,
    shape: tuple[int, int, int],
    temperatures: Tensor,
    generator: torch.Generator,
    posterior: Tensor | None = None,
    leapfrog: int = 10,
) -> Bounds:
    """Bound log p(x) for z ~ N(0, I), shape = (C, M, Z): by chains from the prior, and by chains from z ~ p(z|x) (posterior, M Z).

    A pilot run with a quarter of the chains finds the step sizes of HMC. Both directions use them.
    """
    (c, m, latent), like = shape, {"generator": generator, "dtype": torch.float64, "device": generator.device}

    def annealed(z: Tensor, temperatures: Tensor, step_sizes: Tensor | None = None) -> Annealed:
        return annealed_importance(log_normal, log_likelihood, z, temperatures, generator, step_sizes=step_sizes, leapfrog=leapfrog)

    pilot = annealed(torch.randn(max(c // 4, 1), m, latent, **like), temperatures)  # type: ignore[call-overload]
    forward = annealed(torch.randn(c, m, latent, **like), temperatures, pilot.step_sizes)  # type: ignore[call-overload]
    upper = None
    if posterior is not None:
        back = annealed(posterior.double().expand(c, m, latent), temperatures.flip(0), pilot.step_sizes.flip(0))
        upper = -log_mean_exp(back.log_weights)
    return Bounds(log_mean_exp(forward.log_weights), upper, forward.acceptance)


def log_normal(z: Tensor) -> Tensor:
    """Return the log density of N(0, I) up to a constant: C M Z -> C M."""
    return -z.square().sum(2) / 2


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Average over chains: C M -> M."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


class AnnealedImportance(Metric):
    """log p(x), in nats, of n_images test samples under p(x|z) = N(G(z), sigma^2 I), with a bound on its error.

    log_likelihood: mean over the samples, which are the same for every run; in expectation a lower bound. standard_error: of that mean,
    over samples. acceptance: of the moves of HMC; the target is 0.65. bdmc_gap: mean of upper minus lower bound on as many samples
    x = G(z) + sigma noise of the model. For these an exact draw from the posterior is known, and chains that start from it give the upper
    bound. The gap bounds the error on the model's own samples; real samples may be harder.

    sigma: for images scaled to [0, 1]. Do not compare figures of different sigma; choose sigma by the likelihood of data other than the
    test samples. A prior that is not normal is expressed as a function of normal noise. A conditional generator gets the labels of the
    samples: log p(x|y). G is in evaluation mode.

    Cost: 3.5 n_images x chains x temperatures x leapfrog samples of G, with a gradient each. Memory: G and its gradient on 512
    samples, or on `chains` if that is more.
    """

    needs = frozenset({"reference", "generator"})
    better = {"log_likelihood": "max"}

    def __init__(
        self,
        sigma: Annotated[float, Gt(0)] = 0.1,
        n_images: Annotated[int, Ge(2)] = 16,
        chains: Annotated[int, Ge(1)] = 16,
        temperatures: Annotated[int, Ge(3)] = 1000,
        leapfrog: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__()
        self.sigma, self.n_images, self.chains, self.leapfrog = sigma, n_images, chains, leapfrog
        self.temperatures = sigmoid_spaced(temperatures)

    def prefix(self, extractor: Extractor | None) -> str:
        return "ais"

    def examine(self, subject: Subject) -> None:
        assert subject.generator is not None
        with evaluating(subject.generator):
            decoder = Decoder(subject.generator, self.sigma, subject.spec.kind.bounded, subject.device)
            x, y = self._real(decoder)
            self.looks = 0
            real = self._bounds(decoder, x, y, None, ("real", subject.seed))
            x, y, e = self._simulated(decoder, subject.seed)
            simulated = self._bounds(decoder, x, y, e, ("simulated", subject.seed))
        assert simulated.upper is not None
        self.log_likelihoods, self.acceptance, self.gaps = real.lower, real.acceptance, simulated.upper - simulated.lower
        if not (self.log_likelihoods.isfinite().all() and self.gaps.isfinite().all()):
            raise UserError("ais: the log-likelihood is not finite; does the generator emit nan?")

    def compute(self) -> dict[str, Tensor]:
        return {
            "log_likelihood": self.log_likelihoods.mean(),
            "standard_error": self.log_likelihoods.std() / math.sqrt(self.n_images),
            "bdmc_gap": self.gaps.mean(),
            "acceptance": self.acceptance.mean(),
        }

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        value, error, gap = (figures[f"ais/{key}"] for key in ("log_likelihood", "standard_error", "bdmc_gap"))
        return f"log p(x) {value:.6g} +- {error:.3g} nats at sigma {self.sigma:g}, on its own samples within {gap:.3g} of an upper bound"

    def _real(self, decoder: Decoder) -> tuple[Tensor, Tensor | None]:
        """Return rows M D of the test split, and their labels if G is conditional."""
        test = self.reference.of("test")
        if test.n < self.n_images:
            raise UserError(f"metric.ais.n_images={self.n_images}, but the test split has {test.n} samples")
        chosen = torch.randperm(test.n, generator=seeded("ais", "images"))[: self.n_images]
        if decoder.generator.classes is None:
            return decoder.rows(test.at(chosen)), None
        if test.labels is None:
            raise UserError("ais gives a conditional generator the labels of the test samples, and these have none: ~metric.ais")
        return decoder.rows(test.at(chosen)), test.labels[chosen]

    def _simulated(self, decoder: Decoder, seed: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return samples of the model (M D), their labels, and the noise they were generated from (M E)."""
        draws = NumberedDraws("ais", "simulated", seed, indices=torch.arange(self.n_images), device=decoder.home)
        e, y = draws.normal(decoder.noise), decoder.generator.labels(draws)
        with torch.no_grad():
            made = decoder(e, y)
        return made + self.sigma * draws.normal(made.shape[1]), y, e

    def _counted(self, density: LogDensity) -> LogDensity:
        """Wrap the density so that each call reports progress; it is called once for each leapfrog step."""
        anneal = 1 + (len(self.temperatures) - 2) * self.leapfrog
        parts = math.ceil(self.n_images / max(ROWS // self.chains, 1))
        total = 5 * parts * anneal  # pilot and forward for real samples; pilot, forward and back for simulated ones

        def counted(z: Tensor) -> Tensor:
            self.looks += 1
            self.tick(self.looks, total)
            return density(z)

        return counted

    def _bounds(self, decoder: Decoder, x: Tensor, y: Tensor | None, e: Tensor | None, key: tuple[object, ...]) -> Bounds:
        """Compute the bounds of all samples, in blocks."""
        parts, at_once = [], max(ROWS // self.chains, 1)
        for start in range(0, len(x), at_once):
            rows = slice(start, start + at_once)
            density = self._counted(decoder.log_likelihood(x[rows], None if y is None else y[rows]))
            shape = (self.chains, len(x[rows]), decoder.noise)
            generator = seeded("ais", "chains", *key, start, device=decoder.home)
            temperatures = self.temperatures.to(decoder.home)
            parts.append(bidirectional(density, shape, temperatures, generator, None if e is None else e[rows], self.leapfrog))
        lower, upper, acceptance = zip(*parts)
        return Bounds(torch.cat(lower), None if e is None else torch.cat(upper), torch.cat(acceptance))
