"""Rounds that are played twice: a replay that does something else than the code is found, and no other."""

import copy
import re
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from games import adam, everything, flat, make
from gan_runner.architectures import MLPDiscriminator, MLPGenerator
from gan_runner.datasets import Samples
from gan_runner.datasets.batches import Streamed
from gan_runner.draws import falls_on
from gan_runner.errors import Failed
from gan_runner.execution import captured, hardware
from gan_runner.execution.comparison import Watched, distance, first_beyond, first_unequal, shake
from gan_runner.execution.replay import Replayed
from gan_runner.losses import NonSaturating
from gan_runner.penalties import R1, Penalty
from gan_runner.rules import Alternate
from gan_runner.training.run import Run
from gan_runner.tricks import Trick


def replayed(one_in=1, last=lambda step: None, **settings):
    """A game, its batches, and an engine that compares as often as this."""
    game, batches = make(**copy.deepcopy(settings))
    said = []
    executor = Replayed(game, said.append, None, last)
    executor.one_in = one_in
    assert executor.able, said
    return game, batches, executor


def rounds(game, batches, executor, n):
    return [game.round(batches, executor.turn) for _ in range(n)]


# ---- a run that is right ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, everything(), {"accumulate": 2, "rule": Alternate(2, 1)}], ids=["loss", "everything", "rule"])
def test_comparisons_leave_no_trace(settings):
    """State, logs, gradients, generators and data are those of a run without comparisons, bit for bit, and no round is found wrong."""
    plain, source, never = replayed(one_in=10**9, **settings)
    torch.manual_seed(3)
    expected = rounds(plain, source, never, 16)
    left = torch.get_rng_state()
    game, batches, always = replayed(**settings)
    torch.manual_seed(3)
    logs = rounds(game, batches, always, 16)
    assert always.good == 15
    assert never.good is None
    assert logs == expected
    assert first_unequal(outcome(plain), outcome(game)) is None
    assert str(plain.state_dict()) == str(game.state_dict())
    assert torch.equal(left, torch.get_rng_state())
    assert {name: value for name, value in vars(source).items() if type(value) is int and name != "given"} == {
        name: value for name, value in vars(batches).items() if type(value) is int and name != "given"
    }


def outcome(game):
    return Watched(game, []).outcome({}, (0,))


class Dropping(MLPDiscriminator):
    """Draws from torch's own generator, in forward."""

    capturable = True

    def forward(self, sample, y=None):
        return super().forward(nn.functional.dropout(sample, 0.5), y)


def test_torch_s_own_generator_goes_on_as_without_comparisons():
    settings = {"nets": make_nets(Dropping)}
    states = []
    for one_in in (10**9, 1):
        game, batches, executor = replayed(one_in, **settings)
        torch.manual_seed(5)
        rounds(game, batches, executor, 10)
        states.append((flat(game), torch.get_rng_state()))
    assert all(map(torch.equal, *states))
    assert executor.good == 9


def make_nets(discriminator):
    return {"discriminator": partial(discriminator, width=8, depth=2), "generator": partial(MLPGenerator, width=8, depth=2)}


def test_batches_of_a_loader_are_read_once():
    samples = Samples(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), None)
    games = []
    for one_in in (10**9, 1):
        game, _, executor = replayed(one_in, batch_size=8)
        source = Streamed(samples, 8)
        rounds(game, source, executor, 10)
        games.append((flat(game), torch.tensor(source.position)))
    assert executor.good == 9
    assert all(map(torch.equal, *games))


def test_rounds_are_drawn_by_seed_and_step_alone():
    drawn = [step for step in range(100_000) if falls_on(200, "comparison", 0, step)]
    assert 400 < len(drawn) < 600
    assert drawn != [step for step in range(100_000) if falls_on(200, "comparison", 1, step)]
    game, batches, executor = replayed(one_in=3, seed=7)
    compared = []
    for step in range(20):
        rounds(game, batches, executor, 1)
        compared += [step] if executor.good == step else []
    assert compared == [step for step in range(2, 20) if falls_on(3, "comparison", 7, step)]


def test_a_run_that_is_no_longer_finite_is_not_found_wrong():
    """Its end is that of a run that diverged."""
    game, batches, executor = replayed(optimizer=partial(adam, lr=1e30))
    logs = rounds(game, batches, executor, 8)
    assert not all(value.isfinite() for value in logs[-1].values())
    assert executor.good == 7


