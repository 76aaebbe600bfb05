"""The speed of features along lines between latents."""

import pytest
import torch
from torch import nn

from gan_runner.architectures import Generator
from gan_runner.datasets import Spec
from gan_runner.evaluation import evaluate
from gan_runner.extractors import Identity, RandomConv
from gan_runner.metrics import PerceptualPathLength
from gan_runner.metrics.perceptual_path_length import squared_speed
from gan_runner.sampling.subjects import Generated, Subject
from gan_runner.storage.protocols import SEEN

POINTS, IMAGES = Spec((5,)), Spec((3, 16, 16))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Net(Generator):
    """body(z), moved by the label; z normal, or uniform on [-1, 1]."""

    latent = 4

    def __init__(self, body, classes=None, law="normal"):
        super().__init__()
        self.body, self.classes, self.law = body, classes, law
        self.looked = []

    def prior(self, draws):
        return draws.normal(self.latent) if self.law == "normal" else 2 * draws.uniform(self.latent) - 1

    def forward(self, z, y=None):
        assert not self.training
        self.looked.append((z, y))
        return self.body(z) if y is None else self.body(z) * (1 + y[:, None])


class Square(nn.Module):
    def forward(self, z):
        return z.square()


def linear(out=5):
    layer = nn.Linear(4, out)
    nn.init.normal_(layer.weight, generator=seeded(0))
    nn.init.normal_(layer.bias, generator=seeded(1))
    return layer


def convolutional():
    layers = nn.Sequential(nn.Linear(4, 3 * 16 * 16), nn.Tanh(), nn.Unflatten(1, (3, 16, 16)))
    nn.init.normal_(layers[0].weight, std=0.5, generator=seeded(2))
    nn.init.zeros_(layers[0].bias)
    return layers


def measured(net, extractor=None, spec=POINTS, n=2000, seed=0, **options):
    extractor = Identity() if extractor is None else extractor
    found = evaluate(Generated(net, 10, spec, seed=seed), {"ppl": PerceptualPathLength(n, **options).look_through(extractor)})
    assert found.better == {f"ppl/{extractor.name}": "min"}
    return found.numbers[f"ppl/{extractor.name}"], found.numbers[f"ppl/{extractor.name}/standard_error"]


def test_a_linear_generator_has_twice_the_trace_of_its_square():
    """The two ends of a line differ by a normal law of variance 2, wherever the step is."""
    body = linear()
    want = 2 * float(body.weight.detach().square().sum())
    value, error = measured(Net(body), n=20_000)
    assert error < 0.02 * want
    assert value == pytest.approx(want, abs=4 * error)
    value, error = measured(Net(body, law="uniform"), n=20_000)
    assert value == pytest.approx(want / 3, abs=4 * error)


def test_the_step_does_not_matter_to_a_linear_generator():
    first, _ = measured(Net(linear()))
    assert measured(Net(linear()), epsilon=0.1)[0] == pytest.approx(first, rel=1e-3)
    assert measured(Net(linear()), epsilon=1e-3)[0] == pytest.approx(first, rel=1e-3)


def test_squares_have_their_closed_form():
    """E (2 z(t) (z_1 - z_0))^2 = 4 (E z(t)^2 E d^2 + 2 E (z(t) d)^2) = 8 for each of the latents, with t uniform."""
    value, error = measured(Net(Square()), n=40_000)
    assert error < 0.8
    assert value == pytest.approx(8 * 4, abs=4 * error)


def test_the_speed_is_the_derivative_along_the_line():
    network = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 7)).double()
    a, b = (torch.randn(50, 4, generator=seeded(i), dtype=torch.float64) for i in (3, 4))
    t = torch.rand(50, generator=seeded(5), dtype=torch.float64)
    with torch.no_grad():
        got = squared_speed(network, a, b, t, 1e-6)
    _, slope = torch.func.jvp(network, (torch.lerp(a, b, t[:, None]),), (b - a,))
    assert torch.allclose(got, slope.square().sum(1), rtol=1e-4)


def test_images_are_not_rounded():
    """Nearly all pixels of a small step stay within one of 256 levels, and the others jump; a derivative does not depend on the step."""
    extractor = RandomConv(width=16)
    fine, coarse = (measured(Net(convolutional()), extractor, IMAGES, n=100, epsilon=epsilon)[0] for epsilon in (1e-4, 1e-3))
    assert fine == pytest.approx(coarse, rel=0.02)
    assert fine > 0
    assert measured(Net(nn.Sequential(convolutional(), nn.Threshold(2, 0.5))), extractor, IMAGES, n=100)[0] == 0, "of one image"


def test_figures_depend_on_the_seed_alone():
    """Not on how many are made at once, nor on how many there are: the first ones are the same."""
    net = Net(linear())
    first = measured(net, n=600)
    assert first == measured(net, n=600)
    assert first != measured(net, n=600, seed=1)
    few = Identity()
    few.chunk = 14
    assert measured(net, few, n=600) == pytest.approx(first, rel=1e-3)
    assert max(len(z) for z, _ in net.looked[-10:]) == 14


def test_both_ends_of_a_step_have_one_label():
    net = Net(linear(), classes=3)
    value, _ = measured(net, n=300)
    for z, y in net.looked:
        assert torch.equal(y[: len(z) // 2], y[len(z) // 2 :])
    assert set(torch.cat([y for _, y in net.looked]).tolist()) == {0, 1, 2}
    want = 2 * float(net.body.weight.detach().square().sum()) * (1 + 4 + 9) / 3
    assert value == pytest.approx(want, rel=0.2)


def test_no_samples_are_made_for_it_beside_those_of_its_lines():
    net, seen = Net(linear()), []
    extractor = Identity()
    extractor.register_forward_hook(lambda module, given, found: seen.append(len(found.features)))
    measured(net, extractor, n=20)
    assert seen == []
    assert sum(len(z) for z, _ in net.looked) == 40


def test_what_has_no_path_is_null_with_the_reason():
    def reason(subject, extractor):
        found = evaluate(subject, {"ppl": PerceptualPathLength(4).look_through(extractor)})
        assert set(found.numbers.values()) == {None}
        return found.protocol["missing"]["ppl"]

    class Stored(Subject):
        n, spec, labelled = 3, POINTS, False

    assert "it looks at a generator" in reason(Stored(), Identity())
    assert "no extractor is chosen" in reason(Generated(Net(linear()), 3, POINTS), None)
    net = Net(linear())
    net.prior = lambda draws: draws.integers(2)[:, None].float().expand(-1, 4)
    assert "draws whole numbers" in reason(Generated(net, 3, POINTS), Identity())
    net = Net(linear())
    nn.init.constant_(net.body.bias, torch.nan)
    assert "not finite" in reason(Generated(net, 3, POINTS), Identity())


def test_the_settings_and_the_extractor_belong_to_its_protocol():
    found = evaluate(Generated(Net(linear()), 3, POINTS), {"ppl": PerceptualPathLength(4).look_through(Identity())})
    assert found.protocol["extractor"] == "identity"
    assert found.protocol["keys"]["ppl/identity"] == {"metric": "ppl", "reads": "extractor, generator"}
    assert "extractor" in SEEN["extractor"]
