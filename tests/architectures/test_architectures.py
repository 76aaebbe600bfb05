"""Networks: shapes, weights, gradients, and what their papers say of them."""

import inspect
import math
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gan_runner import architectures as a
from gan_runner import tree
from gan_runner.architectures import msg_gan, resnet
from gan_runner.assembly import parts
from gan_runner.draws import Draws
from gan_runner.game.spec import Spec
from gan_runner.priors import Prior
from gan_runner.storage import older

CONFIGS = Path(__file__).parents[2] / "configs" / "architecture"
FAMILIES = {
    "mlp": (a.MLPGenerator, a.MLPDiscriminator),
    "dcgan": (a.DCGANGenerator, a.DCGANDiscriminator),
    "resnet": (a.ResNetGenerator, a.ResNetDiscriminator),
    "msg_gan": (a.MSGGenerator, a.MSGDiscriminator),
}
IMAGES = [(1, 28, 28), (3, 32, 32), (4, 64, 64), (3, 8, 8), (1, 56, 56)]
CIFAR10 = Spec((3, 32, 32), 10)


def pair(family, spec, conditional=False, width=6):
    torch.manual_seed(0)
    G, D = FAMILIES[family]
    return G(spec, latent=5, width=width, conditional=conditional), D(spec, width=width, conditional=conditional)


def inputs(G, n=3):
    draws = Draws(torch.Generator().manual_seed(1), n)
    return G.prior(draws), G.labels(draws)


