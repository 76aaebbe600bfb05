"""Refiners on laws whose flows, stationary laws and acceptance rates are known in closed form; everything in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from gan_runner.draws import CountedDraws
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.refinement.ratio import Ratio
from gan_runner.refinement.refiner import Pool, Start
from gan_runner.refiners import DDLS, DOT, DRS, MHGAN, OBRS, DGflow
from gan_runner.refiners.transport import largest_slope, tangential


class Affine(Generator):
    """G(z) = a z + b."""

    def __init__(self, a=1.0, b=0.0, size=1):
        super().__init__()
        self.a, self.b, self.latent = a, b, size

    def forward(self, z, y=None):
        return self.a * z + self.b


class Known(Discriminator):
    """The logit is a function of the sample."""

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, sample, y=None):
        return DiscriminatorOutput(self.logit(sample), sample)


def log_normal(x, mean, sd):
    return (-((x - mean) ** 2) / (2 * sd**2) - math.log(sd)).sum(1)


def between(data, model):
    """The log ratio of two normal laws (mean, sd)."""
    return lambda x: log_normal(x, *data) - log_normal(x, *model)


def start_of(n, size=1, seed=0):
    return Start(torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), None)


def draws(n, *key):
    return CountedDraws("test", *key, indices=torch.arange(n))


def after(refiner, steps, ratio, start, *key) -> Tensor:
    moves = refiner(ratio, start, draws(len(start.e), *key))
    return next(itertools.islice(moves, steps, None))


# ---- flow ---------------------------------------------------------------------------------------------------------------------------


def test_velocities_of_js_and_log_d_add_up_to_that_of_kl():
    ratio = Ratio(Affine(2.0, 1.0, 3), Known(lambda x: torch.sin(3 * x).sum(1) - x.square().sum(1)))
    start = start_of(100, 3)
    moved = {name: after(DGflow(name, eta=0.1, gamma=0), 1, ratio, start) - start.e for name in ("kl", "js", "log_d")}
    assert (moved["js"] + moved["log_d"] - moved["kl"]).abs().max() < 1e-12
    assert moved["js"].abs().max() > 0.01


@pytest.mark.parametrize("space", ["data", "latent"])
def test_particles_between_normal_laws_are_where_the_flow_takes_them(space):
    """data N(0, 1), model N(m, 1): d = m^2 / 2 - m x, so that every sample moves by -eta m a step; past the data, as the ratio is stale."""
    m, eta = 1.5, 0.1
    ratio = Ratio(Affine(1.0, m), Known(between((0, 1), (m, 1))))
    start = start_of(50)
    for steps in (1, 10, 25):
        got = after(DGflow("kl", space, eta=eta, gamma=0), steps, ratio, start)
        x = got if space == "data" else got + m
        torch.testing.assert_close(x, start.e + m - steps * eta * m, rtol=0, atol=1e-6)


def test_a_scale_contracts_as_its_slope_says():
    """data N(0, s^2), model N(0, 1): d' = x (1 - 1 / s^2), so that x shrinks by 1 - eta (1 / s^2 - 1) a step."""
    s, eta = 0.5, 0.05
    ratio, start = Ratio(Affine(), Known(between((0, s), (0, 1)))), start_of(50)
    got = after(DGflow("kl", "data", eta=eta, gamma=0), 20, ratio, start)
    torch.testing.assert_close(got, start.e * (1 - eta * (1 / s**2 - 1)) ** 20, rtol=0, atol=1e-6)


def test_latents_of_an_affine_generator_move_by_its_slope():
    """x = a z + b and d = c x + const: z moves by eta a c a step."""
    a, b, c, eta = 3.0, -1.0, 0.7, 0.01
    ratio, start = Ratio(Affine(a, b), Known(lambda x: c * x[:, 0] + 5)), start_of(20)
    got = after(DGflow("kl", eta=eta, gamma=0), 12, ratio, start)
    torch.testing.assert_close(got, start.e + 12 * eta * a * c, rtol=0, atol=1e-9)


