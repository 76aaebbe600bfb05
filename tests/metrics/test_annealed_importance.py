"""Annealed importance sampling against models whose likelihood has a closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gan_runner.architectures import Generator
from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.game.spec import Spec
from gan_runner.metrics.annealed_importance import AnnealedImportance, annealed_importance, bidirectional, log_normal, sigmoid_spaced
from gan_runner.sampling.subjects import Generated

SIGMA = 0.5


class Linear(Generator):
    """x = W z + b, with b moved by the label; z normal, or uniform on [-sqrt 3, sqrt 3]."""

    def __init__(self, latent, shape, classes=None, law="normal"):
        super().__init__()
        self.latent, self.shape, self.classes, self.law = latent, shape, classes, law
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Linear(latent, math.prod(shape))
        for weight in self.body.parameters():
            nn.init.normal_(weight, std=0.7, generator=generator)

    def prior(self, draws):
        return draws.normal(self.latent) if self.law == "normal" else (2 * draws.uniform(self.latent) - 1) * math.sqrt(3)

    def forward(self, z, y=None):
        x = self.body(z)
        return (x if y is None else x + 3 * y[:, None]).unflatten(1, self.shape)

    def exact(self, x, sigma, y=None):
        """log p(x), N, of x N D."""
        weight, bias = (t.detach().double() for t in (self.body.weight, self.body.bias))
        covariance = weight @ weight.T + sigma**2 * torch.eye(len(bias))
        law = torch.distributions.MultivariateNormal(bias, covariance)
        return law.log_prob(x.double() - (0 if y is None else 3 * y[:, None]))


def model(m, latent=3, dimensions=6):
    """A linear model, m samples of it, their latents, log p(x|z) and the exact log p(x); float64."""
    net = Linear(latent, (dimensions,)).double()
    e = torch.randn(m, latent, generator=seeded("e"), dtype=torch.float64)
    with torch.no_grad():
        x = net(e) + SIGMA * torch.randn(m, dimensions, generator=seeded("n"), dtype=torch.float64)

    def log_likelihood(z):
        return -(x - net(z.flatten(0, 1)).view(*z.shape[:2], -1)).square().sum(2) / (2 * SIGMA**2) - dimensions / 2 * math.log(
            2 * math.pi * SIGMA**2
        )

    return log_likelihood, e, net.exact(x, SIGMA)


def test_temperatures_run_from_zero_to_one_and_are_dense_at_both_ends():
    beta = sigmoid_spaced(101)
    assert (beta[0], beta[50], beta[100]) == (0, pytest.approx(0.5, abs=1e-12), 1)
    steps = beta.diff()
    assert (steps > 0).all()
    assert torch.allclose(steps, steps.flip(0))
    assert steps[0] < steps[50] / 10
    with pytest.raises(ValueError, match="at least 2 temperatures"):
        sigmoid_spaced(1)


@pytest.mark.slow
def test_a_linear_model_gets_its_exact_likelihood():
    """A log weight deviates by some 2 nats at 60 temperatures, the mean over 1000 chains by 0.06."""
    log_likelihood, e, exact = model(4)
    got = bidirectional(log_likelihood, (1000, 4, 3), sigmoid_spaced(60), seeded(0), e)
    assert (got.lower - exact).abs().mean() < 0.1
    assert (got.upper - exact).mean() > -0.05  # one draw of the posterior: it may be far above
    assert ((got.acceptance - 0.65).abs() < 0.1).all()


def test_the_bounds_enclose_the_likelihood_and_close_with_more_temperatures():
    """One chain and few temperatures, where the bounds are far from tight: deviations are of means over 200 targets."""
    log_likelihood, e, exact = model(200)
    gaps = []
    for n in (10, 40):
        got = bidirectional(log_likelihood, (1, 200, 3), sigmoid_spaced(n), seeded(0), e)
        below, above = exact - got.lower, got.upper - exact
        assert below.mean() > 4 * below.std() / math.sqrt(200)
        assert above.mean() > 4 * above.std() / math.sqrt(200)
        gaps.append((got.upper - got.lower).mean())
    assert gaps[1] < gaps[0] / 2


@pytest.mark.parametrize("backward", [False, True])
def test_the_mean_weight_is_the_likelihood_whatever_the_path(backward):
    """E w = p(x), and 1 / p(x) on the way back, is what the bounds rest on. One target, 4000 chains, steps fixed beforehand."""
    log_likelihood, _, exact = model(1, latent=1, dimensions=2)
    beta, steps = sigmoid_spaced(12), torch.full((10, 1), 0.6, dtype=torch.float64)
    z = torch.randn(4000, 1, 1, generator=seeded("z"), dtype=torch.float64)
    if backward:  # exact draws of the posterior, which is normal; slope and curvature of log p(z|x) at 0 tell which
        at = torch.zeros(1, 1, 1, dtype=torch.float64)
        slope, curvature = torch.func.grad(lambda z: (log_normal(z) + log_likelihood(z)).sum()), []
        curvature = -torch.func.grad(lambda z: slope(z).sum())(at)
        z, beta = slope(at) / curvature + z / curvature.sqrt(), beta.flip(0)
    got = annealed_importance(log_normal, log_likelihood, z, beta, seeded(1), step_sizes=steps)
    ratio = (got.log_weights[:, 0] + (exact if backward else -exact)).exp()
    assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std().item() / math.sqrt(4000))
    assert ratio.std() < 3  # the test would say nothing otherwise


def spec_and_reference(x, y=None, shape=None):
    reference = SimpleNamespace(n=len(x), labels=y, at=lambda indices: x[indices])
    reference.of = lambda split: {"test": reference}[split]
    return Spec(shape or tuple(x.shape[1:]), None if y is None else int(y.max()) + 1), reference


def figures(net, x, y=None, tick=lambda done, n: None, **kw):
    spec, reference = spec_and_reference(x, y)
    metric = AnnealedImportance(**{"sigma": SIGMA, "n_images": len(x), "chains": 128, "temperatures": 45, "leapfrog": 5} | kw)
    metric.reference, metric.tick = reference, tick
    metric.update()
    metric.examine(Generated(net.eval(), 4, spec, seed=3))
    return {key: value.item() for key, value in metric.figures(None).items()}, metric


def test_the_metric_gives_the_mean_over_test_samples_with_its_standard_error():
    net, x = Linear(2, (5,)), torch.randn(4, 5, generator=seeded("x"))
    told = []
    got, metric = figures(net, x, tick=lambda done, n: told.append((done, n)))
    assert told[-1] == (len(told), len(told))  # the progress of a long work ends with the work
    exact = net.exact(x, SIGMA)
    assert got["ais/log_likelihood"] == pytest.approx(exact.mean().item(), abs=0.15)
    assert got["ais/standard_error"] == pytest.approx(exact.std().item() / math.sqrt(4), rel=0.1)
    assert abs(got["ais/bdmc_gap"]) < 0.3  # of four samples it may lie below 0
    assert got["ais/acceptance"] == pytest.approx(0.65, abs=0.12)
    assert "nats" in metric.sentence(got)


def test_images_count_between_zero_and_one():
    net, x = Linear(2, (1, 2, 2)), torch.randn(4, 1, 2, 2, generator=seeded("x"))
    got, _ = figures(net, x, sigma=0.3)
    exact = net.exact(x.flatten(1), 0.6) + 4 * math.log(2)  # of (x + 1) / 2
    assert got["ais/log_likelihood"] == pytest.approx(exact.mean().item(), abs=0.15)


def test_a_uniform_prior_is_a_function_of_normal_noise():
    """p(x) of x = a z + b + sigma n, z uniform on [-c, c], is a difference of two normal distribution functions."""
    net, x = Linear(1, (1,), law="uniform"), torch.linspace(-2, 2, 4)[:, None]
    a, b = net.body.weight.item(), net.body.bias.item()
    phi, width = torch.special.ndtr, abs(a) * math.sqrt(3)
    exact = ((phi((x.double() - b + width) / 0.2) - phi((x.double() - b - width) / 0.2)) / (2 * width)).log()
    got, _ = figures(net, x, sigma=0.2)
    assert got["ais/log_likelihood"] == pytest.approx(exact.mean().item(), abs=0.15)


def test_a_conditional_generator_is_given_the_labels_of_the_test_samples():
    net, y = Linear(2, (4,), classes=3), torch.tensor([0, 1, 2, 1])
    x = 3 * y[:, None] + torch.randn(4, 4, generator=seeded("x"))
    got, _ = figures(net, x, y)
    assert got["ais/log_likelihood"] == pytest.approx(net.exact(x, SIGMA, y).mean().item(), abs=0.2)
    with pytest.raises(UserError, match="have none"):
        figures(net, x)


def test_it_is_repeatable_and_leaves_the_networks_alone():
    net, x = Linear(2, (5,)), torch.randn(4, 5, generator=seeded("x"))
    before, state = [p.clone() for p in net.parameters()], torch.get_rng_state()
    first, _ = figures(net.train(), x, temperatures=8)
    second, _ = figures(net, x, temperatures=8)
    assert first == second
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, net.parameters()))
    assert torch.equal(state, torch.get_rng_state())


def test_what_ais_cannot_do_it_says():
    net, x = Linear(2, (5,)), torch.randn(4, 5)
    with pytest.raises(UserError, match="the test split has 4"):
        figures(net, x, n_images=5)
    nn.init.constant_(net.body.bias, torch.nan)
    with pytest.raises(UserError, match="not finite"):
        figures(net, x, temperatures=5)
    net.prior = lambda draws: draws.integers(2)[:, None].float().expand(-1, 2)
    with pytest.raises(UserError, match="this prior draws whole numbers"):
        figures(net, x, temperatures=5)
