"""Engines: each gives what rounds executed operation by operation give, and steps back where it cannot."""

import copy
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from games import adam, everything, flat, images, make, play, sgd
from gan_runner.architectures import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from gan_runner.datasets import Samples
from gan_runner.datasets.batches import Streamed
from gan_runner.errors import UserError
from gan_runner.execution import hardware
from gan_runner.execution.captured import Staged, uncapturable
from gan_runner.execution.engine import Compiled, Engine, Fallible
from gan_runner.execution.engines import engine_of
from gan_runner.execution.replay import Replayed
from gan_runner.game import DiscriminatorOutput
from gan_runner.losses import NonSaturating
from gan_runner.penalties import R1
from gan_runner.rules import Alternate
from gan_runner.schedules import Linear
from gan_runner.tricks import Trick


def silent(line):
    pass


def played(game, batches, executor, rounds):
    return [game.round(batches, executor.turn) for _ in range(rounds)]


# ---- compiled -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_networks_give_the_eager_result():
    eager, _ = play(6, **everything())
    game, batches = make(**everything())
    said = []
    executor = Compiled(game, said.append, backend="aot_eager")
    logs = played(game, batches, executor, 6)
    assert executor.able, said
    assert "r1/d" in logs[0]  # differentiated twice, beside the compiled passes
    assert (flat(eager) - flat(game)).abs().max() < 1e-5


@pytest.mark.slow
def test_the_compiler_itself_gives_the_eager_result():
    """By gradient descent: Adam makes whole steps of what is rounding where a gradient is 0 in theory."""
    terms = {"loss": NonSaturating(), "r1": R1(1.0)}
    eager, _ = play(30, terms=terms, optimizer=sgd)
    game, batches = make(terms=terms, optimizer=sgd)
    executor = Compiled(game, silent)
    played(game, batches, executor, 30)
    assert executor.able
    assert (flat(eager) - flat(game)).abs().max() < 1e-5


def test_compiled_passes_are_the_ones_that_are_used():
    game, batches = make(terms={"loss": NonSaturating(), "r1": R1(1.0)})
    used = []
    game.passes = {side: (lambda *args, side=side, net=net: used.append(side) or net(*args)) for side, net in game.passes.items()}
    game.round(batches)
    assert used == ["generator", "discriminator", "generator", "discriminator"]  # and R1 asked D itself


# ---- replayed -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "sets"), [({}, 1), (everything(), 4)], ids=["loss", "everything"])
def test_replayed_rounds_are_the_eager_ones_bit_for_bit(settings, sets):
    """Penalties are due every second and third round: each set of terms has a list of operations of its own."""
    straight, source = make(**copy.deepcopy(settings))
    game, batches = make(**copy.deepcopy(settings))
    said = []
    eager, executor = Engine(straight, silent), Replayed(game, said.append)
    for _ in range(20):
        logs, again = straight.round(source, eager.turn), game.round(batches, executor.turn)
        assert {name: float(value) for name, value in logs.items()} == {name: float(value) for name, value in again.items()}
        for p, q in zip(straight.parameters(), game.parameters()):
            assert (p.grad is None) == (q.grad is None)
            assert p.grad is None or torch.equal(p.grad, q.grad)
    assert executor.able, said
    assert len(executor.ready) == sets
    assert str(straight.state_dict()) == str(game.state_dict())
    assert torch.equal(flat(straight), flat(game))
    assert source.position == batches.position


def test_a_replay_calls_neither_networks_nor_autograd():
    game, batches = make(terms={"loss": NonSaturating(), "r1": R1(1.0)})
    executor = Replayed(game, silent)
    played(game, batches, executor, 3)
    game.D.forward = game.G.forward = None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: pytest.fail("something was saved for a backward pass"), lambda t: t):
        played(game, batches, executor, 3)


@pytest.mark.slow
def test_a_resumed_game_is_recorded_anew(tmp_path):
    straight, _ = play(12, **everything())
    half, batches = make(**everything())
    played(half, batches, Replayed(half, silent), 6)
    game, rest = make(**everything())
    game.load_state_dict(half.state_dict())
    rest.load_state_dict(batches.state_dict())
    played(game, rest, Replayed(game, silent), 6)
    assert torch.equal(flat(straight), flat(game))


