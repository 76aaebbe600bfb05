"""The bilinear game and the LQ-GAN, composed as on a command line: where they end is known in closed form or from the iteration by hand."""

import math

import pytest
import torch

from gan_runner.assembly import build
from gan_runner.config.composer import compose
from gan_runner.datasets import LGQ, Bilinear, Dirac, stream
from gan_runner.execution.replay import Replayed

SIDES, CPU = ("generator", "discriminator"), torch.device("cpu")


def ended(n, rate, *words):
    """G and D after n rounds at this rate."""
    plain = [f"optimizer.{side}.{key}" for side in SIDES for key in (f"lr={rate}", "momentum=0.0")]
    assembly = build.assemble(compose(["optimizer=sgd", *plain, "batch_size=2", f"trainer.steps={n}", *words]).config, device=CPU)
    batches = stream(assembly.dataset, "train", 2, 0, "cpu")
    turns = Replayed(assembly.game, pytest.fail)
    for _ in range(n):
        assembly.game.round(batches, turns.turn)
    assert turns.ready
    return assembly.game.G, assembly.game.D


def bilinear(*words, rate=0.05, n=400):
    """The distance from the solution (0, 0). The game is x y, from (1, 1) at first, with x the shift of G and y = -slope of D."""
    start = [
        "architecture=point_linear",
        "architecture.discriminator.slope=-1",
        "architecture.generator.shift=1",
        "dataset.mean=0",
    ]  # whole numbers
    G, D = ended(n, rate, "dataset=bilinear", *start, "loss=wasserstein", *words)
    assert G.scale.item() == 0
    return math.hypot(G.shift.item(), D.slope.item())


@pytest.mark.slow
@pytest.mark.parametrize(("delay", "radius"), [(0, 1.4442), (1, 2.3302), (2, 3.7450), (5, 14.9374), (10, 99.5122)])
def test_an_old_d_drives_the_bilinear_game_apart(delay, radius):
    assert bilinear("rule=stale", f"rule.delay={delay}") == pytest.approx(radius, rel=1e-4)


@pytest.mark.slow
def test_rules_and_optimistic_steps_on_the_bilinear_game():
    """By the eigenvalues of a round, as complex numbers: its solution is a rotation around (0, 0)."""
    h, n = 0.05, 400
    assert bilinear("rule=simultaneous") == pytest.approx(2**0.5 * (1 + h**2) ** (n / 2), rel=1e-4)
    assert bilinear("rule=alternate") == pytest.approx(1.4442, rel=1e-4)
    assert bilinear("rule=extragradient") == pytest.approx(2**0.5 * (1 - h**2 + h**4) ** (n / 2), rel=1e-4)
    w, last = 1 + 1j, -1j * (1 + 1j)  # x + i y, and the gradients of both, y and -x, which are -i w
    for _ in range(n):
        gradient = -1j * w
        w, last = w - h * (2 * gradient - last), gradient
    optimistic = [f"optimizer.{side}._target_=gan_runner.optimizers.OptimisticSGD" for side in SIDES]
    assert bilinear("rule=simultaneous", *optimistic) == pytest.approx(abs(w), rel=1e-4)
    assert abs(w) < 1


@pytest.mark.slow
def test_the_lq_gan_converges_by_extragradient_alone():
    """Means and deviations of the data 1 and 2; G from scale 1 and shift 0. Simultaneous steps lose the scale."""
    game = ["dataset=lgq", "architecture=linear_quadratic", "loss=wasserstein"]
    G, _ = ended(20_000, 0.02, *game, "rule=extragradient")
    assert (G.scale.item(), G.shift.item()) == pytest.approx((1.9905, 1.0180), abs=1e-4)
    G, _ = ended(5_000, 0.02, *game, "rule=simultaneous")
    assert abs(G.scale.item()) < 0.01


def test_the_data_of_a_batch_have_the_moments_of_their_distribution_exactly():
    assert Dirac().load("train").x.unique().tolist() == [0.0]
    assert Bilinear(3.0).load("test").x.tolist() == [[2.0], [4.0]]
    lgq = LGQ([1.0, -3.0], [2.0, 0.5])
    assert lgq.spec.shape == (1,)
    x = lgq.load("train").x
    assert x.mean().item() == (1 - 3) / 2
    assert x.square().mean().item() == (1 + 4 + 9 + 0.25) / 2
    batches = stream(LGQ([1.0, -3.0], [2.0, 0.5]), "train", 4, 0, "cpu")
    for _ in range(3):
        batches.prepare()
        assert sorted(next(batches).x.flatten().tolist()) == [-3.5, -2.5, -1.0, 3.0]


@pytest.mark.parametrize(("means", "deviations"), [([], []), ([1.0], [1.0, 2.0])])
def test_components_that_are_none_are_refused(means, deviations):
    with pytest.raises(ValueError, match="as many numbers, one or more"):
        LGQ(means, deviations)
