"""Tricks, against what they are defined to do."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from games import adam, flat, images, make, play, sgd
from gan_runner.architectures import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator, MSGDiscriminator
from gan_runner.datasets import Samples
from gan_runner.draws import Draws, seeded
from gan_runner.errors import UserError
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.game import DiscriminatorOutput, Game, Generator, Penalty, Spec, Term
from gan_runner.losses import MMD, Hinge, NonSaturating, RelativisticAverage, RelativisticPaired, Wasserstein
from gan_runner.penalties import ApproximateR1, LeCam
from gan_runner.rules import Alternate, Balance, Solo, Stale
from gan_runner.schedules import Linear
from gan_runner.tricks import (
    ADA,
    EMA,
    ColumnNorm,
    DiffAugment,
    Dropout,
    Freeze,
    GradientClip,
    InstanceNoise,
    LabelFlip,
    LabelSmoothing,
    MinibatchDiscrimination,
    MinibatchStddev,
    NoiseScale,
    RestartOnCollapse,
    SpectralNorm,
    StandingStatistics,
    TopK,
    WeightClip,
)
from gan_runner.tricks.dropout import Dropped
from gan_runner.tricks.minibatch import Closeness, Deviation


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


# ---- augmentation -----------------------------------------------------------------------------------------------------------------------


def drawn(n, seed=0):
    return Draws(torch.Generator().manual_seed(seed), n)


def pictures(n=16, channels=3, height=8, width=12):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_diffaugment_moves_and_cuts_images_as_the_numbers_say():
    """Held against loops over pixels, by hand from the offsets that were drawn."""
    x, u = pictures(), drawn(16).uniform(7)
    found = DiffAugment(colour=False, translation=0.25, cutout=0.5).augment(x, drawn(16))
    for i in range(16):
        down, right = int(u[i, 3] * 5) - 2, int(u[i, 4] * 7) - 3  # up to 2 of 8 rows, 3 of 12 columns
        top, left = int(u[i, 5] * 9) - 2, int(u[i, 6] * 13) - 3  # of a hole of 4 x 6
        for row in range(8):
            for column in range(12):
                there = 0 <= row - down < 8 and 0 <= column - right < 12
                hole = top <= row < top + 4 and left <= column < left + 6
                expected = x[i, :, row - down, column - right] if there and not hole else torch.zeros(3)
                assert torch.equal(found[i, :, row, column], expected)


def test_diffaugment_changes_colours_as_the_numbers_say():
    x, u = pictures(), drawn(16).uniform(7)[:, :, None, None, None]
    found = DiffAugment(translation=0.0, cutout=0.0).augment(x, drawn(16))
    y = x + u[:, 0] - 0.5
    y = (y - y.mean(1, keepdim=True)) * 2 * u[:, 1] + y.mean(1, keepdim=True)
    y = (y - y.mean((1, 2, 3), keepdim=True)) * (u[:, 2] + 0.5) + y.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(found, y)


def test_diffaugment_reaches_its_bounds_and_no_further():
    moved = DiffAugment(colour=False, translation=0.25, cutout=0.0)
    x = torch.ones(2000, 1, 8, 8)
    rows = moved.augment(x, drawn(2000))[:, 0].amax(2)
    empty = (rows == 0).sum(1)
    assert set(empty.tolist()) == {0, 1, 2}
    held = DiffAugment(colour=False, translation=0.0, cutout=0.5).augment(x, drawn(2000))
    assert (held == 0).sum((1, 2, 3)).unique().tolist() == [4, 6, 8, 9, 12, 16]  # cut by an edge to 2, 3 or 4 a side


@pytest.mark.parametrize("trick", [DiffAugment(), pytest.param("ada", id="ada")])
def test_an_augmentation_is_differentiable_twice(trick):
    trick = sure(1.0) if trick == "ada" else trick
    x = pictures(3, height=6, width=6).double().requires_grad_()
    torch.autograd.gradgradcheck(lambda x: trick.augment(x.square(), drawn(3)), x, fast_mode=True)


def sure(p, **settings):
    ada = ADA(**settings)
    ada.p.fill_(p)
    return ada


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_ada_leaves_images_as_they_are_at_first_and_changes_all_of_them_in_the_end(channels):
    x = pictures(64, channels)
    assert torch.equal(ADA().augment(x, drawn(64)), x)
    changed = (sure(1.0).augment(x, drawn(64)) != x).flatten(1).any(1)
    assert changed.all()
    some = (sure(0.05).augment(x, drawn(64)) != x).flatten(1).any(1).float().mean()
    assert 0.2 < some < 0.75  # 1 - .95^13 = .49, of which mirroring, a quarter turn and inversion change every second or fewer


def test_ada_mirrors_turns_and_moves_as_the_numbers_say():
    """One change at a time, against torch's own."""
    ada, x = ADA(), pictures(1, height=8, width=8)
    u, normal = torch.full((1, 8), 0.75), torch.zeros(1, 7)

    def only(gate, **numbers):
        on = torch.zeros(1, 13, dtype=torch.bool)
        on[0, gate] = True
        mine = u.clone()
        for place, number in numbers.items():
            mine[0, int(place[1:])] = number
        return ada.moved(x, on, mine, normal)

    torch.testing.assert_close(only(0, u0=0.1), x.flip(3))
    for quarters in range(4):
        turned = only(1, u1=quarters / 4)
        assert any(torch.allclose(turned, x.rot90(k, (2, 3)), atol=1e-5) for k in (quarters, -quarters))
    shifted = only(2, u2=1.0, u3=0.5)  # one of eight rows down
    torch.testing.assert_close(shifted[:, :, 1:], x[:, :, :-1])
    torch.testing.assert_close(shifted[:, :, 0], x[:, :, 0])  # as in a mirror


