"""What every rule promises, asked of each file in configs/rule, and what each does, against the same by hand."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor

from games import adam, everything, flat, go_on, images, make, play, sgd
from gan_runner.architectures import MSGDiscriminator, MSGGenerator
from gan_runner.assembly.build import plain
from gan_runner.assembly.parts import make_one
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.game import Game, Loss
from gan_runner.losses import NonSaturating, Wasserstein
from gan_runner.optimizers import OptimisticAdam
from gan_runner.penalties import R1
from gan_runner.rules import Balance, Extragradient, Stale
from gan_runner.schedules import Schedule
from gan_runner.tricks import EMA, SpectralNorm

NAMES = sorted({path.stem for path in (config_dir() / "rule").glob("*.yaml")} - {"solo"})  # for which one player has to be still
CASES = {name: [] for name in NAMES} | {"stale, 3 ago": ["rule.delay=3"], "stale, poisson": ["rule.delay=2", "rule.poisson=true"]}
CASES |= {"balance, G waits": ["rule.low=1.2", "rule.high=1.3", "rule.decay=0.0"]}
every_rule = pytest.mark.parametrize("name", CASES)


def rule_of(name):
    return make_one(plain(compose([f"rule={name.partition(',')[0]}", *CASES[name]]).config), (), "rule")


def played(name, n, engine=Engine, start=None, **settings):
    """The game of a rule after n rounds, and its batches. start: (state of a game, of its batches)."""
    game, batches = make(rule=rule_of(name), **settings)
    assert getattr(go_on(game, batches, n, engine, start), "ready", True)
    return game, batches


@pytest.mark.slow
@every_rule
@pytest.mark.parametrize("optimizer", [adam, partial(torch.optim.SGD, lr=0.1, momentum=0.5)], ids=["adam", "momentum"])
def test_replayed_rounds_have_the_bits_of_plain_ones(name, optimizer):
    assert torch.equal(flat(played(name, 8, optimizer=optimizer)[0]), flat(played(name, 8, Replayed, optimizer=optimizer)[0]))


@pytest.mark.slow
@every_rule
def test_a_resumed_game_has_the_bits_of_one_that_was_not_stopped(name, tmp_path):
    straight, _ = played(name, 14, **everything())
    half, batches = played(name, 7, **everything())
    torch.save((half.state_dict(), batches.state_dict()), tmp_path / "c.pt")
    resumed, _ = played(name, 7, start=torch.load(tmp_path / "c.pt", weights_only=True), **everything())
    assert torch.equal(flat(straight), flat(resumed))
    assert str(straight.state_dict()) == str(resumed.state_dict())


@every_rule
def test_micro_batches_give_the_round_of_the_whole_batch(name):
    one, four = (flat(played(name, 6, optimizer=sgd, accumulate=k)[0]) for k in (1, 4))
    assert (one - four).abs().max() < 1e-6


@every_rule
def test_a_multi_scale_gan_is_no_special_case(name):
    nets = {"discriminator": partial(MSGDiscriminator, width=8), "generator": partial(MSGGenerator, width=8, latent=8)}
    game, _ = played(name, 3, data=images(), nets=nets, batch_size=8)
    assert flat(game).isfinite().all()


# ---- extragradient ------------------------------------------------------------------------------------------------------------------


def by_hand(game: Game, batches) -> None:
    """A round of extragradient with the copies that a textbook makes: a whole second game is what looks ahead."""
    ahead = copy.deepcopy(game)
    for each in (ahead, game):
        each.prepare(batches)
    batch = next(batches)
    for name in ("discriminator", "generator"):
        ahead.gradients(name, batch)
    for name in ("discriminator", "generator"):
        ahead.descend(name)
    game.generator.set_state(ahead.generator.get_state())
    batch = next(batches)
    for name in ("discriminator", "generator"):
        ahead.gradients(name, batch)
    for name in ("discriminator", "generator"):
        for p, there in zip(game.players[name].weights(), ahead.players[name].weights(), strict=True):
            p.grad = there.grad
        game.descend(name)
    game.generator.set_state(ahead.generator.get_state())
    game.step += 1


class Counting(torch.optim.Optimizer):
    """SGD whose rate falls as 1 / n, with n counted in Python."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            n = self.state[p]["n"] = self.state[p].get("n", 0) + 1
            p.sub_(p.grad, alpha=self.param_groups[0]["lr"] / n)


@pytest.mark.parametrize(
    "optimizer",
    [
        sgd,
        adam,
        partial(torch.optim.SGD, lr=0.1, momentum=0.5),
        partial(torch.optim.RMSprop, lr=1e-2),
        partial(OptimisticAdam, lr=1e-3),
        partial(Counting, lr=0.1),
    ],
    ids=["sgd", "adam", "momentum", "rmsprop", "optimistic", "counting"],
)
def test_extragradient_is_that_of_two_games(optimizer):
    """Bit for bit; with what a resume restores of the optimisers."""
    made, batches = make({"loss": NonSaturating(), "r1": R1(0.1)}, Extragradient(), optimizer=optimizer)
    hand, same = make({"loss": NonSaturating(), "r1": R1(0.1)}, Extragradient(), optimizer=optimizer)
    for _ in range(4):
        made.round(batches)
        by_hand(hand, same)
        assert torch.equal(flat(made.players), flat(hand.players))
    assert batches.position == same.position == 4 * 2 * 32
    assert str(made.state_dict()) == str(hand.state_dict())