def test_the_noise_of_the_entropy_has_variance_two_eta_gamma():
    ratio, start = Ratio(Affine(), Known(lambda x: 0 * x[:, 0])), Start(torch.zeros(20000, 1, dtype=torch.float64), None)
    got = after(DGflow(eta=0.1, gamma=0.2), 5, ratio, start)
    assert got.var() == pytest.approx(5 * 2 * 0.1 * 0.2, rel=0.03)  # 3 standard errors of a variance of 20,000


def test_a_sample_stops_at_the_ratio_of_real_ones():
    ratio, start = Ratio(Affine(), Known(lambda x: x[:, 0])), start_of(200)
    refiner = DGflow(eta=0.1, gamma=0.0, until="real")
    refiner.prepare(ratio, Pool(start, torch.tensor([0.0, 1.0, 5.0])))
    got = after(refiner, 100, ratio, start)
    assert (got >= 1).all()
    assert (got[start.e < 1] < 1.1).all()
    torch.testing.assert_close(got[start.e >= 1], start.e[start.e >= 1])


@pytest.mark.parametrize(("space", "size"), [("latent", 4), ("data", 4), ("latent", 9)])
def test_a_relative_step_is_a_share_of_the_radius(space, size):
    ratio, start = Ratio(Affine(2.0, 0.0, size), Known(lambda x: 100 * x.square().sum(1))), start_of(400, size)
    refiner = DGflow("kl", space, relative_step=0.02, gamma=0.0)
    refiner.prepare(ratio, Pool(start, None))
    moved = after(refiner, 1, ratio, start) - refiner.origin(ratio, start)
    assert moved.norm(dim=1).mean() == pytest.approx(0.02 * size**0.5)


# ---- Langevin -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("adjust", "variance"), [(False, 1 / (4 * (1 - 0.1 * 4 / 4))), (True, 0.25)])
def test_langevin_dynamics_end_at_the_data(adjust, variance):
    """G(z) = 2 z + 1, data N(0, 1): z is N(-1/2, 1/4); unadjusted, the variance is 1 / (lambda (1 - epsilon lambda / 4))."""
    ratio, start = Ratio(Affine(2.0, 1.0), Known(between((0, 1), (1, 2)))), start_of(20000)
    late = [z.clone() for z in itertools.islice(DDLS(epsilon=0.1, adjust=adjust)(ratio, start, draws(20000)), 40, 90, 10)]
    error = 1 / (5 * 20000) ** 0.5  # states ten steps apart share .8^10 of their deviation
    assert torch.stack(late).mean() == pytest.approx(-0.5, abs=4 * 0.5 * error)
    assert torch.stack(late).var() == pytest.approx(variance, abs=4 * variance * 2**0.5 * error)


# ---- transport ----------------------------------------------------------------------------------------------------------------------


def test_transport_is_a_soft_threshold():
    """D(x) = -(x - c)^2 / 2, K = 1: samples move to within 1 of c, or stay (Adam wavers by its rate)."""
    c = 0.7
    ratio = Ratio(Affine(3.0), Known(lambda x: -(x[:, 0] - c).square() / 2))
    start = start_of(300)
    y = DOT("data", K=1.0).origin(ratio, start)
    got = after(DOT("data", lr=0.01, K=1.0), 1500, ratio, start)
    assert (got - (c + (y - c).clamp(-1, 1))).abs().max() < 0.03


def test_steepness_of_a_line_is_its_slope():
    points = torch.randn(150, 1, dtype=torch.float64)
    assert largest_slope(-3 * points[:, 0], points) == pytest.approx(3)
    pair = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert largest_slope(torch.tensor([0.0, 1.0, 1.0]), pair, 3) == pytest.approx(1)
    assert largest_slope(torch.tensor([0.0, 1.0, 0.0, 4.0]), torch.tensor([[0.0], [1.0], [5.0], [7.0]]), 2) == pytest.approx(1.5)


def test_steepness_is_measured_on_ten_groups_of_fifteen():
    ratio, start = Ratio(Affine(1.0, 0.0, 2), Known(lambda x: torch.sin(5 * x[:, 0]))), start_of(1000, 2)
    refiner = DOT()
    refiner.prepare(ratio, Pool(start, None))
    d, x = torch.sin(5 * start.e[:150, 0]), start.e[:150]
    slopes = [max(abs(d[i] - d[j]) / (x[i] - x[j]).norm() for i in g for j in g if i < j) for g in torch.arange(150).split(15)]
    assert refiner.steepness == pytest.approx(float(torch.stack(slopes).mean()))
    assert ratio.evaluations == 150