def test_ada_turns_hues_around_the_grey_axis():
    ada, x = ADA(), pictures(1)
    on, u, normal = torch.zeros(1, 13, dtype=torch.bool), torch.zeros(1, 8), torch.zeros(1, 7)
    on[0, 11] = True
    u[0, 7] = 0.5 + 1 / 3  # by a third of a turn: red becomes green, or blue
    turned = ada.coloured(x, on, u, normal)
    assert any(torch.allclose(turned, x.roll(k, 1), atol=1e-6) for k in (1, 2))
    on[0, 11], on[0, 10], u[0, 6] = False, True, 0.1
    torch.testing.assert_close(ada.coloured(x, on, u, normal), x - 2 * x.mean(1, keepdim=True))  # luma is inverted, chroma is not


def test_ada_follows_the_signs_of_d_s_real_logits():
    """p after scripted signs: 4 rounds of 32 images and 1,000 for the whole way make a step of .128."""
    ada, game = ADA(target=0.6, every=4, kimg=1.0), SimpleNamespace(batch_size=32)
    player = SimpleNamespace(name="discriminator")
    seen = []
    for share in (1.0, 1.0, 0.9, 0.7, 0.0):  # of real logits above 0; the mean sign is .6 at .8
        for _ in range(4):
            real = DiscriminatorOutput(torch.where(torch.arange(10) < 10 * share, 2.0, -3.0), torch.zeros(10, 1))
            ada.watch(SimpleNamespace(seen=(real, None)), player)
            ada.watch(SimpleNamespace(seen=(None, real)), player)  # nothing was said of real ones
            ada.after_round(game)
        seen.append(ada.p.item())
    assert seen == pytest.approx([0.128, 0.256, 0.384, 0.256, 0.128])
    for _ in range(8):
        ada.after_round(game)  # without signs p stays
    assert ada.p.item() == pytest.approx(0.128)


def test_scales_of_a_sample_are_augmented_alike():
    """A coarse scale, doubled, is moved as the fine one is, where the fine one is moved by a whole coarse pixel."""
    coarse = torch.zeros(500, 1, 8, 8)
    coarse[:, :, 4, 4] = 1.0
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    small, large = DiffAugment(colour=False, cutout=0.0, translation=0.25).augment((coarse, fine), drawn(500))
    places = [leaf.flatten(1).argmax(1) for leaf in (small, large)]
    rows = places[0] // 8 - places[1] // 16 / 2
    columns = places[0] % 8 - places[1] % 16 / 2
    assert max(rows.abs().max(), columns.abs().max()) <= 1


