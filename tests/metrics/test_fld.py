"""The likelihood of test samples under kernels at the fakes."""

import pytest
import torch

from feature_rows import EXTRACTOR, Real, measured, normal
from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.metrics import FLD
from gan_runner.metrics.fld import Kernels, likelihood_divergence

DOUBLE = torch.float64


def mixture(centres, variance):
    """The density, by torch.distributions."""
    each = torch.distributions.Independent(torch.distributions.Normal(centres, variance.sqrt()[:, None].expand_as(centres)), 1)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(len(centres), dtype=DOUBLE)), each)


def test_the_density_is_that_of_an_equal_mixture_of_normals():
    kernels = Kernels(normal(7, 3, dtype=DOUBLE))
    kernels.variance, kernels.rows = torch.linspace(0.1, 3, 7, dtype=DOUBLE), 4
    rows = normal(30, 3, 1, DOUBLE)
    assert torch.allclose(kernels.log_likelihood(rows), mixture(kernels.centres, kernels.variance).log_prob(rows), rtol=1e-10)


def test_rows_out_of_reach_are_left_to_a_broad_normal():
    """A kernel has the mean square of the rows near it as its variance, and the broad normal that of the others about the mean of all."""
    centre, near = normal(1, 3, dtype=DOUBLE), normal(500, 3, 1, DOUBLE)
    rows = torch.cat([near, normal(300, 3, 2, DOUBLE) + 1000])
    kernels = Kernels(centre).fit(rows)
    assert float(kernels.variance) == pytest.approx(float((near - centre).square().mean()), rel=1e-3)
    assert float(kernels.broad) == pytest.approx(0.81 * float((rows[500:] - rows.mean(0)).square().mean()), rel=1e-3)


def test_far_clusters_have_a_variance_each():
    centres = 1000 * torch.eye(3, dtype=DOUBLE)
    rows = torch.cat([centre + s * normal(200, 3, i, DOUBLE) for i, (centre, s) in enumerate(zip(centres, (0.1, 1, 5)))])
    want = [float((part - centre).square().mean()) for part, centre in zip(rows.split(200), centres)]
    assert Kernels(centres).fit(rows).variance.tolist() == pytest.approx(want, rel=1e-3)


def test_the_fit_is_a_maximum_of_the_likelihood():
    """Of variances that overlap, by a general optimiser; rows are nearer to the broad normal by a factor of 0.9, beside which it is one."""
    optimize = pytest.importorskip("scipy.optimize")
    centres, rows = normal(12, 2, dtype=DOUBLE), normal(400, 2, 1, DOUBLE)
    kernels = Kernels(centres).fit(rows)

    def objective(log_variance):
        broad = torch.distributions.Normal(0.9 * rows.mean(0), (log_variance[-1] / 2).exp())
        beside = broad.log_prob(0.9 * rows).sum(1)
        return torch.logaddexp(mixture(centres, log_variance[:-1].exp()).log_prob(rows), beside).mean()

    def loss(log_variance):
        log_variance = torch.tensor(log_variance, dtype=DOUBLE, requires_grad=True)
        value = -objective(log_variance)
        value.backward()
        return value.item(), log_variance.grad.numpy()

    found = torch.cat([kernels.variance, kernels.broad[None]]).log()
    best = optimize.minimize(loss, found.numpy(), jac=True, method="L-BFGS-B")
    assert float(objective(found)) == pytest.approx(-best.fun, abs=2e-3)
    assert float(objective(found)) > float(objective(torch.zeros(13, dtype=DOUBLE))) + 0.03


def test_a_kernel_at_a_copy_shrinks_upon_it():
    rows = normal(300, 8, dtype=DOUBLE)
    centres = torch.cat([rows[:5], normal(50, 8, 1, DOUBLE)])
    variance = Kernels(centres).fit(rows).variance
    assert variance[:5].max() < 1e-5
    assert variance[5:].min() > 0.01
    assert Kernels(rows[:5]).fit(rows).variance.max() < 1e-5, "although they are the only ones"


