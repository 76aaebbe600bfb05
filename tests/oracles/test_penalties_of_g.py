"""Consistency, and penalties on G and on weights, of networks whose values are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from games import images, make, sgd
from gan_runner.architectures import Discriminator, Generator
from gan_runner.datasets import Spec
from gan_runner.draws import Draws
from gan_runner.errors import UserError
from gan_runner.evaluation import Extractor
from gan_runner.evaluation.extractor import Extracted
from gan_runner.game import Batch, DiscriminatorOutput, Play
from gan_runner.losses import Balanced, NonSaturating, Wasserstein
from gan_runner.penalties import Consistency, GradientNormalisation, LatentConsistency, Orthogonal, PathLength, Teacher
from gan_runner.penalties.consistency import moved
from gan_runner.schedules import Linear
from gan_runner.tricks import EMA
from plays import Doubled, Linear2, Shift, W, play_of

# ---- consistency --------------------------------------------------------------------------------------------------------------------


def by_hand(image, u, flip, most):
    """A mirrored image is cut out of itself with a reflected edge, by numpy."""
    image = image[:, :, ::-1] if flip and u[2] < 0.5 else image
    height, width = image.shape[1:]
    down, right = (int(each * (2 * most + 1)) for each in u[:2])
    return np.pad(image, ((0, 0), (most, most), (most, most)), "reflect")[:, down : down + height, right : right + width]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("shift", "most"), [(0.0, 0), (0.25, 2), (0.3, 2), (0.99, 7)])
def test_images_are_moved_and_mirrored(flip, shift, most):
    generator = torch.Generator().manual_seed(0)
    image, u = torch.randn(32, 2, 8, 8, generator=generator), torch.rand(32, 3, generator=generator)
    expected = [by_hand(each.numpy(), by.tolist(), flip, most) for each, by in zip(image, u)]
    assert torch.equal(moved(image, u, flip, shift), torch.from_numpy(np.stack(expected)))


def test_images_that_are_no_squares_are_moved_by_shares_of_their_sides():
    """Rows by at most 1, columns by at most 3."""
    image = torch.arange(4.0)[:, None] * 100 + torch.arange(12.0)
    seen = moved(image.expand(400, 1, 4, 12), torch.rand(400, 3, generator=torch.Generator().manual_seed(0)), False, 0.25)
    corner = seen[:, 0, 0, 0]
    assert {int(each) // 100 for each in corner} == {0, 1}  # a row of -1 is a reflection of row 1
    assert {int(each) % 100 for each in corner} == {0, 1, 2, 3}


class Sum(Discriminator):
    """A weighted sum of pixels."""

    features = 1

    def __init__(self, side=8):
        super().__init__()
        self.of = torch.linspace(-1, 1, side * side).view(side, side)

    def forward(self, sample, y=None):
        return DiscriminatorOutput((sample * self.of).sum((1, 2, 3)), sample)


class Pictures(Generator):
    latent = 64

    def forward(self, z, y=None):
        return z.view(-1, 1, 8, 8)


def of_pictures(augment=lambda sample, draws: sample):
    generator = torch.Generator().manual_seed(0)
    return Play(Pictures(), Sum(), Batch(torch.randn(16, 1, 8, 8, generator=generator), None), Draws(generator, 16), augment)


@pytest.mark.parametrize("augment", [lambda sample, draws: sample, lambda sample, draws: sample + 3 * draws.normal(1, 8, 8)])
def test_consistency_is_the_square_of_what_the_change_does_to_a_logit(augment):
    """By hand from the numbers that were drawn for the change; the noise of the augmentation is the same in both passes."""
    play = of_pictures(augment)
    assert play.on_both
    before = len(play.draws.made)
    value = Consistency(2.0, 3.0, every=5).discriminator(play)
    expected = 0
    for weight, sample, u in zip((2, 3), (play.real, play.fake), play.draws.made[before:]):
        change = moved(sample, u, True, 0.125) - sample
        expected += weight * (change * play.D.of).sum((1, 2, 3)).square().mean()
    assert value.item() == pytest.approx(5 * expected.item(), rel=1e-4)


def test_without_fakes_it_is_cr_gan_and_one_pass():
    play = of_pictures()
    value = Consistency(2.0, 0.0).discriminator(play)
    assert "fake" not in vars(play)
    assert value.item() == pytest.approx(Consistency(2.0, Linear(0.0, 1.0)).discriminator(of_pictures()).item(), rel=1e-6)
    assert [each.value.item() for each in Consistency().weights.values()] == [10.0, 10.0]


def test_consistency_of_points_and_of_nothing_is_refused():
    with pytest.raises(ValueError, match="consistency flips and shifts images, and the data are none: drop the penalty"):
        make({"loss": NonSaturating(), "penalty": Consistency()})
    with pytest.raises(ValueError, match="real=0 and fake=0 leave nothing to penalise"):
        Consistency(0.0, 0.0)
    with pytest.raises(ValueError, match="leave every image as it is"):
        Consistency(flip=False, shift=0.0)


@pytest.mark.parametrize("G", [Shift, Doubled])
def test_latent_consistency_of_linear_networks(G):
    """D: (sigma n . w)^2 for each scale of the sample, w the weights of D; G: minus the mean square of the noise."""
    play, leaves = play_of(G=G()), 2 if G is Doubled else 1
    value = LatentConsistency(4.0, every=2, sigma=0.1).discriminator(play)
    noise = 0.1 * [each for each in play.draws.made if each.dim() == 2][-1]
    assert value.item() == pytest.approx(8 * (leaves * noise @ W).square().mean().item(), rel=1e-3)
    play = play_of(G=G())
    value = LatentConsistency(4.0, 0.3, every=2, sigma=0.1).generator(play)
    assert value.item() == pytest.approx(-0.6 * 0.1**2 * play.draws.made[-1].square().mean().item(), rel=1e-3)
    defaults = LatentConsistency()
    assert (defaults.weight.value.item(), defaults.generator_weight.value.item(), defaults.sigma) == (5.0, 0.5, 0.05)


# ---- weights ------------------------------------------------------------------------------------------------------------------------


def weighed(*layers, **settings):
    return Orthogonal(1.0, **settings).generator(SimpleNamespace(G=nn.Sequential(*layers))).item()


def with_weight(layer, rows):
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(rows).view_as(layer.weight))
    return layer


def test_orthogonal_counts_the_products_of_different_rows():
    """(1,2).(3,4) = 11, (1,2).(5,6) = 17, (3,4).(5,6) = 39, each of them twice."""
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert weighed(with_weight(nn.Linear(2, 3), rows)) == 2 * (11**2 + 17**2 + 39**2)
    assert weighed(with_weight(nn.Conv2d(1, 3, (1, 2)), rows)) == 2 * (11**2 + 17**2 + 39**2)
    turned = torch.tensor(rows).T.contiguous()  # in the weight of a transposed convolution outputs are the second axis
    assert weighed(with_weight(nn.ConvTranspose2d(2, 3, 1), turned)) == 2 * (11**2 + 17**2 + 39**2)
    assert weighed(with_weight(nn.Linear(3, 3), 7 * torch.eye(3)), nn.BatchNorm1d(3), nn.Embedding(4, 3)) == 0
    assert weighed(*(with_weight(nn.Linear(2, 3), rows) for _ in range(2)), every=3) == 3 * 2 * 2 * (11**2 + 17**2 + 39**2)


def test_orthogonal_weighs_what_spectral_norm_divides_and_makes_no_power_iteration():
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    layer = parametrizations.spectral_norm(with_weight(nn.Linear(2, 3), rows))
    before = layer.parametrizations.weight[0]._u.clone()
    assert weighed(layer) == 2 * (11**2 + 17**2 + 39**2)
    assert torch.equal(layer.parametrizations.weight[0]._u, before)


@pytest.mark.parametrize("players", [["generator"], ["discriminator"], ["generator", "discriminator"]])
def test_orthogonal_is_said_of_the_players_that_it_names(players):
    game, batches = make({"loss": NonSaturating(), "orthogonal": Orthogonal(players=players)})
    logs = game.round(batches)
    assert {side for side in game.players if f"orthogonal/{side[0]}" in logs} == {*players}
    assert [game.terms["orthogonal"].has_summand(side) for side in game.players] == [side in players for side in game.players]


def test_orthogonal_without_layers_is_refused():
    with pytest.raises(ValueError, match="players names nobody"):
        Orthogonal(players=[])
    with pytest.raises(ValueError, match="the generator has no linear or convolutional layer to train; leave it out of players"):
        Orthogonal().build(Spec((2,)), {"generator": Shift()})


# ---- lengths ------------------------------------------------------------------------------------------------------------------------


class Matrix(Generator):
    """z -> images of 2 channels and 2 x 2 pixels, linear."""

    latent = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, z, y=None):
        return (z @ self.weight.T).view(-1, 2, 2, 2)


def test_path_lengths_of_a_linear_generator():
    """|J^T n| = |W^T n| / sqrt(4 pixels); a starts at 0 and is averaged before the penalty; the average is that of all due moves."""
    penalty, average = PathLength(3.0, every=2, decay=0.25), 0.0
    for seed in range(6):
        play = Play(Matrix(), None, Batch(torch.zeros(64, 2), None), Draws(torch.Generator().manual_seed(seed), 64), None)
        value = penalty.generator(play)
        lengths = (play.draws.made[-1].view(64, 8) / 2 @ play.G.weight).norm(dim=1)
        average += 0.25 * (lengths.mean().item() - average)
        assert penalty.average.item() == pytest.approx(average, rel=1e-5)
        assert value.item() == pytest.approx(6 * (lengths - average).square().mean().item(), rel=1e-4)
        (slope,) = torch.autograd.grad(value, play.G.weight)
        (expected,) = torch.autograd.grad(6 * (lengths - average).square().mean(), play.G.weight)
        assert slope.flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-3, abs=1e-4)
    assert [PathLength().weight.value.item(), PathLength().every, PathLength().decay] == [2.0, 4, 0.01]


def test_path_lengths_of_points_and_of_several_scales():
    """G(z) = z + 1: the length is that of the noise, of the sum of the noises of both leaves."""
    for G, leaves in ((Shift, 1), (Doubled, 2)):
        play = play_of(G=G(), n=5)
        value = PathLength(1.0, every=1, decay=1.0).generator(play)
        lengths = sum(play.draws.made[-leaves:]).norm(dim=1)
        assert value.item() == pytest.approx(lengths.var(correction=0).item(), rel=1e-4)


# ---- the average of G ---------------------------------------------------------------------------------------------------------------


class Halves(Extractor):
    """Half of every channel's mean, as a frozen network."""

    name, preprocessing, classifies = "halves", "none", False

    def __init__(self):
        super().__init__()
        self.loaded = True

    def embed(self, images):
        return Extracted(images.mean((2, 3)) / 2, None)


