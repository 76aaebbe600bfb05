"""Refiners and networks of every kind: a sample does not depend on its batch, and nothing of the networks changes."""

import itertools

import pytest
import torch

from gan_runner import tree
from gan_runner.architectures import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator, MSGDiscriminator, MSGGenerator
from gan_runner.draws import CountedDraws, NumberedDraws
from gan_runner.errors import Failed, UserError
from gan_runner.execution.recording import Recorder
from gan_runner.execution.replay import Replay
from gan_runner.game.network import Discriminator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.game.spec import Spec
from gan_runner.priors import Codes, Signs, Uniform
from gan_runner.refinement.ratio import Ratio
from gan_runner.refinement.refined import GROUP, Refinement, finite
from gan_runner.refinement.refiner import Pool, Start
from gan_runner.refinement.replayed import Captured, replayed
from gan_runner.refiners import DDLS, DOT, DRS, MHGAN, OBRS, DGflow
from gan_runner.tricks import SpectralNorm

IMAGE = Spec((1, 14, 14), 3)
STEPS = 10


def spectral(G, D):
    norm = SpectralNorm(["discriminator", "generator"])
    return norm.wrap(G, "generator"), norm.wrap(D, "discriminator")


PAIRS = {
    "dcgan": lambda: spectral(DCGANGenerator(IMAGE, latent=8, width=4), DCGANDiscriminator(IMAGE, width=4)),
    "conditional": lambda: (MLPGenerator(IMAGE, latent=8, width=16, conditional=True), MLPDiscriminator(IMAGE, width=16, conditional=True)),
    "uniform": lambda: (MLPGenerator(IMAGE, latent=8, width=16, prior=Uniform()), MLPDiscriminator(IMAGE, width=16)),
    "msg": lambda: (MSGGenerator(IMAGE, latent=8, width=8), MSGDiscriminator(IMAGE, width=8, minibatch_stddev=False)),
}
REFINERS = {
    "dgflow": lambda: DGflow(eta=0.1),
    "dgflow_js_data": lambda: DGflow("js", "data"),
    "ddls": lambda: DDLS(),
    "ula": lambda: DDLS(adjust=False),
    "dot": lambda: DOT(),
    "dot_data": lambda: DOT("data"),
    "mh": lambda: MHGAN(begin="fake", calibration="none"),
    "drs": lambda: DRS(calibration="none"),
    "obrs": lambda: OBRS(calibration="none"),
}


def trained(kind):
    """A pair whose statistics and power iterations are no longer those of the beginning, in evaluation mode."""
    torch.manual_seed(0)
    G, D = PAIRS[kind]()
    y = torch.zeros(8, dtype=torch.long)
    with torch.no_grad():
        D(G(G.prior(NumberedDraws("warm", indices=torch.arange(8))), y if G.classes else None), y if D.classes else None)
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


def latents(ratio, draws):
    """In float64: rounding of float32 grows from step to step, and would be all that is seen."""
    return ratio.latents(draws).double()


def refined(refiner, G, D, indices):
    ratio = Ratio(G, D)
    draws = NumberedDraws("evaluation", 0, indices=indices)
    start = Start(latents(ratio, draws), G.labels(draws))
    pool = NumberedDraws("calibration", 0, indices=torch.arange(150))
    refiner.prepare(ratio, Pool(Start(latents(ratio, pool), G.labels(pool)), None))
    moves = refiner(ratio, start, CountedDraws("refinement", 0, indices=indices))
    point = next(itertools.islice(moves, STEPS, None))
    return torch.cat([leaf.flatten(1) for leaf in tree.leaves(ratio.placed(point, start.y, refiner.space))], 1)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("refiner", REFINERS)
def test_a_sample_does_not_depend_on_its_batch_and_networks_stay(kind, refiner):
    G, D = (net.double() for net in trained(kind))
    before = [{key: value.clone() for key, value in net.state_dict().items()} for net in (G, D)]
    whole = refined(REFINERS[refiner](), G, D, torch.arange(5))
    apart = torch.cat([refined(REFINERS[refiner](), G, D, torch.tensor([i])) for i in range(5)])
    torch.testing.assert_close(whole, apart, rtol=0, atol=1e-9)
    for net, was in zip((G, D), before):
        for key, value in net.state_dict().items():
            assert torch.equal(value, was[key]), key
        assert all(p.grad is None for p in net.parameters())
        assert not any(module.training for module in net.modules())


