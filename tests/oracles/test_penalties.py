"""Penalties of critics whose slopes are known."""

from collections import Counter as Counts
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from games import make
from gan_runner.architectures import Discriminator, MLPGenerator
from gan_runner.datasets import Spec
from gan_runner.draws import Draws
from gan_runner.game import DiscriminatorOutput
from gan_runner.losses import NonSaturating
from gan_runner.penalties import (
    R1,
    R2,
    ApproximateR1,
    ApproximateR2,
    AuxiliaryClassifier,
    Dragan,
    Drift,
    FeatureMatching,
    GradientPenalty,
    LeCam,
    LogitCentring,
)
from gan_runner.penalties.piecewise import NoSecondDerivative
from gan_runner.schedules import Linear
from plays import Doubled, Linear2, Quadratic, Shift, W, play_of


def test_gradient_penalty_of_a_linear_critic():
    """|grad D| = 5 everywhere: (5 - 1)^2 = 16."""
    assert GradientPenalty(1.0).discriminator(play_of()).item() == pytest.approx(16, rel=1e-5)
    assert GradientPenalty(0.1, every=4).discriminator(play_of()).item() == pytest.approx(6.4, rel=1e-5)


@pytest.mark.parametrize(("side", "steep", "gentle"), [("two", 16, 0.25), ("one", 16, 0), ("zero", 25, 0.25)])
def test_sides_of_the_gradient_penalty(side, steep, gentle):
    """Of slopes of 5 and 1/2."""
    assert GradientPenalty(1.0, side=side).discriminator(play_of()).item() == pytest.approx(steep, rel=1e-5)
    assert GradientPenalty(1.0, side=side).discriminator(play_of(Gentle())).item() == pytest.approx(gentle, rel=1e-5)


def test_the_gradient_penalty_has_two_sides_unless_told_otherwise():
    plain, two = GradientPenalty(0.3), GradientPenalty(0.3, side="two")
    assert torch.equal(plain.discriminator(play_of(Quadratic())), two.discriminator(play_of(Quadratic())))
    assert plain.side == "two"


@pytest.mark.parametrize(("side", "far"), [("two", lambda slope: slope - 1), ("one", lambda slope: max(slope - 1, 0)), ("zero", float)])
def test_the_steepest_slope_of_a_batch_may_count_alone(side, far):
    """The slope of |x|^2 / 2 is the point itself: one point has a gradient."""
    points = play_of(Quadratic())
    value = GradientPenalty(2.0, side=side, norm="max").discriminator(points)
    between = torch.lerp(points.real, points.fake, points.draws.made[0][:, None]).norm(dim=1)
    assert value.item() == pytest.approx(2 * far(between.max().item()) ** 2, rel=1e-5)
    steep, mean = (GradientPenalty(2.0, side=side, norm=norm).discriminator(play_of()).item() for norm in ("max", "mean"))
    assert steep == pytest.approx(mean, rel=1e-6)  # all slopes are equal


class Gentle(Linear2):
    def forward(self, sample, y=None):
        return DiscriminatorOutput(sample @ W / 10, sample)


@pytest.mark.parametrize("penalty", [R1, R2])
def test_r1_and_r2_of_a_linear_critic(penalty):
    """10/2 * 25 = 125."""
    assert penalty(10.0).discriminator(play_of()).item() == pytest.approx(125, rel=1e-6)
    assert penalty(10.0, every=4).discriminator(play_of()).item() == pytest.approx(500, rel=1e-6)


def test_slopes_add_up_over_the_scales_of_a_sample():
    assert R1(10.0).discriminator(play_of(G=Doubled())).item() == pytest.approx(250, rel=1e-6)
    assert GradientPenalty(1.0).discriminator(play_of(G=Doubled())).item() == pytest.approx((50**0.5 - 1) ** 2, rel=1e-5)


def test_penalties_are_taken_where_they_should_be():
    play = play_of(Quadratic())
    assert R1(2.0).discriminator(play).item() == pytest.approx(play.x.square().sum(1).mean().item(), rel=1e-6)
    assert R2(2.0).discriminator(play).item() == pytest.approx(play.fake.square().sum(1).mean().item(), rel=1e-6)
    between = play_of(Quadratic())
    mix = Draws(torch.Generator().manual_seed(0), 16)
    value = GradientPenalty(1.0).discriminator(between)
    a = between.draws.made[0] if between.draws.made[0].dim() == 1 else between.draws.made[-1]
    points = between.real + a[:, None] * (between.fake - between.real)
    assert value.item() == pytest.approx((points.norm(dim=1) - 1).square().mean().item(), rel=1e-5)
    assert mix.uniform().shape == a.shape
    assert len(a.unique()) == 16  # one mix a sample


