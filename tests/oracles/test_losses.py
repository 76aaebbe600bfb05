"""Values, gradients and optima of the losses."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from games import make
from gan_runner.architectures import Discriminator
from gan_runner.config.composer import compose
from gan_runner.game import DiscriminatorOutput
from gan_runner.losses import (
    MMD,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    OptimalTransport,
    RelativisticAverage,
    RelativisticPaired,
    Wasserstein,
)
from gan_runner.losses.logistic import cross_entropy
from gan_runner.losses.optimal_transport import SIGNS, energy, sides, sinkhorn
from gan_runner.tricks import LabelSmoothing
from plays import play_of


def judged(real, fake):
    """A play of which only the logits are known."""
    on_real, on_fake = (DiscriminatorOutput(torch.as_tensor(logits), torch.zeros(len(logits), 1)) for logits in (real, fake))
    return SimpleNamespace(on_both=(on_real, on_fake), on_real=on_real, on_fake=on_fake)


@pytest.mark.parametrize(
    ("loss", "d", "g"),
    [
        (Minimax(), 2 * math.log(2), -math.log(2)),
        (NonSaturating(), 2 * math.log(2), math.log(2)),
        (Hinge(), 2.0, 0.0),
        (Wasserstein(), 0.0, 0.0),
        (LeastSquares(), 0.5, 0.5),
        (RelativisticPaired(), math.log(2), math.log(2)),
        (RelativisticAverage(), 2 * math.log(2), 2 * math.log(2)),
        (RelativisticAverage(hinge=True), 2.0, 2.0),
    ],
)
def test_values_at_indifference(loss, d, g):
    play = judged([0.0, 0.0], [0.0, 0.0])
    assert loss.discriminator(play).item() == pytest.approx(d, abs=1e-6)
    assert loss.generator(play).item() == pytest.approx(g, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "d", "g"),
    [
        (Hinge(), (0.0 + 0.5) / 2 + (3.0 + 0.0) / 2, -0.0),
        (Wasserstein(), 0.0 - 1.25, -0.0),
        (LeastSquares(), (1.25 / 2 + 8.0 / 2) / 2, (1.0 + 9.0) / 2 / 2),
        (RelativisticPaired(), (math.log(2) + math.log1p(math.exp(-2.5))) / 2, (math.log(2) + math.log1p(math.exp(2.5))) / 2),
        (NonSaturating(), None, None),
    ],
)
def test_values_away_from_it(loss, d, g):
    play = judged([2.0, 0.5], [2.0, -2.0])
    if d is None:
        d = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-0.5)) + math.log1p(math.exp(2)) + math.log1p(math.exp(-2))) / 2
        g = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert loss.discriminator(play).item() == pytest.approx(d, abs=1e-6)
    assert loss.generator(play).item() == pytest.approx(g, abs=1e-6)


def slopes_of(value, *inputs):
    return [slope.tolist() for slope in torch.autograd.grad(value, inputs)]


def test_the_slopes_of_least_squares_are_the_distances_to_the_targets():
    """Mean over N = 2: (D - target) / 2."""
    real, fake = torch.tensor([2.0, 0.5], requires_grad=True), torch.tensor([2.0, -2.0], requires_grad=True)
    play = judged(real, fake)
    assert slopes_of(LeastSquares().discriminator(play), real, fake) == [[0.5, -0.25], [1.0, -1.0]]
    assert slopes_of(LeastSquares().generator(play), fake) == [[0.5, -1.5]]


def test_relativistic_slopes_are_shared_by_the_rows_of_a_pair():
    """D: -sigmoid(D(G(z)) - D(x)) / N for D(x), and plus the same for D(G(z)); G: with real and fake exchanged."""
    real, fake = torch.tensor([2.0, 0.5], requires_grad=True), torch.tensor([2.0, -2.0], requires_grad=True)
    of_real, of_fake = slopes_of(RelativisticPaired().discriminator(judged(real, fake)), real, fake)
    wrong = 1 / (1 + math.exp(2.5))
    assert of_real == pytest.approx([-0.25, -wrong / 2], abs=1e-6)
    assert of_fake == pytest.approx([0.25, wrong / 2], abs=1e-6)
    assert slopes_of(RelativisticPaired().generator(judged(real, fake)), fake)[0] == pytest.approx([-0.25, -(1 - wrong) / 2], abs=1e-6)


def test_relativistic_averages():
    """Real logits 2 and .5, mean 1.25; fake ones 1 and -2, mean -.5. Half of a slope comes by the mean."""
    real, fake = torch.tensor([2.0, 0.5], requires_grad=True), torch.tensor([1.0, -2.0], requires_grad=True)
    play, loss = judged(real, fake), RelativisticAverage()
    up, down = (2.5, 1.0), (0.25, 3.25)  # how far real logits are above the mean of the fakes, and that of the reals above fake ones
    cost, slope = (lambda t: math.log1p(math.exp(-t))), (lambda t: -1 / (1 + math.exp(t)))
    assert loss.discriminator(play).item() == pytest.approx(sum(map(cost, up)) / 2 + sum(map(cost, down)) / 2, abs=1e-6)
    assert loss.generator(play).item() == pytest.approx(sum(cost(-t) for t in (*up, *down)) / 2, abs=1e-6)
    of_real, of_fake = slopes_of(loss.discriminator(play), real, fake)
    assert of_real == pytest.approx([slope(t) / 2 + sum(map(slope, down)) / 4 for t in up], abs=1e-6)
    assert of_fake == pytest.approx([-slope(t) / 2 - sum(map(slope, up)) / 4 for t in down], abs=1e-6)
    (of_fake,) = slopes_of(loss.generator(play), fake)
    assert of_fake == pytest.approx([slope(-t) / 2 + sum(slope(-each) for each in up) / 4 for t in down], abs=1e-6)


def test_relativistic_averages_under_the_hinge():
    """The same logits: differences 2.5, 1, .25 and 3.25, of which one alone is below the margin 1 for D, and none is above it for G."""
    real, fake = torch.tensor([2.0, 0.5], requires_grad=True), torch.tensor([1.0, -2.0], requires_grad=True)
    play, loss = judged(real, fake), RelativisticAverage(hinge=True)
    assert loss.discriminator(play).item() == pytest.approx(0.75 / 2, abs=1e-6)
    assert loss.generator(play).item() == pytest.approx((3.5 + 2.0 + 1.25 + 4.25) / 2, abs=1e-6)
    assert slopes_of(loss.discriminator(play), real, fake) == [[-0.25, -0.25], [0.5, 0.0]]
    assert slopes_of(loss.generator(play), fake) == [[-1.0, -1.0]]


P, Q = torch.tensor([5, 3, 2]), torch.tensor([1, 3, 6])  # how many of 10 real and of 10 fake samples are at each of three points


def best_discriminator(loss, real, fake):
    """Return the logits of D at three points where its loss on these samples, numbers of points, is least."""
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss.discriminator(judged(logits[real], logits[fake]))
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach()


@pytest.mark.parametrize(("loss", "best"), [(LeastSquares(), P / (P + Q)), (NonSaturating(), (P / Q).log())])
def test_the_best_discriminator(loss, best):
    real, fake = (torch.arange(3).repeat_interleave(counts) for counts in (P, Q))
    assert best_discriminator(loss, real, fake).tolist() == pytest.approx(best.tolist(), abs=1e-6)


def test_the_best_discriminator_of_all_pairs_is_the_log_ratio_up_to_a_constant():
    real, fake = (torch.arange(3).repeat_interleave(counts) for counts in (P, Q))
    pairs = torch.cartesian_prod(real, fake).T  # independent draws: every real sample with every fake
    best, ratio = best_discriminator(RelativisticPaired(), *pairs), (P / Q).log()
    assert (best - best.mean()).tolist() == pytest.approx((ratio - ratio.mean()).tolist(), abs=1e-6)


def test_minimax_saturates_where_d_wins_and_non_saturating_does_not():
    for loss, slope in ((Minimax(), -4.5398e-5), (NonSaturating(), -0.9999546)):
        logit = torch.tensor([-10.0], requires_grad=True)
        on_fake = DiscriminatorOutput(logit, torch.zeros(1, 1))
        (gradient,) = torch.autograd.grad(loss.generator(SimpleNamespace(on_fake=on_fake)), logit)
        assert gradient.item() == pytest.approx(slope, rel=1e-4)


def test_one_sided_smoothing_moves_the_optimum_to_045():
    """At p = q the loss of a constant logit is least at sigmoid(d) = .9 / 2."""
    loss = LabelSmoothing(0.9).wrap(NonSaturating(), "loss")
    logit = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.LBFGS([logit], max_iter=50, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure():
        optimizer.zero_grad()
        value = loss.discriminator(judged_at(logit))
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.sigmoid(logit).item() == pytest.approx(0.45, abs=1e-6)


def judged_at(logit):
    out = DiscriminatorOutput(logit, torch.zeros(1, 1))
    return SimpleNamespace(on_both=(out, out))


def test_cross_entropy_is_that_of_torch():
    logits, target = torch.randn(64, generator=torch.Generator().manual_seed(0)), torch.tensor(0.3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target.expand(64))
    assert cross_entropy(logits, target).item() == pytest.approx(expected.item(), abs=1e-6)


# ---- losses of D's features --------------------------------------------------------------------------------------------------------------


def described(real, fake):
    """A play of which only D's features are known, N F."""
    on_real, on_fake = (DiscriminatorOutput(torch.zeros(len(features)), features) for features in (real, fake))
    return SimpleNamespace(on_both=(on_real, on_fake), on_real=on_real, on_fake=on_fake)


