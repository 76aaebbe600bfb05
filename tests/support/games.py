"""Small games for the tests: a ring of eight Gaussians, MLPs and Alternate, unless told otherwise."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gan_runner.architectures import MLPDiscriminator, MLPGenerator
from gan_runner.datasets import Resident, Ring8, Samples, Spec
from gan_runner.execution.engine import Engine
from gan_runner.game import Game
from gan_runner.losses import NonSaturating
from gan_runner.penalties import R1, AuxiliaryClassifier, FeatureMatching, GradientPenalty
from gan_runner.rules import Alternate
from gan_runner.schedules import Cosine, Linear
from gan_runner.tricks import EMA, GradientClip, InstanceNoise, LabelSmoothing, SpectralNorm

adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.9), fused=True)
sgd = partial(torch.optim.SGD, lr=0.1)


def images(n: int = 64, side: int = 8, channels: int = 1) -> tuple[Spec, Samples]:
    pixels = torch.randint(256, (n, channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Spec((channels, side, side)), Samples(pixels)


def make(terms=None, rule=None, tricks=None, nets=None, data=None, optimizer=adam, conditional=False, batch_size=32, **more):
    """A game and its batches."""
    torch.manual_seed(0)
    ring = Ring8(n=512)
    spec, samples = data or (ring.spec, ring.load("train"))
    nets = nets or {
        "discriminator": partial(MLPDiscriminator, width=32, depth=2, conditional=conditional),
        "generator": partial(MLPGenerator, width=32, depth=2, conditional=conditional),
    }
    nets = {side: net(spec) for side, net in nets.items()}
    game = Game(
        nets,
        dict.fromkeys(nets, optimizer),
        terms or {"loss": NonSaturating()},
        rule or Alternate(),
        tricks or {},
        spec=spec,
        batch_size=batch_size,
        **({"steps": 20} | more),
    )
    return game, Resident(samples, batch_size)


def play(rounds: int, *args, **kw):
    game, batches = make(*args, **kw)
    for _ in range(rounds):
        game.round(batches)
    return game, batches


def go_on(game, batches, n, engine=Engine, start=None, say=pytest.fail):
    """Play n rounds by an engine, which is returned. start: the states of the game and of the batches that they begin at."""
    if start is not None:
        game.load_state_dict(start[0])
        batches.load_state_dict(start[1])
    turns = engine(game, say)
    for _ in range(n):
        game.round(batches, turns.turn)
    return turns


def flat(*modules: nn.Module) -> Tensor:
    """Every parameter and buffer, as one float64 vector."""
    return torch.cat([t.detach().double().flatten() for m in modules for t in (*m.parameters(), *m.buffers())])


def everything(**kw):
    """As much at once as makes sense."""
    return {
        "terms": {
            "loss": NonSaturating(),
            "r1": R1(Cosine(1, 0.1), every=2),
            "gradient_penalty": GradientPenalty(0.1, every=3),
            "feature_matching": FeatureMatching(0.1),
            "auxiliary_classifier": AuxiliaryClassifier(0.1),
        },
        "tricks": {
            "spectral_norm": SpectralNorm(["discriminator", "generator"]),
            "ema": EMA(0.5),
            "instance_noise": InstanceNoise(Linear(0.1, 0, 15)),
            "label_smoothing": LabelSmoothing(),
            "gradient_clip": GradientClip(1.0),
        },
        "optimizer": partial(adam, lr=Cosine(1e-3, 1e-4)),
        "conditional": True,
    } | kw