@pytest.mark.parametrize("G", [Shift, Doubled])
def test_dragan_is_taken_around_real_samples(G):
    """By hand, where the slope is the point itself."""
    play = play_of(SumOfLeaves(), G())
    value = Dragan(2.0).discriminator(play).item()
    share, *entries = play.draws.made
    points = torch.cat([play.x + share[:, None] * play.x.std() / 2 * u for u in entries], 1)
    assert value == pytest.approx(2 * (points.norm(dim=1) - 1).square().mean().item(), rel=1e-5)
    assert [u.shape for u in entries] == [(16, 2)] * len(entries) != []
    assert Dragan().discriminator(play_of()).item() == pytest.approx(160, rel=1e-5)


class SumOfLeaves(Discriminator):
    features = 2

    def forward(self, sample, y=None):
        leaves = sample if isinstance(sample, tuple) else (sample,)
        return DiscriminatorOutput(sum(leaf.square().sum(1) for leaf in leaves) / 2, leaves[0])


@pytest.mark.parametrize("penalty", [Dragan, LeCam, FeatureMatching, partial(GradientPenalty, norm="max")])
def test_what_is_no_mean_over_samples_needs_the_whole_batch(penalty):
    with pytest.raises(ValueError, match=r"accumulate=2 cuts the batch, and mine needs all of it"):
        make({"loss": NonSaturating(), "mine": penalty()}, accumulate=2)


@pytest.mark.parametrize("side", ["two", "one", "zero"])
def test_a_flat_critic_has_a_finite_gradient(side):
    class Flat(Discriminator):
        features = 2

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, sample, y=None):
            return DiscriminatorOutput(sample @ self.w, sample)

    flat = Flat()
    GradientPenalty(1.0, side=side).discriminator(play_of(flat)).backward()
    assert flat.w.grad.isfinite().all()


def test_feature_matching_is_the_squared_distance_of_the_means():
    play = play_of()
    expected = (play.x.mean(0) - play.fake.mean(0)).square().sum()
    assert FeatureMatching(1.0).generator(play).item() == pytest.approx(expected.item(), rel=1e-6)
    assert FeatureMatching(1.0).discriminator(play) is None


def test_auxiliary_classifier_is_a_cross_entropy_on_features():
    torch.manual_seed(0)
    term = AuxiliaryClassifier(2.0, generator_weight=0.5)
    nets = {"generator": MLPGenerator(Spec((2,), 5), conditional=True), "discriminator": Linear2()}
    term.build(Spec((2,), 5), nets)
    play = play_of()
    assert term.discriminator(play).item() == pytest.approx(2 * F.cross_entropy(term.head(play.x), play.y).item(), rel=1e-6)
    assert term.generator(play).item() == pytest.approx(0.5 * F.cross_entropy(term.head(play.fake), play.fake_y).item(), rel=1e-6)
    with pytest.raises(ValueError, match="needs labels"):
        AuxiliaryClassifier().build(Spec((2,)), nets)


def test_a_weight_may_be_a_schedule():
    penalty = R1(Linear(10.0, 0.0, 10))
    for step, value in ((0, 125.0), (5, 62.5), (10, 0.0), (99, 0.0)):
        penalty.weight.fill(step, 1000)
        assert penalty.discriminator(play_of()).item() == pytest.approx(value, abs=1e-4)


# ---- logits -------------------------------------------------------------------------------------------------------------------------


class Logits(Discriminator):
    """The logits are the first numbers of the samples: of P critics with `width` = P."""

    features = 2

    def __init__(self, width=None):
        super().__init__()
        self.width = width

    def forward(self, sample, y=None):
        return DiscriminatorOutput(sample[:, 0] if self.width is None else sample[:, : self.width], sample)


@pytest.mark.parametrize("width", [None, 2])
def test_drift_is_the_mean_square_of_real_logits(width):
    play = play_of(Logits(width))
    logits = play.x[:, : width or 1]
    assert Drift(2.0, every=3).discriminator(play).item() == pytest.approx(6 * logits.square().mean().item(), rel=1e-6)
    assert Drift().weight.value.item() == pytest.approx(1e-3)