class Keeping(Trick):
    """Has a generator of its own, and a tensor that is no buffer."""

    capturable = True

    def __init__(self):
        super().__init__()
        self.draws = torch.Generator().manual_seed(1)
        self.sums = [torch.zeros(2)]
        self.calls = 0

    def after_round(self, game):
        self.calls += 1
        self.sums[0].add_(torch.randn(2, generator=self.draws))
        return {}


def test_what_parts_of_others_keep_is_restored():
    kept = []
    for one_in in (10**9, 1):
        trick = Keeping()
        game, batches, executor = replayed(one_in, tricks={"keeping": trick})
        rounds(game, batches, executor, 12)
        trick = game.tricks["keeping"]
        kept.append((trick.sums[0], trick.draws.get_state(), flat(game)))
    assert executor.good == 11
    assert all(map(torch.equal, *kept))


# ---- a run that is wrong ------------------------------------------------------------------------------------------------------------


class EveryTenth(Trick):
    capturable = True

    def after_round(self, game):
        if game.step % 10 == 0 and game.step:
            with torch.no_grad():
                for p in game.G.parameters():
                    p.mul_(0.9)
        return {}


class Counting(Trick):
    """The same by a count of its own."""

    capturable = True
    n = 0

    def after_round(self, game):
        self.n += 1
        if self.n % 10 == 0:
            with torch.no_grad():
                for p in game.G.parameters():
                    p.mul_(0.9)
        return {}


class Once(Trick):
    capturable = True

    def augment(self, sample, draws):
        self.n = getattr(self, "n", 0) + 1
        return sample.sin() if self.n == 15 else sample


class Stopping(Penalty):
    """Not counted any more after some rounds."""

    capturable = True
    n = 0

    def discriminator(self, play):
        self.n += 1
        value = play.on_real.logits.square().mean()
        return self.scaled(value if self.n > 6 else value.exp())


class Growing(MLPDiscriminator):
    """Has one more layer from a round on."""

    capturable = True
    n = 0

    def forward(self, sample, y=None):
        self.n += 1
        if self.n == 9:
            torch.manual_seed(0)
            self.body.append(nn.Linear(8, 8))
        return super().forward(sample, y)


class Turning(Alternate):
    """Lets G move twice in later rounds."""

    capturable = True

    def forward(self, game, batches):
        logs = super().forward(game, batches)
        return logs | game.move("generator", next(batches)) if game.step == 7 else logs


class Shrinking(R1):
    """A number that depends on the round."""

    capturable = True
    n = 0

    def discriminator(self, play):
        self.n += 1
        return super().discriminator(play) * (1.0 if self.n < 6 else 0.5)


class Forgetting(Trick):
    """Keeps what it has seen last, for somebody to look at."""

    capturable = True
    last = torch.zeros(())

    def augment(self, sample, draws):
        self.last = sample.detach().mean()
        return sample


class Slow(torch.optim.SGD):
    capturable = True
    n = 0

    def step(self, closure=None):
        self.n += 1
        if self.n != 9:
            super().step(closure)


