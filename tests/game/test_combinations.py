"""Every loss with every penalty, and every trick with two kinds of games: finite, resumed, replayed, and played by two processes.

The parts are those that have a YAML file, so that a new one is covered. The fast set takes each of them once, the whole set all pairs.
"""

import copy
import fcntl
import os
from functools import cache

import pytest
import torch

from games import flat, go_on, images
from gan_runner.assembly import build
from gan_runner.assembly.build import plain
from gan_runner.assembly.parts import make_one
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.datasets import Resident, Samples
from gan_runner.errors import UserError
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from processes import spawn

# ---- cases ------------------------------------------------------------------------------------------------------------------------------


def named(group):
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


SGD = [  # Adam makes steps of rounding errors where a gradient is 0 in theory
    word
    for side in ("generator", "discriminator")
    for word in (f"optimizer.{side}._target_=torch.optim.SGD", f"~optimizer.{side}.betas", f"optimizer.{side}.lr=0.02")
]
WIDTHS = ["architecture.generator.width=8", "architecture.generator.latent=4", "architecture.discriminator.width=8"]
BASE = [*SGD, "dataset=triangles", "architecture=mlp", *WIDTHS, "metric=[]", "logger=[]", "callback=[]", "batch_size=8", "trainer.steps=8"]
BASE += ["trainer.accelerator=cpu", "trainer.threads=1"]
NEEDS = {  # what a part cannot be without, and what makes its round short
    "auxiliary_classifier": ["architecture.conditional=true"],
    "teacher": ["trick=[ema]"],
    "weight_clip": ["trick.weight_clip.limit=0.3"],
    "optimal_transport": ["loss.iterations=5"],
    "ada": ["trick.ada.kimg=0.05", "trick.ada.every=1"],
    "dropout": ["trick.dropout.players=[discriminator,generator]"],
    "freeze": ["trick.freeze.layers={discriminator: [body.0]}"],
    "minibatch_discrimination": ["trick.minibatch_discrimination.kernels=6"],
    "noise_scale": ["trainer.accumulate=2"],
    "restart_on_collapse": [f"trick.restart_on_collapse.{word}" for word in ("ratio=0.99", "every=2", "patience=1", "times=1")],
    "standing_statistics": ["architecture=dcgan", *WIDTHS, "architecture.discriminator.norm=none"],
}
KINDS = {  # of games, in which every trick is played
    "wasserstein": ["loss=wasserstein", "penalty=[gradient_penalty]"],
    "hinge": ["loss=hinge", "trick=[spectral_norm]"],
}
REFUSED = {  # pairs that cannot be, and the reason that a user reads
    **{(kind, "label_smoothing"): "label_smoothing sets the targets of the loss, and .* has none" for kind in KINDS},
    ("hinge", "column_norm"): "column_norm bounds weights of linear layers and convolutions, and MLPDiscriminator has none that are free",
}
NOT_REPLAYED: dict[str, str] = {}  # parts, and the reason
NOT_SHARED = {  # parts of which two processes keep another state than one does, and why
    "noise_scale": "its estimates are made of the gradients of micro-batches, of which there are twice as many",
    "standing_statistics": "batch norm computes its statistics of the rows of a process",
}

LOSSES, PENALTIES, TRICKS = named("loss"), named("penalty"), named("trick")
PAIRS = {f"{loss}, {penalty}": (loss, penalty) for loss in LOSSES for penalty in PENALTIES}
PAIRS |= {f"{kind}, {trick}": (kind, trick) for kind in KINDS for trick in TRICKS}
FEW = {f"{LOSSES[i % len(LOSSES)]}, {PENALTIES[i % len(PENALTIES)]}" for i in range(max(len(LOSSES), len(PENALTIES)))}
FEW |= {f"{list(KINDS)[i % len(KINDS)]}, {trick}" for i, trick in enumerate(TRICKS)}
PLAYED = {name: pair for name, pair in PAIRS.items() if pair not in REFUSED}
SHARED = {name: pair for name, pair in PLAYED.items() if not NOT_SHARED.keys() & {*pair}}
every_pair = pytest.mark.parametrize(
    "pair",
    [pytest.param(pair, id=name, marks=() if name in FEW else pytest.mark.slow) for name, pair in PAIRS.items() if pair not in REFUSED],
)


