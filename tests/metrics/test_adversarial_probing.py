"""Perturbations that fool a discriminator, against linear ones, where the smallest are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gan_runner.architectures import Discriminator, Generator, MLPDiscriminator, MLPGenerator
from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.game import DiscriminatorOutput
from gan_runner.game.spec import Spec
from gan_runner.metrics import adversarial_probing as probing
from gan_runner.metrics.adversarial_probing import AdversarialProbing
from gan_runner.sampling.subjects import Generated
from gan_runner.tricks import SpectralNorm

W = torch.tensor([3.0, 4.0])
ORIGIN = torch.zeros(1, 2)


def linear(x):
    return x @ W - 7


def circle(x):
    """Real within 1 of (3, 0); its slopes grow with the distance."""
    return 1 - (x - torch.tensor([3.0, 0.0])).square().sum(1)


def corner(x):
    """Real beyond x > 1 and y > 2; the slope at the origin points along y alone."""
    return torch.minimum(x[:, 0] - 1, x[:, 1] - 2)


class LinearD(Discriminator):
    features = 2

    def __init__(self, classes=None):
        super().__init__()
        self.classes, self.head = classes, nn.Linear(2, 1)
        with torch.no_grad():
            self.head.weight.copy_(W[None])
            self.head.bias.fill_(-7.0)

    def forward(self, sample, y=None):
        logits = self.head(sample).squeeze(1)
        return DiscriminatorOutput(logits if self.classes is None else logits + 100.0 * y, sample)


class Shift(Generator):
    """x = A z + b with A = 0 and b = 0, to begin with; one sample for all latents."""

    latent = 2

    def __init__(self, classes=None):
        super().__init__()
        self.classes, self.body = classes, nn.Linear(2, 2)
        for weight in self.body.parameters():
            nn.init.zeros_(weight)

    def forward(self, z, y=None):
        return self.body(z)


def subject(G, D, classes=None, **kw):
    return Generated(G, 8, Spec((2,), classes), discriminator=D, **kw)


def probed(G, D, real=None, classes=None, **kw):
    metric = AdversarialProbing(**{"n": 16, "n_real": 100} | kw)
    real = torch.tensor([[3.0, 4.0], [0.0, -6.0], [9.0, 0.0]]) if real is None else real
    metric.reference = SimpleNamespace(n=len(real), at=lambda indices: real[indices])
    metric.update()
    metric.examine(subject(G, D, classes))
    return {key: value.item() for key, value in metric.figures(None).items()}, metric


@pytest.mark.parametrize(("norm", "radius"), [("l2", 1.4), ("linf", 1.0)])
def test_a_linear_discriminator_is_fooled_at_its_distance_from_the_sample(norm, radius):
    """|d| / |w|_2 and |d| / |w|_1, for d = -7 and w = (3, 4); the halvings end within 1/1000."""
    g = probing.slope(linear, ORIGIN)
    assert torch.equal(g, W[None])
    assert probing.linear_radius(linear(ORIGIN), g, norm).item() == pytest.approx(radius, rel=1e-6)
    assert linear(ORIGIN + radius * probing.steepest(g, norm)).item() == pytest.approx(0, abs=1e-5)
    fgsm = probing.fgsm(linear, ORIGIN, norm)
    assert radius <= fgsm.item() < 1.001 * radius
    assert radius <= probing.pgd_radius(linear, ORIGIN, norm, fgsm).item() < 1.002 * radius


def test_projected_gradients_fool_within_a_radius_and_not_below_it():
    x = ORIGIN.expand(4, 2)
    assert probing.pgd(linear, x, torch.tensor([1.3, 1.39, 1.41, 5.0]), "l2").tolist() == [False, False, True, True]
    assert probing.pgd(linear, x, torch.tensor([0.0, 0.99, 1.01, 5.0]), "linf").tolist() == [False, False, True, True]
    assert probing.pgd(lambda x: linear(x) + 8, x, torch.zeros(4), "l2").all()  # nothing to do


def test_every_sample_has_its_own_radius():
    x = torch.tensor([[0.0, 0.0], [-3.0, -4.0], [0.0, 1.0]])
    assert probing.fgsm(linear, x, "l2").tolist() == pytest.approx([1.4, 6.4, 0.6], rel=1e-3)


def test_projected_gradients_turn_where_one_step_cannot():
    """From (0, 0) the steepest way leads along y for ever; the corner at (1, 2) is sqrt 5 away."""
    fgsm = probing.fgsm(corner, ORIGIN, "l2")
    assert fgsm.item() == math.inf
    found = probing.pgd_radius(corner, ORIGIN, "l2", fgsm).item()
    assert math.sqrt(5) <= found < 1.1 * math.sqrt(5)  # of steps of 1/16 of the radius


def test_a_search_goes_beyond_the_linear_radius():
    """Straight to the centre, sqrt 10 - 1 to the circle; the linear radius is (10 - 1) / (2 sqrt 10), two thirds of it."""
    x = torch.tensor([[0.0, 1.0]])
    fgsm = probing.fgsm(circle, x, "l2")
    assert fgsm.item() == pytest.approx(math.sqrt(10) - 1, rel=1e-3)
    assert probing.pgd_radius(circle, x, "l2", fgsm).item() == pytest.approx(math.sqrt(10) - 1, rel=2e-3)


def test_flat_and_hopeless_discriminators_are_not_fooled():
    for judge in (lambda x: 0 * x.sum(1) - 1, lambda x: -1 - x.square().sum(1)):
        x = torch.ones(2, 2)
        for norm in ("l2", "linf"):
            fgsm = probing.fgsm(judge, x, norm)
            assert fgsm.isinf().all()
            assert probing.pgd_radius(judge, x, norm, fgsm).isinf().all()


def test_a_step_of_a_linear_generator_moves_its_samples_along_the_slope():
    """x = A z + b: the step along the slope of the mean logit moves sample i by eta (1 + mean(z) z_i) w, to 1.4 at least."""
    G, z = Shift().requires_grad_(False), torch.tensor([[1.0, 0.0], [0.0, 0.5], [-0.5, 0.5]])
    move = probing.generator_step(G, z, None, linear)
    assert move.fooled.all()
    length = move.change.norm(dim=1)
    assert (length >= 1.4).all()
    assert (length < 1.4 * 2**0.25).all()
    assert torch.nn.functional.cosine_similarity(move.change, W[None]).tolist() == pytest.approx([1, 1, 1], abs=1e-6)

    away = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-4.0, 0.0], [3.5, 0.0]])  # 1 + mean(z) z_i < 0 for one: it is moved away
    assert probing.generator_step(G, away, None, linear).fooled.tolist() == [True, True, False, True]


def test_the_metric_gives_medians_over_rejected_fakes():
    got, metric = probed(Shift(), LinearD())
    assert got == {
        "probing/rejected": 1,
        "probing/success": 1,
        "probing/step_success": pytest.approx(1, abs=0.2),  # some latents may be moved away
        "probing/fgsm_l2": pytest.approx(1.4, rel=1e-3),
        "probing/pgd_l2": pytest.approx(1.4, rel=2e-3),
        "probing/fgsm_linf": pytest.approx(1, rel=1e-3),
        "probing/pgd_linf": pytest.approx(1, rel=2e-3),
        "probing/step_l2": pytest.approx(1.5, abs=0.17),
        "probing/cosine": pytest.approx(1, abs=1e-6),
        "probing/nearest_real": 5,
    }
    assert "fooled by a perturbation at 1.4 (L2)" in metric.sentence(got)


def test_fakes_that_are_held_for_real_are_left_out():
    D = LinearD()
    nn.init.constant_(D.head.bias, 1.0)
    got, metric = probed(Shift(), D)
    assert got.pop("probing/rejected") == 0
    assert all(math.isnan(value) for value in got.values())
    assert metric.sentence({"probing/rejected": 0.0} | dict.fromkeys(got)) == "D rejects 0% of the fakes"


def test_labels_of_the_fakes_go_to_both_networks():
    """Label 1 adds 100 to the logit, so that only fakes of label 0 are rejected."""
    got, _ = probed(Shift(classes=2), LinearD(classes=2), classes=2, n=64)
    assert got["probing/rejected"] == pytest.approx(0.5, abs=0.25)
    assert got["probing/fgsm_l2"] == pytest.approx(1.4, rel=1e-3)


def test_the_nearest_real_sample_is_found_among_many():
    x, real = torch.randn(5, 3, generator=seeded(0)), torch.randn(1203, 3, generator=seeded(1))
    want = (x[:, None] - real).norm(dim=2).amin(1)
    assert torch.allclose(probing.nearest(x, lambda i: real[i], torch.arange(1203)).float(), want)


def test_the_networks_stay_as_they_are():
    """Also those that a run has in training, with spectral norm, whose power iteration changes buffers in training mode."""
    spec = Spec((2,))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G, D = MLPGenerator(spec, width=16), SpectralNorm().wrap(MLPDiscriminator(spec, width=16), "discriminator")
    with torch.no_grad():
        D.head.bias.fill_(-0.1)
    D(torch.randn(4, 2))  # a power iteration
    before = [t.clone() for net in (G, D) for t in net.state_dict().values()]
    random = torch.get_rng_state()
    got, _ = probed(G, D)
    assert got["probing/rejected"] > 0
    assert got["probing/success"] > 0
    assert all(torch.equal(a, b) for a, b in zip(before, [t for net in (G, D) for t in net.state_dict().values()]))
    assert all(p.grad is None and p.requires_grad for net in (G, D) for p in net.parameters())
    assert G.training
    assert D.training
    assert torch.equal(random, torch.get_rng_state())
    G.requires_grad_(False).eval()
    D.requires_grad_(False).eval()
    assert probed(G, D)[0] == pytest.approx(got, rel=0, abs=0, nan_ok=True)  # as they are in a loaded run


def test_what_cannot_be_probed_is_refused():
    class Scales(Shift):
        def forward(self, z, y=None):
            return (z, z)

        def show(self, sample):
            return sample[-1]

    with pytest.raises(UserError, match="2 scales"):
        probed(Scales(), LinearD())
    D = LinearD()
    nn.init.constant_(D.head.bias, torch.nan)
    with pytest.raises(UserError, match="not finite"):
        probed(Shift(), D)