# ---- what the loss sees -----------------------------------------------------------------------------------------------------------------


def test_the_best_d_under_flipped_labels():
    """D* = ((1 - s) p + s q) / (p + q) on two points, found by descent on a table of logits."""
    p, q, share = torch.tensor([0.75, 0.25]), torch.tensor([0.25, 0.75]), 0.05
    logits = torch.zeros(2, requires_grad=True)
    loss = LabelFlip(share).wrap(NonSaturating(), "loss")
    n = 200_000
    real, fake = (torch.multinomial(law, n, replacement=True, generator=torch.Generator().manual_seed(i)) for i, law in enumerate((p, q)))
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def objective():
        optimizer.zero_grad()
        outs = tuple(DiscriminatorOutput(logits[at], logits[at, None]) for at in (real, fake))
        value = loss.discriminator(SimpleNamespace(on_both=outs, draws=drawn(n)))
        value.backward()
        return value

    optimizer.step(objective)
    assert logits.sigmoid().tolist() == pytest.approx(((1 - share) * p + share * q).tolist(), abs=0.005)


def test_flipped_labels_are_a_share_and_leave_g_alone():
    loss = LabelFlip(0.2).wrap(Wasserstein(), "loss")
    outs = (
        DiscriminatorOutput(torch.ones(10_000), torch.zeros(10_000, 1)),
        DiscriminatorOutput(-torch.ones(10_000), torch.zeros(10_000, 1)),
    )
    play = SimpleNamespace(on_both=outs, on_fake=outs[1], draws=drawn(10_000))
    assert loss.discriminator(play).item() == pytest.approx(-2 * (1 - 2 * 0.2), abs=0.05)
    assert loss.generator(play).item() == 1.0
    assert LabelFlip(0.0).wrap(Wasserstein(), "loss").discriminator(play).item() == -2.0


def test_label_smoothing_reaches_a_loss_below_other_tricks():
    for tricks in ([LabelFlip(), TopK(), LabelSmoothing()], [LabelSmoothing(), TopK(), LabelFlip()]):
        loss = made = NonSaturating()
        for trick in tricks:
            made = trick.wrap(made, "loss")
        assert loss.targets["real"].number == 0.9
    with pytest.raises(ValueError, match="Wasserstein has none"):
        LabelSmoothing().wrap(TopK().wrap(Wasserstein(), "loss"), "loss")


def test_g_follows_the_best_share_of_its_samples():
    """Of 8 samples the 4 best have the gradient of the mean over them; the loss is that of all."""
    logits = torch.tensor([3.0, -1.0, 2.0, 0.5, 7.0, -4.0, 1.0, 0.0], requires_grad=True)
    loss = TopK(0.5).wrap(NonSaturating(), "loss")
    value = loss.generator(SimpleNamespace(on_fake=DiscriminatorOutput(logits, logits[:, None])))
    value.backward()
    best = torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0])
    torch.testing.assert_close(logits.grad, -best * torch.sigmoid(-logits.detach()) / 4)
    assert value.item() == nn.functional.softplus(-logits).mean().item()


@pytest.mark.parametrize("loss", [NonSaturating, Hinge, RelativisticAverage, RelativisticPaired, MMD])
def test_all_of_the_samples_are_the_loss_itself_bit_for_bit(loss):
    plain, _ = play(4, {"loss": loss()})
    best, _ = play(4, {"loss": loss()}, tricks={"top_k": TopK(1.0)})
    assert torch.equal(flat(plain.G, plain.D), flat(best.G, best.D))
    half, _ = play(4, {"loss": loss()}, tricks={"top_k": TopK(0.5)})
    assert not torch.equal(flat(plain.G), flat(half.G))


# ---- what D reads of its batch ----------------------------------------------------------------------------------------------------------


def test_minibatch_discrimination_counts_equal_samples():
    """B - 1 in a batch of equal samples, 0 where all are far away, and the formula in between."""
    torch.manual_seed(0)
    closeness = Closeness(6, kernels=10, dimensions=5)
    assert torch.equal(closeness(torch.randn(1, 6).expand(8, 6)), torch.full((8, 10), 7.0))
    assert closeness(1e4 * torch.randn(8, 6)).abs().max() < 1e-6
    f = torch.randn(4, 6)
    m = torch.einsum("nf,fbc->nbc", f, closeness.tensor)
    expected = sum(torch.exp(-(m[2] - m[j]).abs().sum(1)) for j in (0, 1, 3))
    torch.testing.assert_close(closeness(f)[2], expected)