def test_the_teacher_is_the_average_at_the_same_latents():
    """G(z) = z + 1 and its average 3 z: the mean square of 2 z - 1."""
    play = play_of()
    play.average = lambda z, y: 3 * z
    assert Teacher(2.0, every=3).generator(play).item() == pytest.approx(6 * (2 * play.z - 1).square().mean().item(), rel=1e-5)
    play.average = play.G
    assert Teacher().generator(play).item() == 0


def test_the_teacher_looks_through_a_network():
    """Pixels of [-1, 1] are features of 0 to 255: half of the difference of the means is 127.5 / 2 times that of the images."""
    play = of_pictures()
    play.average = lambda z, y: play.G(z) + 0.5
    assert Teacher(2.0, through=Halves()).generator(play).item() == pytest.approx(2 * (127.5 / 4) ** 2, rel=1e-5)


def test_the_teacher_moves_g_alone():
    game, batches = make({"loss": NonSaturating(), "teacher": Teacher(10.0)}, tricks={"ema": EMA(0.5)}, data=images(side=4))
    logs = game.round(batches)
    assert logs["teacher/g"].item() == 0  # the average begins as G
    assert game.round(batches)["teacher/g"].item() > 0
    assert all(p.grad is None for p in game.sampler.parameters())


def test_the_teacher_needs_an_average():
    with pytest.raises(ValueError, match=r"mine needs the average of G that the trick ema keeps: add \+trick=ema"):
        make({"loss": NonSaturating(), "mine": Teacher()})