def size(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(("family", "shape"), [*((f, s) for f in FAMILIES for s in IMAGES), ("mlp", (2,)), ("mlp", (7, 3))])
def test_fits_the_data(family, shape, conditional):
    G, D = pair(family, Spec(shape, 10), conditional)
    z, y = inputs(G)
    assert G.classes == D.classes == (10 if conditional else None)
    fake = G(z, y)
    real = G.view(torch.rand(3, *shape), Draws(torch.Generator(), 3))
    assert [x.shape for x in tree.leaves(fake)] == [x.shape for x in tree.leaves(real)]
    assert G.show(fake).shape == (3, *shape)
    if len(shape) == 3:
        assert G.show(fake).abs().max() <= 1
    out = D(fake, y)
    assert out.logits.shape == (3,)
    assert out.features.shape == (3, D.features)

    (out.logits.square().sum() + out.logits.sum()).backward()
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_dict_is_the_whole_network(family, conditional):
    G, D = pair(family, CIFAR10, conditional)
    z, y = inputs(G, 8)
    D(G(z, y), y)  # moves the statistics of batch norms
    torch.manual_seed(9)
    G2, D2 = type(G)(CIFAR10, latent=5, width=6, conditional=conditional), type(D)(CIFAR10, width=6, conditional=conditional)
    G2.load_state_dict(G.state_dict())
    D2.load_state_dict(D.state_dict())
    for net in (G, D, G2, D2):
        net.eval()
    fake = G(z, y)
    for first, second, third in zip(tree.leaves(fake), tree.leaves(G2(z, y)), tree.leaves(G(z, y)), strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)
    assert torch.equal(D(fake, y).logits, D2(fake, y).logits)


@pytest.mark.parametrize(
    ("family", "options", "couples"),
    [
        ("mlp", {}, False),
        ("dcgan", {}, True),
        ("dcgan", {"norm": "none"}, False),
        ("resnet", {}, False),
        ("msg_gan", {}, True),
        ("msg_gan", {"minibatch_stddev": False}, False),
    ],
)
def test_couples_samples_says_whether_a_logit_depends_on_the_batch(family, options, couples):
    torch.manual_seed(0)
    G, D = FAMILIES[family][0](CIFAR10, latent=5, width=6), FAMILIES[family][1](CIFAR10, width=6, **options)
    x = G.view(torch.randn(4, 3, 32, 32), Draws(torch.Generator(), 4))
    alone = D(tree.map(lambda t: t[:2], x)).logits
    assert D.couples_samples is couples
    assert torch.allclose(D(x).logits[:2], alone, atol=1e-5) is not couples


class HostReads(TorchDispatchMode):
    """Lists the operations, and refuses those that hand a value to Python."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert str(operation.name()) not in {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero"}
        self.operations.append(operation.name())
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_can_be_captured(family, conditional):
    G, D = pair(family, CIFAR10, conditional)
    lists = []
    for seed in (1, 2):
        draws = Draws(torch.Generator().manual_seed(seed), 4)
        x, z, y = torch.randn(4, 3, 32, 32), G.prior(draws), G.labels(draws)
        with HostReads() as mode:
            (D(G.view(x, draws), y).logits - D(G(z, y), y).logits).sum().backward()
        G.zero_grad()
        D.zero_grad()
        lists.append(mode.operations)
    assert lists[0] == lists[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_channels_last_changes_nothing(family):
    G, D = pair(family, CIFAR10, conditional=True)
    z, y = inputs(G)
    want = D(G(z, y), y).logits
    G, D = (net.to(memory_format=torch.channels_last) for net in pair(family, CIFAR10, conditional=True))
    assert torch.allclose(D(tree.map(lambda x: x.contiguous(memory_format=torch.channels_last), G(z, y)), y).logits, want, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_at_a_sample_can_be_differentiated(family):
    G, D = pair(family, CIFAR10)
    x = tree.map(lambda t: t.detach().requires_grad_(), G(*inputs(G)))
    grads = torch.autograd.grad(D(x).logits.sum(), tree.leaves(x), create_graph=True)
    sum(g.square().sum() for g in grads).backward()
    for name, p in D.named_parameters():
        if "weight" in name and p.ndim > 1:
            assert p.grad.isfinite().all(), name
            assert p.grad.any(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_label_changes_the_sample_and_the_logit(family):
    G, D = pair(family, CIFAR10, conditional=True)
    if family == "resnet":  # conditional batch norm starts out the same for every class
        for module in G.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight)
    G.eval()
    D.eval()
    z, _ = inputs(G)
    x = [G.show(G(z, torch.full((3,), k))) for k in (0, 1)]
    assert (x[0] - x[1]).abs().mean() > 1e-5
    sample = G.view(x[0], Draws(torch.Generator(), 3))
    assert (D(sample, torch.zeros(3, dtype=torch.long)).logits != D(sample, torch.ones(3, dtype=torch.long)).logits).all()
    with pytest.raises(ValueError, match="without labels"):
        D(sample, None)


@pytest.mark.parametrize("shape", [(3, 30, 30), (3, 32, 16), (3, 4, 4), (3, 7, 7), (3, 12, 12), (2,)], ids=str)
@pytest.mark.parametrize("family", ["dcgan", "resnet", "msg_gan"])
def test_a_shape_that_cannot_be_made_is_refused(family, shape):
    for make in FAMILIES[family]:
        with pytest.raises(ValueError, match=f"{family} makes square images of side 8, 16.*{'x'.join(map(str, shape))}; choose another"):
            make(Spec(shape))


@pytest.mark.parametrize("family", FAMILIES)
def test_conditional_needs_labels(family):
    for make in FAMILIES[family]:
        with pytest.raises(ValueError, match=r"no labels; set architecture\.conditional=false"):
            make(Spec((3, 32, 32)), conditional=True)


@pytest.mark.parametrize("path", sorted({*CONFIGS.glob("*.yaml")} - {CONFIGS / "trained.yaml"}), ids=lambda path: path.stem)
def test_a_config_names_every_parameter_with_its_type(path):
    config = OmegaConf.create({"architecture": OmegaConf.load(path)})
    OmegaConf.resolve(config)
    for side in ("generator", "discriminator"):
        given = dict(config.architecture[side])
        module, _, name = given.pop("_target_").rpartition(".")
        parameters = dict(inspect.signature(getattr(import_module(module), name)).parameters)
        assert parameters.pop("spec").annotation is Spec
        assert given.keys() == parameters.keys()
        for key, value in given.items():
            other = key == "square" or (key == "prior" and value is not None)  # null, or a part
            assert other or type(value) is type(parameters[key].default), key
        assert not [*parts.mistakes_in(parts.Part(side, OmegaConf.to_container(config.architecture[side]), parts.SIDES[side]), ())]


def test_linear_and_quadratic_networks_are_their_formulas():
    """On samples of any shape, from the weights of their file; the square is 0 where it is not trained."""
    torch.manual_seed(0)
    spec, x, z = Spec((2, 3)), torch.randn(4, 2, 3), torch.randn(4, 5)
    G = a.LinearGenerator(spec, latent=5, scale=2.0, shift=0.5)
    torch.testing.assert_close(G(z), (torch.cat([2 * z, torch.zeros(4, 1)], 1) + 0.5).unflatten(1, (2, 3)))
    D = a.QuadraticDiscriminator(spec, slope=3.0, square=0.25)
    logits, features = D(x)
    torch.testing.assert_close(logits, (0.25 * x.square() + 3 * x).sum((1, 2)))
    assert torch.equal(features, x.flatten(1))
    assert D.features == 6
    linear = a.QuadraticDiscriminator(spec, slope=3.0, square=None)
    torch.testing.assert_close(linear(x).logits, 3 * x.sum((1, 2)))
    assert [name for name, _ in linear.named_parameters()] == ["slope"]


# ---- what the papers say -----------------------------------------------------------------------------------------------------------------


def conv(inputs, outputs, side):
    return inputs * outputs * side**2 + outputs


def linear(inputs, outputs):
    return inputs * outputs + outputs


def test_resnets_have_the_published_number_of_weights():
    """Layer lists: SNGAN paper, table 4 (CIFAR-10), and its code, pfnet-research/sngan_projection gen_models/resnet_32.py and
    dis_models/snresnet_32.py; the same in kwotsin/mimicry nets/sngan/sngan_32.py, whose last layer has a bias as ours does (the first's has
    none: one weight less). WGAN-GP: igul222/improved_wgan_training gan_cifar_resnet.py, without its auxiliary head. cGAN-PD: mimicry
    nets/cgan_pd/cgan_pd_32.py. No source prints the totals; they follow from the lists.
    """
    norm = 2 * 256
    up = norm + conv(256, 256, 3) + norm + conv(256, 256, 3) + conv(256, 256, 1)
    assert up == 512 + 590_080 + 512 + 590_080 + 65_792 == 1_246_976
    G = linear(128, 4 * 4 * 256) + 3 * up + norm + conv(256, 3, 3)
    assert G == 528_384 + 3_740_928 + 512 + 6_915 == 4_276_739
    assert size(a.ResNetGenerator(CIFAR10)) == G

    optimised = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    down = 2 * conv(128, 128, 3) + conv(128, 128, 1)
    plain = 2 * conv(128, 128, 3)
    D = optimised + down + 2 * plain + linear(128, 1)
    assert D == 151_680 + 311_680 + 2 * 295_168 + 129 == 1_053_825
    assert size(a.ResNetDiscriminator(CIFAR10)) == D

    norm = 2 * 128
    up = norm + conv(128, 128, 3) + norm + conv(128, 128, 3) + conv(128, 128, 1)
    G_wgan = linear(128, 4 * 4 * 128) + 3 * up + norm + conv(128, 3, 3)
    assert G_wgan == 264_192 + 936_576 + 256 + 3_459 == 1_204_483
    assert size(a.ResNetGenerator(CIFAR10, width=128)) == G_wgan
    assert size(a.ResNetDiscriminator(CIFAR10, pool="mean")) == D

    tables = 6 * (10 - 1) * 2 * 256  # six norms with a scale and a shift per class instead of one
    assert size(a.ResNetGenerator(CIFAR10, conditional=True)) == G + tables == 4_304_387
    assert size(a.ResNetDiscriminator(CIFAR10, conditional=True)) == D + 10 * 128 == 1_055_105


def test_dcgan_has_the_layers_of_the_paper():
    """Radford et al. 2016, section 3, for 32x32 (three scales): no bias before a batch norm."""
    G = 100 * 4 * 4 * 256 + 2 * 256 + 256 * 128 * 16 + 2 * 128 + 128 * 64 * 16 + 2 * 64 + conv(64, 3, 4)
    assert size(a.DCGANGenerator(CIFAR10)) == G
    D = conv(3, 64, 4) + 64 * 128 * 16 + 2 * 128 + 128 * 256 * 16 + 2 * 256 + linear(4 * 4 * 256, 1)
    assert size(a.DCGANDiscriminator(CIFAR10)) == D


def test_dcgan_starts_as_in_the_paper():
    torch.manual_seed(0)
    for net in (a.DCGANGenerator(CIFAR10), a.DCGANDiscriminator(CIFAR10)):
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
                mean = 1 if isinstance(module, nn.BatchNorm2d) else 0
                error = 0.02 * 4 / math.sqrt(module.weight.numel())
                assert abs(module.weight.mean() - mean) < error
                assert abs(module.weight.std() - 0.02) < error
                assert module.bias is None or not module.bias.any()


def test_resnet_starts_as_in_the_paper():
    torch.manual_seed(0)
    block = a.ResNetGenerator(CIFAR10).blocks[0]
    for layer, gain, fan in ((block.conv1, math.sqrt(2), 2 * 256 * 9), (block.shortcut, 1, 2 * 256)):
        bound = gain * math.sqrt(6 / fan)
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()
    D = a.ResNetDiscriminator(CIFAR10, conditional=True)
    assert D.projection.weight.abs().max() <= math.sqrt(6 / (10 + 128))


def test_pooling_is_a_sum_or_a_mean():
    spec = Spec((3, 32, 32))
    torch.manual_seed(0)
    summed, averaged = a.ResNetDiscriminator(spec, width=4), a.ResNetDiscriminator(spec, width=4, pool="mean")
    averaged.load_state_dict(summed.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(summed(x).features, 8 * 8 * averaged(x).features, rtol=1e-5)


def test_shortcuts_equal_the_published_order():
    """SNGAN doubles, then convolves, in G; convolves, then halves, in D. A 1x1 convolution commutes with both."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    up, down = resnet.UpBlock(4, 5, None), resnet.DownBlock(4, 5, halve=True)
    nn.init.normal_(up.shortcut.bias)
    nn.init.normal_(down.shortcut.bias)
    for block in (up, down):
        nn.init.zeros_(block.conv2.weight)  # only the shortcut is left
    assert torch.allclose(up(x, None), up.shortcut(F.interpolate(x, scale_factor=2)), atol=1e-6)
    assert torch.allclose(down(x), F.avg_pool2d(down.shortcut(x), 2), atol=1e-6)


def test_halving_after_a_convolution_is_one_convolution():
    """avg_pool2d(conv(x), 2), its gradients and its operations: 16 products an output instead of 36."""
    torch.manual_seed(0)
    layer, x = resnet.conv3(5, 7).double(), torch.randn(2, 5, 8, 8, dtype=torch.float64, requires_grad=True)
    folded, plain = resnet.halved_conv3(x, layer), F.avg_pool2d(layer(x), 2)
    assert torch.allclose(folded, plain, rtol=0, atol=1e-14)
    seeds = torch.randn_like(plain)
    grads = [torch.autograd.grad(y, (x, *layer.parameters()), seeds) for y in (folded, plain)]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-13) for a, b in zip(*grads))