def test_the_deviation_within_groups():
    """1 for features of +-1, 1e-4 for equal ones; groups are rows that follow each other, and the rest belongs to the last."""
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None].expand(4, 5)
    deviation = Deviation(4)
    found = deviation(torch.cat([signs, torch.ones(4, 5), 3 * signs, -3 * signs[:1]]))
    assert found[:8, 0].tolist() == pytest.approx([1.0] * 4 + [1e-4] * 4)
    last = torch.tensor([3.0, -3, 3, -3, -3]).std(correction=0).item()
    assert found[8:, 0].tolist() == pytest.approx([last] * 5)
    assert deviation(torch.ones(3, 5)).shape == (3, 1)


@pytest.mark.parametrize("trick", [MinibatchDiscrimination(6, 2), MinibatchStddev()], ids=lambda trick: type(trick).__name__)
def test_a_d_that_compares_samples_says_so(trick):
    game, _ = make(tricks={"minibatch": trick})
    assert game.D.couples_samples
    assert game.D.couples_in_evaluation
    x, other = torch.randn(8, 2), torch.randn(8, 2)
    game.D.eval()
    with torch.no_grad():
        changed = game.D(torch.cat([x[:1], other[1:]])).logits[0] - game.D(x).logits[0]
    assert changed.abs() > 1e-6


# ---- dropout ----------------------------------------------------------------------------------------------------------------------------


def activations(game, side):
    return [module for module in game.players[side].net.modules() if isinstance(module, Dropped)]


def test_dropout_keeps_the_mean_and_drops_a_share():
    game, _ = make(tricks={"dropout": Dropout(["discriminator", "generator"], 0.3)})
    assert len(activations(game, "discriminator")) == len(activations(game, "generator")) == 2
    trick = game.tricks["dropout"]
    trick.seeds["discriminator"] = drawn(2000).integers(2**32)
    out = trick.dropped(torch.ones(2000, 50), 0)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    dropped = (out == 0).float() - 0.3
    assert (dropped.T @ dropped / 2000 - 0.21 * torch.eye(50)).abs().max() < 0.03  # no two outputs go together
    assert (dropped @ dropped.T / 50 - 0.21 * torch.eye(2000)).mean().abs() < 0.001  # nor two samples
    assert not torch.equal(out, trick.dropped(torch.ones(2000, 50), 1))


def test_dropout_is_off_in_evaluation():
    game, batches = make(tricks={"dropout": Dropout(["discriminator", "generator"], 0.5), "ema": EMA(0.5)})
    game.round(batches)
    z, x = torch.randn(4, 8), torch.randn(4, 2)
    for net, given in ((game.G, z), (game.sampler, z), (game.D, x)):
        plain = net.eval()(given)
        assert torch.equal(plain[0], net(given)[0])


def test_two_passes_under_one_augmentation_drop_the_same():
    game, batches = make(tricks={"dropout": Dropout()})
    same = []

    class Twice(Penalty):
        def discriminator(self, play):
            real, fake = play.on_both
            same.append(torch.equal(play.judge(play.real, play.y, like="real").features, real.features))
            same.append(torch.equal(play.judge(play.fake, play.fake_y, like="fake").features, fake.features))
            other = play.judge(play.real, play.y).features
            same.append(not torch.equal(other == 0, real.features == 0))

    game, batches = make({"loss": NonSaturating(), "twice": Twice()}, tricks={"dropout": Dropout()})
    game.round(batches)
    assert same == [True] * 3


def test_latents_that_repeat_are_not_dropped_alike_in_every_round():
    game, _ = make(tricks={"dropout": Dropout(["generator"])})
    z = torch.ones(1, 8)
    first = game.G(z)
    assert torch.equal(first, game.G(z))
    game.tricks["dropout"].after_round(game)
    assert not torch.equal(first, game.G(z))


