"""Copies of training samples: authenticity, and the three-sample test."""

import math

import pytest
import torch

from feature_rows import EXTRACTOR, Real, measured, normal
from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.metrics import CT, Authenticity
from gan_runner.metrics.authenticity import authentic
from gan_runner.metrics.ct import copying, mann_whitney, principal

# ---- authenticity ---------------------------------------------------------------------------------------------------------------------


def test_copies_have_none_and_far_points_all_of_it():
    train = normal(300)
    assert measured(Authenticity(), Real(train), train[:100].flip(0)) == {"": 0}
    assert measured(Authenticity(), Real(train), normal(100, seed=1) + 100) == {"": 1}
    assert measured(Authenticity(), Real(train), torch.cat([train[:30], normal(10, seed=1) + 100]))[""] == 0.25


def test_a_point_is_authentic_beyond_the_nearest_neighbour_of_its_nearest_neighbour():
    train = torch.tensor([[0.0], [1], [10], [10]])  # the last two are copies of each other: no fake but a copy is nearer
    fake = torch.tensor([[-0.5], [-1], [-1.01], [1.99], [2.01], [10], [10.001]])
    assert authentic(fake, train).tolist() == [False, False, True, False, True, False, True]


def test_it_is_that_of_all_distances():
    train, fake = normal(700, 5), 0.9 * normal(400, 5, 1)
    to_train = torch.cdist(fake.double(), train.double())
    among = torch.cdist(train.double(), train.double()).fill_diagonal_(math.inf).min(1).values
    distance, index = to_train.min(1)
    assert torch.equal(authentic(fake, train), distance > among[index])
    assert measured(Authenticity(), Real(train), fake)[""] == pytest.approx(float((distance > among[index]).double().mean()))


def test_the_training_set_is_compared_with_whatever_the_reference_is():
    train, test = normal(300), normal(300, seed=1)
    assert measured(Authenticity(), Real(train, test, split="test"), train) == {"": 0}
    some = measured(Authenticity(n_real=100), Real(train, test), train)[""]
    assert some == measured(Authenticity(n_real=100), Real(train, test), *train.split(37))[""]
    assert 0.2 < some < 2 / 3, "copies of the 200 that were not chosen are new to it, as new data are"
    assert "no near copies" in Authenticity().sentence({"authenticity/net": 0.5})
    assert Authenticity().prefix(EXTRACTOR) == "authenticity/net"
    with pytest.raises(UserError, match="needs at least 2 real samples"):
        measured(Authenticity(), Real(train[:1]), train)


# ---- C_T ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(5, 9), (40, 40), (300, 20)])
def test_the_z_score_is_that_of_scipy(m, n):
    stats = pytest.importorskip("scipy.stats")
    a, b = normal(m, 1).flatten() + 0.3, normal(n, 1, 1).flatten()
    theirs = stats.mannwhitneyu(a.double(), b.double(), method="asymptotic", use_continuity=False, alternative="greater")
    assert float(mann_whitney(a, b)) == pytest.approx(stats.norm.isf(theirs.pvalue), rel=1e-6)
    assert float(mann_whitney(b, a)) == pytest.approx(-float(mann_whitney(a, b)))


def test_pairs_that_are_equal_count_half():
    a, b = torch.randint(4, (60,), generator=seeded("a")), torch.randint(4, (45,), generator=seeded("b"))
    u = (a[:, None] > b).double().sum() + (a[:, None] == b).double().sum() / 2
    assert float(mann_whitney(a, b)) == pytest.approx((float(u) - 60 * 45 / 2) / math.sqrt(60 * 45 * 106 / 12))


def test_principal_axes_are_those_of_the_singular_values():
    rows = normal(500, 100) * torch.linspace(1, 3, 100)
    mean, axes = principal(rows)
    _, _, v = torch.linalg.svd(rows.double() - rows.double().mean(0), full_matrices=False)
    assert axes.shape == (100, 64)
    assert torch.allclose(axes @ axes.T, v[:64].T @ v[:64], atol=1e-8)
    _, axes = principal(rows[:, :64])
    assert torch.equal(axes, torch.eye(64, dtype=torch.float64))
    assert torch.allclose(mean, rows.double().mean(0))


