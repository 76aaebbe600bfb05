"""What every loss promises, asked of each file in configs/loss."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from games import flat, go_on, make, sgd
from gan_runner.assembly.build import plain
from gan_runner.assembly.parts import make_one
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.game import DiscriminatorOutput

NAMES = sorted(path.stem for path in (config_dir() / "loss").glob("*.yaml"))
SHORT = {"optimal_transport": ["loss.iterations=5"]}  # what makes a round short
every_loss = pytest.mark.parametrize("name", NAMES)


LOGITS = {"mmd": ["loss.gp=0"]}  # what needs no more of a play than D's outputs


def loss_of(name, words=SHORT):
    return make_one(plain(compose([f"loss={name}", *words.get(name, [])]).config), (), "loss")


def played(name, n, engine=Engine, start=None, **settings):
    """The game of a loss after n rounds, its batches and its engine. start: (state of a game, of its batches)."""
    game, batches = make({"loss": loss_of(name)}, **settings)
    return game, batches, go_on(game, batches, n, engine, start)


@pytest.mark.slow
@every_loss
@pytest.mark.parametrize("conditional", [False, True])
def test_replayed_rounds_have_the_bits_of_plain_ones(name, conditional):
    plainly, _, _ = played(name, 6, conditional=conditional)
    replayed, _, turns = played(name, 6, Replayed, conditional=conditional)
    assert turns.ready
    assert turns.able
    assert flat(plainly).isfinite().all()
    assert torch.equal(flat(plainly), flat(replayed))


@pytest.mark.slow
@every_loss
def test_a_resumed_game_has_the_bits_of_one_that_was_not_stopped(name):
    half, batches, _ = played(name, 3)
    assert torch.equal(flat(played(name, 6)[0]), flat(played(name, 3, start=(half.state_dict(), batches.state_dict()))[0]))


@every_loss
def test_both_players_move(name):
    start, after = (played(name, n)[0] for n in (0, 1))
    for side in ("generator", "discriminator"):
        assert (flat(start.players[side].net) - flat(after.players[side].net)).abs().max() > 1e-6


@pytest.mark.slow
@every_loss
@pytest.mark.parametrize("conditional", [False, True])
def test_micro_batches_give_the_gradients_of_the_whole_batch_or_are_refused(name, conditional):
    play = partial(played, name, 4, optimizer=sgd, conditional=conditional)
    if loss_of(name).coupled:
        with pytest.raises(ValueError, match=r"trainer\.accumulate=2 cuts the batch, and loss needs all of it"):
            play(accumulate=2)
    else:
        assert (flat(play()[0]) - flat(play(accumulate=2)[0])).abs().max() < 1e-6


@every_loss
def test_whether_the_zero_of_a_logit_means_something(name):
    """`shift_invariant` is what refiners read: whether D's objective is the same with a constant added to all logits."""
    torch.manual_seed(0)
    logits, features = torch.randn(2, 8, dtype=torch.float64), torch.randn(2, 8, 3, dtype=torch.float64)

    def objective(constant):
        real, fake = (DiscriminatorOutput(logits[i] + constant, features[i]) for i in range(2))
        return loss.discriminator(SimpleNamespace(on_both=(real, fake), on_real=real, on_fake=fake)).item()

    loss = loss_of(name, LOGITS | SHORT)
    assert (objective(1.5) == pytest.approx(objective(0.0), abs=1e-9)) == loss.shift_invariant


@every_loss
def test_the_loss_of_several_critics_is_the_mean_of_theirs(name):
    """Patches, scales and domains: logits N P."""
    torch.manual_seed(0)
    logits, features = torch.randn(2, 8, 3, dtype=torch.float64), torch.randn(2, 8, 4, dtype=torch.float64)

    def objectives(critics):
        real, fake = (DiscriminatorOutput(each, on) for each, on in zip(critics, features, strict=True))
        play = SimpleNamespace(on_both=(real, fake), on_real=real, on_fake=fake)
        return torch.stack([loss.discriminator(play), loss.generator(play)])

    loss = loss_of(name, LOGITS | SHORT)
    alone = torch.stack([objectives(logits[:, :, critic]) for critic in range(3)]).mean(0)
    assert objectives(logits).tolist() == pytest.approx(alone.tolist(), abs=1e-9)


@every_loss
def test_the_fakes_of_a_relativistic_pair_have_the_label_of_the_real_sample(name):
    game, batches, _ = played(name, 0, conditional=True)
    seen = []
    game.watch = lambda play, player: seen.append(torch.equal(play.y, play.fake_y))
    game.round(batches)
    assert seen == 2 * [name == "relativistic_paired"]
