"""The training step: what equals what, and what it promises."""

import ast
import copy
import importlib
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from games import adam, everything, flat, images, make, play, sgd
from gan_runner.architectures import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator, MSGDiscriminator, MSGGenerator
from gan_runner.draws import Draws
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.game import game as game_module
from gan_runner.losses import Hinge, Minimax, NonSaturating, RelativisticAverage, RelativisticPaired, Term, Wasserstein
from gan_runner.penalties import R1, AuxiliaryClassifier, FeatureMatching, GradientPenalty
from gan_runner.rules import Alternate, Balance, Extragradient, Simultaneous, Solo, Stale
from gan_runner.schedules import Constant, Linear, Schedule
from gan_runner.tricks import EMA, GradientClip, InstanceNoise, LabelSmoothing, SpectralNorm, Trick, WeightClip
from processes import spawn

# ---- equalities ---------------------------------------------------------------------------------------------------------------------


CASES = {
    "minimax": {"terms": lambda: {"loss": Minimax()}, "optimizer": sgd},
    "relativistic average": {  # its last bias has gradient 0 in theory, and Adam would make steps of rounding errors
        "terms": lambda: {"loss": RelativisticAverage(), "r1": R1(0.1)},
        "optimizer": sgd,
    },
    "relativistic pairs of one label": {
        "terms": lambda: {"loss": RelativisticPaired(), "r1": R1(0.1)},
        "optimizer": sgd,
        "conditional": True,
    },
    "hinge, lazy r1, classifier, ema, clip": {
        "terms": lambda: {"loss": Hinge(), "r1": R1(1.0, every=4), "ac": AuxiliaryClassifier(0.5)},
        "conditional": True,
        "tricks": lambda: {"ema": EMA(0.5), "clip": GradientClip(1.0)},
    },
    "wasserstein, gp, noise, n_critic": {
        "terms": lambda: {"loss": Wasserstein(), "gp": GradientPenalty(10.0)},
        "rule": lambda: Alternate(d_steps=2),
        "tricks": lambda: {"noise": InstanceNoise(0.1), "spectral_norm": SpectralNorm()},
    },
    "feature matching": {"terms": lambda: {"loss": NonSaturating(), "fm": FeatureMatching(1.0)}},
    "smoothing": {"tricks": lambda: {"label_smoothing": LabelSmoothing()}},
    "simultaneous": {"rule": Simultaneous},
    "extragradient": {"rule": Extragradient, "tricks": lambda: {"noise": InstanceNoise(0.1)}},
    "stale by drawn delays": {"rule": lambda: Stale(2, poisson=True)},
    "balance, G waits": {"rule": lambda: Balance(1.2, 1.3, decay=0.0)},
}


def case(name, **more):
    return {key: value() if key in ("terms", "rule", "tricks") else value for key, value in CASES[name].items()} | more


