"""Which rounds may be replayed: those of parts that are known, or that say so themselves."""

import copy
import functools
import types
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from games import adam, everything, flat, make
from gan_runner import Dataset, Rule, Schedule, Term
from gan_runner.architectures import MLPDiscriminator, MLPGenerator
from gan_runner.datasets import ImageFolder, Ring8
from gan_runner.execution.capturable import authors, refusal, refused, walk
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.game import Discriminator, Generator
from gan_runner.losses import NonSaturating
from gan_runner.penalties import R1
from gan_runner.rules import Alternate
from gan_runner.schedules import Linear
from gan_runner.tricks import EMA, InstanceNoise, SpectralNorm, Trick


def scale(game, factor=0.9):
    with torch.no_grad():
        for p in game.G.parameters():
            p.mul_(factor)


class EveryTenth(Trick):
    def after_round(self, game):
        if game.step % 10 == 0:
            scale(game)
        return {}


class Counting(Trick):
    n = 0

    def after_step(self, player):
        self.n += 1
        if self.n % 10 == 0:
            with torch.no_grad():
                next(player.net.parameters()).mul_(0.9)


class InRoundSeven(Trick):
    def after_round(self, game):
        if game.step == 7:
            scale(game)
        return {}


class Growing(MLPDiscriminator):
    calls = 0

    def forward(self, sample, y=None):
        self.calls += 1
        if self.calls == 15:
            torch.manual_seed(0)
            self.body.append(nn.Linear(self.features, self.features))
        return super().forward(sample, y)


class Changing(Alternate):
    def forward(self, game, batches):
        if game.step == 7:
            self.moves = [*self.moves, "generator"]
        return super().forward(game, batches)


class TenthR1(R1):
    n = 0

    def discriminator(self, play):
        self.n += 1
        value = super().discriminator(play)
        return value * 3 if self.n % 10 == 0 else value


class Layer(nn.Module):
    n = 0

    def forward(self, x):
        self.n += 1
        return x if self.n % 10 else x / 2


class WithLayer(MLPDiscriminator):
    """Vouches for itself, and not for the layer of somebody else."""

    capturable = True

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.body.append(nn.Sequential(Layer()))


class Steps(Schedule):
    def at(self, step, run):
        return 1.0 if step % 10 else 0.5

    def fill(self, step, run):
        self.value = torch.tensor(self.at(step, run))


class Lazy(torch.optim.SGD):
    n = 0

    def step(self, closure=None):
        self.n += 1
        if self.n % 10:
            super().step(closure)


class Hooking(Trick):
    capturable = True

    def __init__(self, on=lambda net: net):
        super().__init__()
        self.on = on

    def wrap(self, part, name):
        if name == "discriminator":
            self.on(part)
        return part


class Helper:
    def __init__(self):
        self.n = 0

    def __call__(self, x):
        self.n += 1
        return x if self.n % 10 else x / 2


class Helped(Trick):
    capturable = True

    def __init__(self, helpers):
        super().__init__()
        self.helpers = helpers

    def augment(self, sample, draws):
        return self.helpers["first"][0](sample)


class Parametrised(nn.Module):
    n = 0

    def forward(self, weight):
        self.n += 1
        return weight if self.n % 10 else weight / 2


calls = []


def halve(module, args, output=None):
    calls.append(0)
    return None if len(calls) % 10 else args[0] / 2


def hook_at(name):
    def on(net):
        layer = net.body[2]
        if name == "parametrization":
            nn.utils.parametrize.register_parametrization(layer, "weight", Parametrised())
        elif name == "forward":
            layer.forward = lambda x: nn.functional.linear(x, layer.weight, layer.bias) * (0.5 if halve(None, [1]) else 1.0)
        elif name == "method":
            layer.forward = types.MethodType(lambda self, x: nn.Linear.forward(self, x), layer)
        elif name == "weight":
            layer.weight.register_hook(lambda grad: grad if halve(None, [1]) is None else grad / 2)
        else:
            getattr(layer, f"register_{name}")(lambda *args: None)

    return on


def nets(discriminator):
    return {"discriminator": partial(discriminator, width=8, depth=2), "generator": partial(MLPGenerator, width=8, depth=2)}