def test_a_tangent_leaves_the_radius():
    z, g = torch.randn(50, 7, dtype=torch.float64), torch.randn(50, 7, dtype=torch.float64)
    t = tangential(z, g)
    assert (t * z).sum(1).abs().max() < 1e-12
    torch.testing.assert_close(g - t, (g * z).sum(1, keepdim=True) / z.square().sum(1, keepdim=True) * z)


# ---- selection: data N(0, 1/4), model N(0, 1) ------------------------------------------------------------------------------------------

NARROW = between((0, 0.5), (0, 1))


@pytest.mark.parametrize("begin", ["fake", "real"])
def test_a_chain_ends_at_the_data(begin):
    ratio, start = Ratio(Affine(), Known(NARROW)), start_of(20000)
    refiner = MHGAN(begin=begin, calibration="none")
    refiner.prepare(ratio, Pool(start, NARROW(0.5 * start_of(2000, seed=1).e)))
    z = after(refiner, 30, ratio, start)
    assert z.var() == pytest.approx(0.25, abs=4 * 0.25 * (2 / 20000) ** 0.5)
    assert not set(z[:, 0].tolist()) & set((0.5 * start_of(2000, seed=1).e[:, 0]).tolist()), "real samples are never returned"


def test_a_chain_that_begins_at_the_data_accepts_as_a_stationary_one():
    """The chain from the first sample of G, whose ratio is huge here, accepts nothing: what moved is what the other one accepted."""
    ratio = Ratio(Affine(), Known(lambda x: NARROW(x) + 1e9 * (x[:, 0] == 0)))
    start = Start(torch.zeros(50000, 1, dtype=torch.float64), None)
    refiner = MHGAN(begin="real", calibration="none")
    refiner.prepare(ratio, Pool(start, NARROW(0.5 * start_of(50000, seed=1).e)))
    accepted = (after(refiner, 1, ratio, start) != 0).double().mean()
    assert accepted == pytest.approx(0.590, abs=3 * (0.59 * 0.41 / 50000) ** 0.5)


def test_exact_rejection_keeps_half():
    """max exp(d) = 2; the fakes beforehand come close to it."""
    ratio, start = Ratio(Affine(), Known(NARROW)), start_of(20000)
    refiner = DRS(percentile=None, calibration="none")
    refiner.prepare(ratio, Pool(start_of(2000, seed=1), None))
    ratio.evaluations = 0
    z = after(refiner, 20, ratio, start)
    assert 20000 / ratio.evaluations == pytest.approx(0.5007, abs=0.008)  # all but one in a million are kept
    assert z.var() == pytest.approx(0.25, abs=4 * 0.25 * (2 / 20000) ** 0.5)


def test_a_percentile_keeps_fewer():
    d = NARROW(start_of(5000).e)
    shares = []
    for percentile in (None, 50.0, 90.0):
        refiner = DRS(percentile=percentile)
        refiner.fit(d)
        shares.append(float(refiner.kept(d).mean()))
    assert shares[0] > shares[1] > shares[2]


def known_budget(budget):
    """(log c, variance of what is kept) by the normal integrals of min(1, c r)."""

    def inside(s, a):
        return math.erf(a / (s * math.sqrt(2)))

    def second(s, a):
        return s * s * (inside(s, a) - 2 * a / (s * math.sqrt(2 * math.pi)) * math.exp(-a * a / (2 * s * s)))

    low, high = 0.0, 5.0  # where c r = 1
    for _ in range(100):
        a = (low + high) / 2
        c = math.exp(1.5 * a * a) / 2
        low, high = (a, high) if inside(1, a) + c * (1 - inside(0.5, a)) < 1 / budget else (low, a)
    c = math.exp(1.5 * low * low) / 2
    return math.log(c), (second(1, low) + c * (0.25 - second(0.5, low))) * budget