def play_all(rank, folder):
    played = {name: play(10, **case(name))[0] for name in CASES}
    torch.save({name: {"weights": flat(game), "keys": list(game.state_dict())} for name, game in played.items()}, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    spawn(2, __file__, "play_all", folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(two_processes, name):
    one = play(10, **case(name))[0]
    a, b = (each[name] for each in two_processes)
    assert torch.equal(a["weights"], b["weights"])
    assert a["keys"] == list(one.state_dict())
    assert (a["weights"] - flat(one)).abs().max() < 1e-6


@pytest.mark.parametrize(
    "name", ["minimax", "relativistic pairs of one label", "hinge, lazy r1, classifier, ema, clip", "smoothing", "simultaneous"]
)
def test_four_micro_batches_equal_one_batch(name):
    one, four = (flat(play(10, **case(name, accumulate=k))[0]) for k in (1, 4))
    assert (one - four).abs().max() < 1e-6


@pytest.mark.parametrize("rule", [Alternate, lambda: Alternate(3, 2), Simultaneous])
def test_a_state_continues_bit_for_bit(tmp_path, rule):
    straight, _ = play(14, **everything(rule=rule()))
    half, batches = play(7, **everything(rule=rule()))
    torch.save({"game": half.state_dict(), "data": batches.state_dict()}, tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed, batches = make(**everything(rule=rule()))
    resumed.generator.manual_seed(99)
    resumed.load_state_dict(state["game"])
    batches.load_state_dict(state["data"])
    for _ in range(7):
        resumed.round(batches)
    assert torch.equal(flat(straight), flat(resumed))
    assert resumed.step == 14
    assert str(straight.state_dict()) == str(resumed.state_dict())


@pytest.mark.parametrize("optimizer", [partial(torch.optim.RMSprop), partial(torch.optim.SGD, momentum=0.5)])
def test_schedules_reach_optimisers_that_are_not_fused(optimizer):
    scheduled, _ = play(6, optimizer=partial(optimizer, lr=Linear(1e-2, 0.0, 4)))
    assert [group["lr"] for player in scheduled.players.values() for group in player.optimizer.param_groups] == [0.0, 0.0]
    early, _ = play(4, optimizer=partial(optimizer, lr=Linear(1e-2, 0.0, 4)))
    assert torch.equal(flat(early.D, early.G), flat(scheduled.D, scheduled.G))  # rounds 5 and 6 had rate 0
    constant, _ = play(4, optimizer=partial(optimizer, lr=1e-2))
    assert not torch.equal(flat(early.D, early.G), flat(constant.D, constant.G))


def lowered(rate, factor, engine=Engine, rounds=24, at=12):
    """Play `rounds` rounds, and lower the learning rate of both before round `at`."""
    game, batches = make(optimizer=rate, steps=rounds)
    turn = engine(game, lambda line: None).turn
    for i in range(rounds):
        if i == at:
            for player in game.players.values():
                player.scale_rate(factor)
        game.round(batches, turn)
    return game, batches


RATES = {
    "constant": partial(adam, lr=1e-2),
    "schedule": partial(adam, lr=Linear(1e-2, 1e-3)),
    "constant schedule": partial(adam, lr=Constant(1e-2)),
    "not fused": partial(torch.optim.SGD, lr=1e-1),
    "schedule, not fused": partial(torch.optim.RMSprop, lr=Linear(1e-2, 1e-3)),
}


@pytest.mark.parametrize("rate", RATES)
def test_a_lowered_rate_is_kept_by_schedules_states_and_replays(rate):
    game, batches = lowered(copy.deepcopy(RATES[rate]), 0.25)
    given = RATES[rate].keywords["lr"]
    expected = 0.25 * (given.at(23, 24) if isinstance(given, Schedule) else given)
    for player in game.players.values():
        assert float(player.optimizer.param_groups[0]["lr"]) == pytest.approx(expected, rel=1e-6)
    replayed, _ = lowered(copy.deepcopy(RATES[rate]), 0.25, Replayed)
    assert torch.equal(flat(replayed), flat(game))
    untouched, _ = lowered(copy.deepcopy(RATES[rate]), 1.0)
    assert not torch.equal(flat(untouched), flat(game))

    first, batches = lowered(copy.deepcopy(RATES[rate]), 0.25, rounds=24, at=12)
    again, more = make(optimizer=copy.deepcopy(RATES[rate]), steps=24)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    more.load_state_dict(batches.state_dict())
    first.round(batches)
    again.round(more)
    assert torch.equal(flat(first), flat(again))


def test_a_lowered_rate_is_a_smaller_step_in_closed_form():
    """One weight, whose gradient is 1: it moves by the sum of the rates."""

    class Down(Term):
        def generator(self, play):
            return play.G.head.bias.sum()

    for rate, moved in ((0.1, 0.1 + 0.05), (Linear(0.2, 0.0, 2), 0.2 + 0.05)):
        game, batches = make({"loss": Down()}, Solo(), nets={"generator": MLPGenerator}, optimizer=partial(torch.optim.SGD, lr=rate))
        before = game.G.head.bias.detach().clone()
        game.round(batches)
        game.players["generator"].scale_rate(0.5)
        game.round(batches)
        torch.testing.assert_close(before - game.G.head.bias.detach(), torch.full_like(before, moved))


def test_watching_changes_nothing():
    a, _ = play(6, **everything())
    b, batches = make(**everything())
    for _ in range(6):
        logs = b.round(batches)
        assert all(value.isfinite() for value in logs.values())
        draws = Draws(torch.Generator().manual_seed(0), 8)
        b.sampler(b.sampler.prior(draws), b.sampler.labels(draws))
    assert torch.equal(flat(a), flat(b))


def test_one_pass_equals_two():
    class Coupled(MLPDiscriminator):
        couples_samples = True

    a, _ = play(5, nets={"discriminator": MLPDiscriminator, "generator": MLPGenerator})
    b, _ = play(5, nets={"discriminator": Coupled, "generator": MLPGenerator})
    assert (flat(a) - flat(b)).abs().max() < 1e-6


# ---- promises -----------------------------------------------------------------------------------------------------------------------


class Counted(MLPDiscriminator):
    """Remembers how many samples each forward saw and how large its weights were."""

    def __init__(self, spec):
        super().__init__(spec)
        self.seen = []

    def forward(self, sample, y=None):
        self.seen.append((len(sample), max(p.abs().max().item() for p in self.parameters())))
        return super().forward(sample, y)


def test_d_sees_real_and_fake_in_one_pass():
    game, _ = play(1, nets={"discriminator": Counted, "generator": MLPGenerator})
    assert [n for n, _ in game.D.seen] == [64, 32]


def test_batch_norm_sees_them_apart():
    class Coupled(Counted):
        couples_samples = True

    assert [n for n, _ in play(1, nets={"discriminator": Coupled, "generator": MLPGenerator})[0].D.seen] == [32, 32, 32]


def test_weights_stay_inside_the_clip_at_every_forward():
    nets = {"discriminator": Counted, "generator": MLPGenerator}
    game, _ = play(4, {"loss": Wasserstein()}, Alternate(d_steps=5), {"clip": WeightClip(0.01)}, nets)
    assert len(game.D.seen) == 24
    assert max(weight for _, weight in game.D.seen) <= 0.01


def test_a_frozen_layer_is_neither_moved_nor_thawed():
    class Frozen(MLPDiscriminator):
        def __init__(self, spec):
            super().__init__(spec)
            self.body[0].requires_grad_(False)

    game, batches = make(tricks={"clip": WeightClip(0.05)}, nets={"discriminator": Frozen, "generator": MLPGenerator})
    before, head = game.D.body[0].weight.clone(), game.D.head.weight.clone()
    for _ in range(5):
        game.round(batches)
    assert torch.equal(before, game.D.body[0].weight)
    assert not game.D.body[0].weight.requires_grad
    assert game.D.head.weight.requires_grad
    assert not torch.equal(head, game.D.head.weight)


def test_a_move_touches_one_player():
    game, batches = make(terms={"loss": NonSaturating(), "ac": AuxiliaryClassifier()}, conditional=True)
    game.prepare(batches)
    for mover, other in (("discriminator", "generator"), ("generator", "discriminator")):
        for p in game.parameters():
            p.grad = None
        before = flat(game.players[other])
        game.move(mover, next(batches))
        assert torch.equal(before, flat(game.players[other]))
        assert all(p.grad is None for p in game.players[other].parameters())
        assert all(p.grad is not None and p.requires_grad for p in game.players[mover].parameters())


def test_players_move_as_often_as_the_rule_says():
    moves = []

    class Spy(Trick):
        def after_step(self, player):
            moves.append(player.name[0])

    _, batches = play(2, rule=Alternate(3, 2), tricks={"spy": Spy()})
    assert "".join(moves) == "dddgg" * 2
    assert batches.position == 10 * 32  # a fresh batch each


def test_every_term_is_logged_by_name_in_the_rounds_that_carry_it():
    game, batches = make({"loss": NonSaturating(), "r1": R1(1.0, every=3)})
    names = [sorted(game.round(batches)) for _ in range(6)]
    always = ["d/fake", "d/real", "g/fake", "loss/d", "loss/g"]
    assert names == [sorted([*always, "r1/d"]), always, always] * 2


def test_label_smoothing_needs_targets():
    with pytest.raises(ValueError, match="Hinge has none: choose loss=non_saturating"):
        make({"loss": Hinge()}, tricks={"label_smoothing": LabelSmoothing(0.9)})


def test_coupled_terms_refuse_micro_batches():
    with pytest.raises(ValueError, match="accumulate=4 cuts the batch, and fm needs all of it"):
        make(**case("feature matching", accumulate=4))
    with pytest.raises(ValueError, match="batch_size=32 cannot be cut"):
        make(accumulate=5)


@pytest.mark.parametrize(
    "terms",
    [
        lambda: {"loss": Wasserstein(), "gp": GradientPenalty(10.0)},
        lambda: {"loss": Hinge(), "r1": R1(1.0), "fm": FeatureMatching()},
    ],
)
def test_a_multi_scale_gan_is_no_special_case(terms):
    nets = {"discriminator": partial(MSGDiscriminator, width=8), "generator": partial(MSGGenerator, width=8, latent=8)}
    game, _ = play(4, terms(), tricks={"noise": InstanceNoise(0.1), "ema": EMA(0.1)}, data=images(), nets=nets, batch_size=8)
    assert flat(game).isfinite().all()
    assert game.G.show(game.sampler(torch.randn(3, 8))).shape == (3, 1, 8, 8)


def test_a_new_loss_touches_no_other_file():
    class Fourier(Term):
        coupled = True

        def discriminator(self, play):
            return -self.generator(play)

        def generator(self, play):
            real, fake = play.on_both
            return (real.features.cos().mean(0) - fake.features.cos().mean(0)).square().sum()

    assert play(2, {"loss": Fourier()})[0].step == 2


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_penalties_are_float32_in_lower_precision(precision):
    seen = []

    class Spy(GradientPenalty):
        def scaled(self, value):
            seen.append(value.dtype)
            return super().scaled(value)

    kw = {"precision": partial(torch.autocast, "cpu", precision)}
    if precision == torch.float16:
        kw["scaler"] = lambda: torch.amp.GradScaler("cpu", enabled=True)
    low, _ = play(3, {"loss": Wasserstein(), "gp": Spy(10.0)}, **kw)
    full, _ = play(3, {"loss": Wasserstein(), "gp": GradientPenalty(10.0)})
    assert set(seen) == {torch.float32}
    assert (flat(low.players) - flat(full.players)).abs().max() < 2e-2
    assert not torch.equal(flat(low.players), flat(full.players))


def test_dcgan_plays():
    nets = {"discriminator": partial(DCGANDiscriminator, width=4), "generator": partial(DCGANGenerator, width=4, latent=16)}
    game, _ = play(4, tricks={"ema": EMA(0.1)}, data=images(side=16, channels=3), batch_size=8, nets=nets)
    assert flat(game).isfinite().all()
    assert game.sampler(torch.randn(2, 16)).shape == (2, 3, 16, 16)


# ---- a round can be captured --------------------------------------------------------------------------------------------------------


class Host(TorchFunctionMode):
    """Refuses whatever makes the host wait for a tensor."""

    FORBIDDEN = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "nonzero", "is_nonzero", "equal"}

    def __torch_function__(self, f, types, args=(), kwargs=None):
        assert getattr(f, "__name__", "") not in self.FORBIDDEN, f"{f} reads a tensor on the host"
        return f(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """What the device is told: every operation with its Python constants and shapes."""

    FORBIDDEN = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "randperm")

    def __init__(self):
        super().__init__()
        self.tape = []

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        assert f._schema.name.split("::")[1] not in self.FORBIDDEN, f"{f} waits for the device"
        self.tape.append((str(f), self.plain(args), self.plain(list((kwargs or {}).values()))))
        return f(*args, **(kwargs or {}))

    def plain(self, value):
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        return "generator" if isinstance(value, torch.Generator) else str(value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"rule": lambda: Alternate(3, 2)},
        {"rule": Simultaneous},
        {"rule": Alternate, "accumulate": 2},
        {"rule": Extragradient},
        {"rule": lambda: Stale(2, poisson=True)},
        {"rule": Balance},
    ],
)
def test_a_round_is_the_same_operations_with_the_same_constants(config):
    kw = everything(**config)
    kw["rule"] = kw["rule"]()
    if kw.get("accumulate"):
        kw["terms"].pop("feature_matching")
    game, batches = make(**kw)
    for _ in range(2):
        game.round(batches)  # optimiser states exist after these
    tapes = {}
    for _ in range(12):
        game.prepare(batches)
        with Host(), Tape() as tape:
            game.turn(batches)
        game.step += 1
        tapes.setdefault(tuple(game.due), []).append(tape.tape)
    assert len(tapes) == 4
    assert all(len(same) >= 2 and all(tape == same[0] for tape in same) for same in tapes.values())


