"""Parzen windows against closed forms."""

import math
from types import SimpleNamespace

import pytest
import torch

from gan_runner.errors import UserError
from gan_runner.metrics.parzen import Parzen, window_log_density


def normal(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def reference(**splits: torch.Tensor):
    """A stand-in for the real samples."""
    sides = {name: SimpleNamespace(n=len(x), at=lambda indices, x=x: x[indices]) for name, x in splits.items()}
    return SimpleNamespace(of=sides.__getitem__)


def figures(metric: Parzen, *batches: torch.Tensor, **splits: torch.Tensor) -> dict[str, float]:
    metric.reference = reference(**splits)  # type: ignore[assignment]
    for batch in batches:
        metric.update(batch)
    return {key: value.item() for key, value in metric.figures(None).items()}


def test_one_centre_at_distance_zero_is_the_constant_of_the_normal_distribution() -> None:
    x = torch.rand(1, 784, generator=torch.Generator().manual_seed(0))
    assert window_log_density(x, x, [0.1]).item() == pytest.approx(1084.7789, abs=1e-4)
    assert window_log_density(x, x, [0.1]).item() == pytest.approx(-392 * math.log(2 * math.pi * 0.01), rel=1e-12)


def test_a_mixture_of_normal_distributions_has_its_own_density() -> None:
    """Against torch.distributions, with data far from the origin, for more rows than are looked at at once."""
    x, centres = normal(40, 5).double() + 1000, normal(70, 5, seed=1).double() + 1000
    for sigma, got in zip((0.3, 2.0), window_log_density(x, centres, [0.3, 2.0])):
        parts = torch.distributions.Independent(torch.distributions.Normal(centres, sigma), 1)
        mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(70)), parts)
        assert torch.allclose(got, mixture.log_prob(x).double(), rtol=1e-6, atol=1e-6)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, centres = normal(50, 3), normal(40, 3, seed=1)
    whole = window_log_density(x, centres, [0.2])
    monkeypatch.setattr("gan_runner.metrics.parzen.PAIRS", 7 * 40)
    assert torch.allclose(window_log_density(x, centres, [0.2]), whole, rtol=1e-12)
    monkeypatch.setattr("gan_runner.metrics.parzen.PAIRS", 1)
    assert torch.allclose(window_log_density(x, centres, [0.2]), whole, rtol=1e-12)


def test_a_far_point_is_unlikely_and_not_impossible() -> None:
    got = window_log_density(torch.full((1, 2), 1000.0), torch.zeros(3, 2), [0.1]).item()
    assert got == pytest.approx(-1e6 / 0.01 - math.log(2 * math.pi * 0.01), rel=1e-12)


@pytest.mark.slow
def test_normal_data_have_the_density_of_the_convolution() -> None:
    """log N(x; 0, (1 + s^2) I) = -log(2 pi (1 + s^2)) - |x|^2 / 2 / (1 + s^2) in 2-D, on average -2.8415 for s = 0.3.

    For the test points that there are; 10,000 centres are left to chance, 1 / 1.09 / 100 = 0.009 of it.
    """
    assert -math.log(2 * math.pi * 1.09) - 1 / 1.09 == pytest.approx(-2.8415, abs=1e-4)
    test = normal(2000, seed=2)
    want = -math.log(2 * math.pi * 1.09) - test.square().sum(1).mean().item() / 2 / 1.09
    got = figures(Parzen(sigma_min=0.3, sigma_max=0.3, sigmas=1), normal(10_000), train=normal(1000, seed=1), test=test)
    assert got["parzen/log_likelihood"] == pytest.approx(want, abs=0.03)
    assert got["parzen/sigma"] == pytest.approx(0.3)
    # |x|^2 / 2 has standard deviation 1
    assert got["parzen/standard_error"] == pytest.approx(1 / 1.09 / math.sqrt(2000), rel=0.1)


def test_sigma_is_the_best_for_some_training_samples() -> None:
    """With one centre at 0 the likeliest sigma is the root mean square of the points, 0.4."""
    metric = Parzen(sigma_min=0.1, sigma_max=1.6, sigmas=5, n_validation=200, n_test=9)
    test = torch.tensor([[0.4, 0.0], [0.0, 0.0]])
    got = figures(metric, torch.zeros(1, 2), train=0.4 * normal(700), test=test)
    assert got["parzen/sigma"] == pytest.approx(0.4)
    constant = -math.log(2 * math.pi * 0.16)
    assert got["parzen/log_likelihood"] == pytest.approx(constant - 0.25)  # of the two: 0 and 1/2 below the constant
    assert got["parzen/standard_error"] == pytest.approx(0.5 / math.sqrt(2) / math.sqrt(2))


def test_a_part_of_sorted_data_is_a_part_of_every_class() -> None:
    """Training and test data are sorted: one half has a root mean square of 0.1, the other of 1.6; both together have 1.13 or so."""
    data = torch.cat([0.1 * normal(500), 1.6 * normal(500, seed=1)])
    metric = {"sigma_min": 0.1, "sigma_max": 1.6, "sigmas": 30, "n_validation": 200}
    for order in (data, data.flip(0)):
        whole, part = (figures(Parzen(**metric, n_test=n), torch.zeros(1, 2), train=order, test=order) for n in (1000, 200))
        assert part["parzen/sigma"] == pytest.approx(1.13, rel=0.15)
        assert part["parzen/log_likelihood"] == pytest.approx(whole["parzen/log_likelihood"], abs=0.3)


def test_images_count_in_zero_to_one() -> None:
    """A black fake, and test images a tenth of the way to white: |x - c|^2 = 784 / 100."""
    black = torch.full((1, 1, 28, 28), -1.0)
    grey = torch.full((2, 1, 28, 28), -0.8)
    got = figures(Parzen(sigmas=1, sigma_max=0.1), black, train=grey, test=grey)
    assert got["parzen/log_likelihood"] == pytest.approx(1084.7789 - 392, abs=1e-3)
    assert got["parzen/standard_error"] == pytest.approx(0, abs=1e-6)


def test_any_split_into_batches_gives_the_same_figures() -> None:
    x, splits = normal(300), {"train": normal(200, seed=1), "test": normal(150, seed=2)}
    whole = figures(Parzen(), x, **splits)
    assert figures(Parzen(), *x.split([1, 99, 200]), **splits) == whole
    metric = Parzen()
    assert metric._states["fakes"].reduction == "cat"
    figures(metric, normal(10, seed=9), **splits)
    metric.reset()
    assert figures(metric, x, **splits) == whole


def test_it_says_where_the_grid_was_too_narrow() -> None:
    splits = {"train": 100 * normal(50), "test": 100 * normal(50, seed=1)}
    metric = Parzen()
    assert "an end of its grid" in metric.sentence(figures(metric, torch.zeros(2, 2), **splits))
    wide = Parzen(sigma_min=1, sigma_max=10_000, sigmas=9)
    assert "end" not in wide.sentence(figures(wide, torch.zeros(2, 2), **splits))


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        Parzen().update(torch.tensor([[0.0, math.nan]]))
    with pytest.raises(ValueError, match="not finite"):
        window_log_density(torch.tensor([[math.inf]]), torch.zeros(1, 1), [1.0])
    with pytest.raises(ValueError, match="at least one centre"):
        window_log_density(torch.zeros(1, 1), torch.zeros(0, 1), [1.0])
    with pytest.raises(ValueError, match="above"):
        Parzen(sigma_min=2, sigma_max=1)