def test_the_look_ahead_of_a_first_step_leaves_no_state():
    """Adam's first step divides by its own moments: were those of the look-ahead kept, the step would be another."""
    game, batches = make(rule=Extragradient())
    game.round(batches)
    for player in game.players.values():
        assert {float(of_p["step"]) for of_p in player.optimizer.state.values()} == {1.0}


# ---- stale --------------------------------------------------------------------------------------------------------------------------


def test_without_a_delay_it_is_alternate():
    settings = {"tricks": {"norm": SpectralNorm(), "ema": EMA(0.5)}}
    assert torch.equal(flat(play(6, **settings)[0].players), flat(play(6, rule=Stale(0), **copy.deepcopy(settings))[0].players))


class Seen(NonSaturating):
    """Notes the weights of D that each player meets."""

    def __init__(self):
        super().__init__()
        self.met = {"discriminator": [], "generator": []}

    def discriminator(self, play):
        self.met["discriminator"].append(flat(*play.D.children()).clone())
        return super().discriminator(play)

    def generator(self, play):
        self.met["generator"].append(flat(*play.D.children()).clone())
        return super().generator(play)


@pytest.mark.parametrize("delay", [1, 3])
def test_g_meets_the_d_of_some_moves_ago_and_d_is_always_the_newest(delay):
    loss = Seen()
    game, batches = make({"loss": loss}, Stale(delay))
    start, after = flat(*game.D.children()), []
    for _ in range(7):
        game.round(batches)
        after.append(flat(*game.D.children()))
    history = [start] * delay + [start, *after]
    for t in range(7):
        assert torch.equal(loss.met["discriminator"][t], ([start, *after])[t])
        assert torch.equal(loss.met["generator"][t], history[t + 1])


def test_drawn_delays_follow_the_poisson_distribution():
    """P(k) = e^-2 2^k / k!, and the last one has the rest; 4,000 draws, 4 standard errors."""
    rule = Stale(2, poisson=True)
    game, _ = make(rule=rule)
    n = 4000
    ages = torch.stack([rule.age(game) for _ in range(n)])
    expected = [torch.distributions.Poisson(2.0).log_prob(torch.tensor(float(k))).exp().item() for k in range(rule.longest)]
    expected.append(1 - sum(expected))
    assert rule.longest == 8
    assert expected[-1] < 0.005
    for k, p in enumerate(expected):
        assert (ages == k).float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5)


# ---- balance ------------------------------------------------------------------------------------------------------------------------


class Script(Schedule):
    capturable = True

    def __init__(self, losses: list[float]):
        super().__init__()
        self.losses = losses

    def at(self, step, run):
        return self.losses[step]


class Scripted(Loss):
    """A loss of D that is what the script says, with the gradients of Wasserstein."""

    capturable = True

    def __init__(self, losses):
        super().__init__()
        self.script, self.inner = Script(losses), Wasserstein()

    def discriminator(self, play):
        value = self.inner.discriminator(play)
        return value - value.detach() + self.script.value

    def generator(self, play):
        return self.inner.generator(play)


LOSSES = [1.0, 0.1, 0.1, 0.1, 1.0, 3.0, 3.0, 3.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("engine", [Engine, Replayed])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_player_that_is_ahead_waits(engine, decay):
    mean, expected = 0.9, []
    for loss in LOSSES:
        expected.append((mean >= 0.4, mean <= 1.4))
        mean = decay * mean + (1 - decay) * loss
    assert {False} < {d for d, _ in expected}
    assert {False} < {g for _, g in expected}
    game, batches = make({"loss": Scripted(LOSSES)}, Balance(0.4, 1.4, decay))
    turns = engine(game, pytest.fail)
    for d, g in expected:
        before = [state_of(game.players[name]) for name in ("discriminator", "generator")]
        logs = game.round(batches, turns.turn)
        after = [state_of(game.players[name]) for name in ("discriminator", "generator")]
        assert (bool(logs["moved/d"]), bool(logs["moved/g"])) == (d, g)
        assert [torch.equal(a, b) for a, b in zip(before, after)] == [not d, not g]
    assert game.rule.mean.item() == pytest.approx(mean, rel=1e-6)


def state_of(player) -> Tensor:
    """Weights and the state of the optimiser."""
    kept = [value.double().flatten() for of_p in player.optimizer.state.values() for value in of_p.values()]
    return torch.cat([flat(player.net), *kept])


def test_two_that_always_move_alternate():
    always = Balance(-1e9, 1e9)
    assert torch.equal(flat(play(6)[0].players), flat(play(6, rule=always)[0].players))


class OfG(Loss):
    def generator(self, play):
        return -play.on_fake.logits.mean()


def test_balance_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="low=2 is above high=1"):
        Balance(2, 1)
    with pytest.raises(ValueError, match="balance measures the loss of D, and OfG has none: use rule=alternate"):
        make({"loss": OfG(), "r1": R1(1.0)}, Balance())