def normal(n, mean, seed, width=1):
    return mean + torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KERNELS = {  # of a squared distance
    "rbf": lambda square: sum(math.exp(-square / (2 * h * h)) for h in (1.0, 2.0, 4.0, 8.0, 16.0)),
    "rational_quadratic": lambda square: sum((1 + square / (2 * alpha)) ** -alpha for alpha in (0.2, 0.5, 1.0, 2.0, 5.0)),
}


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_is_the_sum_over_pairs_of_different_samples(kernel, width):
    real, fake = normal(5, 0, 0, width), normal(5, 1, 1, width)
    of = lambda a, b: KERNELS[kernel]((a - b).square().sum().item())  # noqa: E731
    within = [of(rows[i], rows[j]) / 20 for rows in (real, fake) for i in range(5) for j in range(5) if i != j]
    between = [of(x, y) / 25 for x in real for y in fake]
    play, loss = described(real, fake), MMD(kernel, gp=0.0)
    assert loss.generator(play).item() == pytest.approx(sum(within) - 2 * sum(between), abs=1e-12)
    assert loss.discriminator(play).item() == -loss.generator(play).item()
    far = described(real + 1e4, fake + 1e4)
    assert loss.generator(far).item() == pytest.approx(loss.generator(play).item(), abs=1e-9)