def test_conditional_batch_norm_starts_as_batch_norm_and_then_speaks_for_the_class():
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 5, 5), torch.tensor([0, 1, 1, 0])
    norm, plain = resnet.ConditionalBatchNorm2d(3, 2), nn.BatchNorm2d(3)
    assert torch.allclose(norm(x, y), plain(x))
    with torch.no_grad():
        norm.scale.weight[1], norm.shift.weight[1] = 2, 3
    want = plain(x)
    want[1:3] = 2 * want[1:3] + 3
    assert torch.allclose(norm(x, y), want, atol=1e-6)


def test_dequantisation_fills_the_step_between_grey_levels():
    x = torch.zeros(2, 3, 32, 32)
    noise = a.ResNetGenerator(CIFAR10, width=4, dequantisation=1 / 128).view(x, Draws(torch.Generator().manual_seed(0), 2))
    assert 0 <= noise.min() < 0.01 / 128
    assert 0.99 / 128 < noise.max() < 1 / 128
    assert a.ResNetGenerator(CIFAR10, width=4).view(x, Draws(torch.Generator(), 2)) is x


def test_priors():
    draws = Draws(torch.Generator().manual_seed(0), 20_000)
    for make, bound in ((a.MLPGenerator, math.sqrt(3)), (a.DCGANGenerator, 1)):
        before = (2 * draws.again().uniform(2) - 1) * bound  # what prior=uniform drew until version 0.1
        old = older.with_law({"_target_": f"gan_runner.architectures.{make.__name__}", "prior": "uniform"})["prior"]
        law = parts.make(old, (), Prior, "prior")
        assert torch.equal(make(CIFAR10, latent=2, width=4, prior=law).prior(draws), before)
        assert older.with_law({"_target_": f"gan_runner.architectures.{make.__name__}", "prior": "normal"})["prior"] is None
        z = make(CIFAR10, latent=2, width=4).prior(draws)
        assert z.std().item() == pytest.approx(1, rel=0.02)
        assert z.abs().max() > 3


