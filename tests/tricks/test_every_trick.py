"""What every trick promises, asked of each file in configs/trick."""

from functools import partial

import pytest
import torch

from games import flat, go_on, images, make, sgd
from gan_runner.architectures import DCGANDiscriminator, DCGANGenerator, MSGDiscriminator, MSGGenerator
from gan_runner.assembly.build import plain
from gan_runner.assembly.parts import make_list
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.losses import Hinge, NonSaturating, Wasserstein
from gan_runner.penalties import R1, GradientPenalty

NAMES = sorted(path.stem for path in (config_dir() / "trick").glob("*.yaml"))
IMAGES = {"ada", "diffaugment"}
WORDS = {  # what lets a trick act within a few rounds
    "freeze": ["trick.freeze.layers={discriminator: [body.0]}"],
    "column_norm": ["trick.column_norm.limit=0.3"],
    "ema": ["trick.ema.halflife_kimg=[0.1,0.5]", "trick.ema.rampup=0.5"],
    "restart_on_collapse": [f"trick.restart_on_collapse.{word}" for word in ("ratio=0.99", "every=2", "patience=1", "times=1")],
    "gradient_clip": ["trick.gradient_clip.limit=0.01"],
    "ada": ["trick.ada.kimg=0.05", "trick.ada.every=1"],
    "minibatch_discrimination": ["trick.minibatch_discrimination.kernels=6"],
    "dropout": ["trick.dropout.players=[discriminator,generator]"],
}
OTHERS = {  # why not with the networks of several scales
    "dropout": "their activations are no modules",
    "freeze": "body.0 is no layer of theirs",
    "standing_statistics": "they have no batch norm",
    "column_norm": "their weights are computed from others",
}
CUT = {  # what the refusal of micro-batches says
    "top_k": "top_k ranks all of it: use accumulate=1",
    "minibatch_discrimination": "minibatch_discrimination compares all of it: use accumulate=1",
}
every_trick = pytest.mark.parametrize("name", NAMES)
DCGAN = {"discriminator": partial(DCGANDiscriminator, width=4), "generator": partial(DCGANGenerator, latent=8, width=4)}
SCALES = {
    "discriminator": partial(MSGDiscriminator, width=8, minibatch_stddev=False),
    "generator": partial(MSGGenerator, latent=8, width=8),
}


def trick_of(name, *words):
    return make_list(plain(compose([f"trick=[{name}]", *WORDS.get(name, []), *words]).config), (), "trick")


def settings_of(name):
    """What a trick needs beside it."""
    if name in IMAGES:
        return {"nets": SCALES, "data": images(), "batch_size": 16}
    if name == "standing_statistics":
        return {"nets": DCGAN, "data": images(), "batch_size": 16}
    return {"accumulate": 2} if name == "noise_scale" else {}


def played(name, n, engine=Engine, start=None, **settings):
    """The game of a trick after n rounds, its batches and its engine. start: (state of a game, of its batches)."""
    settings = settings_of(name) | settings
    game, batches = make(tricks=trick_of(name), again=lambda number: make(tricks=trick_of(name), again=print, **settings)[0], **settings)
    return game, batches, go_on(game, batches, n, engine, start)


GAMES = {  # losses with what keeps D smooth
    "non_saturating": lambda: {"loss": NonSaturating()},
    "wasserstein": lambda: {"loss": Wasserstein(), "gradient_penalty": GradientPenalty()},
    "hinge": lambda: {"loss": Hinge(), "r1": R1(0.1)},
}


@pytest.mark.slow
@every_trick
@pytest.mark.parametrize("loss", GAMES)
def test_replayed_rounds_have_the_bits_of_plain_ones(name, loss):
    if name == "label_smoothing" and loss != "non_saturating":
        with pytest.raises(ValueError, match="sets the targets of the loss"):
            played(name, 0, terms=GAMES[loss]())
        return
    plainly, _, _ = played(name, 8, terms=GAMES[loss]())
    replayed, _, turns = played(name, 8, Replayed, terms=GAMES[loss]())
    assert turns.ready
    assert turns.able
    assert flat(plainly).isfinite().all()
    assert torch.equal(flat(plainly), flat(replayed))


@pytest.mark.slow
@every_trick
@pytest.mark.parametrize("loss", GAMES)
def test_a_resumed_game_has_the_bits_of_one_that_was_not_stopped(name, loss):
    if name == "label_smoothing" and loss != "non_saturating":
        pytest.skip("refused above")
    half, batches, _ = played(name, 3, terms=GAMES[loss]())
    state = half.state_dict(), batches.state_dict()
    straight, resumed = (played(name, n, start=start, terms=GAMES[loss]())[0] for n, start in ((6, None), (3, state)))
    assert torch.equal(flat(straight), flat(resumed))


@pytest.mark.slow
@every_trick
def test_a_trick_changes_the_run_that_it_is_in(name):
    """Without this, the equalities would hold for tricks that do nothing."""
    game, _, _ = played(name, 4)
    without, batches = make(**settings_of(name))
    for _ in range(4):
        without.round(batches)
    one, other = (flat(each.players["discriminator"].net, each.sampler.eval()) for each in (game, without))
    if name == "noise_scale":  # which looks, and is a trick because a callback sees no gradients
        assert torch.equal(one, other)
    else:
        assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.slow
@every_trick
def test_micro_batches_give_the_gradients_of_the_whole_batch_or_are_refused(name):
    play = partial(played, name, 4, optimizer=sgd)
    if name in CUT:
        with pytest.raises(ValueError, match=rf"trainer\.accumulate=2 cuts the batch, and {CUT[name]}"):
            play(accumulate=2)
    elif name not in ("spectral_norm", "standing_statistics", "noise_scale"):  # power iterations, batch norm, and what needs them
        one, two = (flat(*play(accumulate=k)[0].players.values()) for k in (1, 2))
        assert (one - two).abs().max() < 1e-6


@pytest.mark.slow
@every_trick
def test_a_conditional_run_and_one_of_several_scales_are_played(name):
    conditional, _, _ = played(name, 2, **({} if "nets" in settings_of(name) else {"conditional": True}))
    assert flat(conditional).isfinite().all()
    if name not in OTHERS:
        scales, _, _ = played(name, 2, nets=SCALES, data=images(), batch_size=16)
        assert flat(scales).isfinite().all()