class Neighbours(Discriminator):
    """A logit that depends on the mean of the batch, in evaluation mode as well."""

    couples_in_evaluation = True

    def forward(self, sample, y=None):
        flat = sample.flatten(1)
        return DiscriminatorOutput(flat.mean(1) - flat.mean(), flat)


@pytest.mark.parametrize("n", [5, GROUP, GROUP + 3])
def test_samples_that_couple_are_refined_in_aligned_groups(n):
    G, _ = trained("uniform")
    made = Refinement(DGflow(eta=5.0, gamma=0.0), Ratio(G, Neighbours()))
    many = torch.cat([batch.x[3] for batch in made.batches(2 * GROUP, [3], batch_size=10)])
    some = torch.cat([batch.x[3] for batch in made.batches(n, [3], batch_size=2 * GROUP)])
    assert len(some) == n
    torch.testing.assert_close(some, many[:n], rtol=0, atol=1e-5)


def test_step_0_shows_what_the_generator_makes_without_a_refiner():
    from gan_runner.sampling.subjects import samples

    for kind in PAIRS:
        G, D = trained(kind)
        made = torch.cat([batch.x[0] for batch in Refinement(DGflow(), Ratio(G, D), seed=3).batches(7, [0, 1], batch_size=4)])
        torch.testing.assert_close(made, torch.cat(list(samples(G, 7, seed=3))), rtol=0, atol=1e-5)


@pytest.mark.parametrize("refiner", [name for name in REFINERS if "data" in name])
def test_samples_that_are_moved_themselves_pass_through_the_generator_once(refiner):
    G, D = trained("uniform")
    passed = []
    G.register_forward_hook(lambda module, args, out: passed.append(len(out)))
    made = Refinement(REFINERS[refiner](), Ratio(G, D))
    passed.clear()
    list(made.batches(6, [0, 2], batch_size=4))
    assert passed == [4, 2]


def as_list(points):
    """Capture a step as a list of operations, the counterpart of a CUDA graph on a CPU. It is executed while it is recorded."""
    with Recorder() as recorder:
        point = next(points)
    replay, executed = Replay(recorder.operations, tree.leaves(point)), []

    def execute():
        if executed:
            replay()
        executed.append(True)

    return Captured(execute, tree.map(replay.now, point))


def refusing(points):
    next(points)
    raise RuntimeError("operation not permitted when stream is capturing")


def start_of(ratio, purpose, n):
    draws = NumberedDraws(purpose, 0, indices=torch.arange(n))
    return Start(ratio.latents(draws), ratio.generator.labels(draws))


@pytest.mark.parametrize("capture", [as_list, refusing])
@pytest.mark.parametrize("refiner", REFINERS)
@pytest.mark.parametrize("kind", ["conditional", "uniform", "msg"])
def test_replayed_steps_are_the_steps_bit_for_bit(kind, refiner, capture):
    G, D = trained(kind)
    captured, said = [], []

    def noted(points):
        captured.append(1)
        return capture(points)

    def walk(replays):
        ratio, made = Ratio(G, D), REFINERS[refiner]()
        start, pool = (start_of(ratio, purpose, n) for purpose, n in (("evaluation", 6), ("calibration", 150)))
        made.prepare(ratio, Pool(pool, None))
        ratio.evaluations = ratio.gradients = 0

        def begin():
            return made(ratio, start, CountedDraws("refinement", 0, indices=torch.arange(6)))

        points = replayed(begin, ratio, said.append, noted) if replays else begin()
        found = [tree.map(torch.clone, point) for point in itertools.islice(points, STEPS)]
        assert torch.equal(start.e, start_of(ratio, "evaluation", 6).e), "the start stays as it is"
        return found, (ratio.evaluations, ratio.gradients)

    (plain, cost), (fast, same) = walk(False), walk(True)
    for one, other in zip(plain, fast, strict=True):
        assert all(map(torch.equal, tree.leaves(one), tree.leaves(other)))
    assert cost == same
    assert bool(captured) == (refiner not in ("drs", "obrs")), "these evaluate only the samples that are still sought"
    assert said == ["steps are not replayed: operation not permitted when stream is capturing"] * (bool(captured) and capture is refusing)


