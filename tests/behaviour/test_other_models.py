"""Every kind of model as parts of a user: resumed and replayed to the bit, and the same in micro-batches and in two processes."""

import copy
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch.distributions import Independent, Normal

from games import flat, make, sgd
from gan_runner.architectures import MLPDiscriminator, MLPGenerator
from gan_runner.assembly.build import refuse_idle
from gan_runner.datasets import Resident, Ring8, Samples, Spec
from gan_runner.draws import Draws, seeded
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.extractors import Identity
from gan_runner.losses import NonSaturating
from gan_runner.rules import Alternate, Solo
from gan_runner.schedules import schedule
from gan_runner.tricks import EMA, InstanceNoise
from other_models import models, sequences, terms
from processes import spawn

SIZE = 32
G, D = partial(MLPGenerator, width=32, depth=2), partial(MLPDiscriminator, width=32, depth=2)


def ring() -> tuple[Spec, Samples]:
    data = Ring8(n=256)
    return data.spec, data.load("train")


def half_labelled() -> tuple[Spec, Samples]:
    spec, samples = ring()
    assert samples.y is not None
    return spec, Samples(samples.x, samples.y.where(torch.arange(len(samples.y)) % 2 == 0, -1))


def both_sides() -> tuple[Spec, Samples]:
    _, samples = ring()
    return Spec((4,)), Samples(torch.cat([samples.x, samples.x.flip(0) @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])], 1))


def of(dataset) -> tuple[Spec, Samples]:
    return dataset.spec, dataset.load("train")


class Case(NamedTuple):
    """One kind of model. couples: why micro-batches, and why processes, are no smaller copies of the same; None: they are."""

    generator: Any = G
    discriminator: Any = D
    terms: dict[str, Any] = {"loss": NonSaturating}
    rule: Any = Alternate
    tricks: dict[str, Any] = {}
    data: Any = ring
    rate: float = 0.05
    cut: bool = True  # whether micro-batches give the same
    shared: bool = True  # whether two processes give the same
    to_float: Any = None

    def play(self, rounds: int = 0, engine: Any = Engine, **more: Any):
        nets = {"discriminator": self.discriminator, "generator": self.generator}
        game, _ = make(
            {name: term() for name, term in self.terms.items()},
            self.rule(),
            {name: trick() for name, trick in self.tricks.items()},
            {side: net for side, net in nets.items() if net is not None},
            self.data(),
            partial(torch.optim.SGD, lr=self.rate),
            batch_size=SIZE,
            **more,
        )
        samples = self.data()[1]
        batches = Resident(samples, SIZE)
        batches.to_float = self.to_float or batches.to_float
        refuse_idle(game)
        if game.G.overrides("initialise"):
            game.initialise(batches.first_batch())
        said: list[str] = []
        turn = engine(game, said.append).turn
        for _ in range(rounds):
            game.round(batches, turn)
        return game, batches, said


