"""Nearness to training data: copies, fresh draws, and the pictures of them."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

from gan_runner.datasets import Spec, to_uint8
from gan_runner.errors import UserError
from gan_runner.game.kind import grid
from gan_runner.metrics.memorisation import Memorisation, at_least, closeness, usual_share


def normal(n, f=4, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


class Data:
    """A reference with two splits."""

    def __init__(self, train, test, images=None):
        self.splits, self.split, self.images = {"train": train, "test": test}, "train", images

    def of(self, split):
        other = Data(self.splits["train"], self.splits["test"], self.images)
        other.split = split
        return other

    def features(self):
        return self.splits[self.split]

    def at(self, indices):
        assert self.split == "train"
        return self.images[indices]


def measured(data, *batches, **options):
    metric = Memorisation(**options)
    metric.reference = data
    for batch in batches:
        metric.update(batch)
    return metric, {key: float(value) for key, value in metric.figures(SimpleNamespace(name="net")).items()}


def test_copies_of_training_samples_are_found():
    train, test = normal(300), normal(300, seed=1)
    _, got = measured(Data(train, test), train.flip(0))
    assert got["memorisation/net/closer_to_train"] == 1
    assert got["memorisation/net/near_duplicates"] == 1
    assert got["memorisation/net/distance_ratio"] == 0
    assert got["memorisation/net/p_value"] < 1e-12


def test_copies_are_near_duplicates_even_where_few_training_samples_are_compared():
    train, test = normal(2000, 8), normal(200, 8, seed=1)
    _, got = measured(Data(train, test), train[:500])
    assert got["memorisation/net/near_duplicates"] == 1
    share = 0.1 + 0.9 / 2  # a tenth of them are seen, the others are like new ones
    assert got["memorisation/net/closer_to_train"] == pytest.approx(share, abs=0.1)


def test_copies_of_test_samples_are_the_other_way_round():
    train, test = normal(300), normal(300, seed=1)
    _, got = measured(Data(train, test), test)
    assert got["memorisation/net/closer_to_train"] == 0
    assert got["memorisation/net/p_value"] > 1 - 1e-12
    assert got["memorisation/net/near_duplicates"] == pytest.approx(0.01, abs=0.011)


@pytest.mark.parametrize("n_train", [400, 1500])
def test_fresh_draws_are_as_near_to_both(n_train):
    """Whether there are as many training as test samples or more."""
    _, got = measured(Data(normal(n_train), normal(400, seed=1)), normal(400, seed=2), quantile=0.05)
    assert got["memorisation/net/closer_to_train"] == pytest.approx(0.5, abs=4 * math.sqrt(0.25 * 2 / 400))
    assert got["memorisation/net/distance_ratio"] == pytest.approx(1, abs=0.1)
    assert got["memorisation/net/near_duplicates"] == pytest.approx(0.05, abs=4 * math.sqrt(2 * 0.05 * 0.95 / 400))
    assert 1e-4 < got["memorisation/net/p_value"] < 1 - 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(50, 50), (300, 20), (20, 100)])
def test_p_values_are_uniform_without_memorisation(n, m):
    """Also where many fakes share a few rows: 1 / (4n) would be a tenth of the variance there."""
    found = [closeness(normal(n, 2, 3 * s), normal(m, 2, 3 * s + 1), normal(m, 2, 3 * s + 2)) for s in range(300)]
    z, p = torch.stack([each.z for each in found]), torch.stack([each.p_value for each in found])
    assert abs(z.mean()) < 4 / math.sqrt(300)
    assert z.std() == pytest.approx(1, abs=0.17)
    for level in (0.1, 0.5, 0.9):
        assert (p <= level).double().mean() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 300) + 0.02)


def test_the_variance_is_that_of_a_fair_choice_of_the_training_rows():
    """Over all ways to call half of six rows training rows."""
    rows, fake = normal(6, 1), normal(9, 1, seed=1)
    shares, scales = [], []
    for train in combinations(range(6), 3):
        test = [i for i in range(6) if i not in train]
        found = closeness(fake, rows[list(train)], rows[test])
        shares.append(found.share)
        scales.append(torch.where(found.z == 0, torch.nan, (found.share - 0.5) / found.z))
    shares, scales = torch.stack(shares), torch.stack(scales)
    assert float(shares.mean()) == pytest.approx(0.5)
    assert scales[~scales.isnan()].tolist() == pytest.approx([float(shares.std(correction=0))] * int((~scales.isnan()).sum()))


def by_every_draw(fake, train, test):
    """(share, p-value), from every choice of half of the rows as training rows; rows that are equally near share a fake."""
    distance = (fake[:, None].double() - torch.cat([train, test]).double()).square().sum(2)
    tie = (distance == distance.amin(1, keepdim=True)).double()
    near = tie / tie.sum(1, keepdim=True)
    shares = [near[:, list(draw)].sum(1).mean() for draw in combinations(range(2 * len(train)), len(train))]
    return float(shares[0]), sum(float(share) > float(shares[0]) - 1e-9 for share in shares) / len(shares)


@pytest.mark.parametrize("seed", range(40))
def test_the_p_value_of_few_distinct_points_is_that_of_every_draw(seed):
    """On a grid of three points an axis: rows that are copies of each other, fakes that are as near to several rows."""
    generator = torch.Generator().manual_seed(seed)
    n, m, f = int(torch.randint(1, 12, (), generator=generator)), 1 + seed % 5, 1 + seed % 2
    fake, train, test = (torch.randint(3, (k, f), generator=generator).float() for k in (n, m, m))
    found = closeness(fake, train, test)
    assert (float(found.share), float(found.p_value)) == pytest.approx(by_every_draw(fake, train, test), abs=1e-9)


def test_three_points_that_are_made_over_and_over_are_three_draws():
    """A fair draw calls all three rows training rows in one of 20 cases, of 6 rows, and in about one of 8, of 400; not in one of 24."""
    for m, p_value in ((3, 1 / 20), (200, 200 * 199 * 198 / (400 * 399 * 398))):
        train = normal(m)
        found = closeness(train[:3].repeat(100, 1), train, normal(m, seed=1))
        assert float(found.share) == 1
        assert float(found.p_value) == pytest.approx(p_value, rel=1e-9)


@pytest.mark.parametrize("weights", [[1.0] * 19 + [0], [60.0] + [1.0] * 17 + [0, 0], [7.0, 5, 3] + [2.0] * 8 + [1.0] * 9])
def test_p_values_of_more_rows_than_are_enumerated_are_near_the_exact_ones(weights):
    weight = torch.tensor(weights, dtype=torch.float64)
    sums = weight[torch.tensor(list(combinations(range(20), 10)))].sum(1)
    for total in sums.unique():
        exact = float((sums >= total).double().mean())
        if exact > 1e-3:
            assert float(at_least(weight, total, 1.0)) == pytest.approx(exact, rel=0.1), (total, exact)


def test_near_duplicates_of_data_with_copies_are_no_more_than_the_test_data_have():
    """Nine of ten test samples are copies of training samples: fakes that are no nearer than these count for the quantile."""
    usual = torch.tensor([0.0] * 90 + [1.0] * 10)
    assert float(usual_share(usual, usual, 0.05)) == pytest.approx(0.05)
    assert float(usual_share(torch.zeros(7), usual, 0.05)) == pytest.approx(0.05 / 0.9)
    assert float(usual_share(torch.ones(7), usual, 0.05)) == 0
    spread = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert float(usual_share(spread, spread, 0.25)) == pytest.approx(0.25, abs=1e-3)
    assert float(usual_share(torch.zeros(7), spread[1:], 0.25)) == 1


def test_fakes_as_near_to_both_count_half():
    rows = normal(10)
    found = closeness(rows, rows, rows.clone())
    assert [float(value) for value in found] == pytest.approx([0.5, 0, 1, 1])  # the share is 1/2 whichever rows are training rows


def test_sets_of_different_size_are_refused():
    with pytest.raises(ValueError, match="not 5 and 6"):
        closeness(normal(3), normal(5), normal(6))


def test_the_pictures_are_the_nearest_pairs():
    images = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    train, test = images[:40], images[40:]
    fakes = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    nearest = {7: 31, 3: 12, 20: 0}  # fake -> training image, nearest first
    for step, (i, j) in enumerate(nearest.items()):
        fakes[i] = train[j] + 0.01 * (step + 1)
    metric, _ = measured(Data(train.flatten(1), test.flatten(1), train), fakes.flatten(1), pairs=3)
    subject = SimpleNamespace(spec=Spec((1, 4, 4)), at=lambda indices: (fakes[indices], None))
    want = [image for i, j in nearest.items() for image in (fakes[i], train[j])]
    assert torch.equal(metric.pictures(subject)["pairs"], grid(to_uint8(torch.stack(want))))
    assert metric.pictures(SimpleNamespace(spec=Spec((2,)))) == {}
    metric, _ = measured(Data(train.flatten(1), test.flatten(1), train), fakes.flatten(1), pairs=500)
    assert metric.pictures(subject)["pairs"].shape == (3, 2 + 8 * 6, 2 + 8 * 6)  # all 30 pairs, four to a row


def test_figures_do_not_depend_on_batches():
    data, fake = Data(normal(300), normal(200, seed=1)), normal(150, seed=2)
    _, got = measured(data, fake)
    assert got == measured(data, *fake.split(33))[1]
    assert {key.removeprefix("memorisation/net/") for key in got} == {"closer_to_train", "p_value", "distance_ratio", "near_duplicates"}
    assert "closer to training" in Memorisation().sentence(got)


def test_data_without_one_of_the_splits_are_refused():
    with pytest.raises(UserError, match=r"needs at least 1 real samples \(test\), and there are 0"):
        measured(Data(normal(9), normal(0)), normal(5))
    with pytest.raises(UserError, match="NaN or infinite"):
        measured(Data(normal(9), normal(9)), normal(5) / 0)
