"""Kernel density estimates against closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.game.spec import Spec
from gan_runner.metrics.kernel_density import KernelDensity

PLANE = Spec((2,))


def normal(n: int, seed: int = 0, d: int = 2) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def figures(metric: KernelDensity, test: torch.Tensor, *batches: torch.Tensor) -> dict[str, float]:
    split = SimpleNamespace(n=len(test), at=lambda indices: test[indices])
    metric.reference = SimpleNamespace(of={"test": split}.__getitem__)  # type: ignore[assignment]
    for batch in batches:
        metric.update(batch)
    return {key: value.item() for key, value in metric.figures(None).items()}


@pytest.mark.parametrize(("scale", "bandwidth"), [(1.0, 0.5), (0.2, 0.1)])
def test_a_normal_distribution_against_itself(scale: float, bandwidth: float) -> None:
    """x ~ N(0, s^2 I) under N(0, (s^2 + h^2) I): E log p = -log(2 pi (s^2 + h^2)) - s^2 / (s^2 + h^2) in 2-D.

    log p has standard deviation s^2 / (s^2 + h^2) over x, 0.8 here, and as much comes from the centres: 4 standard errors of 3000.
    """
    both = scale**2 + bandwidth**2
    want = -math.log(2 * math.pi * both) - scale**2 / both
    got = figures(KernelDensity(PLANE, bandwidth), scale * normal(3000), scale * normal(3000, seed=1))
    assert got == {
        "kde/fake_under_real": pytest.approx(want, abs=4 * 0.8 * math.sqrt(2 / 3000)),
        "kde/real_under_fake": pytest.approx(want, abs=4 * 0.8 * math.sqrt(2 / 3000)),
    }


def test_two_points_by_hand() -> None:
    """Distance 3, h = 2, both ways: log N(3; 0, 4 I)."""
    got = figures(KernelDensity(PLANE, 2.0), torch.zeros(1, 2), torch.tensor([[0.0, 3.0]]))
    want = -math.log(2 * math.pi * 4) - 9 / 8
    assert got["kde/fake_under_real"] == got["kde/real_under_fake"] == pytest.approx(want, rel=1e-12)


def test_a_collapse_shows_in_one_direction_only() -> None:
    modes = torch.tensor([[-5.0, 0.0], [5.0, 0.0]]).repeat(500, 1)
    real = modes + 0.1 * normal(1000)
    whole = figures(KernelDensity(PLANE), real, modes + 0.1 * normal(1000, seed=1))
    half = figures(KernelDensity(PLANE), real, modes[:1] + 0.1 * normal(1000, seed=2))
    assert half["kde/fake_under_real"] == pytest.approx(whole["kde/fake_under_real"], abs=0.2)
    # half of the real points are 10 away, and the log of the mean kernel is near that of the nearest of 1000 centres
    assert half["kde/real_under_fake"] < whole["kde/real_under_fake"] - 0.5 * 9**2 / (2 * 0.1**2) / 1.1


def test_any_split_into_batches_gives_the_same_figures() -> None:
    x, real = normal(300), normal(200, seed=1)
    whole = figures(KernelDensity(PLANE), real, x)
    assert figures(KernelDensity(PLANE), real, *x.split([1, 99, 200])) == whole
    metric = KernelDensity(PLANE)
    assert metric._states["fakes"].reduction == "cat"


def test_fewer_test_points_are_a_choice_from_all_of_them() -> None:
    """Sorted data: half of the points at 0 and half at 100. The first half alone would give 0 a density of 1, and 100 one of 0."""
    real = torch.cat([normal(500), 100 + normal(500)])
    at_0, at_100 = (
        figures(KernelDensity(PLANE, n_real=100), real, torch.full((1, 2), place))["kde/fake_under_real"] for place in (0.0, 100.0)
    )
    assert at_0 == pytest.approx(at_100, abs=2)
    assert figures(KernelDensity(PLANE, n_real=1000), real, normal(9)) == figures(KernelDensity(PLANE), real, normal(9))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="is for points"):
        KernelDensity(Spec((1, 28, 28)))
    with pytest.raises(UserError, match="not finite"):
        KernelDensity(PLANE).update(torch.tensor([[math.inf, 0.0]]))
