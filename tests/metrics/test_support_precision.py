"""Precision and recall where the support is known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gan_runner.architectures import Generator
from gan_runner.datasets import Ring8, Samples, Spec, to_float
from gan_runner.datasets.triangles import Triangles, coverage
from gan_runner.errors import UserError
from gan_runner.metrics.support_precision import SupportPrecisionRecall, reached
from gan_runner.sampling.subjects import Collected, Generated

SIDE = 12
DATA = Triangles(n_train=100, n_test=60, resolution=SIDE, min_area=0.0)
FAST = {"n_precision": 60, "n_recall": 12, "restarts": 8, "steps": 120}
DATA.exact.bank_size = 500  # enough at this size


class Rasteriser(Generator):
    """The data themselves: z to vertices that are uniform on the frame. One weight, so that somebody could train it."""

    latent = 6

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        vertices = torch.special.ndtr(self.weight * z).unflatten(1, (3, 2))
        return 2 * coverage(vertices, SIDE).float().unsqueeze(1) - 1


class Constant(Generator):
    """One triangle, whatever z is."""

    latent = 3

    def __init__(self, trainable: bool) -> None:
        super().__init__()
        self.image = nn.Parameter(2 * coverage(DATA.vertices("test")[:1], SIDE).float().unsqueeze(1) - 1, requires_grad=trainable)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.image.expand(len(z), -1, -1, -1)


def figures(subject, spec: Spec = DATA.spec, test: Tensor | None = None, **more) -> dict[str, float]:
    metric = SupportPrecisionRecall(spec, **(FAST | more))
    x = to_float(DATA.load("test").x) if test is None else test
    metric.reference = SimpleNamespace(of={"test": SimpleNamespace(n=len(x), at=lambda indices: x[indices])}.__getitem__)  # type: ignore
    metric.update()
    metric.examine(subject)
    return {key: value.item() for key, value in metric.figures(None).items()}


def test_real_images_have_precision_one_and_noise_has_none() -> None:
    got = figures(Collected(DATA.load("test"), DATA.spec))
    assert got["support/precision"] == 1
    assert math.isnan(got["support/recall"])
    assert math.isnan(got["support/f1"])
    noise = Samples(torch.randint(256, (20, 1, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    assert figures(Collected(noise, DATA.spec))["support/precision"] == 0


def test_a_generator_that_is_the_data_has_both() -> None:
    generator = Rasteriser()
    got = figures(Generated(generator, 60, DATA.spec))
    assert got["support/precision"] == 1
    assert got["support/recall"] >= 11 / 12
    p, r = got["support/precision"], got["support/recall"]
    assert got["support/f1"] == pytest.approx(2 * p * r / (p + r))
    assert generator.weight.grad is None
    assert generator.training


@pytest.mark.parametrize("trainable", [True, False])
def test_one_triangle_has_precision_and_no_recall(trainable: bool) -> None:
    """It does not look at z: there is no slope to follow, with a graph or without."""
    got = figures(Generated(Constant(trainable), 20, DATA.spec), test=to_float(DATA.load("test").x[:12]))
    assert got["support/precision"] == 1
    assert got["support/recall"] == pytest.approx(1 / 12)  # its own image is the first one


def test_delta_of_images_counts_in_zero_to_one() -> None:
    """A fake that differs by 0.6 in one pixel of a corner, and in [-1, 1] by 1.2."""
    x = DATA.load("test").x[1:2].clone()
    corner = next((i, j) for i in (0, -1) for j in (0, -1) if x[0, 0, i, j] == 0 and x[0, 0, i // 2, j // 2] == 0)
    x[0, 0, corner[0], corner[1]] = 153
    subject = Collected(Samples(x), DATA.spec)
    assert figures(subject, delta=0.65)["support/precision"] == 1
    assert figures(subject, delta=0.4)["support/precision"] == 0


class Line(Generator):
    """Points (z, 0)."""

    latent = 1

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.cat([z, 0 * z], 1)


def test_points_count_in_their_own_units() -> None:
    """Ring of radius 1.414 with modes on the axes: two of the eight lie on the line, and z = 1.414 +- 0.3 comes to them."""
    ring = Ring8(n=64)
    test = ring.load("test").x
    got = figures(Generated(Line(), 4000, ring.spec), ring.spec, test, n_precision=4000, n_recall=64, delta=0.3, steps=200)
    normal = torch.distributions.Normal(0.0, 1.0)
    want = 2 * (normal.cdf(torch.tensor(math.sqrt(2) + 0.3)) - normal.cdf(torch.tensor(math.sqrt(2) - 0.3))).item()
    assert got["support/precision"] == pytest.approx(want, abs=4 * math.sqrt(want / 4000))
    assert got["support/recall"] == 0.25


def test_a_part_of_sorted_samples_is_a_part_of_every_class() -> None:
    """Samples: 400 on the support, then 400 off it. Test samples: 40 that the generator can make, then 40 that it cannot."""
    ring = Ring8(n=400)
    on = ring.load("train").x
    got = figures(Collected(Samples(torch.cat([on, on + 50])), ring.spec), ring.spec, on, n_precision=400, delta=0.2)
    assert got["support/precision"] == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(400))
    test = torch.cat([torch.zeros(40, 2), torch.full((40, 2), 99.0)])
    got = figures(Generated(Line(), 10, ring.spec), ring.spec, test, n_recall=40, delta=0.3, steps=30)
    assert got["support/recall"] == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(40))
    assert got["support/recall"] not in (0, 1)


def test_the_search_is_a_function_of_the_seed_and_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    test = torch.stack([torch.linspace(-3, 3, 40), torch.zeros(40)], 1)
    search = {"restarts": 2, "steps": 5, "rate": 0.05}
    state = torch.get_rng_state()
    whole = reached(Line(), test, 0.2, seed=0, **search)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < whole.sum() < 40  # too short a search to find them all
    monkeypatch.setattr("gan_runner.metrics.support_precision.ROWS", 6)
    assert torch.equal(reached(Line(), test, 0.2, seed=0, **search), whole)
    assert torch.equal(reached(Line(), test[:7], 0.2, seed=0, **search), whole[:7])
    assert not torch.equal(reached(Line(), test, 0.2, seed=1, **search), whole)
    assert reached(Line(), test, 0.2, seed=0, restarts=2, steps=200, rate=0.05).all()


def test_it_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(SupportPrecisionRecall, "tick", staticmethod(lambda *said: told.append(said)))
    monkeypatch.setattr("gan_runner.metrics.support_precision.ROWS", 40)
    ring = Ring8(n=64)
    far = torch.full((12, 2), 99.0)
    figures(Generated(Line(), 100, ring.spec), ring.spec, far, n_precision=100, delta=0.1, steps=9)
    assert told[:3] == [(40, 100), (80, 100), (100, 100)]
    assert told[3:] == [(step, 30) for step in range(1, 31)]  # 12 samples, 5 at once


def test_labels_are_drawn_with_the_latents() -> None:
    class Labelled(Line):
        classes = 2

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            assert len(y) == len(z)
            return torch.cat([z, 2 * y[:, None].float()], 1)

    test = torch.tensor([[0.5, 0.0], [0.5, 2.0], [0.5, 1.0]])
    assert reached(Labelled(), test, 0.1, restarts=8, steps=200, rate=0.05, seed=0).tolist() == [True, True, False]


def test_data_without_a_known_support_are_refused() -> None:
    with pytest.raises(ValueError, match="support is known"):
        SupportPrecisionRecall(Spec((1, 28, 28)))


class Box(Generator):
    """What is uniform on [-1, 1] is the sample itself."""

    latent = 2

    def prior(self, draws):
        return 2 * draws.uniform(2) - 1

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z


def test_a_search_does_not_leave_the_support_of_the_prior() -> None:
    x = torch.tensor([[0.9, -0.9], [0.0, 0.5], [1.2, 0.0], [-3.0, 0.0]])
    assert reached(Box(), x, 0.05, restarts=4, steps=400, rate=0.05, seed=0).tolist() == [True, True, False, False]


def test_latents_that_are_whole_numbers_are_not_searched() -> None:
    generator = Box()
    generator.prior = lambda draws: draws.integers(2)[:, None].float().expand(-1, 2)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="this prior draws whole numbers"):
        reached(generator, torch.zeros(1, 2), 0.05, restarts=2, steps=2, rate=0.05, seed=0)
