"""Every penalty in a game: finite, replayed, resumed, in micro-batches, and on samples of several scales."""

import copy
from functools import partial

import pytest
import torch

from games import flat, images, make, sgd
from gan_runner import penalties
from gan_runner.architectures import MLPDiscriminator, MLPGenerator, MSGDiscriminator, MSGGenerator
from gan_runner.errors import UserError
from gan_runner.execution.replay import Replayed
from gan_runner.losses import NonSaturating
from gan_runner.tricks import EMA, SpectralNorm

NAMES = sorted(set(penalties.__all__) - {"Penalty"})
MLPS = {"discriminator": partial(MLPDiscriminator, width=16, depth=1), "generator": partial(MLPGenerator, width=16, depth=1)}
SCALES = {
    "discriminator": partial(MSGDiscriminator, width=8, minibatch_stddev=False),
    "generator": partial(MSGGenerator, width=8, latent=8),
}
BESIDE = {  # what a penalty needs beside it
    "AuxiliaryClassifier": {"conditional": True},
    "Consistency": {"data": images(), "nets": MLPS},
    "Teacher": {"tricks": lambda: {"ema": EMA(0.02)}},
}


def game_with(name, *, more=None, **kw):
    beside = {key: value() if key == "tricks" else value for key, value in BESIDE.get(name, {}).items()} | (more or {})
    return make({"loss": NonSaturating(), "penalty": getattr(penalties, name)(**kw)}, batch_size=8, **beside)


def dues(name):
    """How often a penalty may be due."""
    return [1] if name == "GradientNormalisation" else [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "every"), [(name, every) for name in NAMES for every in dues(name)])
def test_a_penalty_is_replayed_and_resumed_bit_for_bit(name, every):
    lazy = {} if dues(name) == [1] else {"every": every}
    (eager, batches), (replayed, same), (stopped, again) = (game_with(name, **lazy) for _ in range(3))
    turns, said = Replayed(replayed, print), []
    for step in range(8):
        if step == 3:
            state = copy.deepcopy(stopped.state_dict())
            stopped, _ = game_with(name, **lazy)
            stopped.load_state_dict(state)
        said.append({key for key in eager.round(batches) if key.startswith("penalty/")})
        replayed.round(same, turns.turn)
        stopped.round(again)
    assert turns.able
    assert turns.ready
    assert [bool(keys) for keys in said] == [step % every == 0 for step in range(8)]
    assert flat(eager).isfinite().all()
    assert torch.equal(flat(eager), flat(replayed))
    assert torch.equal(flat(eager), flat(stopped))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ApproximateR1", "LatentConsistency"])
def test_two_passes_under_spectral_norm_are_replayed(name):
    (eager, batches), (replayed, same) = (game_with(name, more={"tricks": {"spectral_norm": SpectralNorm()}}) for _ in range(2))
    turns = Replayed(replayed, print)
    for _ in range(8):
        eager.round(batches)
        replayed.round(same, turns.turn)
    assert turns.ready
    assert torch.equal(flat(eager), flat(replayed))


def played(name, **more):
    game, batches = game_with(name, more=more)
    for _ in range(5):
        game.round(batches)
    return game


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_have_the_penalty_of_the_whole_batch_or_are_refused(name):
    settings = {"optimizer": partial(sgd, lr=0.02)}
    if getattr(penalties, name)().coupled:
        with pytest.raises(ValueError, match=r"accumulate=2 cuts the batch, and penalty needs all of it"):
            played(name, **settings, accumulate=2)
    else:
        assert (flat(played(name, **settings)) - flat(played(name, **settings, accumulate=2))).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "AuxiliaryClassifier"])  # this D takes no labels
def test_samples_of_several_scales_are_penalised_or_refused(name):
    settings = {"data": images(side=8), "nets": SCALES, "conditional": False}
    if name == "GradientNormalisation":
        with pytest.raises(UserError, match="those of this generator have several: drop the penalty"):
            played(name, **settings)
    else:
        game = played(name, **settings)
        assert flat(game).isfinite().all()