# ---- the gradient that G receives ---------------------------------------------------------------------------------------------------


class Steep(Wasserstein):
    """The slope of G's loss by its samples is `factor` at every entry, over the number of samples."""

    factor = 1.0

    def generator(self, play):
        return self.factor * play.fake.sum() / len(play.fake)


class Origin(Generator):
    """All samples are one point, whose gradient is the sum of what arrives at the samples."""

    latent = 1

    def __init__(self, spec):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(spec.shape))

    def forward(self, z, y=None):
        return self.point.expand(len(z), *self.point.shape)


def received(factors, decay=0.9):
    """(the gradient of the point, the scale) in moves of G at these factors."""
    nets = {"discriminator": lambda spec: Linear2(), "generator": Origin}
    loss, said = Steep(), []
    game, batches = make({"loss": loss, "mine": GradientNormalisation(decay)}, nets=nets, optimizer=sgd)
    for loss.factor in factors:
        game.prepare(batches)
        game.gradients("generator", next(batches))
        said.append((game.G.point.grad.tolist(), game.terms["mine"].scale.item()))
    return said


@pytest.mark.parametrize("factor", [1.0, 5000.0, 1e-4])
def test_the_scale_of_the_loss_does_not_matter(factor):
    """Slopes of 1 / (32 x 2) at all entries have the mean square 1: their sum over samples is 1/2."""
    for point, scale in received([factor] * 4):
        assert point == pytest.approx([0.5, 0.5], rel=1e-3)
        assert scale == pytest.approx(2 * factor, rel=1e-5)


