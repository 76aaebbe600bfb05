"""Calibrations against scikit-learn, and the three figures of a discriminator."""

import math

import pytest
import torch

from gan_runner.refinement.calibration import Diagnosis, Isotonic, Logistic, fitted


def normals(n=4000, scale=1.0, offset=0.0):
    """Logits of N(1, 1) and N(-1, 1), whose log ratio is 2 x, scaled."""
    g = torch.Generator().manual_seed(0)
    return tuple(scale * 2 * (torch.randn(n, generator=g, dtype=torch.float64) + mean) + offset for mean in (1.0, -1.0))


def test_logistic_is_the_maximum_of_the_likelihood():
    linear_model = pytest.importorskip("sklearn.linear_model")
    real, fake = normals(scale=3.0, offset=4.0)
    got = Logistic(real, fake)
    expected = linear_model.LogisticRegression(C=1e8, tol=1e-10, max_iter=1000).fit(
        torch.cat([real, fake])[:, None], [1] * 4000 + [0] * 4000
    )
    assert (float(got.slope), float(got.offset)) == pytest.approx((expected.coef_[0, 0], expected.intercept_[0]), rel=1e-4)


def test_a_scaled_log_ratio_is_scaled_back():
    real, fake = normals(20000, scale=3.0, offset=4.0)
    x = torch.tensor([4.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(fitted("logistic", real, fake)(x), (x - 4) / 3, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("reals", "fakes"), [(20000, 2000), (2000, 20000)])
@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_unequal_numbers_of_real_samples_and_fakes_shift_nothing(kind, reals, fakes):
    real, fake = normals(20000)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    got = fitted(kind, real[:reals], fake[:fakes])(x)
    torch.testing.assert_close(got, x, rtol=0, atol=0.6 if kind == "isotonic" else 0.15)  # log(20000 / 2000) is 2.3
    found = Diagnosis.of(real[:reals], fake[:fakes])
    assert found.steepness == pytest.approx(1, abs=0.05)
    assert found.calibrated == pytest.approx(found.cross_entropy, abs=0.003)
    assert abs(found.Z) < 3


def test_a_few_logits_far_out_do_not_hide_the_slope():
    """Standard deviations of the logits are then no measure of them: the slope is 1 of thousands."""
    real, fake = normals(20000)
    fake = torch.cat([fake, torch.full((200,), -1e5, dtype=torch.float64)])
    got = Logistic(real, fake)
    assert float(got.slope) == pytest.approx(1, abs=0.03)
    found = Diagnosis.of(real, fake)
    assert found.calibrated <= found.cross_entropy + 1e-9


def test_classes_that_a_logit_separates_have_a_finite_slope():
    got = Logistic(torch.tensor([2.0, 3.0]), torch.tensor([-1.0, -2.0]))
    assert got.slope.isfinite()
    assert got.slope > 0


def test_isotonic_is_that_of_scikit_learn():
    isotonic = pytest.importorskip("sklearn.isotonic")
    real, fake = normals(300)
    got = Isotonic(real, fake)
    d, y = torch.cat([real, fake]), [1] * 300 + [0] * 300
    expected = isotonic.IsotonicRegression().fit_transform(d, y)
    shares = torch.tensor(expected).unique()
    assert torch.sigmoid(got.values).unique().tolist() == pytest.approx(shares.clamp(1e-3, 1 - 1e-3).unique().tolist(), abs=1e-12)
    x = torch.linspace(-8, 8, 500, dtype=torch.float64)
    assert (got(x).diff() >= 0).all()


def test_none_is_the_logit_itself():
    x = torch.randn(5)
    assert fitted("none", *normals(10))(x) is x


def test_a_calibrated_logit_is_diagnosed_as_one():
    real, fake = normals(20000)
    found = Diagnosis.of(real, fake)
    assert found.steepness == pytest.approx(1, abs=0.03)
    assert abs(found.Z) < 3
    steep = Diagnosis.of(4 * real, 4 * fake)
    assert steep.steepness == pytest.approx(0.25, abs=0.01)
    assert steep.cross_entropy > found.cross_entropy
    nothing = Diagnosis.of(0 * real, 0 * fake)
    assert nothing.cross_entropy == pytest.approx(math.log(2))