def test_replayed_batches_may_come_from_a_loader():
    samples = Samples(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), None)
    games = []
    for executor in (Engine, Replayed):
        game, _ = make(batch_size=8)
        turns = executor(game, silent)
        played(game, Streamed(samples, 8), turns, 8)
        games.append(game)
    assert turns.ready
    assert torch.equal(*map(flat, games))


class ReadsTheLoss(NonSaturating):
    capturable = True

    def discriminator(self, play):
        value = super().discriminator(play)
        return value * (2.0 if float(value.detach()) > 0 else 1.0)


class Counts(NonSaturating):
    capturable = True
    calls = 0

    def discriminator(self, play):
        self.calls += 1
        return super().discriminator(play) * self.calls


class Remembers(NonSaturating):
    capturable = True
    last = torch.zeros(())

    def discriminator(self, play):
        value = super().discriminator(play)
        self.last, before = value.detach(), self.last
        return value + before * value


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"terms": {"loss": ReadsTheLoss()}}, "reads a tensor on the host"),
        ({"terms": {"loss": Counts()}}, "is given 3 in one round and 4 in the next"),
        ({"terms": {"loss": Remembers()}}, "memory that is new in every round"),
        ({"optimizer": partial(torch.optim.Adam, lr=1e-3)}, "reads a tensor on the host"),
    ],
    ids=["reads", "counts", "remembers", "adam"],
)
def test_what_is_no_list_of_operations_is_executed_eagerly(settings, reason):
    straight, _ = play(12, **copy.deepcopy(settings))
    game, batches = make(**copy.deepcopy(settings))
    said = []
    executor = Replayed(game, said.append)
    played(game, batches, executor, 12)
    assert not executor.able
    assert reason in said[0]
    assert torch.equal(flat(straight), flat(game))


# ---- stepping back ------------------------------------------------------------------------------------------------------------------


class Breaks(Fallible):
    """Plays a round, and says then that it could not."""

    name = "compile"

    def execute(self, due, batches):
        self.game.turn(batches)
        raise RuntimeError("no such instruction\nand a trace")


@pytest.mark.parametrize("rounds", [0, 3])
def test_an_engine_that_fails_leaves_the_run_as_it_was(rounds):
    straight, _ = play(rounds + 5, **everything())
    game, batches = make(**everything())
    played(game, batches, Engine(game, silent), rounds)
    said = []
    executor = Breaks(game, said.append)
    played(game, batches, executor, 5)
    assert torch.equal(flat(straight), flat(game))
    assert str(straight.state_dict()) == str(game.state_dict())
    assert said == ["trainer.engine=compile cannot execute this run, which goes on with eager: no such instruction"]


def test_an_error_of_the_user_is_not_the_engines():
    class Unreadable(Breaks):
        def execute(self, due, batches):
            raise UserError("cat.png is cut off")

    game, batches = make()
    with pytest.raises(UserError, match="cut off"):
        played(game, batches, Unreadable(game, silent), 1)


@pytest.mark.slow
def test_a_failed_compiler_gives_the_plain_networks_back():
    def backend(graph, inputs):
        raise RuntimeError("no compiler here")

    straight, _ = play(3)
    game, batches = make()
    plain, said = game.passes, []
    played(game, batches, Compiled(game, said.append, backend=backend), 3)
    assert game.passes is plain
    assert "cannot execute" in said[-1]
    assert torch.equal(flat(straight), flat(game))


# ---- what an author is told ---------------------------------------------------------------------------------------------------------


class Numbers(Trick):
    """Makes a tensor of Python numbers in every round."""

    capturable = True

    def __init__(self, make):
        super().__init__()
        self.make = make

    def augment(self, sample, draws):
        return sample * self.make()