KINDS = {
    "every tenth round": ({"tricks": {"mine": EveryTenth()}}, "trick.mine", "EveryTenth"),
    "a count of its own": ({"tricks": {"mine": Counting()}}, "trick.mine", "Counting"),
    "once in round 7": ({"tricks": {"mine": InRoundSeven()}}, "trick.mine", "InRoundSeven"),
    "a network that grows": ({"nets": nets(Growing)}, "architecture.discriminator", "Growing"),
    "a rule that changes": ({"rule": Changing()}, "rule", "Changing"),
    "a verb of a shipped penalty": ({"terms": {"loss": NonSaturating(), "mine": TenthR1(1.0)}}, "penalty.mine", "TenthR1"),
    "a loss": (
        {"terms": {"loss": type("Mine", (NonSaturating,), {"generator": lambda self, play: -play.on_fake.logits.mean()})()}},
        "loss",
        "Mine",
    ),
    "a nested layer": ({"nets": nets(WithLayer)}, "architecture.discriminator.body.4.0", "Layer"),
    "a schedule": ({"tricks": {"noise": InstanceNoise(Steps())}}, "trick.noise.sigma", "Steps"),
    "a schedule of an optimiser": ({"optimizer": partial(adam, lr=type("Mine", (Steps,), {})())}, "optimizer.discriminator.lr", "Mine"),
    "an optimiser": ({"optimizer": partial(Lazy, lr=0.1)}, "optimizer.discriminator", "Lazy"),
    "an object in a list": ({"tricks": {"mine": Helped({"first": [Helper()]})}}, "trick.mine.helpers.first.0", "Helper"),
    "a function of a partial": (
        {"tricks": {"mine": Helped({"first": (functools.partial(Helper().__call__),)})}},
        "trick.mine.helpers.first.0.function.self",
        "Helper",
    ),
    **{
        name: ({"tricks": {"mine": Hooking(hook_at(name))}}, "architecture.discriminator.body.2", "")
        for name in (
            "forward_hook",
            "forward_pre_hook",
            "full_backward_hook",
            "full_backward_pre_hook",
            "parametrization",
            "forward",
            "method",
            "weight",
        )
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_declared_is_executed_in_every_round(kind):
    """Bit for bit as without an engine, with the part and the attribute in one line at the start."""
    settings, key, cls = KINDS[kind]
    calls.clear()
    straight, source = make(**copied(settings))
    eager = Engine(straight, print)
    for _ in range(25):
        straight.round(source, eager.turn)
    calls.clear()
    game, batches = make(**copied(settings))
    said = []
    executor = Replayed(game, said.append)
    [line] = said
    assert line.startswith("trainer.engine=replay cannot execute this run, which goes on with eager: " + key)
    assert cls in line
    assert "capturable = True" in line
    for _ in range(25):
        game.round(batches, executor.turn)
    assert said == [line]
    assert not executor.able
    assert torch.equal(flat(straight), flat(game))


def copied(settings):
    return {key: value if key == "nets" else copy.deepcopy(value) for key, value in settings.items()}


class Twin(NonSaturating):
    """Says nothing, and does nothing."""

    note = "a loss"


class Declared(R1):
    capturable = True

    def discriminator(self, play):
        return super().discriminator(play) * 2


class Heir(Declared):
    """Changes no method."""


class Overriding(Declared):
    def discriminator(self, play):
        return super().discriminator(play) * 3


class Mixin:
    def discriminator(self, play):
        return super().discriminator(play) * 3


class Mixed(Mixin, Declared):
    """The method of the first base is not what the second one speaks for."""


class Vouching(Mixed):
    capturable = True


class Withdrawn(Declared):
    capturable = False


@pytest.mark.parametrize(
    ("value", "may"),
    [
        (R1(1.0), True),
        (nn.Linear(1, 1), True),
        (Twin(), True),
        (Declared(1.0), True),
        (Heir(1.0), True),
        (Overriding(1.0), False),
        (Mixed(1.0), False),
        (Vouching(1.0), True),
        (Withdrawn(1.0), False),
        (type("Elsewhere", (nn.Linear,), {"__module__": "gan_runner_extra.layers", "forward": lambda self, x: x})(1, 1), False),
        (type("Elsewhere", (nn.Linear,), {"__module__": "torchlike.layers", "forward": lambda self, x: x})(1, 1), False),
        (type("Property", (nn.Linear,), {"bias": property(lambda self: None)}), True),  # a class, and no object of it
        (torch.relu, True),
        (nn.functional.relu, True),
        (halve, False),
        (torch.no_grad()(halve), False),
        (torch.jit.trace(nn.Linear(1, 1), torch.ones(1)), False),
        (torch.fx.symbolic_trace(nn.Linear(1, 1)), False),
        (OrderedDict(), True),
    ],
)
def test_a_class_is_asked_itself(value, may):
    assert (refusal(value) is None) is may


def test_spectral_norm_hides_nobody():
    """torch derives a class of its own from that of a layer whose weight it computes."""

    class Mine(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    assert refusal(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))) is None
    assert "Mine" in refusal(nn.utils.parametrizations.spectral_norm(Mine(2, 2)))


def test_a_replaced_method_of_a_shipped_class_is_seen(monkeypatch):
    game, _ = make(terms={"loss": NonSaturating(), "r1": R1(1.0)})
    assert refused(game) is None
    monkeypatch.setattr(R1, "discriminator", lambda self, play: None)
    assert "penalty.r1 is a gan_runner.penalties.gradient.R1, whose discriminator was replaced" in refused(game)


def test_a_hook_on_all_modules_is_seen():
    game, _ = make()
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        assert "torch._global_forward_hooks" in refused(game)
    finally:
        handle.remove()
    assert refused(game) is None


def test_a_hook_that_comes_later_is_seen():
    """A callback that watches a layer adds its hook after the engine was chosen."""
    game, batches = make()
    said, seen = [], []
    executor = Replayed(game, said.append)
    assert executor.able
    game.D.head.register_forward_hook(lambda *args: seen.append(0))
    for _ in range(6):
        game.round(batches, executor.turn)
    assert "architecture.discriminator.head._forward_hooks" in said[0]
    assert len(seen) == 12


def test_a_hook_may_say_so():
    def hook(module, args, output):
        return output * 2

    hook.capturable = True
    game, _ = make()
    game.D.head.register_forward_hook(hook)
    assert refused(game) is None


def test_functions_are_spoken_for_by_the_part_that_holds_them():
    class Mine(Hooking):
        capturable = True

    game, _ = make(tricks={"mine": Mine(lambda net: net)})
    assert refused(game) is None


@pytest.mark.parametrize("settings", [everything(), {"rule": Alternate(2)}, {"optimizer": partial(adam, lr=Linear(1e-3, 0.0))}])
def test_parts_of_gan_runner_and_torch_may_be_replayed(settings):
    game, _ = make(**copy.deepcopy(settings))
    assert refused(game, Ring8(n=64)) is None


class Mine(Dataset):
    def load(self, split):
        return Ring8(n=64).load(split)


def test_the_data_set_is_asked_too():
    game, _ = make()
    assert "dataset is a " in refused(game, Mine())
    assert "Mine, which does not say capturable = True" in refused(game, Mine())
    assert refused(game, type("Declared", (Mine,), {"capturable": True})()) is None


def test_the_files_of_a_folder_are_not_looked_at_one_by_one():
    """A million of them would take half a minute, before every round that is recorded."""
    folder = ImageFolder("images", 16)
    vars(folder)["_listing"] = ("a", "b"), {"train": [(Path(f"images/a/{i}.png"), "a") for i in range(1000)], "test": []}
    assert len(list(walk({"dataset": folder}))) < 10


def test_bases_say_nothing_for_their_subclasses():
    for base in (Term, Trick, Rule, Schedule, Dataset, Generator, Discriminator):
        assert "capturable" in base.__annotations__
        assert "capturable" not in vars(base)


def test_authors_are_named_by_key_and_class():
    game, _ = make(tricks={"ema": EMA(), "norm": SpectralNorm(), "mine": EveryTenth()})
    named = authors(game)
    assert named[id(game)] == ""
    assert named[id(game.tricks["mine"])].startswith("trick.mine (")
    assert named[id(game.D)] == "architecture.discriminator (gan_runner.architectures.mlp.MLPDiscriminator)"
    assert named[id(game.players["generator"].optimizer)] == "optimizer.generator (torch.optim.adam.Adam)"