def clusters(n, seed, modes=3, f=4):
    """Rows of well separated modes, each with its share: 3 : 2 : 1."""
    shares = torch.tensor([3, 2, 1])[torch.arange(modes)]
    label = torch.arange(modes).repeat_interleave(shares * n // 6)
    return normal(len(label), f, seed, torch.float64) + 100 * torch.eye(modes, f, dtype=torch.float64)[label], label


def test_it_is_the_mean_of_the_cells_by_their_share_of_the_test_samples():
    """Cells are the modes, which k-means finds; one of them has too few fakes."""
    train, _ = clusters(600, 0)
    test, of_test = clusters(300, 1)
    fake, of_fake = clusters(360, 2)
    fake[of_fake == 0] *= 1.02
    kept = (of_fake != 2) | (torch.arange(len(fake)) >= len(fake) - 20)  # 20 of the last mode, which are no more than 20
    fake, of_fake = fake[kept], of_fake[kept]
    z = []
    for mode in (0, 1):
        distances = [torch.cdist(rows, train).min(1).values for rows in (fake[of_fake == mode], test[of_test == mode])]
        z.append(float(mann_whitney(*distances)))
    want = (3 * z[0] + 2 * z[1]) / 5
    assert float(copying(fake, test, train, 3, seeded("ct"))) == pytest.approx(want, rel=1e-9)
    assert z[0] > 3
    assert measured(CT(), Real(train, test), fake)[""] == pytest.approx(want, rel=1e-9)


def test_one_cell_is_the_test_of_all_distances():
    train, test, fake = normal(500), normal(200, seed=1), 1.2 * normal(150, seed=2)
    want = mann_whitney(*(torch.cdist(rows.double(), train.double()).min(1).values for rows in (fake, test)))
    assert measured(CT(cells=1), Real(train, test), fake)[""] == pytest.approx(float(want), rel=1e-9)


def test_copies_are_far_below_0_and_new_samples_near_it():
    train, test = normal(2000, 80), normal(500, 80, 1)
    real = Real(train, test)
    assert measured(CT(), real, train[:500])[""] < -10
    assert measured(CT(), real, train[:500] + 0.2 * normal(500, 80, 3))[""] < -10
    assert measured(CT(), real, 1.5 * normal(500, 80, 2))[""] > 10
    fresh = torch.tensor([measured(CT(cells=1), Real(normal(400, 3, 3 * s), normal(100, 3, 3 * s + 1)), normal(100, 3, 3 * s + 2))[""]
                          for s in range(100)])  # fmt: skip
    assert abs(float(fresh.mean())) < 0.4
    assert float(fresh.std()) == pytest.approx(1, abs=0.3)


def test_half_copies_are_found():
    train, test = normal(2000, 8), normal(500, 8, 1)
    half = torch.cat([train[:250], normal(250, 8, 2)])
    assert measured(CT(), Real(train, test), half)[""] < -4


def test_figures_of_c_t_do_not_depend_on_batches_nor_on_the_split_of_the_reference():
    train, test, fake = normal(600), normal(300, seed=1), 1.1 * normal(200, seed=2)
    whole = measured(CT(), Real(train, test), fake)
    assert whole == measured(CT(), Real(train, test, split="test"), *fake.split(33))
    assert "nearer to the training set" in CT().sentence({"ct/net": -4.0})
    assert "farther from the training set" in CT().sentence({"ct/net": 4.0})
    assert CT().prefix(EXTRACTOR) == "ct/net"


def test_what_has_no_three_samples_is_refused():
    rows = normal(300)
    with pytest.raises(UserError, match="there is no test split"):
        measured(CT(), Real(rows), rows)
    with pytest.raises(UserError, match="needs at least 21 samples, and there are 20"):
        measured(CT(), Real(rows, rows), rows[:20])
    with pytest.raises(UserError, match=r"no cell .* metric\.ct\.cells=1"):
        measured(CT(cells=30), Real(rows, rows), rows[:40])
