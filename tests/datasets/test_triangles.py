"""Triangles: drawn exactly, the same from the same seed, and a manifold whose distance is known."""

import pytest
import torch

from gan_runner.datasets.triangles import TriangleManifold, Triangles, areas, coverage, propose, with_moments
from gan_runner.draws import seeded


def triangles(n: int, min_area: float = 0.02, seed: int = 7) -> torch.Tensor:
    return propose(n, min_area, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def manifold() -> TriangleManifold:
    manifold = TriangleManifold(28, 0.02, 0)
    manifold.bank_size = 1000
    return manifold


def to_data(images: torch.Tensor) -> torch.Tensor:
    return 2 * images - 1


def test_coverage_adds_up_to_the_area() -> None:
    vertices = triangles(500, min_area=0.0)
    for resolution in (8, 28, 31):
        share = coverage(vertices, resolution)
        assert share.shape == (500, resolution, resolution)
        assert (share >= 0).all()
        assert (share <= 1 + 1e-9).all()
        assert torch.allclose(share.mean((1, 2)), areas(vertices), atol=1e-7)


def test_coverage_is_what_supersampling_converges_to() -> None:
    vertices, side, fine = triangles(6), 8, 64
    axis = (torch.arange(side * fine, dtype=torch.float64) + 0.5) / (side * fine)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    for corners, share in zip(vertices, coverage(vertices, side)):
        sides = torch.stack([(b - a)[0] * (y - a[1]) - (b - a)[1] * (x - a[0]) > 0 for a, b in zip(corners, corners.roll(-1, 0))])
        inside = (sides.all(0) | ~sides.any(0)).double().view(side, fine, side, fine).mean((1, 3))
        assert torch.allclose(inside, share, atol=0.01)


def test_half_of_the_frame_is_half_of_its_pixels() -> None:
    """x to the right, y down; edges along the pixels and along the diagonal, in both orientations."""
    vertices = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    want = torch.ones(4, 4).tril().flip(0).double() - 0.5 * torch.eye(4).flip(1)
    assert torch.allclose(coverage(torch.stack([vertices, vertices.flip(0)]), 4), want, atol=1e-4)
    right = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.5, 0.5]]])
    assert coverage(right, 4)[0, :, :2].abs().max() < 1e-4  # nothing in the left half


def test_coverage_is_differentiable() -> None:
    vertices = triangles(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: coverage(v, 6), vertices, eps=1e-7, atol=1e-5)
    straight = torch.tensor([[[0.25, 0.25], [0.25, 0.75], [0.75, 0.75]]], requires_grad=True)
    (slope,) = torch.autograd.grad(coverage(straight, 8).sum(), straight)
    assert slope.isfinite().all()  # edges along the axes divide by nothing


def test_images_are_a_function_of_the_seed() -> None:
    few, more = Triangles(n_train=50, n_test=20), Triangles(n_train=200, n_test=20)
    x = few.load("train").x
    assert x.dtype == torch.uint8
    assert x.shape == (50, 1, 28, 28)
    assert few.load("train").y is None
    assert torch.equal(x, few.load("train").x)
    assert torch.equal(x, more.load("train").x[:50])
    assert not torch.equal(x[:20], few.load("test").x)
    assert not torch.equal(x, Triangles(n_train=50, seed=1).load("train").x)
    assert few.spec.shape == (1, 28, 28)
    assert few.spec.classes is None


def test_vertices_are_uniform_but_for_the_least_area() -> None:
    vertices = Triangles(n_train=40_000, min_area=0.0).vertices("train")
    assert vertices.mean((0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=4 * (1 / 12 / 120_000) ** 0.5)
    area = areas(vertices)  # known moments of a random triangle in a square: 11/144 and 1/96
    assert area.mean().item() == pytest.approx(11 / 144, abs=4 * (1 / 96 - (11 / 144) ** 2) ** 0.5 / 200)
    assert area.square().mean().item() == pytest.approx(1 / 96, rel=0.03)
    assert areas(Triangles(n_train=2000, min_area=0.1).vertices("train")).min() >= 0.1
    pixels = Triangles(n_train=200).load("train").x.double().mean((1, 2, 3)) / 255
    assert torch.allclose(pixels, areas(Triangles(n_train=200).vertices("train")), atol=1e-3)


@pytest.mark.slow
def test_real_images_lie_on_the_manifold(manifold: TriangleManifold) -> None:
    x = Triangles(n_test=60).load("test").x
    distance = manifold.support_distance(x / 127.5 - 1)
    assert distance.shape == (60,)
    assert distance.dtype == torch.float64
    assert distance.max() < 0.4
    assert distance.median() < 0.05
    assert torch.equal(manifold.support_distance((x / 127.5 - 1).flatten(1)), distance)


def test_shifted_vertices_are_found_again(manifold: TriangleManifold) -> None:
    vertices = triangles(20, min_area=0.05)
    shifted = (vertices + 0.03 * torch.randn(vertices.shape, generator=seeded("shift"))).clamp(0, 1)
    images = coverage(shifted, 28)
    apart = (coverage(vertices, 28) - images).square().sum((1, 2)).sqrt()
    found, distance = manifold.fit(images)
    assert apart.min() > 0.2
    assert distance.max() < 0.1
    assert (areas(found) >= 0.02).all()
    assert torch.allclose((coverage(found, 28) - images).square().sum((1, 2)).sqrt(), distance)


def test_distances_to_images_off_the_manifold(manifold: TriangleManifold) -> None:
    """In the units of the data, where white is 2 away from black."""
    black = to_data(torch.zeros(1, 28, 28))
    noise = to_data(torch.rand(3, 28, 28, generator=seeded("noise")))
    assert manifold.support_distance(black).item() > 2 * 2.5  # the smallest triangle has 15.7 pixels of light, and sqrt 15.7 is 3.96
    assert manifold.support_distance(noise).min() > 2 * 10
    images = coverage(triangles(21, min_area=0.1), 28)
    images[:, 0, 0] = 1 - images[:, 0, 0]  # one pixel in a corner is wrong
    assert manifold.support_distance(to_data(images)).median().item() == pytest.approx(2, abs=0.05)
    assert manifold.support_distance(torch.full((1, 784), torch.nan)).isnan().all()


def test_a_distance_does_not_depend_on_what_stands_beside_it(manifold: TriangleManifold) -> None:
    x = to_data(0.9 * coverage(triangles(3), 28))
    with torch.no_grad():  # as an evaluation asks
        together = manifold.support_distance(x)
    assert torch.allclose(together, torch.cat([manifold.support_distance(one[None]) for one in x]), atol=1e-6)
    assert manifold.support_distance(x[:0]).shape == (0,)


def test_a_triangle_is_known_by_its_moments_up_to_a_turn() -> None:
    vertices = triangles(20, min_area=0.05)
    turned = with_moments(coverage(vertices, 56), 60)
    gaps = torch.cdist(turned.flatten(0, 1), vertices.repeat_interleave(60, 0)).amin(1).amax(1)  # each corner has one beside it
    assert gaps.view(20, 60).amin(1).max() < 0.05
    assert torch.allclose(areas(turned.flatten(0, 1)).view(20, 60), areas(vertices)[:, None].expand(-1, 60), rtol=0.02)


def test_there_is_no_density(manifold: TriangleManifold) -> None:
    assert manifold.modes is None
    assert manifold.sigma == 0
    with pytest.raises(NotImplementedError, match="no density"):
        manifold.log_prob(torch.zeros(1, 784))
