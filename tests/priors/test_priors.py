"""Each law by its moments and its density, the noise behind it, and how it is chosen."""

import math

import pytest
import scipy.stats
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.distributions import Uniform as TorchUniform

from gan_runner import priors
from gan_runner.architectures import DCGANGenerator, MLPGenerator
from gan_runner.assembly import parts
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.datasets import Spec
from gan_runner.draws import Draws, Noise, NumberedDraws, noise_behind, seeded
from gan_runner.errors import UserError
from gan_runner.game import Generator
from gan_runner.priors import Codes, Mixture, Prior, Signs, Truncated, Uniform
from gan_runner.priors import Normal as NormalPrior
from gan_runner.sampling.walks import interpolation

N = 40_000
# name -> (law, latent, mean of an axis, variance of an axis)
CUT = 1 - 2 * 1.5 * math.exp(-(1.5**2) / 2) / math.sqrt(2 * math.pi) / math.erf(1.5 / math.sqrt(2))
LAWS = {
    "normal": (NormalPrior(), 3, 0.0, 1.0),
    "uniform": (Uniform(-2.0, 5.0), 3, 1.5, 49 / 12),
    "truncated": (Truncated(1.5), 3, 0.0, CUT),
    "mixture": (Mixture(5, 4.0), 2, 0.0, 1 + 4.0**2 / 2),
    "signs": (Signs(), 3, 0.0, 1.0),
}


def draws(n=N, seed=0):
    return Draws(seeded("priors", seed), n)


@pytest.mark.parametrize("name", LAWS)
def test_moments(name):
    """Means, variances and correlations within 5 standard errors; of signs, whose batch has all combinations, exactly."""
    law, n, mean, variance = LAWS[name]
    z = law.draw(draws(), n).double()
    assert z.shape == (N, n)
    error = 5 * math.sqrt(variance / N) * (name != "signs") + 1e-12
    torch.testing.assert_close(z.mean(0), torch.full((n,), mean, dtype=torch.float64), rtol=0, atol=error)
    spread = 5 * float(((z - mean).square() - variance).square().mean() / N) ** 0.5 * (name != "signs") + 1e-12
    torch.testing.assert_close(z.var(0, correction=0), torch.full((n,), variance, dtype=torch.float64), rtol=0, atol=spread)
    among = torch.corrcoef(z.T) - torch.eye(n, dtype=torch.float64)
    assert among.abs().max() < 5 / math.sqrt(N) + 1e-12


def test_log_prob():
    torch.manual_seed(0)
    z = 2 * torch.randn(200, 3, dtype=torch.float64)
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    normal = Independent(Normal(zero, one), 1).log_prob(z)
    torch.testing.assert_close(Prior().log_prob(z), normal)
    torch.testing.assert_close(NormalPrior().log_prob(z), normal)
    inside = ((z >= -2) & (z <= 1.5)).all(1)
    box = Independent(TorchUniform(-2 * one, 1.5 * one, validate_args=False), 1).log_prob(z)
    torch.testing.assert_close(Uniform(-2, 1.5).log_prob(z), box.where(inside, -torch.inf))
    expected = torch.from_numpy(scipy.stats.truncnorm(-1.5, 1.5).logpdf(z.numpy())).sum(1)
    torch.testing.assert_close(Truncated(1.5).log_prob(z), expected)
    mixture = Mixture(5, 4.0)
    centres = torch.nn.functional.pad(mixture.centres.double(), (0, 1))
    parts_ = MultivariateNormal(centres, torch.eye(3, dtype=torch.float64))
    law = MixtureSameFamily(Categorical(torch.ones(5, dtype=torch.float64)), parts_)
    torch.testing.assert_close(mixture.log_prob(4 * z), law.log_prob(4 * z))


def test_every_combination_of_signs_comes_in_turn():
    z = Signs().draw(draws(8), 3)
    assert len(z.unique(dim=0)) == 8
    assert torch.equal(Signs().draw(draws(2), 1), torch.tensor([[1.0], [-1.0]]))
    assert torch.equal(Signs().log_prob(z), torch.full((8,), -3 * math.log(2)))
    assert Signs().log_prob(torch.tensor([[0.5, 1.0]])).item() == -math.inf