def test_logit_centring_is_the_mean_square_of_the_sums_of_pairs():
    play = play_of(Logits())
    value = LogitCentring(2.0, every=3).discriminator(play)
    assert value.item() == pytest.approx(6 * (play.x[:, 0] + play.fake[:, 0]).square().mean().item(), rel=1e-6)
    assert LogitCentring().weight.value.item() == pytest.approx(0.01)


def test_centred_pairs_have_one_label():
    seen = []

    class Spy(LogitCentring):
        def discriminator(self, play):
            seen.append(torch.equal(play.y, play.fake_y))
            return super().discriminator(play)

    game, batches = make({"loss": NonSaturating(), "penalty": Spy()}, conditional=True)
    game.round(batches)
    assert seen == [True]


class Constant(Discriminator):
    """1 for real samples, which come first, and -2 for fakes."""

    features = 1

    def forward(self, sample, y=None):
        half = torch.ones(len(sample) // 2)
        return DiscriminatorOutput(torch.cat([half, -2 * half]), sample)


def test_lecam_averages_of_constant_logits():
    """After n moves they are 1 - decay^n of the logits; the penalty is that of the averages before the move."""
    penalty = LeCam(2.0, every=3, decay=0.9)
    for n in range(20):
        share = 1 - 0.9**n
        assert [penalty.real.item(), penalty.fake.item()] == pytest.approx([share, -2 * share], rel=1e-5, abs=1e-7)
        value = penalty.discriminator(play_of(Constant()).whole)
        assert value.item() == pytest.approx(6 * ((1 + 2 * share) ** 2 + (-2 - share) ** 2), rel=1e-5)
    assert (LeCam().weight.value.item(), LeCam().decay) == (pytest.approx(0.3), 0.99)


# ---- slopes by differences ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [ApproximateR1, ApproximateR2])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_approximate_penalties_of_a_linear_critic(penalty, share):
    """E (n . w)^2 = |w|^2 = 25, deviation sqrt(2) |w|^2 / sqrt(N): R1 with gamma = 2 weight."""
    n = 100_000
    value = penalty(0.1, every=2, share=share).discriminator(play_of(n=n))
    assert value.item() == pytest.approx(R1(0.2, every=2).discriminator(play_of()).item(), rel=4 * (2 / n / share) ** 0.5)
    assert penalty().weight.value.item() == pytest.approx(0.1)


class Rolled:
    """A translation and noise, as random as an augmentation can be."""

    def __call__(self, sample, draws):
        self.turned = draws.integers(2).bool()[:, None]
        return self.turn(sample) + 5 * draws.normal(2)

    def turn(self, sample):
        return torch.where(self.turned, sample.roll(1, 1), sample)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("seen_before", [True, False])
def test_both_passes_have_one_augmentation(share, seen_before):
    """By hand from the noise and the translation that were drawn; nothing is left of the noise of the augmentation."""
    play = play_of(augment=Rolled())
    if seen_before:
        assert play.on_both
    before = len(play.draws.made)
    value = ApproximateR1(1.0, sigma=0.1, share=share).discriminator(play)
    slopes = play.augment.turn(play.draws.made[before])[:: round(1 / share)] @ W
    assert value.item() == pytest.approx(slopes.square().mean().item(), rel=1e-3)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_parts_of_a_batch_have_the_penalty_of_the_whole(share):
    """As processes and micro-batches cut it, also where they hold different numbers of the samples that are taken."""
    penalty = ApproximateR1(1.0, share=share)
    whole = play_of(Quadratic())
    draws = whole.draws
    expected = penalty.discriminator(whole)
    parts = []
    for i in range(4):
        play = play_of(Quadratic(), rows=slice(4 * i, 4 * i + 4))
        play.draws = draws.of(play.draws.rows)
        parts.append(penalty.discriminator(play))
    assert torch.stack(parts).mean().item() == pytest.approx(expected.item(), rel=1e-5)
    assert len({part.item() for part in parts}) == 4


class Counted(Quadratic):
    """It notes how many samples it is asked about, and may couple them."""

    def __init__(self, couples_samples=False):
        super().__init__()
        self.couples_samples, self.seen = couples_samples, []

    def forward(self, sample, y=None):
        self.seen.append(len(sample))
        return super().forward(sample, y)


@pytest.mark.parametrize(("share", "more"), [(1.0, 16), (0.5, 8), (0.25, 4)])
def test_the_pass_of_the_plain_samples_is_that_of_the_loss(share, more):
    play = play_of(Counted())
    assert play.on_both
    ApproximateR1(share=share).discriminator(play)
    ApproximateR2(share=share).discriminator(play)
    assert play.D.seen == [32, more, more]


def test_samples_that_d_couples_are_seen_in_the_whole_batch():
    play = play_of(Counted(couples_samples=True))
    assert play.on_both
    ApproximateR1(share=0.25).discriminator(play)
    assert play.D.seen == [16, 16, 16]


def test_a_share_is_one_in_k():
    for share in (1.0, 0.5, 0.33, 0.25, 0.01):
        ApproximateR1(share=share)
    with pytest.raises(ValueError, match=r"share=0\.7 is not 1/k"):
        ApproximateR2(share=0.7)


def test_in_lower_precision_differences_are_float32():
    """In bfloat16 most logits of x and x + .01 n are equal."""
    exact = ApproximateR1(1.0).discriminator(play_of(Product()))
    play = play_of(Product())
    with torch.autocast("cpu", torch.bfloat16):
        low = ApproximateR1(1.0).discriminator(play)
        rounded = play.on_real.logits
    assert (rounded - play.real @ W).abs().max() > 0.01
    assert low.item() == pytest.approx(exact.item(), rel=1e-3)


class Product(Linear2):
    """As a layer, so that autocast rounds it."""

    def forward(self, sample, y=None):
        return DiscriminatorOutput(F.linear(sample, W[None]).squeeze(1), sample)


# ---- slopes of piecewise linear networks --------------------------------------------------------------------------------------------


class Bent(nn.Module):
    """Every function that is known to be piecewise linear, and one that is not."""

    def __init__(self, smooth):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 2)
        self.smooth = smooth

    def forward(self, x):
        h = nn.AvgPool2d(2, padding=1)(nn.LeakyReLU(0.3)(self.first(x)))
        h = F.avg_pool2d(torch.relu(self.second(F.relu(h))), 2, ceil_mode=True, count_include_pad=False)
        return self.third(h.tanh() if self.smooth else F.leaky_relu(h.relu() - 0.1)).flatten(1)


