"""Parts below parts: feature networks and augmentations."""

import copy

import pytest
import torch

from games import flat
from gan_runner.assembly.build import build_game
from gan_runner.assembly.parts import make, mistakes_in, parts_of
from gan_runner.config.composer import compose
from gan_runner.draws import NumberedDraws
from gan_runner.errors import UserError
from gan_runner.extractors import Identity, RandomConv
from gan_runner.game import Batch, Penalty, Play
from gan_runner.game.spec import Spec
from gan_runner.trainer import Trainer

IMAGES = Spec((3, 8, 8))
MINE = ("other_models",)


def composed(*more):
    lines = ["dataset=cifar10", "architecture=mlp", "architecture.generator.width=16", "architecture.discriminator.width=16"]
    return compose([*lines, "architecture.generator.latent=4", "batch_size=8", "packages=[other_models]", *more]).plain()


def perceptual(name, network):
    return f"+penalty.{name}={{_target_: other_models.terms.Perceptual, through: {network}}}"


def conv(seed=0, width=16):
    return f"{{_target_: gan_runner.extractors.RandomConv, seed: {seed}, width: {width}}}"


def built(*more, spec=IMAGES):
    return build_game(composed(*more), MINE, Trainer(steps=10), spec, torch.device("cpu"))


class Stream:
    def __init__(self, spec):
        self.x = torch.rand(8, *spec.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def prepare(self):
        pass

    def __next__(self):
        return Batch(self.x, None)


def test_the_same_network_is_shared_and_others_are_not():
    terms = built(perceptual("a", conv()), perceptual("b", conv()), perceptual("c", conv(1))).terms
    assert terms["a"].through is terms["b"].through
    assert terms["a"].through is not terms["c"].through


def test_it_is_frozen_and_its_weights_are_in_no_state():
    game, plain = built(perceptual("a", conv()), perceptual("b", conv())), built()
    before = copy.deepcopy(dict(game.terms["a"].through.named_parameters()))
    assert {key for key in game.state_dict().keys() - plain.state_dict().keys() if "through" in key} == set()
    assert sum(w.numel() for p in game.players.values() for w in p.weights()) == sum(
        w.numel() for p in plain.players.values() for w in p.weights()
    )
    game.round(Stream(IMAGES))
    for name, weight in game.terms["a"].through.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None
    other = built(perceptual("a", conv()), perceptual("b", conv()))
    other.load_state_dict(game.state_dict())
    assert torch.equal(flat(other), flat(game))
    assert torch.equal(next(other.terms["a"].through.parameters()), next(game.terms["a"].through.parameters()))


def test_a_state_of_another_network_is_still_refused():
    part = make(
        {"_target_": "other_models.terms.Perceptual", "through": {"_target_": "gan_runner.extractors.Identity"}}, MINE, Penalty, "p"
    )
    with pytest.raises(RuntimeError, match="Unexpected key"):
        part.load_state_dict({"head": torch.zeros(1)})


def test_features_of_training_are_those_of_an_evaluation():
    images = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network = RandomConv(width=16)
    torch.testing.assert_close(network.extract(images / 127.5 - 1).features, network(images).features, rtol=1e-5, atol=1e-5)


def test_gradients_go_through_the_features():
    network = RandomConv(width=4)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (slope,) = torch.autograd.grad(network.extract(x).features.sum(), x)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    with torch.no_grad():
        change = network.extract(x + step).features.double().sum() - network.extract(x - step).features.double().sum()
    assert (slope * step).double().sum().item() == pytest.approx(change.item() / 2, rel=1e-2)


def test_a_distance_through_the_identity_is_that_of_the_samples():
    game = built(perceptual("near", "{_target_: gan_runner.extractors.Identity}"))
    x = torch.randn(8, *IMAGES.shape, generator=torch.Generator().manual_seed(0))
    play = Play(game.G, game.D, Batch(x, None), NumberedDraws("test", indices=torch.arange(8)), game.augment)
    value = game.terms["near"].generator(play)
    torch.testing.assert_close(value, (play.fake - x).square().flatten(1).sum(1).mean())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            [perceptual("a", "{_target_: gan_runner.extractors.LeNet, weights: /nowhere/w.pt}")],
            "penalty.a: extractor lenet needs its weights, and there is no file /nowhere/w.pt",
        ),
        ([perceptual("a", conv())], "takes images of 1 or 3 channels, not of 2"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_before_a_round(line, said):
    with pytest.raises(UserError, match=said):
        built(*line, spec=Spec((2, 8, 8)))


@pytest.mark.parametrize(
    ("below", "said"),
    [
        ("{_target_: gan_runner.tricks.InstanceNoise, sigma: 0.1}", None),
        (
            "{_target_: gan_runner.tricks.InstanceNoise, sigma: {_target_: gan_runner.schedules.Linear, start: 1, end: 0}}",
            None,
        ),
        ("{_target_: gan_runner.tricks.EMA}", "gan_runner.tricks.EMA is not an Augmentation"),
        ("{_target_: gan_runner.extractors.Identity}", "gan_runner.extractors.Identity is not an Augmentation"),
        ("{_target_: gan_runner.tricks.InstanceNoise, sgma: 0.1}", "unknown key penalty.c.augmentation.sgma"),
        ("0.5", "penalty.c.augmentation=0.5: expected an Augmentation"),
    ],
)
def test_an_augmentation_below_a_part(below, said):
    config = composed(f"+penalty.c={{_target_: other_models.terms.Consistency, augmentation: {below}}}")
    part = next(part for part in parts_of(config) if part.path == "penalty.c")
    found = list(mistakes_in(part, MINE))
    assert (found == []) if said is None else said in found[0]
    if said is None:
        game = build_game(config, MINE, Trainer(steps=10), IMAGES, torch.device("cpu"))
        game.round(Stream(IMAGES))
        assert len(game.schedules) >= 1


def test_no_change_by_an_augmentation_of_nothing_costs_nothing():
    noise = "{_target_: gan_runner.tricks.InstanceNoise, sigma: 0.0}"
    game = built(f"+penalty.c={{_target_: other_models.terms.Consistency, augmentation: {noise}}}")
    play = Play(game.G, game.D, Batch(torch.randn(8, *IMAGES.shape), None), NumberedDraws("test", indices=torch.arange(8)), game.augment)
    assert game.terms["c"].discriminator(play).item() == 0


def test_the_identity_hands_on_gradients():
    x = torch.randn(3, 2, requires_grad=True)
    Identity().extract(x).features.sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 2))


def test_a_loss_that_takes_no_weight_may_take_the_place_of_a_shipped_one():
    """`loss._target_=mine.Loss` keeps the values of the shipped file; a weight that changes something is refused."""
    for weight, said in ((1.0, None), (0.5, "unknown key loss.generator_weight; Plain takes no keys")):
        config = composed("loss=hinge", "loss._target_=other_models.terms.Plain", f"loss.generator_weight={weight}")
        part = next(part for part in parts_of(config) if part.path == "loss")
        found = list(mistakes_in(part, MINE))
        assert (found == []) if said is None else said in found[0]
    game = built("loss=hinge", "loss._target_=other_models.terms.Plain")
    game.round(Stream(IMAGES))


@pytest.mark.parametrize("name", ["to", "loss", "generator", "values", "forward"])
def test_a_penalty_or_trick_cannot_take_the_name_of_something_else(name):
    config = composed(f"+penalty.{name}={{_target_: gan_runner.penalties.R1}}", f"+trick.{name}={{_target_: gan_runner.tricks.EMA}}")
    found = [line for part in parts_of(config) for line in mistakes_in(part, ())]
    assert found == [f"{group}.{name}: {name} is the name of something else; give this part another name" for group in ("penalty", "trick")]