def test_the_scale_is_a_running_root_mean_square():
    """Of 2 f for the factors f: sum (1 - d) d^age (2 f)^2 over 1 - d^moves."""
    factors, decay = [1.0, 3.0, 2.0, 10.0, 1.0], 0.7
    for t, (point, scale) in enumerate(received(factors, decay), 1):
        squares = sum((1 - decay) * decay ** (t - 1 - i) * 4 * factors[i] ** 2 for i in range(t))
        assert scale == pytest.approx((squares / (1 - decay**t)) ** 0.5, rel=1e-5)
        assert point == pytest.approx([factors[t - 1] / scale] * 2, rel=1e-5)


def test_normalised_gradients_have_root_mean_square_1_in_the_long_run():
    """Of normal entries; after their scale has changed, the mean square is 1 again within some moves."""
    term, generator = GradientNormalisation(), torch.Generator().manual_seed(0)
    grads = [term.normalised(torch.randn(16, 4, generator=generator) * (1e-3 if move < 100 else 1e3)) for move in range(1100)]
    squares = [grad.numel() * grad.square().sum().item() for grad in grads]
    for after in (squares[:100], squares[150:]):
        assert math.sqrt(sum(after) / len(after)) == pytest.approx(1, abs=0.02)
    assert squares[0] == pytest.approx(1, rel=1e-4)


def test_a_loss_that_weighs_itself_sees_gradients_that_are_not_normalised():
    class Pull(Teacher):
        averaged = False

        def generator(self, play):
            return self.scaled(play.fake.square().mean())

    def played(**more):
        game, batches = make({"loss": NonSaturating(Balanced("pull")), "pull": Pull(), **more})
        game.round(batches)
        return game

    normalised = played(mine=GradientNormalisation())
    assert normalised.terms["loss"].balanced.value.item() == played().terms["loss"].balanced.value.item()
    assert normalised.terms["mine"].mass.item() == pytest.approx(0.1)  # one gradient was seen


def test_gradients_are_not_normalised_in_float16():
    with torch.autocast("cpu", torch.float16), pytest.raises(UserError, match="use bf16 or 32"):
        GradientNormalisation().generator(play_of())
