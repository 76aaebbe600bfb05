"""Seeds: no use of one cuts it to 32 bits, so that two seeds that agree there draw different numbers."""

import json
from functools import cache

import numpy as np
import pytest
import torch

from gan_runner.assembly import build, parts
from gan_runner.config import composer
from gan_runner.datasets import Gaussians25, Triangles
from gan_runner.datasets.batches import Order
from gan_runner.draws import Draws, NumberedDraws, seeded
from gan_runner.execution import hardware
from gan_runner.extractors import RandomConv
from gan_runner.jobs.search import OptunaSweeper

LINE = ["+experiment=gaussians25", "architecture.generator.width=8", "architecture.discriminator.width=8", "dataset.n=100"]


@cache
def settings():
    return build.plain(composer.compose(LINE).config)


def game(seed):
    return build.assemble(settings() | {"seed": seed}, device=torch.device("cpu")).game


def weights(seed):
    return torch.cat([p.detach().flatten() for p in game(seed).parameters()])


def after_weights(seed):
    """What a network that draws inside forward would get."""
    hardware.seed_weights(seed)
    return torch.rand(8)


def of_process(seed, monkeypatch):
    monkeypatch.setattr(hardware.distributed, "rank", lambda: 1)
    hardware.draw_apart(seed)
    return torch.rand(8)


def trial(seed):
    pytest.importorskip("optuna")
    sampler = OptunaSweeper([], sampler="random", seed=seed).sampler_of(3)
    return torch.tensor(sampler._rng.rng.rand(8))


def convolutions(seed):
    return next(RandomConv(seed=seed, width=4).parameters())


USES = {
    "weights": weights,
    "torch's own generator": after_weights,
    "order of the data": lambda seed: Order(100, seed, flip=True).epoch(0)[0],
    "draws of training": lambda seed: Draws(game(seed).generator, 8).normal(2),
    "latents of an evaluation": lambda seed: NumberedDraws("evaluation", seed, indices=torch.arange(8)).normal(2),
    "points": lambda seed: Gaussians25(n=50, seed=seed).load("train").x,
    "triangles": lambda seed: Triangles(n_train=8, n_test=1, seed=seed).vertices("train"),
    "random convolutions": convolutions,
    "trials of a search": trial,
    "pages of gan-rate": lambda seed: torch.randperm(100, generator=seeded("rating", seed, "secret")),
    "intervals of gan-rate": lambda seed: torch.tensor(np.random.default_rng(seed).random(8)),
}


@pytest.mark.parametrize("use", USES)
def test_seeds_that_agree_in_their_low_32_bits_draw_different_numbers(use):
    of = USES[use]
    drawn = [of(seed) for seed in (7, 2**32 + 7, 2**33 + 7, 2**70 + 7)]
    assert len({json.dumps(each.tolist()) for each in drawn}) == 4
    assert torch.equal(of(2**32 + 7), drawn[1])


def test_processes_of_one_run_differ_for_all_seeds(monkeypatch):
    drawn = [of_process(seed, monkeypatch).tolist() for seed in (7, 2**32 + 7)]
    assert drawn[0] != drawn[1]


def test_a_negative_seed_is_one_of_its_own():
    drawn = [weights(seed).tolist() for seed in (-1, 2**32 - 1, -(2**32) - 1, -(2**80))]
    assert len({json.dumps(each) for each in drawn}) == 4


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_seeds_of_32_bits_keep_the_weights_that_they_had(seed):
    torch.manual_seed(seed)
    expected = torch.rand(8)
    assert torch.equal(after_weights(seed), expected)
    node, spec = settings()["architecture"]["discriminator"], Gaussians25().spec
    torch.manual_seed(seed)
    net = parts.make(node, (), torch.nn.Module, "architecture.discriminator", spec=spec)
    made = game(seed).D.state_dict()
    assert all(torch.equal(made[name], value) for name, value in net.state_dict().items())


def test_what_is_no_whole_number_is_refused():
    for seed in (True, 1.5, "x"):
        with pytest.raises(build.UserError, match="seed="):
            build.check(settings() | {"seed": seed})
