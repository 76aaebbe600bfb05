"""The experiments dirac, bilinear and lgq: where they end is known in closed form, or from the iteration by hand."""

import math

import pytest
import torch

from gan_runner.assembly import build
from gan_runner.config.composer import compose
from gan_runner.datasets import LGQ, Bilinear, Dirac, stream
from gan_runner.execution.replay import Replayed

SIDES = ("generator", "discriminator")


def ended(experiment, *words):
    """G and D after the rounds of an experiment."""
    config = compose([f"+experiment={experiment}", *words]).config
    assembly = build.assemble(config, device=torch.device("cpu"))
    batches = stream(assembly.dataset, "train", config.batch_size, 0, "cpu")
    turns = Replayed(assembly.game, pytest.fail)
    for _ in range(config.trainer.steps):
        assembly.game.round(batches, turns.turn)
    assert turns.ready
    return assembly.game.G, assembly.game.D


def radius(experiment, *words):
    """The distance of the shift of G and the slope of D from (0, 0)."""
    G, D = ended(experiment, *words)
    assert G.scale.item() == 0
    return math.hypot(G.shift.item(), D.slope.item())


@pytest.mark.slow
@pytest.mark.parametrize(("delay", "expected"), [(0, 1.4442), (1, 2.3302), (2, 3.7450), (5, 14.9374), (10, 99.5122)])
def test_an_old_d_drives_the_bilinear_game_apart(delay, expected):
    assert radius("bilinear", "rule=stale", f"rule.delay={delay}") == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_rules_and_optimistic_steps_on_the_bilinear_game():
    """By the eigenvalues of a round, as complex numbers: its solution is a rotation around (0, 0)."""
    h, n = 0.05, 400
    assert radius("bilinear", "rule=simultaneous") == pytest.approx(2**0.5 * (1 + h**2) ** (n / 2), rel=1e-4)
    assert radius("bilinear", "rule=alternate") == pytest.approx(1.4442, rel=1e-4)
    assert radius("bilinear", "rule=extragradient") == pytest.approx(2**0.5 * (1 - h**2 + h**4) ** (n / 2), rel=1e-4)
    w, last = 1 + 1j, -1j * (1 + 1j)  # x + i y, and the gradients of both, y and -x, which are -i w
    for _ in range(n):
        gradient = -1j * w
        w, last = w - h * (2 * gradient - last), gradient
    optimistic = [f"optimizer.{side}._target_=gan_runner.optimizers.OptimisticSGD" for side in SIDES]
    assert radius("bilinear", "rule=simultaneous", *optimistic) == pytest.approx(abs(w), rel=1e-4)
    assert abs(w) < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [([], 0.5211), (["loss=minimax"], 2.1793), (["loss=wasserstein"], 17.016), (["penalty=[r1]", "penalty.r1.weight=1"], 6.4e-10)],
)
def test_the_dirac_gan_ends_where_its_experiment_says(words, expected):
    assert radius("dirac", *words) == pytest.approx(expected, rel=0.05 if expected < 1e-6 else 1e-4)


def test_whole_numbers_are_weights_and_data_as_well():
    words = ["architecture.discriminator.slope=-1", "architecture.generator.shift=1", "dataset.mean=0", "trainer.steps=4"]
    assert radius("bilinear", *words) == radius("bilinear", "trainer.steps=4")


@pytest.mark.slow
def test_the_lq_gan_converges_by_extragradient_alone():
    """Means and deviations of the data 1 and 2; G from scale 1 and shift 0. Simultaneous steps lose the scale."""
    G, _ = ended("lgq")
    assert (G.scale.item(), G.shift.item()) == pytest.approx((1.9905, 1.0180), abs=1e-4)
    G, _ = ended("lgq", "rule=simultaneous", "trainer.steps=5000")
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