def mean_kernel(kernel, mean):
    """E k(|d|^2) of d from N(mean, 2), the difference of two samples, by quadrature."""
    d = torch.linspace(-16, 16, 4001, dtype=torch.float64)
    values = torch.tensor([KERNELS[kernel](each**2) for each in d.tolist()], dtype=torch.float64)
    return torch.trapezoid(values * torch.exp(-((d - mean) ** 2) / 4) / math.sqrt(4 * math.pi), d).item()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_of_two_normal_distributions(kernel):
    expected = 2 * mean_kernel(kernel, 0) - 2 * mean_kernel(kernel, 1)
    draws = [MMD(kernel).generator(described(normal(500, 0, i), normal(500, 1, 100 + i))).item() for i in range(12)]
    assert sum(draws) / 12 == pytest.approx(expected, rel=0.1)


def test_mmd_of_one_bandwidth_has_a_closed_form():
    """N(0, 1) and N(m, 1): 2 / sqrt(3) (1 - exp(-m^2 / 6)), .1773 at m = 1; G's slope is that by m."""
    loss, values, by_mean = MMD("rbf", bandwidths=(1.0,)), [], []
    for i in range(8):
        fake = normal(400, 1, 100 + i).requires_grad_()
        values.append(loss.generator(described(normal(400, 0, i), fake)))
        by_mean.append(torch.autograd.grad(values[-1], fake)[0].sum())
    assert sum(values).item() / 8 == pytest.approx(0.1773, abs=0.02)
    assert sum(by_mean).item() / 8 == pytest.approx(2 / math.sqrt(3) * math.exp(-1 / 6) / 3, abs=0.02)


def test_mmd_of_equal_distributions_is_0_on_average():
    draws = torch.tensor([MMD().generator(described(normal(4, 0, i), normal(4, 0, 1000 + i))).item() for i in range(400)])
    assert draws.min() < -0.1  # no biased estimate is below 0
    assert abs(draws.mean()) < 3 * draws.std() / 20