def test_codes_are_one_hot_and_uniform_behind_the_noise():
    law = Codes([3, 4], 2)
    z = law.draw(draws(), 12).double()
    noise, three, four, numbers = z.split([3, 3, 4, 2], 1)
    for code in (three, four):
        k = code.shape[1]
        assert torch.equal(code.sum(1), torch.ones(N, dtype=torch.float64))
        assert (code.mean(0) - 1 / k).abs().max() < 5 * math.sqrt((1 - 1 / k) / k / N)
    assert numbers.abs().max() <= 1
    assert abs(numbers.var(0) - 1 / 3).max() < 5 * math.sqrt(4 / 45 / N)
    expected = Independent(Normal(torch.zeros(3).double(), 1.0), 1).log_prob(noise) - math.log(3) - math.log(4) - 2 * math.log(2)
    torch.testing.assert_close(law.log_prob(z), expected)
    torch.testing.assert_close(law.log_prob(z[:2] + 0.1), torch.full((2,), -torch.inf, dtype=torch.float64))
    with pytest.raises(ValueError, match="these codes take 9 latent dimensions, and there are 8"):
        MLPGenerator(Spec((2,)), latent=8, prior=law)


@pytest.mark.parametrize("law", [*(law for law, *_ in LAWS.values()), Codes([3], 1)])
def test_a_latent_belongs_to_its_sample(law):
    """Micro-batches, processes and batches of any size get the rows of one whole draw."""
    n, whole = 6, law.draw(draws(8), 6)
    shared = draws(8)
    assert torch.equal(torch.cat([law.draw(shared.of(rows), n) for rows in (slice(0, 2), slice(2, 8))]), whole)
    numbered = [law.draw(NumberedDraws("z", 0, indices=torch.arange(i, i + 300)), n) for i in (0, 200)]
    assert torch.equal(numbered[0][200:], numbered[1][:100])