@pytest.mark.gpu
@pytest.mark.parametrize("refiner", REFINERS)
def test_a_step_is_one_graph_on_a_gpu(refiner):
    """Points in float64 of a GPU, whose steps are graphs, are those of a CPU."""
    G, D = (net.double() for net in trained("uniform"))
    made = {}
    for device in ("cpu", "cuda"):
        refinement = Refinement(REFINERS[refiner](), Ratio(G.to(device), D.to(device)), device=device)
        [batch] = refinement.batches(64, [0, STEPS])
        made[device] = batch.x[STEPS]
        assert refinement.notes == [] or all("not replayed" not in note for note in refinement.notes)
    torch.testing.assert_close(made["cuda"], made["cpu"], rtol=0, atol=1e-4)


def test_costs_are_those_up_to_each_step():
    G, D = trained("dcgan")
    [batch] = Refinement(DGflow(), Ratio(G, D)).batches(6, [0, 2, 5])
    assert [(cost.evaluations, cost.gradients) for cost in batch.costs.values()] == [(0, 0), (2, 2), (5, 5)]


def test_a_class_that_is_asked_for_is_that_of_all_samples():
    G, D = trained("conditional")
    [batch] = Refinement(DGflow(), Ratio(G, D), y=2).batches(6, [1])
    assert batch.y.tolist() == [2] * 6


def test_latents_that_leave_the_prior_and_points_that_are_not_finite_are_reported():
    G, D = trained("uniform")
    made = Refinement(DGflow(eta=1e5), Ratio(G, D))
    list(made.batches(4, [3]))
    [note] = made.notes
    assert "latents have left the prior" in note

    class Broken(Discriminator):
        def forward(self, sample, y=None):
            return DiscriminatorOutput(sample.flatten(1).sum(1) * float("inf"), sample)

    with pytest.raises(Failed, match="refinement diverged at step 1"):
        list(Refinement(DGflow(), Ratio(G, Broken())).batches(4, [3]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 20, 39])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(value, at):
    x = torch.randn(4, 10)
    assert finite(x)
    x.view(-1)[at] = value
    assert not finite(x)


@pytest.mark.parametrize("shape", [(-1, 1), (-1, 1, 1, 1)])
def test_one_logit_a_sample_may_be_of_any_shape(shape):
    G, D = trained("uniform")

    class Shaped(Discriminator):
        def forward(self, sample, y=None):
            out = D(sample, y)
            return out._replace(logits=out.logits.view(shape))

    plain, shaped = (next(Refinement(DGflow(), Ratio(G, net)).batches(4, [2])).x[2] for net in (D, Shaped()))
    assert torch.equal(plain, shaped)


def test_what_cannot_be_refined_is_refused():
    G, D = trained("uniform")

    class Vector(Discriminator):
        def forward(self, sample, y=None):
            return DiscriminatorOutput(sample.flatten(1)[:, :3], sample)

    with pytest.raises(UserError, match="3 logits a sample: a density ratio is one number"):
        list(Refinement(DGflow(), Ratio(G, Vector())).batches(4, [1]))
    for prior in (Codes([4]), Signs()):
        with pytest.raises(UserError, match="this prior draws whole numbers"):
            Refinement(DGflow(), Ratio(MLPGenerator(IMAGE, latent=16, width=16, prior=prior), D))
    with pytest.raises(UserError, match="fitted to held-out real samples, and there are none"):
        Refinement(OBRS(), Ratio(G, D))
    with pytest.raises(UserError, match="adjust=true is for noise=1"):
        DDLS(noise=0.5)