class Features(Discriminator):
    """Features of 2 numbers a sample, not linear."""

    features = 3

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, sample, y=None):
        features = torch.sin(sample @ self.weight)
        return DiscriminatorOutput(features.sum(1), features)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_slope_of_the_witness_is_penalised(kernel):
    """By differences of the witness, in float64, at the points that were drawn."""
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    play, exact = play_of(Features(weight)), Features(weight.double())
    play.fake = play.real.flip(0) + 1
    loss = MMD(kernel, gp=3.0)
    found = loss.discriminator(play) - MMD(kernel, gp=0.0).discriminator(play)
    points = torch.lerp(play.real, play.fake, play.draws.made[-1][:, None]).double()
    real, fake = (exact(each.double()).features for each in (play.real, play.fake))

    def witness(x):
        here = exact(x[None]).features[0]
        of_real, of_fake = (sum(KERNELS[kernel]((here - each).square().sum().item()) for each in rows) / 16 for rows in (real, fake))
        return of_real - of_fake

    steps = 1e-5 * torch.eye(2, dtype=torch.float64)
    slopes = [math.hypot(*((witness(x + step) - witness(x - step)) / 2e-5 for step in steps)) for x in points]
    assert found.item() == pytest.approx(3 * sum((slope - 1) ** 2 for slope in slopes) / 16, rel=1e-4)
    assert torch.autograd.grad(found, play.D.weight)[0].abs().max() > 1e-3


def test_new_runs_penalise_the_witness_and_saved_ones_that_have_no_gp_do_not():
    assert compose(["loss=mmd"]).config.loss.gp == 1.0
    assert MMD().gp == 0.0


def test_mmd_refuses_what_has_no_pairs_and_no_kernel():
    with pytest.raises(ValueError, match="batch_size=1 has none: use batch_size=2 or more"):
        make({"loss": MMD()}, batch_size=1)
    with pytest.raises(ValueError, match="kernel=rbf needs one of bandwidths or more"):
        MMD("rbf", bandwidths=())


def sorted_distance(a, b):
    """The exact transport of points of one dimension at the cost |a - b|."""
    return (a.sort(1).values - b.sort(1).values).abs().mean((1, 2))


def points(mean, seed, n=512):
    return sides(normal(n, 0, seed).float(), normal(n, mean, 1000 + seed).float())


@pytest.mark.parametrize(("mean", "expected", "tolerance"), [(3.0, 11.55, 0.15), (0.0, 0.0, 0.06)])
def test_the_energy_distance_of_halves_vanishes_for_equal_distributions(mean, expected, tolerance):
    """Exact transports of 256 points, signed and averaged over 50 draws; 12 - 4 W(x, x') for means 0 and 3."""
    draws = torch.stack([sorted_distance(*points(mean, i)) for i in range(50)])
    assert (draws * torch.tensor(SIGNS)).sum(1).mean().item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [3.0, 0.0])
def test_sinkhorn_finds_the_exact_transport_of_points(mean):
    for seed in range(2):
        one, other = points(mean, seed)
        cost, exact = (one - other.mT).abs(), sorted_distance(one, other)
        found = (sinkhorn(cost, 0.05, 100) * cost).sum((1, 2))
        assert found[:4].tolist() == pytest.approx(exact[:4].tolist(), abs=0.01 if mean else 0.04)  # blurred where masses are near


def unit(n, seed, width=3):
    return nn.functional.normalize(normal(n, 0, seed, width), dim=1)


def test_optimal_transport_is_that_of_the_best_assignments():
    """Two halves of four samples: the best of 24 assignments for each pair of halves, at the cost 1 - cosine."""
    (x, other_x), (y, other_y) = unit(8, 0).chunk(2), unit(8, 1).chunk(2)

    def best(a, b):
        return min(sum(1 - (a[i] @ b[j]).item() for i, j in enumerate(order)) / 4 for order in itertools.permutations(range(4)))

    across = best(x, y) + best(x, other_y) + best(other_x, y) + best(other_x, other_y)
    expected = across - 2 * best(x, other_x) - 2 * best(y, other_y)
    loss, play = OptimalTransport(epsilon=0.002, iterations=2000), described(3 * unit(8, 0), unit(8, 1) / 2)  # lengths do not count
    assert loss.generator(play).item() == pytest.approx(expected, abs=0.01)
    assert loss.discriminator(play).item() == -loss.generator(play).item()