WRONG = {
    "every tenth round": ({"tricks": {"mine": EveryTenth()}}, r"aten\.mul_\.Tensor is executed", "trick.mine", "EveryTenth"),
    "a count of its own": ({"tricks": {"mine": Counting()}}, r"aten\.mul_\.Tensor is executed", "trick.mine", "Counting"),
    "once": ({"tricks": {"mine": Once()}}, r"aten\.sin\.default is executed", "trick.mine", "Once"),
    "no longer": (
        {"terms": {"loss": NonSaturating(), "mine": Stopping()}},
        r"aten\.exp\.default was recorded and is not",
        "penalty.mine",
        "Stopping",
    ),
    "a layer": ({"nets": make_nets(Growing)}, r"is executed in this round and was not", "architecture.discriminator", "Growing"),
    "the rule": ({"rule": Turning()}, "is executed in this round and was not", "", ""),
    "a number": ({"terms": {"loss": NonSaturating(), "mine": Shrinking(1.0)}}, r"is given 1\.0 in one", "penalty.mine", "Shrinking"),
    "the optimiser": ({"optimizer": partial(Slow, lr=0.1)}, "was recorded and is not executed", "optimizer.", "Slow"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_declaration_is_found(kind):
    settings, operation, key, cls = WRONG[kind]
    game, batches, executor = replayed(**settings)
    with pytest.raises(Failed, match=operation) as caught:
        rounds(game, batches, executor, 30)
    message = str(caught.value)
    assert f"has executed round {game.step + 1} wrongly" in message
    assert executor.good == game.step - 1 or executor.good is None
    if key:
        assert f"the code of {key}" in message
        assert re.search(rf"test_comparison\.{cls}\), \w+\.py:\d+", message)


def test_what_a_part_keeps_for_others_to_see_is_compared():
    game, batches, executor = replayed(tricks={"mine": Forgetting()})
    with pytest.raises(Failed, match=r"operation by operation, trick\.mine\.last is another"):
        rounds(game, batches, executor, 5)


def test_the_message_names_the_checkpoint_to_go_on_from(tmp_path):
    (tmp_path / "step_00000004.pt").touch()
    asked = []
    for found in (tmp_path / "step_00000004.pt", None):
        game, batches, executor = replayed(last=lambda step, found=found: asked.append(step) or found, tricks={"mine": EveryTenth()})
        with pytest.raises(Failed) as caught:
            rounds(game, batches, executor, 11)
        wanted = f"Go on from {found}, the last checkpoint before" if found else "There is no checkpoint from before"
        assert f"{wanted} the last good comparison, of round 10" in str(caught.value)
        assert ("delete last.pt and the newer step_N.pt" in str(caught.value)) == (found is not None)  # a resume begins with last.pt
    assert asked == [9, 9]


def test_the_checkpoint_to_go_on_from_is_not_newer_than_the_comparison(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for step in (5, 10, 15):
        (tmp_path / "checkpoints" / f"step_{step:08d}.pt").touch()
    waited = []
    run = SimpleNamespace(folder=tmp_path, writer=SimpleNamespace(wait=lambda: waited.append(True)))
    found = [Run.last_checkpoint(run, step) for step in (4, 5, 14, 99)]
    assert [path and path.name for path in found] == [None, "step_00000005.pt", "step_00000010.pt", "step_00000015.pt"]
    assert len(waited) == 4  # one may be being written


def test_without_an_earlier_comparison_no_checkpoint_is_named():
    game, batches, executor = replayed(10**9, tricks={"mine": EveryTenth()}, last=lambda step: pytest.fail("there is none"))
    rounds(game, batches, executor, 10)
    executor.one_in = 1
    with pytest.raises(Failed, match="No round was compared before"):
        rounds(game, batches, executor, 1)


def test_an_error_of_a_part_in_a_compared_round_is_its_own():
    class Raising(Trick):
        capturable = True

        def after_round(self, game):
            if game.step == 6:
                raise ValueError("six")
            return {}

    game, batches, executor = replayed(tricks={"mine": Raising()})
    with pytest.raises(ValueError, match=r"^six$"):
        rounds(game, batches, executor, 8)


@pytest.mark.parametrize("where", ["Before", "outcome", "compared"])
def test_without_memory_for_a_second_play_the_round_is_played_once_and_that_is_said_once(monkeypatch, where):
    straight, batches, never = replayed(10**9)
    expected = rounds(straight, batches, never, 12)
    game, source = make()
    said = []
    executor = Replayed(game, said.append)
    executor.one_in = 1
    rounds(game, source, executor, 6)
    owner, name = {"Before": (captured, "Before"), "outcome": (Watched, "outcome"), "compared": (captured, "first_unequal")}[where]
    monkeypatch.setattr(owner, name, short_of_memory)
    logs = rounds(game, source, executor, 6)
    assert logs == expected[6:]
    assert torch.equal(flat(straight), flat(game))
    assert executor.good == 5
    assert said == ["trainer.engine=replay: not enough memory to play a round twice; rounds for which it is short are not compared"]


def short_of_memory(*args, **more):
    raise torch.OutOfMemoryError("CUDA out of memory")


# ---- where two eager plays of a round differ ----------------------------------------------------------------------------------------


def noisy(values, size, seed):
    """As a GPU would compute them: every number off by up to `size` of the tensor's greatest."""
    generator = torch.Generator().manual_seed(seed)
    return {name: x + size * x.abs().max() * (2 * torch.rand(x.shape, generator=generator) - 1) for name, x in values.items()}


VALUES = {f"w{i}": torch.randn(50, generator=torch.Generator().manual_seed(i)) * 10.0**i for i in range(-3, 4)}


@pytest.mark.parametrize("size", [2.0**-24, 2.0**-11, 2.0**-8])
def test_rounding_is_no_difference(size):
    for seed in range(0, 90, 3):
        plays = [noisy(VALUES, size, seed), noisy(VALUES, size, seed + 1)]
        assert first_beyond(noisy(VALUES, size, seed + 2), plays) is None


@pytest.mark.parametrize("size", [2.0**-24, 2.0**-11, 2.0**-8])
@pytest.mark.parametrize("name", VALUES)
def test_more_than_ten_times_rounding_is_a_difference_in_each_tensor(size, name):
    """Relative to that tensor: a small one does not hide behind the rounding of a large one."""
    plays = [noisy(VALUES, size, 1), noisy(VALUES, size, 2)]
    wrong = noisy(VALUES, size, 3)
    wrong[name] = wrong[name] + 40 * size * VALUES[name].abs().max()
    assert first_beyond(wrong, plays) == name


def test_a_tensor_whose_two_plays_agree_by_chance_needs_more_plays():
    plays = [noisy(VALUES, 1e-3, 1), noisy(VALUES, 1e-3, 2)]
    plays[1]["w0"] = plays[0]["w0"].clone()
    right = noisy(VALUES, 1e-3, 3)
    assert first_beyond(right, plays) == "w0"
    assert first_beyond(right, [*plays, noisy(VALUES, 1e-3, 4)]) is None


def test_what_is_no_number_is_compared_by_place():
    nan, inf = float("nan"), float("inf")
    assert distance(torch.tensor([1.0, nan, inf]), torch.tensor([1.0, nan, inf])) == 0
    assert distance(torch.tensor([nan]), torch.tensor([1.0])) == inf
    assert distance(torch.tensor([1.0]), None) == inf
    assert first_beyond({"x": torch.ones(2)}, [{"x": torch.ones(2)}, {"x": torch.ones(2)}]) is None
    assert first_beyond({}, [{"x": torch.ones(2)}, {"x": torch.ones(2)}]) == "x"


class Inexact(Replayed):
    """Judges as on a GPU, where two plays of a round differ: here by a perturbation of the eager ones."""

    def __init__(self, *args, noise):
        self.noise, self.played = noise, 0
        super().__init__(*args)

    @property
    def exact(self):
        return False

    def eager(self, source):
        self.played += 1
        return noisy_outcome(super().eager(source), self.noise(self.played), self.played)


def noisy_outcome(outcome, size, seed):
    floats = {name: value for name, value in outcome.items() if value.is_floating_point()}
    return outcome | noisy(floats, size, seed)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [lambda i: 1e-4, lambda i: 0.0, lambda i: 1e-4 * (i % 2)], ids=["noise", "none", "one of two"])
def test_rounds_that_are_right_up_to_rounding_go_on_unchanged(noise):
    straight, batches, never = replayed(10**9, **everything())
    rounds(straight, batches, never, 12)
    game, source = make(**everything())
    executor = Inexact(game, print, noise=noise)
    executor.one_in = 1
    rounds(game, source, executor, 12)
    assert executor.good == 11
    assert torch.equal(flat(straight), flat(game))


def test_plays_that_agree_by_chance_are_followed_by_more(monkeypatch):
    """Both eager plays give the same, and the replay another by rounding: from weights that differ by rounding, plays tell."""
    straight, batches = make()
    rounds(straight, batches, Replayed(straight, print), 6)
    game, source = make()
    noise, shaken = [0.0], captured.shake
    executor = Inexact(game, print, noise=lambda i: noise[0])
    executor.one_in = 1
    rounds(game, source, executor, 3)
    monkeypatch.setattr(executor, "eager", lambda source: noisy_outcome(Inexact.eager(executor, source), 1e-5, 0))
    monkeypatch.setattr(captured, "shake", lambda *args: (noise.__setitem__(0, 1e-4), shaken(*args)))
    rounds(game, source, executor, 1)
    assert executor.played == 2 + captured.SHAKEN
    rounds(game, source, executor, 2)
    assert executor.good == 5
    assert torch.equal(flat(straight), flat(game))


def test_shaken_weights_differ_by_the_rounding_of_the_precision():
    for precision, unit in ((hardware.autocast("bf16", torch.device("cpu")), 2.0**-7), (nullcontext, 2.0**-23)):
        game, _ = make(precision=precision)
        before = flat(*game.players.values())
        shake(game, 0)
        change = (flat(*game.players.values()) / before - 1).abs()
        assert change[before != 0].amax() == pytest.approx(unit, rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["every tenth round", "a count of its own", "a number"])
def test_a_wrong_declaration_is_found_behind_rounding(kind):
    game, batches = make(**copy.deepcopy(WRONG[kind][0]))
    executor = Inexact(game, print, noise=lambda i: 1e-5)
    executor.one_in = 1
    with pytest.raises(Failed, match=WRONG[kind][1]):
        rounds(game, batches, executor, 30)