@pytest.mark.parametrize("read", [lambda t: t.item(), lambda t: bool(t > 0), float, lambda t: t.cpu(), lambda t: (t > 0).nonzero()])
def test_reading_a_tensor_on_the_host_is_caught(read):
    class Peek(Trick):
        def after_round(self, game):
            read(game.G.head.weight.sum())
            return {}

    game, batches = make(tricks={"peek": Peek()})
    game.prepare(batches)
    with pytest.raises(AssertionError), Host(), Tape():
        game.turn(batches)


# ---- the step itself ----------------------------------------------------------------------------------------------------------------


def test_the_step_knows_no_part_and_no_configuration():
    files = [Path(game_module.__file__).with_name(name) for name in ("game.py", "play.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    words = {node.id for node in nodes if isinstance(node, ast.Name)} | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    parts = set()
    for family in ("losses", "penalties", "tricks", "architectures", "datasets", "metrics", "extractors", "rules"):
        parts |= {name for name in importlib.import_module(f"gan_runner.{family}").__all__ if name[0].isupper()}
    bases = {"Term", "Trick", "Rule", "Generator", "Discriminator", "Spec", "Tensor", "Any", "Batch", "Game", "Batches", "Player"}
    assert not words & (parts - bases)
    assert not words & {"cfg", "config"}
    branches = {ast.unparse(node.test) for node in nodes if isinstance(node, ast.If)}
    refusals = {branch for branch in branches if "term.coupled" in branch or "term.averaged" in branch or branch == "self._D is None"}
    assert len(refusals) == 3
    assert branches - refusals == {"TYPE_CHECKING", "self.D.couples_samples or vars(self).keys() & {'on_real', 'on_fake'}"}


def test_adam_is_fused_with_a_scheduled_rate_on_the_device():
    game, batches = make(optimizer=partial(adam, lr=Linear(1e-3, 0.0, 10)))
    game.round(batches)
    game.round(batches)
    rate = game.players["generator"].optimizer.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor)
    assert rate.item() == pytest.approx(9e-4)
