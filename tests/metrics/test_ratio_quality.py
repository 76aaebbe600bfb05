"""The quality of a density ratio, against the cross-entropy of normal laws by quadrature."""

import math

import pytest
import torch

from gan_runner.architectures import Discriminator, Generator
from gan_runner.datasets import Dataset, Samples
from gan_runner.evaluation import findings
from gan_runner.evaluation.reference import Reference
from gan_runner.game import DiscriminatorOutput
from gan_runner.game.spec import Spec
from gan_runner.metrics import RatioQuality
from gan_runner.sampling.subjects import Generated

MEAN, N = 1.0, 20_000  # data are N(MEAN, 1), the model N(0, 1)


class Standard(Generator):
    latent = 1

    def forward(self, z, y=None):
        return z


class Data(Dataset):
    """Normal in the test split; in the split for training they are where D has learnt them by heart."""

    spec = Spec((1,))

    def load(self, split):
        x = torch.randn(N, 1, generator=torch.Generator().manual_seed(0)) + MEAN
        return Samples(x if split == "test" else x + 50, None)


class Judge(Discriminator):
    """slope * log ratio + offset."""

    features = 1

    def __init__(self, slope=1.0, offset=0.0, critics=1):
        super().__init__()
        self.slope, self.offset, self.critics = slope, offset, critics

    def forward(self, sample, y=None):
        logits = self.slope * (MEAN * sample[:, 0] - MEAN**2 / 2) + self.offset
        return DiscriminatorOutput(logits if self.critics == 1 else logits[:, None].repeat(1, self.critics), sample)


def by_quadrature(slope=1.0, offset=0.0):
    """(E_data softplus(-d) + E_model softplus(d)) / 2."""
    x = torch.linspace(-12, 13, 200_001, dtype=torch.float64)
    d = slope * (MEAN * x - MEAN**2 / 2) + offset
    data, model = ((-((x - mean) ** 2) / 2).exp() / math.sqrt(2 * math.pi) for mean in (MEAN, 0.0))
    integrand = data * torch.nn.functional.softplus(-d) + model * torch.nn.functional.softplus(d)
    return float(torch.trapezoid(integrand, x)) / 2


def found(judge, n=N, split="train", seed=0, **more):
    subject = Generated(Standard(), 10, Data.spec, discriminator=judge, seed=seed)
    return findings.evaluate(subject, {"ratio_quality": RatioQuality(n)}, Reference(Data(), split), **more)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (3.0, 0.0), (0.3, 0.0), (1.0, 1.5)])
def test_the_cross_entropy_of_a_scaled_log_ratio_is_that_of_quadrature(slope, offset):
    figures = found(Judge(slope, offset)).numbers
    assert figures["ratio/cross_entropy"] == pytest.approx(by_quadrature(slope, offset), abs=0.015 * max(1, slope))
    assert figures["ratio/steepness"] == pytest.approx(1 / slope, rel=0.05)
    assert (abs(figures["ratio/Z"]) < 3) == (offset == 0)


def test_the_log_ratio_has_the_lowest_cross_entropy():
    entropies = [found(Judge(slope)).numbers["ratio/cross_entropy"] for slope in (0.7, 1.0, 1.4)]
    assert min(entropies) == entropies[1]


def test_a_constant_logit_says_nothing():
    figures = found(Judge(0.0)).numbers
    assert figures["ratio/cross_entropy"] == pytest.approx(math.log(2), abs=1e-9)
    assert figures["ratio/Z"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_samples_are_held_out_whatever_split_is_compared_with(split):
    assert found(Judge(), split=split).numbers["ratio/cross_entropy"] == pytest.approx(by_quadrature(), abs=0.015)


def test_fewer_samples_than_asked_for_are_all():
    assert found(Judge(), n=10 * N).numbers == found(Judge(), n=N).numbers


def test_the_figures_depend_on_the_seed_and_not_on_the_mode_of_the_networks():
    judge = Judge().train()
    first, same, other = found(judge, n=500), found(judge.eval(), n=500), found(judge, n=500, seed=1)
    assert first.numbers == same.numbers
    assert first.numbers["ratio/cross_entropy"] != other.numbers["ratio/cross_entropy"]
    assert found(judge.train(), n=500)
    assert judge.training


def test_a_vector_of_critics_is_no_ratio():
    result = found(Judge(critics=3), n=20)
    assert result.numbers == {"ratio": None}
    assert result.protocol["missing"]["ratio_quality"] == "Judge gives 3 logits a sample: a density ratio is one number"


def test_best_is_the_lowest_cross_entropy():
    assert findings.aim("ratio_quality", {"ratio_quality": RatioQuality()}) == ("ratio/cross_entropy", "min")