# ---- multi-scale gradients ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "sides"), [(28, [7, 14, 28]), (32, [4, 8, 16, 32]), (8, [4, 8])])
def test_msg_gan_emits_every_scale(side, sides):
    G = a.MSGGenerator(Spec((2, side, side)), latent=5, width=6)
    assert [tuple(x.shape) for x in G(torch.randn(3, 5))] == [(3, 2, s, s) for s in sides]


def test_msg_gan_hands_gradient_to_every_scale():
    G, D = pair("msg_gan", CIFAR10)
    D(G(*inputs(G))).logits.sum().backward()
    assert len(G.to_image) == 4
    for scale, layer in enumerate(G.to_image):
        assert layer.parametrizations.weight.original.grad.abs().max() > 1e-4, f"scale {scale}"


def test_pyramid_preserves_the_mean_and_ends_in_the_data():
    x = torch.rand(3, 2, 28, 28, dtype=torch.float64)
    pyramid = a.MSGGenerator(Spec((2, 28, 28)), latent=5, width=6).view(x, Draws(torch.Generator(), 3))
    assert pyramid[-1] is x
    for level in pyramid:
        assert torch.allclose(level.mean((2, 3)), x.mean((2, 3)), atol=1e-12)
    assert torch.allclose(pyramid[0][0, 0, 0, 0], x[0, 0, :4, :4].mean())


