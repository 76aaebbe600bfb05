"""Every penalty in a game: finite, replayed, resumed."""

import copy

import pytest
import torch

from games import flat, make
from gan_runner import penalties
from gan_runner.execution.replay import Replayed
from gan_runner.losses import NonSaturating

NAMES = sorted(set(penalties.__all__) - {"Penalty"})


def game_with(name, **kw):
    conditional = name == "AuxiliaryClassifier"
    return make({"loss": NonSaturating(), "penalty": getattr(penalties, name)(**kw)}, conditional=conditional, batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_is_replayed_and_resumed_bit_for_bit(name, every):
    (eager, batches), (replayed, same), (stopped, again) = (game_with(name, every=every) for _ in range(3))
    turns, said = Replayed(replayed, print), []
    for step in range(8):
        if step == 3:
            state = copy.deepcopy(stopped.state_dict())
            stopped, _ = game_with(name, every=every)
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