def test_the_figure_is_a_difference_of_two_densities():
    """From its parts: features scaled by the test samples, half of the training samples against the other half."""
    train, test, fake = 3 * normal(60, 2) + 1, 3 * normal(40, 2, 1) + 1, 3 * normal(20, 2, 2) + 1
    scaled = [(rows.double() - test.double().mean(0)) / test.double().std(0) for rows in (train, test, fake)]
    order = torch.randperm(60, generator=seeded("fld", "half"))
    own = Kernels(scaled[2]).fit(scaled[0])
    base = Kernels(scaled[0][order[:20]]).fit(scaled[0][order[20:]])
    means = [mixture(kernels.centres, kernels.variance).log_prob(scaled[1]).mean() for kernels in (base, own)]
    want = 100 / 2 * float(means[0] - means[1])
    assert measured(FLD(), Real(train, test), fake)[""] == pytest.approx(want, rel=1e-9, abs=1e-9)
    moved = [5 - 0.1 * rows for rows in (train, test, fake)]
    assert float(likelihood_divergence(moved[2], moved[1], moved[0])) == pytest.approx(want, rel=1e-3), "the scale does not count"


@pytest.mark.slow
def test_a_generator_that_is_the_data_has_0():
    fresh = [measured(FLD(), Real(normal(2000, 6), normal(200, 6, 1)), normal(200, 6, seed))[""] for seed in range(2, 8)]
    assert sum(fresh) / 6 == pytest.approx(0, abs=2)


def modes(n, seed, kinds=10, f=16):
    """Rows of ten clusters."""
    centres = 3 * normal(10, f, 100)
    return centres[torch.arange(n) % kinds] + normal(n, f, seed)


def test_noise_copies_and_dropped_modes_make_it_worse():
    train, test, fresh = modes(1200, 0), modes(400, 1), modes(400, 2)
    real = Real(train, test)
    good = measured(FLD(), real, fresh)[""]
    noisy = [measured(FLD(), real, fresh + s * normal(400, 16, 3))[""] for s in (0.3, 1.0)]
    dropped = [measured(FLD(), real, modes(400, 2, kinds))[""] for kinds in (8, 3)]
    copied = [measured(FLD(), real, torch.cat([train[:n], fresh[n:]]))[""] for n in (200, 350)]
    assert abs(good) < 3
    for worse in (noisy, dropped, copied):
        assert good < worse[0] < worse[1]
    assert measured(FLD(), real, train[:400])[""] > 1e5, "nothing but copies"


def test_figures_do_not_depend_on_batches_nor_on_constant_features():
    train, test, fake = normal(200, 3), normal(90, 3, 1), 1.2 * normal(80, 3, 2)
    whole = measured(FLD(), Real(train, test), fake)
    assert whole == measured(FLD(), Real(train, test, split="test"), *fake.split(33))
    wide = [torch.cat([rows, torch.ones(len(rows), 1)], 1) for rows in (train, test, fake)]
    assert measured(FLD(), Real(*wide[:2]), wide[2])[""] == pytest.approx(whole[""], rel=1e-9)
    assert measured(FLD(n=80, n_real=None), Real(train, test), fake) == whole
    assert measured(FLD(n=40), Real(train, test), fake) != whole
    assert measured(FLD(n_real=100), Real(train, test), fake) != whole
    assert FLD().prefix(EXTRACTOR) == "fld/net"


def test_what_has_no_likelihood_is_refused():
    rows = normal(30)
    with pytest.raises(UserError, match="there is no test split"):
        measured(FLD(), Real(rows), rows)
    with pytest.raises(UserError, match="all have the same features"):
        measured(FLD(), Real(rows, torch.ones(9, 4)), rows)
    with pytest.raises(UserError, match=r"needs at least 2 real samples \(test\)"):
        measured(FLD(), Real(rows, rows[:1]), rows)
    with pytest.raises(ValueError, match="2 or more test and training rows, not 1 and 30"):
        likelihood_divergence(rows, rows[:1], rows)
