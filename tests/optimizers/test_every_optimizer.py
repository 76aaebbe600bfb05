"""What every optimiser promises, asked of each file in configs/optimizer, and what the project's own ones do, against the same by hand."""

from functools import partial

import pytest
import torch

from games import flat, make, play
from gan_runner.assembly import build
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.datasets import stream
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.losses import NonSaturating
from gan_runner.optimizers import OptimisticAdam, OptimisticSGD
from gan_runner.penalties import R1
from gan_runner.rules import Extragradient
from gan_runner.schedules import Linear, Schedule

NAMES = sorted(path.stem for path in (config_dir() / "optimizer").glob("*.yaml"))
ON_THE_HOST = {"sgd"}  # whose schedule torch reads on the host
every_optimizer = pytest.mark.parametrize("name", NAMES)


def played(name, n, engine=Engine, start=None):
    """A game under the optimisers of a file after n rounds, its batches, and what its engine says. start: (state of a game, of batches)."""
    words = ["dataset=ring8", "dataset.n=256", "batch_size=32", "trainer.steps=12", "architecture.generator.width=16"]
    assembly = build.assemble(compose([*words, f"optimizer={name}", "trainer.accelerator=cpu"]).config)
    batches = stream(assembly.dataset, "train", 32, 0, "cpu")
    if start is not None:
        assembly.game.load_state_dict(start[0])
        batches.load_state_dict(start[1])
    said = []
    turns = engine(assembly.game, said.append)
    for _ in range(n):
        assembly.game.round(batches, turns.turn)
    return assembly.game, batches, said


@pytest.mark.slow
@every_optimizer
def test_replayed_rounds_have_the_bits_of_plain_ones_or_the_run_says_why_not(name):
    game, _, said = played(name, 8, Replayed)
    assert torch.equal(flat(game), flat(played(name, 8)[0]))
    assert bool(said) == (name in ON_THE_HOST)
    assert all("optimiser are read on the host, unless it has fused=true" in line for line in said)


@pytest.mark.slow
@every_optimizer
def test_a_resumed_game_has_the_bits_of_one_that_was_not_stopped(name, tmp_path):
    game, batches, _ = played(name, 4)
    torch.save((game.state_dict(), batches.state_dict()), tmp_path / "c.pt")
    rest, _, _ = played(name, 4, start=torch.load(tmp_path / "c.pt", weights_only=True))
    straight, _, _ = played(name, 8)
    assert torch.equal(flat(rest), flat(straight))
    assert str(rest.state_dict()) == str(straight.state_dict())


@pytest.mark.slow
def test_the_momentum_of_sgd_follows_its_schedule():
    for n in (0, 6):
        game, *_ = played("sgd", n + 1)
        found = {group["momentum"] for player in game.players.values() for group in player.optimizer.param_groups}
        assert found == {0.5 + 0.2 * n / 12}


# ---- optimistic steps ---------------------------------------------------------------------------------------------------------------

PAIRS = {
    "sgd": (partial(OptimisticSGD, lr=0.1), partial(torch.optim.SGD, lr=0.1, fused=True)),
    "momentum": (partial(OptimisticSGD, lr=0.1, momentum=0.5), partial(torch.optim.SGD, lr=0.1, momentum=0.5, fused=True)),
    "adam": (partial(OptimisticAdam, lr=1e-2, betas=(0.0, 0.9)), partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.9), fused=True)),
}
every_pair = pytest.mark.parametrize("name", PAIRS)


@every_pair
def test_the_optimiser_is_given_twice_the_gradient_less_the_last_one(name):
    """Bit for bit; one weight has no gradient in every second step."""
    torch.manual_seed(0)
    optimistic, plainly = PAIRS[name]
    weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    copies = [torch.nn.Parameter(p.detach().clone()) for p in weights]
    own, torchs = optimistic(weights), plainly(copies)
    last = {}
    for t in range(6):
        for i, (p, q) in enumerate(zip(weights, copies)):
            gradient = None if i and t % 2 else torch.randn(3)
            p.grad = gradient if gradient is None else gradient.clone()
            q.grad = gradient if gradient is None else (gradient - last[i]) + gradient if i in last else gradient.clone()
            last |= {} if gradient is None else {i: gradient}
        before = [None if p.grad is None else p.grad.clone() for p in weights]
        own.step()
        torchs.step()
        assert all(torch.equal(p, q) for p, q in zip(weights, copies))
        assert all(p.grad is b or torch.equal(p.grad, b) for p, b in zip(weights, before)), "the gradients are as they were"


def test_a_closed_form_of_two_steps():
    """f = w^2 / 2 from 1, rate .1: 1 - .1 = .9, then .9 - .1 (2 .9 - 1) = .82."""
    w = torch.nn.Parameter(torch.ones(()))
    optimizer = OptimisticSGD([w], lr=0.1)
    for expected in (0.9, 0.82):
        w.grad = w.detach().clone()
        optimizer.step()
        assert w.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.slow
@every_pair
def test_it_follows_schedules_and_may_look_ahead_bit_for_bit_when_replayed(name):
    for rule in (None, Extragradient):
        optimizer = partial(PAIRS[name][0], lr=Linear(1e-2, 1e-3), fused=True)
        eager, _ = play(8, rule=rule and rule(), optimizer=optimizer)
        game, batches = make(rule=rule and rule(), optimizer=optimizer)
        turns = Replayed(game, pytest.fail)
        for _ in range(8):
            game.round(batches, turns.turn)
        assert turns.ready
        assert torch.equal(flat(eager), flat(game))


class Overflow(Schedule):
    def at(self, step, run):
        return float("inf") if step == 1 else 0.1


def test_an_overflow_in_float16_is_not_remembered():
    """The scaler leaves out the step of D in round 2."""
    terms = {"loss": NonSaturating(), "r1": R1(Overflow())}
    game, batches = make(terms, optimizer=PAIRS["adam"][0], scaler=lambda: torch.amp.GradScaler("cpu", init_scale=8.0))
    for _ in range(4):
        game.round(batches)
    assert [player.scaler.get_scale() for player in game.players.values()] == [4.0, 8.0]
    assert flat(game.players).isfinite().all()
    for player, steps in zip(game.players.values(), (3, 4)):
        assert {float(of_p["step"]) for of_p in player.optimizer.state.values()} == {steps}
        assert all(of_p["previous_gradient"].isfinite().all() for of_p in player.optimizer.state.values())


def test_it_takes_no_closure():
    with pytest.raises(ValueError, match="OptimisticSGD takes no closure"):
        OptimisticSGD([torch.nn.Parameter(torch.ones(()))]).step(lambda: 1.0)
