"""The Dirac-GAN: p_data at 0, G at theta, D(x) = psi x. The radii after 500 simultaneous steps are those of the exact iteration."""

import math
from functools import partial

import pytest

from games import play, sgd
from gan_runner.architectures import LinearGenerator, QuadraticDiscriminator
from gan_runner.datasets import Dirac
from gan_runner.losses import LeastSquares, Minimax, NonSaturating, RelativisticAverage, RelativisticPaired, Wasserstein
from gan_runner.penalties import R1, R2, GradientNormalisation, GradientPenalty, Teacher
from gan_runner.priors import Signs
from gan_runner.rules import Alternate, Simultaneous
from gan_runner.tricks import EMA, InstanceNoise


def radius(terms, rule=None, psi=1.0, tricks=None, batch_size=2):
    nets = {
        "discriminator": partial(QuadraticDiscriminator, slope=psi, square=None),
        "generator": partial(LinearGenerator, scale=0.0, shift=1.0, prior=Signs()),
    }
    data = Dirac().spec, Dirac().load("train")
    game, _ = play(500, terms, rule or Simultaneous(), tricks, nets=nets, data=data, optimizer=sgd, batch_size=batch_size, steps=500)
    if not tricks:
        assert game.G.scale.item() == 0
    return math.hypot(game.G.shift.item(), game.D.slope.item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terms", "from_one", "from_minus_one"),
    [
        (lambda: {"loss": Minimax()}, 2.1793, 2.2536),  # diverges
        (lambda: {"loss": NonSaturating()}, 0.5211, 0.5211),  # converges slower than any rate
        (lambda: {"loss": Wasserstein()}, 17.0160, 17.0160),  # diverges
        (lambda: {"loss": Wasserstein(), "gp": GradientPenalty(1.0)}, 2.0000, 2.0000),  # a limit cycle
        (lambda: {"loss": Wasserstein(), "gp": GradientPenalty(0.5)}, 1.4799, 1.3521),
        (lambda: {"loss": Wasserstein(), "gp": GradientPenalty(0.5, norm="max")}, 1.4799, 1.3521),  # there is one slope
        (lambda: {"loss": LeastSquares()}, 1.3291, 1.1895),
        (lambda: {"loss": RelativisticPaired()}, 0.5211, 0.5211),  # as D is 0 on the data: the same as non-saturating
        (lambda: {"loss": RelativisticAverage()}, 0.6402, 0.6402),  # twice its slopes
    ],
)
def test_radius_after_500_steps(terms, from_one, from_minus_one):
    assert radius(terms()) == pytest.approx(from_one, abs=2e-4)
    assert radius(terms(), psi=-1.0) == pytest.approx(from_minus_one, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [R1, R2])  # the slope is the same everywhere
def test_r1_and_r2_converge(penalty):
    assert radius({"loss": NonSaturating(), "slope": penalty(1.0)}) == pytest.approx(6.4e-10, rel=0.05)
    assert radius({"loss": NonSaturating(), "slope": penalty(1.0)}, psi=-1.0) == pytest.approx(8.3e-12, rel=0.05)


@pytest.mark.slow
def test_instance_noise_converges():
    """In expectation: the noise of a batch of 4096 leaves about its standard error."""
    assert radius({"loss": NonSaturating()}, tricks={"noise": InstanceNoise(1.0)}, batch_size=4096) < 0.05


def test_alternating_wasserstein_stays_on_its_orbit():
    assert radius({"loss": Wasserstein()}, Alternate()) < 2


def by_hand(weight=0.0, beta=0.0, decay=None):
    """The radius of Wasserstein steps of size .1 from (1, 1), towards an average of theta or with a normalised gradient of it."""
    theta = average = psi = 1.0
    square = mass = 0.0
    for _ in range(500):
        slope = -psi
        slope += 2 * weight * (theta - average)
        if decay is not None:
            square, mass = decay * square + (1 - decay) * slope**2, decay * mass + 1 - decay
            slope /= math.sqrt(square / mass)
        theta, psi = theta - 0.1 * slope, psi - 0.1 * theta
        average = beta * average + (1 - beta) * theta
    return math.hypot(theta, psi)


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "below"), [(0.0, 20), (1.0, 0.06)])
def test_an_average_of_g_as_its_teacher_converges(weight, below):
    """Without it the game diverges to 17."""
    expected = by_hand(weight, 0.5 ** (2 / 10))
    assert expected < below
    found = radius({"loss": Wasserstein(), "teacher": Teacher(weight)}, tricks={"ema": EMA(0.01)})
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_a_normalised_gradient_of_g():
    """It goes round the solution: its size does not fall where D becomes flat."""
    found = radius({"loss": Wasserstein(), "normalised": GradientNormalisation(0.9)})
    assert found == pytest.approx(by_hand(decay=0.9), rel=1e-4)
    assert found == pytest.approx(1.2625, abs=1e-3)