@pytest.mark.slow
def test_the_plan_is_the_slope_of_the_transport_and_has_the_masses():
    """Of <plan, cost> + epsilon sum plan log plan, which Sinkhorn's plan makes least. Nothing is differentiated through the plan."""
    cost = torch.rand(6, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    plan = sinkhorn(cost, 0.1, 2000)
    assert plan.sum(1).flatten().tolist() == pytest.approx([0.2] * 30, abs=1e-9)
    assert plan.sum(2).flatten().tolist() == pytest.approx([0.2] * 30, abs=1e-9)
    (slope,) = torch.autograd.grad(energy(cost, sinkhorn(cost, 0.1, 2000)), cost)
    assert slope.flatten().tolist() == pytest.approx((plan * torch.tensor(SIGNS).view(6, 1, 1)).flatten().tolist(), abs=1e-12)

    def least(cost):
        plan = sinkhorn(cost, 0.1, 2000)
        return (plan * cost + 0.1 * plan * plan.log()).sum((1, 2))

    for i, j in ((0, 0), (1, 3), (4, 2)):
        step = torch.zeros(5, 5, dtype=torch.float64)
        step[i, j] = 1e-5
        difference = (least(cost.detach() + step) - least(cost.detach() - step)) / 2e-5
        assert difference.tolist() == pytest.approx(plan[:, i, j].tolist(), abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "most"), [(64, 0.1), (256, 0.05)])
def test_a_round_logs_the_mass_that_plans_put_wrongly(n, most):
    """Costs of up to 2 need more than 100 iterations at epsilon = .002: rows of random unit vectors miss some of their mass."""
    real, fake = unit(n, 0, 64).float(), unit(n, 1, 64).float()
    loss = OptimalTransport()
    loss.generator(described(real, fake))
    one, other = sides(real, fake)
    by_hand = [(plan.sum(1) - 2 / n).clamp_min(0).sum() for plan in sinkhorn(1 - one @ other.mT, 0.002, 100)]
    (logged,) = loss.logs().values()
    assert logged.item() == pytest.approx(sum(by_hand).item() / 6, rel=1e-3)
    assert 1e-4 < logged < most
    assert loss.logs() == {}


def test_what_a_term_says_of_its_summand_is_logged():
    game, batches = make({"loss": OptimalTransport(iterations=5)}, batch_size=8)
    assert 0 < game.round(batches)["loss/missed"] < 1


@pytest.mark.parametrize("loss", [MMD(), OptimalTransport()])
def test_features_are_compared_in_float32_in_lower_precision(loss):
    play = described(normal(16, 0, 0, 8).float(), normal(16, 1, 1, 8).float())
    with torch.autocast("cpu", torch.bfloat16):
        low = loss.generator(play)
    assert low.dtype == torch.float32
    assert low.item() == loss.generator(play).item()


def test_optimal_transport_refuses_a_batch_without_halves():
    with pytest.raises(ValueError, match="batch_size=5 is odd: use an even one"):
        make({"loss": OptimalTransport()}, batch_size=5)


@pytest.mark.slow
def test_optimal_discriminator_of_two_gaussians():
    """p = N(0, 1), q = N(2, 1): D* = p / (p + q), and V(D*) = -log 4 + 2 JSD = -.712633. Goodfellow et al. 2014, prop. 1 and thm. 1."""
    torch.manual_seed(0)
    d = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(d.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    loss = NonSaturating()

    def play(n):
        real, fake = torch.randn(n, 1), 2 + torch.randn(n, 1)
        return judged_by(d, real, fake)

    for _ in range(3000):
        optimizer.zero_grad()
        loss.discriminator(play(512)).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        x = torch.linspace(-1, 3, 201)[:, None]
        optimal = torch.sigmoid(2 - 2 * x)  # log p/q = 2 - 2x
        assert (torch.sigmoid(d(x)) - optimal).abs().max() < 0.03
        assert -loss.discriminator(play(400_000)).item() == pytest.approx(-0.712633, abs=0.02)


def judged_by(d, real, fake):
    on_real, on_fake = (DiscriminatorOutput(d(x).squeeze(1), x) for x in (real, fake))
    return SimpleNamespace(on_both=(on_real, on_fake))