def test_dropout_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="MSGDiscriminator has none as modules"):
        Dropout().wrap(MSGDiscriminator(Spec((1, 8, 8)), width=8), "discriminator")
    game, batches = make({"loss": NonSaturating(), "r1": ApproximateR1(share=0.25)}, tricks={"dropout": Dropout()})
    with pytest.raises(UserError, match=r"cannot tell which 8 samples .* needs share=1\.0"):
        game.round(batches)


# ---- weights ----------------------------------------------------------------------------------------------------------------------------


def test_frozen_layers_keep_their_weights_and_the_others_move():
    before, _ = make(tricks={"freeze": Freeze({"discriminator": ["body.0"], "generator": ["head"]})})
    game, _ = play(4, tricks={"freeze": Freeze({"discriminator": ["body.0"], "generator": ["head"]})})
    for side, still in (("discriminator", "body.0"), ("generator", "head")):
        for (name, p), was in zip(game.players[side].net.named_parameters(), before.players[side].net.parameters(), strict=True):
            assert torch.equal(p, was) == name.startswith(f"{still}."), name


@pytest.mark.parametrize("tricks", [["freeze", "spectral_norm"], ["spectral_norm", "freeze"]])
def test_a_frozen_layer_may_be_normalised(tricks):
    made = {"freeze": Freeze({"discriminator": ["body.0"]}), "spectral_norm": SpectralNorm()}
    game, _ = play(3, tricks={name: made[name] for name in tricks})
    frozen = [name for name, p in game.D.named_parameters() if not p.requires_grad]
    assert {name.split(".parametrizations")[0] for name in frozen} >= {"body.0"}
    assert all(name.startswith("body.0.") for name in frozen)


def test_a_layer_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"freeze\.layers\.discriminator names boddy, .*; there are body, body\.0, body\.2, head"):
        make(tricks={"freeze": Freeze({"discriminator": ["boddy"]})})
    with pytest.raises(ValueError, match=r"names body\.1, which has no weights"):
        make(tricks={"freeze": Freeze({"discriminator": ["body.1"]})})


def test_the_weights_into_each_unit_are_bounded():
    """A row of norm 5 at a limit of 2 is 2/5 of itself; shorter ones stay; so it is at the start and after each step."""
    layers = nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.5, 0.1]]))
        layers[1].weight.copy_(torch.tensor([7.0, -1.0]).view(2, 1, 1, 1))
    ColumnNorm(2.0).wrap(layers, "discriminator")
    assert layers[0].weight.flatten().tolist() == pytest.approx([1.2, 1.6, 0.5, 0.1])
    assert layers[1].weight.flatten().tolist() == pytest.approx([2.0, -1.0])
    game, batches = make(tricks={"column_norm": ColumnNorm(0.2)})
    for _ in range(3):
        norms = torch.cat([p.norm(dim=1) for p in game.D.parameters() if p.dim() == 2])
        assert norms.max().item() == pytest.approx(0.2)
        game.round(batches)
    assert max(p.norm(dim=1).max() for p in game.G.parameters() if p.dim() == 2) > 0.3
    with pytest.raises(ValueError, match="MSGDiscriminator has none that are free"):
        ColumnNorm().wrap(MSGDiscriminator(Spec((1, 8, 8)), width=8), "discriminator")


# ---- averages of G ----------------------------------------------------------------------------------------------------------------------


def test_several_half_lives_are_kept_at_once_and_the_first_is_judged():
    game, _ = play(6, tricks={"ema": EMA([0.3, 1.0, 5.0])})
    ema = game.tricks["ema"]
    assert list(ema.averages) == [0.3, 1.0, 5.0]
    assert game.sampler is game.average is ema.averages[0.3]
    for halflife, net in ema.averages.items():
        alone, _ = play(6, tricks={"ema": EMA(halflife)})
        assert torch.equal(flat(alone.sampler), flat(net))
    for wrong in ([], [1.0, 1.0]):
        with pytest.raises(ValueError, match="expected half-lives that differ, one or more"):
            EMA(wrong)


