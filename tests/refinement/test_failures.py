"""What goes wrong with a steep log ratio: samples that are moved by it lose modes, with a warning; those that are chosen by it do not."""

import math

import pytest
import torch
from torch import nn

from gan_runner.datasets import Gaussians25
from gan_runner.evaluation import evaluate
from gan_runner.evaluation.reference import Reference
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.metrics import ModeCoverage
from gan_runner.refinement.comparison import Comparison, Networks
from gan_runner.refiners import DDLS, OBRS, Auto, DGflow
from gan_runner.reporting import Reporter
from gan_runner.sampling.subjects import Generated

DATA = Gaussians25(n=4000)


class Wide(Generator):
    """N(0, 1) in the plane."""

    latent = 2

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, z, y=None):
        return z * self.scale


class Exact(Discriminator):
    """The log ratio of the data and `Wide`, as a D without any penalty comes to know it."""

    features = 2

    def forward(self, sample, y=None):
        logit = DATA.spec.exact.log_prob(sample) + sample.square().sum(1) / 2 + math.log(2 * math.pi)
        return DiscriminatorOutput(logit, sample)


@pytest.fixture(scope="module")
def compared():
    """Figures without a refiner, and refiner -> (figures, warnings)."""
    G, D = Wide().eval().requires_grad_(False), Exact().eval()
    metrics, reference = {"mode_coverage": ModeCoverage(DATA.spec)}, Reference(DATA)
    plain = evaluate(Generated(G, 2500, DATA.spec, discriminator=D), metrics, reference).numbers
    refiners = {"dgflow": DGflow(steps=10, eta=0.002), "obrs": OBRS(budget=20), "ddls": DDLS(steps=300, epsilon=5e-4), "auto": Auto()}
    with Reporter() as reporter:
        comparison = Comparison(Networks(G, D), DATA, DATA.spec, metrics, reference, n=2500, seeds=[0], reporter=reporter)
        before, found = comparison.before(plain), {}
        for name, refiner in refiners.items():
            judged = comparison.judge(name, refiner)
            found[name] = judged.rows[-1].figures, list(comparison.warnings(before, judged.rows[-1])), judged.notes
    return plain, found


@pytest.mark.slow
def test_moving_samples_by_a_steep_log_ratio_loses_modes_and_warns(compared):
    plain, found = compared
    figures, warnings, notes = found["dgflow"]
    assert figures["modes/covered"] < 5 < 15 < plain["modes/covered"]
    assert [warning.partition(": ")[2].split(" falls")[0] for warning in warnings] == ["modes/covered", "modes/covered_well"]
    assert "latents have left the prior: mean |z|^2 / Z is" in notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["obrs", "ddls", "auto"])
def test_choosing_samples_by_it_covers_more_and_warns_of_nothing(compared, name):
    plain, found = compared
    figures, warnings, _ = found[name]
    assert figures["modes/covered"] == 25
    assert figures["modes/kl"] < plain["modes/kl"] / 2
    assert figures["modes/high_quality"] > 3 * plain["modes/high_quality"]  # obrs with its budget of 4 gives a factor of 4 at most
    assert warnings == []


@pytest.mark.slow
def test_auto_takes_the_exact_log_ratio_for_one(compared):
    [note] = compared[1]["auto"][2]
    assert note.startswith("obrs is chosen: the logit is a log ratio (steepness 1.0")