def filled():
    x = torch.zeros(2)
    x[0] = 1.0
    return x


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.tensor(0.5),
        lambda: torch.as_tensor([0.5, 2.0]),
        lambda: torch.from_numpy(np.ones(2, "float32")),
        lambda: torch.ones(2).new_tensor([0.5, 1.0]),
        lambda: torch.FloatTensor([0.5]),
        filled,
    ],
    ids=["tensor", "as_tensor", "from_numpy", "new_tensor", "FloatTensor", "filled"],
)
def test_a_tensor_made_of_numbers_is_told_in_the_author_s_words(made):
    straight, _ = play(6, tricks={"mine": Numbers(made)})
    game, batches = make(tricks={"mine": Numbers(made)})
    said = []
    played(game, batches, Replayed(game, said.append), 6)
    assert re.search(r"trick\.mine\S* \(\S*test_engines\.[<\w>.]+\), test_engines\.py:\d+ makes a tensor", said[0])
    assert "makes a tensor of Python numbers in every round" in said[0]
    assert "register_buffer" in said[0]
    assert torch.equal(flat(straight), flat(game))


@pytest.mark.parametrize("settings", [{"terms": {"loss": ReadsTheLoss()}}, {"terms": {"loss": Counts()}}, {"terms": {"loss": Remembers()}}])
def test_the_part_that_cannot_be_replayed_is_named(settings):
    game, batches = make(**copy.deepcopy(settings))
    said = []
    played(game, batches, Replayed(game, said.append), 5)
    assert re.search(r"loss \(\S*test_engines\.\w+\), test_engines\.py:\d+", said[0])


class Raises(Trick):
    """Raises in one round, and counts its calls."""

    capturable = True

    def __init__(self, step):
        super().__init__()
        self.at, self.calls = step, 0

    def after_round(self, game):
        self.calls += 1
        if game.step == self.at:
            raise ValueError(f"nothing to do in call {self.calls}")
        return {}


@pytest.mark.parametrize("step", [0, 1])
def test_an_exception_of_a_part_is_not_the_engine_s(step):
    game, batches = make(tricks={"mine": Raises(step)})
    said = []
    with pytest.raises(ValueError, match=f"^nothing to do in call {step + 1}$") as caught:
        played(game, batches, Replayed(game, said.append), 3)
    assert caught.value.__context__ is None
    assert said == []


def test_an_engine_that_fails_leaves_the_counts_of_parts_as_they_were():
    trick = Raises(100)
    game, batches = make(tricks={"mine": trick})
    played(game, batches, Breaks(game, silent), 5)
    assert trick.calls == 5


class CountingLayer(MLPDiscriminator):
    """Halves its features in every third call."""

    calls = 0

    def forward(self, sample, y=None):
        self.calls += 1
        logits, features = super().forward(sample, y)
        return DiscriminatorOutput(logits / 2 if self.calls % 3 == 0 else logits, features)


@pytest.mark.slow
def test_compiled_networks_see_what_a_part_counts():
    """torch.compile looks at the Python numbers that a network has read, and compiles again where one has changed."""
    settings = {
        "nets": {"discriminator": partial(CountingLayer, width=8, depth=2), "generator": partial(MLPGenerator, width=8, depth=2)},
        "optimizer": sgd,
    }
    straight, _ = play(9, **settings)
    game, batches = make(**settings)
    said = []
    executor = Compiled(game, said.append, backend="aot_eager")
    played(game, batches, executor, 9)
    assert game.D.calls == straight.D.calls == 18
    assert (flat(straight) - flat(game)).abs().max() < 1e-5


class OnTheHost(Trick):
    capturable = False


class Deciding(Alternate):
    capturable = False


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"tricks": {"restart": OnTheHost()}}, "OnTheHost, which says capturable = False"),
        ({"rule": Deciding()}, "Deciding, which says capturable = False"),
        ({"optimizer": partial(adam, lr=Linear(1e-3, 0.0))}, None),
        ({"optimizer": partial(torch.optim.RMSprop, lr=Linear(1e-3, 0.0))}, "read on the host"),
    ],
)
def test_what_cannot_be_captured_is_known_beforehand(settings, reason):
    game, _ = make(**settings)
    found = uncapturable(game)
    assert (found is None) if reason is None else (reason in found)