@cache
def composed(*words):
    return plain(compose([*BASE, *words]).config)


def config_of(first, second):
    """The configuration of a pair. Parts are laid over each other, which is faster than composing every pair."""
    if first in KINDS and second in TRICKS:
        config = copy.deepcopy(composed(f"trick=[{second}]", *NEEDS.get(second, [])))
        kind = composed(*KINDS[first])
        return config | {"loss": kind["loss"], "penalty": kind["penalty"], "trick": {**kind["trick"], **config["trick"]}}
    config = copy.deepcopy(composed(f"penalty=[{second}]", *NEEDS.get(second, [])))
    config["loss"] = composed(f"loss={first}", *NEEDS.get(first, []))["loss"]
    return config


def data():
    """Pictures of random pixels, with labels."""
    spec, samples = images()
    return spec._replace(classes=3), Samples(samples.x, torch.arange(len(samples.x)) % 3)


def game_of(pair):
    """A game of this pair, and its batches."""
    spec, samples = data()
    config = config_of(*pair)
    return build.build_game(config, (), make_one(config, (), "trainer"), spec, torch.device("cpu")), Resident(samples, config["batch_size"])


def played(pair, rounds, engine=Engine, start=None):
    """The game of a pair after some rounds, its batches, what the engine said, and whether rounds were replayed."""
    game, batches = game_of(pair)
    said = []
    turns = go_on(game, batches, rounds, engine, start, said.append)
    return game, batches, said, bool(getattr(turns, "ready", None))


def bits(game):
    return {key: value for key, value in game.state_dict().items() if isinstance(value, torch.Tensor)}


# ---- one process ------------------------------------------------------------------------------------------------------------------------


@every_pair
def test_a_pair_is_finite_resumed_and_replayed(pair):
    half, batches, _, _ = played(pair, 2)
    gradients = [p.grad for player in half.players.values() for p in player.weights() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    state = copy.deepcopy((half.state_dict(), batches.state_dict()))
    whole = played(pair, 4)[0]
    assert flat(whole).isfinite().all()
    assert (flat(whole) - flat(game_of(pair)[0])).abs().max() > 1e-4, "equalities below could be those of rounds that did nothing"
    resumed = played(pair, 2, start=state)[0]
    replayed, _, said, replays = played(pair, 4, Replayed)
    for other in (resumed, replayed):
        assert all(torch.equal(value, bits(other)[key]) for key, value in bits(whole).items())
    reason = next((NOT_REPLAYED[part] for part in pair if part in NOT_REPLAYED), None)
    assert replays == (reason is None), said
    assert reason is None or reason in said[0]


def test_few_pairs_are_refused_and_each_says_why():
    assert len(REFUSED) <= len(PAIRS) / 10
    for pair, reason in REFUSED.items():
        with pytest.raises(UserError, match=reason):
            game_of(pair)


# ---- two processes ----------------------------------------------------------------------------------------------------------------------


def two_rounds(pair):
    return flat(played(pair, 2)[0])


def play_all(rank, folder):
    weights = {name: two_rounds(pair) for name, pair in SHARED.items()}
    if rank == 0:
        torch.save(weights, f"{folder}/two.pt")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """The weights of all pairs after two rounds of two processes; made once, by the first of pytest's processes that asks."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder) / "combinations"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "two.pt").exists():
            spawn(2, __file__, "play_all", folder)
    return torch.load(folder / "two.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_play_a_pair_as_one(of_two, name):
    """To 1e-6 for weights, which are below .2; a running norm is larger, and has as many correct digits."""
    torch.testing.assert_close(of_two[name], two_rounds(SHARED[name]), rtol=5e-6, atol=1e-6)