FLOW = partial(models.Flow, depth=2)
ONE = {"discriminator": None, "terms": {"loss": terms.Likelihood}, "rule": Solo}
CASES = {
    "vae": Case(models.VAE, **ONE),
    "flow": Case(FLOW, **ONE, rate=0.005, tricks={"ema": lambda: EMA(0.5)}),
    "made": Case(models.MADE, **ONE),
    "flow_gan": Case(FLOW, terms={"loss": NonSaturating}, rate=0.005),
    "bigan": Case(models.BiGenerator, models.PairCritic, {"loss": terms.Bidirectional}, tricks={"ema": lambda: EMA(0.5)}),
    "info_codes": Case(models.InfoGenerator, terms={"loss": NonSaturating, "codes": terms.InfoCodes}),
    "k_plus_one": Case(discriminator=models.KPlusOne, terms={"loss": NonSaturating, "named": terms.Supervised}, data=half_labelled),
    "inpainting": Case(models.Inpainter, models.HoleCritic),
    "cycle": Case(models.TwoMaps, models.TwoCritics, {"loss": NonSaturating, "cycle": terms.Cycle}, data=both_sides),
    "mmd": Case(terms={"loss": terms.MMD}, cut=False),
    "text": Case(sequences.SymbolGenerator, sequences.SymbolCritic, data=lambda: of(sequences.Words())),
    "sound": Case(sequences.WaveGenerator, sequences.WaveCritic, data=lambda: of(sequences.Tones()), to_float=sequences.Tones().to_float),
    "walks": Case(sequences.WalkGenerator, sequences.WalkCritic, data=lambda: of(sequences.Walks())),
    "growing": Case(partial(models.Growing, stage=models.Stages(7))),
    "ada": Case(tricks={"ada": terms.ADA}),
    "dragan": Case(terms={"loss": NonSaturating, "dragan": partial(terms.Dragan, 0.1)}, cut=False),
    "approximate_r1": Case(terms={"loss": NonSaturating, "r1": terms.ApproximateR1}, tricks={"ada": terms.ADA}),
    "perceptual": Case(terms={"loss": NonSaturating, "near": lambda: terms.Perceptual(Identity())}),
    "consistency": Case(terms={"loss": NonSaturating, "same": lambda: terms.Consistency(InstanceNoise())}, tricks={"ada": terms.ADA}),
    "frozen_d": Case(rule=Solo, tricks={"freeze": lambda: terms.Freeze(["discriminator"])}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_plays_and_goes_on_where_it_stopped(name):
    whole, _, _ = CASES[name].play(10)
    assert flat(whole).isfinite().all()
    first, batches, _ = CASES[name].play(5)
    second, more, _ = CASES[name].play()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    more.load_state_dict(batches.state_dict())
    for _ in range(5):
        second.round(more)
    assert torch.equal(flat(second), flat(whole))


@pytest.mark.parametrize("name", CASES)
def test_it_is_replayed_to_the_bit(name):
    eager, _, _ = CASES[name].play(16)
    replayed, _, said = CASES[name].play(16, Replayed)
    assert said == []
    assert torch.equal(flat(replayed), flat(eager))


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_are_the_same_or_refused(name):
    if not CASES[name].cut:
        with pytest.raises(ValueError, match=r"trainer\.accumulate=2 cuts the batch"):
            CASES[name].play(accumulate=2)
        return
    whole, cut = CASES[name].play(3)[0], CASES[name].play(3, accumulate=2)[0]
    torch.testing.assert_close(flat(cut), flat(whole), rtol=1e-5, atol=1e-6)


def save(rank, folder, names):
    for name in names:
        weights = flat(CASES[name].play(3)[0])
        if rank == 0:
            torch.save(weights, f"{folder}/{name}.pt")


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    spawn(2, __file__, "save", folder, list(CASES))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(by_two, name):
    torch.testing.assert_close(torch.load(by_two / f"{name}.pt"), flat(CASES[name].play(3)[0]), rtol=1e-5, atol=1e-6)


# ---- closed forms of the models -----------------------------------------------------------------------------------------------------


def draws(n=SIZE):
    return Draws(seeded("test"), n)


def test_a_flow_is_inverted_and_its_log_det_is_that_of_its_jacobian():
    torch.manual_seed(0)
    flow = models.Flow(Spec((4,)), depth=3).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    flow.initialise(3 * torch.randn(100, 4, dtype=torch.float64) + 1, draws())
    z, log_det = flow.through(x)
    torch.testing.assert_close(flow(z), x, rtol=0, atol=1e-12)
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda row: flow.through(row[None])[0][0], x[i])
        assert log_det[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-10)
    expected = Independent(Normal(torch.zeros(4, dtype=torch.float64), 1.0), 1).log_prob(z) + log_det
    torch.testing.assert_close(flow.log_prob(x, None, draws()), expected)


def test_act_norm_standardises_the_first_batch():
    game, batches, _ = CASES["flow"].play()
    first = game.G.parts[0](batches.first_batch())[0]
    torch.testing.assert_close(first.mean(0), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(first.std(0), torch.ones(2), rtol=0, atol=1e-6)


def test_an_entry_of_made_depends_on_those_before_it_alone():
    torch.manual_seed(0)
    made = models.MADE(Spec((5,)))
    x = torch.randn(5)
    for part in (0, 1):
        jacobian = torch.autograd.functional.jacobian(lambda row, part=part: made.law(row[None])[part][0], x)
        assert torch.equal(jacobian.triu(), torch.zeros(5, 5))
        assert (jacobian.tril(-1) != 0).any()
    z = torch.randn(3, 5)
    mean, log_sigma = made.law(made(z))
    torch.testing.assert_close((made(z) - mean) * (-log_sigma).exp(), z)


def test_the_bound_of_a_vae_is_exact_where_the_encoder_is_the_posterior():
    """x = z + e, z and e standard normal: the posterior is N(x/2, 1/2), and every draw of the bound is log N(x; 0, 2)."""
    vae = models.VAE(Spec((1,)), latent=1)
    del vae.encoder
    vae.encoder = lambda x: torch.cat([x / 2, torch.full_like(x, 0.5).log()], 1)
    vae.forward = lambda z, y=None: z
    x = torch.linspace(-2, 2, 5)[:, None]
    found = vae.log_prob(x.repeat(20000, 1), None, draws(100000)).view(20000, 5).mean(0)
    torch.testing.assert_close(found, Normal(0.0, 2**0.5).log_prob(x[:, 0]), rtol=0, atol=0.03)


def test_the_stage_of_a_growing_network_is_a_phase():
    game, _, _ = CASES["growing"].play(15)
    assert game.phase == ("loss", 2, 1.0, 1.0)
    assert schedule(1.0).on_host is False


def test_a_likelihood_is_refused_where_the_generator_knows_none():
    with pytest.raises(ValueError, match="likelihood needs a generator that knows log_prob, and MLPGenerator does not"):
        make({"loss": terms.Likelihood()}, Solo(), nets={"generator": G}, optimizer=sgd)


def test_networks_of_symbols_refuse_numbers():
    with pytest.raises(ValueError, match="chars makes symbols, and the data are numbers of shape 2: choose a data set of symbols"):
        sequences.SymbolGenerator(Spec((2,)))