def quadrature(n=200001):
    """Quantiles of N(0, 1) in equal shares: means over them are integrals."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]


@pytest.mark.parametrize("budget", [2.0, 1.5, 1.2])
def test_a_budget_is_spent_as_the_integrals_say(budget):
    log_c, variance = known_budget(budget)
    if budget == 1.5:
        assert (log_c, variance) == pytest.approx((-0.0598, 0.3224), abs=1e-4)
    if budget == 2:
        assert (log_c, variance) == pytest.approx((-math.log(2), 0.25), abs=1e-6)
    x = quadrature()
    refiner = OBRS(budget=budget)
    refiner.fit(NARROW(x))
    assert refiner.log_c == pytest.approx(log_c, abs=1e-4)
    p = refiner.kept(NARROW(x))
    assert p.mean() == pytest.approx(1 / budget, abs=1e-6)
    assert (p * x[:, 0].square()).sum() / p.sum() == pytest.approx(variance, abs=1e-4)


DIVERGENCES = {  # f of E_data f(kept / data), convex
    "kl(kept, data)": lambda r: r * np.log(r),
    "kl(data, kept)": lambda r: -np.log(r),
    "js": lambda r: r * np.log(r) - (1 + r) * np.log((1 + r) / 2),
    "chi squared": lambda r: (r - 1) ** 2,
    "hellinger": lambda r: (np.sqrt(r) - 1) ** 2,
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_no_other_acceptance_of_this_budget_is_nearer_to_the_data(name):
    """On 12 values, against the minimum that a general solver finds over all acceptances in [0, 1] of mean 1 / budget."""
    rng, budget = np.random.default_rng(0), 2.5
    data, model = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(12))

    def away(acceptance):
        return (data * DIVERGENCES[name](budget * model * acceptance / data)).sum()

    counts = torch.from_numpy(np.round(model * 1e5).astype(int))  # fakes as often as the model makes them
    refiner = OBRS(budget=budget)
    refiner.fit(torch.from_numpy(np.log(data / model)).repeat_interleave(counts))
    ours = refiner.kept(torch.from_numpy(np.log(data / model))).numpy()
    assert (ours < 1).any()
    assert (ours == 1).any()
    best = minimize(
        away, np.full(12, 1 / budget), method="SLSQP", bounds=[(1e-9, 1)] * 12, options={"maxiter": 1000, "ftol": 1e-13},
        constraints={"type": "eq", "fun": lambda a: model @ a - 1 / budget},
    )  # fmt: skip
    assert best.success, best.message
    assert away(ours) == pytest.approx(best.fun, abs=2e-4)  # the fakes' shares are rounded


def test_a_budget_is_what_a_sample_costs():
    ratio, start = Ratio(Affine(), Known(NARROW)), start_of(20000)
    refiner = OBRS(budget=1.5, calibration="none")
    refiner.prepare(ratio, Pool(start_of(20000, seed=1), None))
    ratio.evaluations = 0
    z = after(refiner, 30, ratio, start)
    assert ratio.evaluations / 20000 == pytest.approx(1.5, rel=0.02)
    assert z.var() == pytest.approx(0.3224, abs=0.01)


# ---- ratio --------------------------------------------------------------------------------------------------------------------------


def test_a_corrector_adds_what_the_discriminator_lacks():
    """D knows data / model A, the corrector model A / model B: together data / model B."""
    x = start_of(200, 2).e
    data, a, b = (0.0, 1.0), (0.5, 1.3), (-1.0, 2.0)
    ratio = Ratio(Affine(), Known(between(data, a)), Known(between(a, b)))
    assert (ratio.at(x, None, "data") - between(data, b)(x)).abs().max() < 1e-12


def test_costs_count_samples():
    ratio, start = Ratio(Affine(), Known(NARROW)), start_of(7)
    after(DGflow(), 3, ratio, start)
    assert (ratio.evaluations, ratio.gradients) == (21, 21)
    ratio.at(start.e, None, "latent")
    assert (ratio.evaluations, ratio.gradients) == (28, 21)


def test_the_ratio_is_centred_calibrated_and_divided():
    ratio = Ratio(Affine(), Known(lambda x: x[:, 0]))
    ratio.centre, ratio.calibration, ratio.temperature = 1.0, lambda d: 3 * d, 2.0
    assert ratio.at(torch.tensor([[5.0]]), None, "data").tolist() == [6.0]