def test_choosing_an_engine():
    game, _ = make()
    assert type(engine_of("auto", game, silent, images=True)) is Engine
    assert type(engine_of("auto", game, silent, images=False)) is Replayed
    with pytest.raises(UserError, match="needs a CUDA device"):
        engine_of("cuda_graph", game, silent)


# ---- batches in fixed places --------------------------------------------------------------------------------------------------------


def test_staged_batches_are_those_of_the_source():
    samples = Samples(torch.arange(50.0)[:, None], torch.arange(50))
    wanted, source = (Streamed(samples, 4, flip=False) for _ in range(2))
    staged = Staged(source)
    places = set()
    for _ in range(6):
        staged.fill()
        for _ in range(3):
            x, y = next(staged)
            expected = next(wanted)
            assert torch.equal(x, expected.x)
            assert torch.equal(y, expected.y)
            places.add(x.data_ptr())
    assert len(places) == 3
    assert staged.left == 0
    assert source.position == wanted.position


# ---- layout and precision -----------------------------------------------------------------------------------------------------------


def convolutional(last):
    spec, samples = images(64, 8)
    nets = {"discriminator": partial(DCGANDiscriminator, width=4), "generator": partial(DCGANGenerator, width=4)}
    if last:
        nets = {side: (lambda spec, make=make: hardware.lay_out(make(spec), torch.device("cpu"))) for side, make in nets.items()}
    return {"nets": nets, "data": (spec, samples), "batch_size": 8, "optimizer": partial(torch.optim.SGD, lr=0.01)}


def test_channels_last_changes_the_layout_and_not_the_result():
    a, _ = play(4, **convolutional(False))
    b, _ = play(4, **convolutional(True))
    four = [p for p in b.parameters() if p.dim() == 4]
    assert four
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in four)
    assert (flat(a) - flat(b)).abs().max() < 1e-6


def test_a_state_of_the_other_layout_continues():
    """Fused kernels read weight and moments side by side, as they lie in memory."""
    settings = {"optimizer": adam}
    straight, _ = play(4, **convolutional(True) | settings)
    half, batches = play(2, **convolutional(True) | settings)
    state = half.state_dict()
    for player in ("generator", "discriminator"):
        moments = state[f"players.{player}._extra_state"]["optimizer"]["state"]
        for each in moments.values():
            each.update({key: t.contiguous() for key, t in each.items()})
    resumed, _ = make(**convolutional(True) | settings)
    resumed.load_state_dict(state)
    for _ in range(2):
        resumed.round(batches)
    assert torch.equal(flat(straight), flat(resumed))


@pytest.mark.parametrize("has", [False, True])
def test_auto_takes_bf16_for_images_where_it_is_multiplied_in_hardware(monkeypatch, has):
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda device: has)
    cpu = torch.device("cpu")
    assert hardware.precision_of("auto", cpu, True) == ("bf16" if has else 32)
    assert hardware.precision_of("auto", cpu, False) == 32
    assert hardware.precision_of(16, cpu, True) == 16


def test_in_bf16_losses_and_penalties_are_float32():
    cpu = torch.device("cpu")
    game, batches = make(terms={"loss": NonSaturating(), "r1": R1(1.0)}, precision=hardware.autocast("bf16", cpu))
    exact, same = make(terms={"loss": NonSaturating(), "r1": R1(1.0)})
    a, b = game.round(batches), exact.round(same)
    assert all(value.dtype == torch.float32 for value in a.values())
    assert a["r1/d"] == b["r1/d"]  # before the first step, of the same weights
    assert a["loss/d"] != b["loss/d"]
    assert a["loss/d"] == pytest.approx(float(b["loss/d"]), rel=0.02)


FAULTS = """
import resource
import torch
from gan_runner.execution import hardware

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.full((2**24,), 1.0)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with hardware.kept_memory(torch.device("cpu")):
    for _ in range(4):  # the heap grows until there is a free block large enough
        faults()
    print(faults())
print(faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_memory_that_a_round_has_freed_is_kept_for_the_next():
    """In a process of its own, as other tests leave memory in pieces."""
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    kept, cleared = map(int, said.split())
    assert kept < 1000
    assert cleared > 30_000  # pages, of 4 KiB, are cleared again every time