def slope_gradients(net, x, aside):
    x = x.clone().requires_grad_()
    with aside:
        total = net(x).sum()
    (slope,) = torch.autograd.grad(total, x, create_graph=True)
    value = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return slope, torch.autograd.grad(value, list(net.parameters()), allow_unused=True)


@pytest.mark.parametrize("smooth", [False, True])
def test_derivatives_that_are_zero_may_be_left_out(smooth):
    torch.manual_seed(0)
    net, x = Bent(smooth).double(), torch.randn(3, 1, 9, 9, dtype=torch.float64)
    slope, grads = slope_gradients(net, x, nullcontext())
    aside, fewer = slope_gradients(net, x, NoSecondDerivative())
    assert torch.equal(slope, aside)
    for p, grad, less in zip(net.parameters(), grads, fewer):
        assert torch.equal(*(torch.zeros_like(p) if each is None else each for each in (grad, less)))
    nothing = [sum(each is None for each in those) for those in (grads, fewer)]
    assert nothing == ([1, 1] if smooth else [1, 3])  # biases: the last one in any case


def test_no_backward_pass_is_made_through_zeros():
    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen[str(function)] += 1
            return function(*args, **(kwargs or {}))

    net, x, counts = Bent(False), torch.randn(2, 1, 9, 9), []
    for aside in (nullcontext(), NoSecondDerivative()):
        seen = Counts()
        with Counter():
            slope_gradients(net, x, aside)
        counts.append((seen["aten.convolution_backward.default"], seen["aten.zeros_like.default"]))
    (with_zeros, zeros), (without, none) = counts
    assert zeros > 0
    assert none == 0
    assert without == 3 < with_zeros  # once through each layer: the slope itself


def test_what_works_in_place_is_left_as_it_is():
    x = torch.ones(2, requires_grad=True)
    with NoSecondDerivative():
        y = x * -1
        assert F.relu(y, inplace=True) is y