def test_the_half_life_of_an_average_ramps_up():
    """With G held at 1 and a half-life of `rampup` times the images so far, round n shrinks the distance by 2^(-1 / (rampup n))."""
    game, _batches = make(tricks={"ema": EMA(0.32, rampup=0.5)}, batch_size=32)
    ema, distance = game.tricks["ema"], 1.0
    with torch.no_grad():
        for p in game.G.parameters():
            p.fill_(1.0)
        for p in ema.net.parameters():
            p.zero_()
    for n in range(1, 41):
        game.fill_schedules(n - 1)
        ema.after_round(game)
        distance *= 0.5 ** (1 / min(0.5 * n, 10))  # 10 rounds are .32 kimg
        assert 1 - next(ema.net.parameters()).flatten()[0].item() == pytest.approx(distance, rel=1e-3, abs=1e-6)


# ---- statistics of batch norm -----------------------------------------------------------------------------------------------------------


def normed(**settings):
    nets = {"discriminator": partial(DCGANDiscriminator, width=4), "generator": partial(DCGANGenerator, latent=8, width=4)}
    return make(nets=nets, data=images(), batch_size=16, **settings)


@pytest.mark.parametrize("ema", [False, True])
def test_standing_statistics_are_the_means_over_fresh_batches(ema):
    game, batches = normed(tricks=({"ema": EMA(0.05)} if ema else {}) | {"standing": StandingStatistics(3)})
    for _ in range(4):
        game.round(batches)
    judged, weights = game.sampler.eval(), game.average if ema else game.G
    for p, its in zip(judged.parameters(), weights.parameters(), strict=True):
        assert p is its
    norm, generator = judged.start[2], seeded("standing statistics", game.seed)
    inputs = [judged.start[:2](judged.prior(Draws(generator, 16))) for _ in range(3)]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    before = norm.running_mean.clone()
    game.round(batches)
    assert not torch.equal(game.sampler.eval().start[2].running_mean, before)
    plain, batches = normed(tricks={"ema": EMA(0.05)} if ema else {})
    for _ in range(5):
        plain.round(batches)
    assert torch.equal(flat(plain), flat(game))  # G itself and its statistics are left alone


def test_standing_statistics_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="MLPGenerator has none: drop the trick"):
        make(tricks={"standing": StandingStatistics()})
    with pytest.raises(ValueError, match="let it be the last in the list of tricks"):
        normed(tricks={"standing": StandingStatistics(), "ema": EMA()})


# ---- how noisy gradients are ------------------------------------------------------------------------------------------------------------


class MeanProduct(Term):
    """G: the mean of <w, x>, whose gradient at a sample is x."""

    def generator(self, play):
        return (play.x @ play.G.w).mean()


class Weights(Generator):
    latent = 1

    def __init__(self, spec):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(spec.shape))


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [2, 8])
def test_the_noise_scale_is_the_trace_of_the_covariance_over_the_squared_mean(accumulate):
    """Of gradients N(m, I) in 200 dimensions, |m| = 1: 200."""
    samples = torch.randn(60_000, 200, generator=torch.Generator().manual_seed(0))
    samples += torch.full((200,), 200**-0.5) - samples.mean(0)
    data = (Spec((200,)), Samples(samples))
    noise = NoiseScale(0.995)
    game, batches = make(
        {"loss": MeanProduct()}, Solo(), {"noise": noise}, {"generator": Weights}, data, sgd, batch_size=128, accumulate=accumulate
    )
    for _ in range(1500):
        logs = game.round(batches)
    assert logs["noise/g"].item() == pytest.approx(200, rel=0.05)
    assert "noise/d" not in logs


def test_the_noise_scale_is_finite_and_needs_micro_batches():
    _, logs = (game := make(tricks={"noise": NoiseScale()}, accumulate=2))[0], game[0].round(game[1])
    assert all(0 <= logs[f"noise/{side}"].item() <= 1e9 for side in "gd")
    with pytest.raises(ValueError, match=r"use trainer\.accumulate=2 or more"):
        make(tricks={"noise": NoiseScale()})


# ---- collapse ---------------------------------------------------------------------------------------------------------------------------


class Constant(MLPGenerator):
    """A generator that makes the same sample always."""

    capturable = True

    def __init__(self, spec):
        super().__init__(spec, width=16, depth=1)
        nn.init.zeros_(self.head.weight)