@pytest.mark.parametrize("law", [Prior(), NormalPrior(), Uniform(-2, 5), Truncated(1.5), Codes([], 2)])
def test_the_noise_behind_a_prior_gives_its_latents(law):
    e = noise_behind(draws(1000), lambda source: law.draw(source, 4))
    assert e.shape == (1000, 4)
    torch.testing.assert_close(law.draw(Noise(e), 4), law.draw(draws(1000), 4), rtol=0, atol=2e-5)
    assert abs(e.mean()) < 5 / math.sqrt(4000)
    assert abs(e.var() - 1) < 5 * math.sqrt(2 / 4000)
    same = noise_behind(Noise(e), lambda source: law.draw(source, 4))
    torch.testing.assert_close(same, e, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("law", [Mixture(3), Signs(), Codes([3])])
def test_latents_that_are_whole_numbers_are_not_moved(law):
    with pytest.raises(UserError, match="this prior draws whole numbers, and latents can be moved only where all of them"):
        law.draw(Noise(torch.zeros(2, 8)), 4)
    with pytest.raises(UserError, match="this prior draws whole numbers"):
        noise_behind(draws(2), lambda source: law.draw(source, 4))


class Latents(Generator):
    def __init__(self, law):
        super().__init__()
        self.latent, self.law = 4, law

    def prior(self, draws):
        return self.law.draw(draws, self.latent)

    def forward(self, z, y=None):
        return z


@pytest.mark.parametrize(
    ("law", "limit"), [(Uniform(-2, 2), 2.0), (Truncated(1.5), 1.5), (Signs(), 1.0), (Codes([4]), 9.0), (Codes([2], 1), 9.0)]
)
def test_a_walk_stays_in_the_support(law, limit):
    walk = interpolation(Latents(law), 100, 9, seed=0)
    assert walk.abs().max() <= limit
    assert (law.log_prob(walk) > -torch.inf).all()


# ---- on the line --------------------------------------------------------------------------------------------------------------------


def built(*words):
    config = compose(["dataset=ring8", *words]).plain()
    part = next(part for part in parts.parts_of(config) if part.path == "architecture.generator")
    mistakes = list(parts.mistakes_in(part, ()))
    return mistakes or parts.make(part.node, (), Generator, part.path, spec=Spec((2,)))


def test_a_prior_is_chosen_on_the_line():
    generator = built("architecture.generator.prior={_target_: gan_runner.priors.Uniform, low: -3, high: 3}")
    assert (generator.law.low, generator.law.high) == (-3, 3)
    assert 2.9 < generator.prior(draws()).abs().max() <= 3
    assert type(built().law) is Prior
    assert built("architecture.generator.prior=uniform").law.high == math.sqrt(3)


@pytest.mark.parametrize("name", sorted(path.stem for path in (config_dir() / "prior").glob("*.yaml")))
@pytest.mark.parametrize("architecture", sorted({path.stem for path in (config_dir() / "architecture").glob("*.yaml")} - {"trained"}))
def test_every_generator_takes_every_prior_by_name(architecture, name):
    """With the values of its file, which are the defaults of its class."""
    sizes = [] if "linear" in architecture else ["architecture.generator.width=8"]
    config = compose([f"architecture={architecture}", f"prior={name}", *sizes, "architecture.generator.latent=16"])
    part = next(part for part in parts.parts_of(config.plain()) if part.path == "architecture.generator")
    assert list(parts.mistakes_in(part, ())) == []
    generator = parts.make(part.node, (), Generator, part.path, spec=Spec((1, 8, 8)))
    given = getattr(priors, part.node["prior"]["_target_"].rpartition(".")[2])
    law = given([10], 2) if name == "codes" else given()
    assert type(generator.law) is type(law)
    assert torch.equal(generator.prior(draws()), law.draw(draws(), 16))


@pytest.mark.parametrize("none", ["prior=null", "~prior"])
def test_no_prior_is_that_of_the_architecture(none):
    assert compose([none]).plain()["architecture"]["generator"]["prior"] is None


def test_a_value_of_the_chosen_prior_is_set_where_the_part_is():
    assert built("prior=mixture", "architecture.generator.prior.k=3").law.centres.shape == (3, 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prior=mixtur", r"there is no prior mixtur \(did you mean mixture\?\)"),
        ("+prior=mixture", r"exactly one prior is chosen, so it is replaced, not added: prior=mixture"),
        ("prior=[mixture,codes]", r"expected the name of a prior"),
    ],
)
def test_a_wrong_name_of_a_prior_is_one_line(line, said):
    with pytest.raises(UserError, match=said):
        compose([line])


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ("{_target_: gan_runner.priors.Uniform, low: 3, high: 1}", "a uniform prior needs low < high, not 3 and 1"),
        ("{_target_: gan_runner.priors.Uniform, lo: 3}", "unknown key architecture.generator.prior.lo"),
        ("{_target_: gan_runner.schedules.Linear, start: 0, end: 1}", "_target_=gan_runner.schedules.Linear is not a Prior"),
        ("{_target_: torch.optim.Adam}", "_target_=torch.optim.Adam is not a Prior"),
        ("{_target_: gan_runner.priors.Truncated, limit: 0}", "architecture.generator.prior.limit=0: expected a number, above 0"),
        ("gaussian", "architecture.generator.prior='gaussian': expected a Prior or null"),
    ],
)
def test_a_wrong_prior_is_one_line(prior, said):
    found = built(f"architecture.generator.prior={prior}")
    assert len(found) == 1
    assert said in found[0]


def test_a_prior_is_no_schedule():
    config = compose(["dataset=ring8", "optimizer.generator.lr={_target_: gan_runner.priors.Uniform}"]).plain()
    part = next(part for part in parts.parts_of(config) if part.path == "optimizer.generator")
    assert "is not a Schedule" in next(parts.mistakes_in(part, ()))


def test_a_mixture_moves_with_the_network_and_leaves_no_trace_in_a_state():
    generator = DCGANGenerator(Spec((1, 8, 8)), latent=4, width=4, prior=Mixture())
    assert not [key for key in generator.state_dict() if key.startswith("law")]


def test_rounding_does_not_leave_the_box():
    law = Uniform(0.1, 0.7)
    assert (law.log_prob(law.draw(draws(), 4)) > -math.inf).all()
    assert law.draw(Noise(torch.tensor([[-40.0, 40.0]])), 2).tolist() == [[pytest.approx(0.1), pytest.approx(0.7)]]


def test_far_noise_has_a_finite_gradient():
    e = torch.tensor([[6.0, -6.0, 12.0]], requires_grad=True)
    for law in (Truncated(9.0), Truncated(1.5), Uniform(-1, 1)):
        z = law.draw(Noise(e), 3)
        (slope,) = torch.autograd.grad(z.sum(), e)
        assert z.isfinite().all()
        assert slope.isfinite().all()
