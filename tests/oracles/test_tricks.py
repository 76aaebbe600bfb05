"""Tricks, against what they are defined to do."""

import pytest
import torch
from torch import nn

from games import make
from gan_runner.draws import Draws
from gan_runner.schedules import Linear
from gan_runner.tricks import EMA, GradientClip, InstanceNoise, SpectralNorm, WeightClip


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(20, 30), torch.zeros(1, 20)),
        (nn.Conv2d(4, 8, 3), torch.zeros(1, 4, 8, 8)),
        (nn.ConvTranspose2d(6, 5, 4), torch.zeros(1, 6, 2, 2)),
        (nn.Embedding(7, 9), torch.zeros(1, dtype=torch.long)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_spectral_norm_makes_the_largest_singular_value_one(layer, x):
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    net = SpectralNorm().wrap(nn.Sequential(layer), "discriminator").train()
    with torch.no_grad():
        for _ in range(200):
            net(x)
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-4)
        net.eval()
        assert torch.equal(net(x), net(x))  # no power iteration in evaluation


def test_spectral_norm_is_put_on_the_sides_that_are_named():
    for on in (["discriminator"], ["generator"], ["discriminator", "generator"]):
        game, _ = make(tricks={"spectral_norm": SpectralNorm(on)})
        normed = [name for name in game.players if nn.utils.parametrize.is_parametrized(game.players[name].net.head)]
        assert normed == on


def test_ema_forgets_by_beta_to_the_n():
    """With G held at w the average's distance from w shrinks by beta each round: by half in every half-life."""
    game, _ = make(tricks={"ema": EMA(halflife_kimg=0.32)}, batch_size=32)  # ten rounds
    ema = game.tricks["ema"]
    with torch.no_grad():
        for p in game.G.parameters():
            p.fill_(1.0)
        for p in ema.net.parameters():
            p.zero_()
    for n in range(1, 31):
        ema.after_round(game)
        if n % 10 == 0:
            average = torch.cat([p.flatten() for p in ema.net.parameters()])
            assert torch.allclose(average, torch.full_like(average, 1 - 0.5 ** (n / 10)), atol=1e-6)


def test_samples_are_judged_by_the_average():
    game, batches = make(tricks={"ema": EMA(1.0)})
    assert game.sampler is game.tricks["ema"].net
    for _ in range(3):
        game.round(batches)
    assert not torch.equal(game.sampler.head.weight, game.G.head.weight)
    assert make()[0].sampler is not None
    plain, _ = make()
    assert plain.sampler is plain.G


def test_instance_noise_has_its_deviation_and_is_fresh():
    noise = InstanceNoise(Linear(0.5, 0.0, 100))
    draws = Draws(torch.Generator().manual_seed(0), 4000)
    x = torch.zeros(4000, 3)
    for step, sigma in ((0, 0.5), (50, 0.25), (100, 0.0)):
        noise.sigma.fill(step, 1)
        first, second = noise.augment(x, draws), noise.augment(x, draws)
        assert first.std().item() == pytest.approx(sigma, rel=0.03, abs=1e-9)
        assert sigma == 0 or not torch.equal(first, second)


def test_instance_noise_reaches_every_scale():
    noise = InstanceNoise(0.1)
    shown = noise.augment((torch.zeros(4, 2), torch.zeros(4, 3)), Draws(torch.Generator().manual_seed(0), 4))
    assert all(leaf.abs().min() > 0 for leaf in shown)


def test_gradient_clip_bounds_the_norm_of_the_whole_gradient():
    game, batches = make(tricks={"clip": GradientClip(1e-3)})
    game.round(batches)
    for player in game.players.values():
        norm = torch.stack([p.grad.norm() for p in player.parameters()]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_weight_clip_leaves_the_generator_alone():
    game, batches = make(tricks={"clip": WeightClip(0.01)})
    game.round(batches)
    assert max(p.abs().max() for p in game.D.parameters()) <= 0.01 < max(p.abs().max() for p in game.G.parameters())