def collapsing(collapses, engine=Engine, rounds=60, rule=Alternate, **restart):
    """A game that collapses until it was restarted so many times, after some rounds; its rates fall from .001 to 0 in 1,000."""
    settings = {
        "optimizer": partial(adam, lr=Linear(1e-3, 0.0, 1000)), "steps": 1000, "terms": {"loss": NonSaturating(), "lecam": LeCam()},
    }  # fmt: skip

    def tricks():
        return {"restart": RestartOnCollapse(**{"ratio": 0.1, "every": 5, "patience": 3} | restart), "ema": EMA(0.5)}

    def again(number):
        assert number == len(built) + 1
        G = Constant if number < collapses else partial(MLPGenerator, width=16, depth=1)
        nets = {"discriminator": MLPDiscriminator, "generator": G}
        terms = {"loss": NonSaturating(), "lecam": LeCam()}
        built.append(make(nets=nets, tricks=tricks(), rule=rule(), again=again, **settings | {"terms": terms})[0])
        return built[-1]

    built: list[Game] = []
    torch.manual_seed(0)
    nets = {"discriminator": MLPDiscriminator, "generator": Constant}
    game, batches = make(nets=nets, tricks=tricks(), rule=rule(), again=again, **settings)
    turns = engine(game, pytest.fail)
    frozen = Still(game)
    restarts = []
    for _ in range(rounds):
        frozen(collapses)
        logs = game.round(batches, turns.turn)
        restarts.append(int(logs["collapse/restarts"]))
    return game, restarts, built


class Still:
    """Keeps the head of a collapsed G at 0."""

    def __init__(self, game):
        self.game = game

    @torch.no_grad()
    def __call__(self, collapses):
        if int(self.game.tricks["restart"].restarts) < collapses:
            self.game.G.head.weight.zero_()


@pytest.mark.slow
def test_a_restart_is_the_same_where_rounds_are_replayed():
    assert torch.equal(*(flat(collapsing(1, engine)[0]) for engine in (Engine, Replayed)))


@pytest.mark.parametrize("engine", [Engine, Replayed])
def test_a_collapse_triggers_one_restart_and_the_rate_stays_halved_under_a_schedule(engine):
    game, restarts, built = collapsing(1, engine)
    assert restarts == [0] * 15 + [1] * 45  # checks before rounds 5, 10 and 15, counted from 0
    assert len(built) == 1
    for player in game.players.values():
        assert player.hyperparameters.rate_factor == 0.5
        assert float(player.optimizer.param_groups[0]["lr"]) == pytest.approx(0.5 * 1e-3 * (1 - 59 / 1000))


@pytest.mark.parametrize("rule", [Alternate, partial(Stale, delay=2), Balance])
def test_a_restart_keeps_nothing_of_the_failed_attempt(rule):
    """Right after it, all is that of the new game but for the round, the random numbers and the rates; then it is played from there."""
    game, _, built = collapsing(1, rounds=15, rule=rule)
    game.tricks["restart"].prepare(game)
    [fresh] = built
    own, theirs = game.state_dict(), fresh.state_dict()
    assert own["_extra_state"]["step"] == 15
    for key, value in theirs.items():
        if isinstance(value, torch.Tensor) and not key.startswith("tricks.restart."):
            assert torch.equal(own[key], value), key
    for player in game.players.values():
        assert not player.optimizer.state
    assert game.tricks["ema"].net.head.weight.abs().max() > 0


def test_restarts_are_numbered_and_end():
    game, restarts, built = collapsing(9, rounds=100, times=2, every=3)
    assert [restarts.index(n) for n in (1, 2)] == [9, 18]
    assert max(restarts) == len(built) == 2
    assert game.players["generator"].hyperparameters.rate_factor == 0.25


def test_a_run_that_has_not_collapsed_is_left_alone():
    def fail(number):
        raise AssertionError(number)

    watched, _ = play(30, tricks={"restart": RestartOnCollapse(ratio=0.01, every=2, patience=1)}, again=fail)
    plain, _ = play(30)
    assert torch.equal(flat(*watched.players.values()), flat(*plain.players.values()))
    assert watched.tricks["restart"].distances.min() > 0