def test_msg_gan_halves_its_width_after_the_fourth_scale():
    """BMSG-GAN, MSG_GAN/GAN.py: 512 at 4, 8, 16 and 32, then 256, 128."""
    assert msg_gan.widths(512, 5) == [512, 512, 512, 512, 256, 128]
    assert [c.in_channels for c in a.MSGGenerator(Spec((3, 128, 128)), latent=4, width=16).to_image] == [16, 16, 16, 16, 8, 4]


def test_equalised_layers_keep_the_variance():
    torch.manual_seed(0)
    for layer, x in (
        (msg_gan.linear(256, 256), torch.randn(512, 256)),
        (msg_gan.conv(64, 64), F.pad(torch.randn(64, 64, 6, 6), (1, 1, 1, 1))),
    ):
        assert layer.parametrizations.weight.original.std().item() == pytest.approx(1, rel=0.02)
        y = layer(x) if x.ndim == 2 else layer(x)[:, :, 2:-2, 2:-2]  # where no zero is seen
        assert y.var().item() == pytest.approx(2, rel=0.05)  # ReLU halves it


def test_spectral_norm_sees_the_weight_that_is_used():
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(msg_gan.linear(20, 30), n_power_iterations=30)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, rel=1e-3)
    assert torch.allclose(layer(torch.eye(20)), layer.weight.T, atol=1e-6)


def test_pixel_norm_and_minibatch_deviation():
    x = torch.randn(4, 6, 3, 3)
    assert torch.allclose(msg_gan.pixel_norm(x).square().mean(1), torch.ones(4, 3, 3), atol=1e-4)
    x = torch.stack([torch.full((2, 3, 3), v) for v in (1.0, 5.0)])  # two samples, 4 apart: deviation 2 everywhere
    out: Tensor = msg_gan.with_deviation(x)
    assert torch.equal(out[:, :2], x)
    assert torch.allclose(out[:, 2], torch.full((2, 3, 3), 2.0))
