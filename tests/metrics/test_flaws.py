"""Flaws that were planted are found, in order of size; where there are none, none are."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
import torchvision

from gan_runner.datasets import Spec
from gan_runner.errors import UserError
from gan_runner.extractors import LeNet
from gan_runner.metrics.flaws import FlawCritics, best_rule, chance, flaws

EXTRACTOR = SimpleNamespace(name="x", standard=False)


def phi(t):
    return (1 + math.erf(t / math.sqrt(2))) / 2


def normal(n, seed, width=10):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def planted(n, seed, width=10):
    """Half of the fakes shifted by 6 along axis 0, 30 % along axis 1, 20 % along axis 2."""
    x, generator = normal(n, seed, width), torch.Generator().manual_seed(seed + 1)
    kind = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), n, True, generator=generator)
    x[torch.arange(n), kind] += 6
    return x, kind


def critics(fake, real, batches=1, **settings):
    metric = FlawCritics(**settings)
    metric.reference = SimpleNamespace(features=lambda: real, split="train", n=len(real))
    for part in fake.chunk(batches):
        metric.update(part)
    return metric, {key: value.item() for key, value in metric.figures(EXTRACTOR).items()}


@pytest.mark.parametrize("seed", [0, 100, 200])
def test_planted_flaws_are_found_in_order(seed):
    """Excess 36 p, since the shift is counted from the real mean; accuracy 1/2 + p/2, less what a threshold between 0 and 6 costs.

    The excess has a standard deviation of 36 sqrt(p (1 - p) / 10,000) = 0.18 from the share, and of 1.4 % from the real variance.
    """
    fake, kind = planted(20_000, seed)
    found = flaws(fake, normal(20_000, seed + 50))
    assert len(found) == 3
    for axis, (flaw, share) in enumerate(zip(found, (0.5, 0.3, 0.2))):
        assert flaw.direction[axis] / flaw.direction.norm() >= 0.99  # and towards the shift
        assert flaw.excess == pytest.approx(36 * share, abs=4 * math.hypot(0.18, 0.014 * 36 * share))
        assert flaw.accuracy == pytest.approx(0.5 + share / 2, abs=0.015)
        assert flaw.p_value < 1e-100
        assert (kind[flaw.fakes] == axis).all()


def test_shifts_that_every_fake_carries_are_one_flaw_along_their_sum():
    shift = torch.tensor([3.0, 2.0, 1.0] + [0.0] * 7)
    (flaw,) = flaws(normal(20_000, 0) + shift, normal(20_000, 1))
    assert flaw.direction @ shift.double() / flaw.direction.norm() / math.sqrt(14) >= 0.999
    assert flaw.excess == pytest.approx(14, abs=0.7)  # the real variance alone is off by 1.4 %, one standard deviation
    assert flaw.accuracy == pytest.approx(phi(math.sqrt(14) / 2), abs=0.006)  # 4 sqrt(0.969 0.031 / 20,000), and a threshold's error
    assert phi(math.sqrt(14) / 2) == pytest.approx(0.969, abs=5e-4)


def test_too_little_spread_is_a_flaw_with_a_negative_excess():
    fake, width = normal(20_000, 0), 0.3
    fake[:, 4] *= width
    (flaw,) = flaws(fake, normal(20_000, 1))
    assert flaw.direction[4].abs() / flaw.direction.norm() >= 0.99
    assert flaw.excess == pytest.approx(width**2 - 1, abs=0.06)
    t = math.sqrt(2 * math.log(1 / width) / (1 / width**2 - 1))  # where both densities are alike
    assert flaw.accuracy == pytest.approx(0.5 + (2 * phi(t / width) - 2 * phi(t)) / 2, abs=0.015)


def test_a_dropped_half_that_leaves_the_second_moment_alone_is_found():
    real, fake = normal(4000, 0), normal(4000, 1)
    real[:, 0] += torch.where(torch.rand(4000, generator=torch.Generator().manual_seed(2)) < 0.5, 5.0, -5.0)
    fake[:, 0] += 5
    (flaw,) = flaws(fake, real)
    assert abs(flaw.excess) < 0.1
    assert flaw.accuracy == pytest.approx(0.75, abs=0.02)


def test_without_a_flaw_one_is_seen_no_more_often_than_by_chance():
    """Two tests at most, each wrong with a probability of 5 % or less: 0.1 + 4 sqrt(0.1 0.9 / 200) = 0.185; and not never."""
    seen = sum(bool(flaws(normal(400, i, 4), normal(300, 1000 + i, 4), significance=0.05)) for i in range(200))
    assert 1 <= seen <= 0.185 * 200
    assert not any(flaws(normal(400, i, 40), normal(300, 1000 + i, 40)) for i in range(20))
    same = normal(200, 0)
    assert flaws(same, same) == []


def test_a_narrow_flaw_is_not_drowned_by_the_noise_of_a_wide_direction():
    spread = torch.tensor([10.0] + [0.1] * 9)
    fake, real = normal(20_000, 0) * spread, normal(20_000, 1) * spread
    fake[::3, 4] += 1  # a variance of 0.2 beside 100, whose sampling noise is 1
    (flaw,) = flaws(fake[torch.randperm(20_000, generator=torch.Generator().manual_seed(0))], real)
    assert flaw.direction[4].abs() / flaw.direction.norm() >= 0.99


def test_units_and_origin_of_the_features_do_not_matter():
    fake, real = planted(2000, 0)[0], normal(2000, 1)
    want, got = flaws(fake.double(), real.double()), flaws(1000 * fake.double() + 1e5, 1000 * real.double() + 1e5)
    assert [flaw.accuracy for flaw in got] == [flaw.accuracy for flaw in want]
    assert [flaw.excess for flaw in got] == pytest.approx([flaw.excess for flaw in want], rel=1e-9)


def test_there_are_no_more_flaws_than_asked_for_or_than_features():
    fake, real = planted(2000, 0)[0], normal(2000, 1)
    assert len(flaws(fake, real, most=2)) == 2
    assert len(flaws(fake[:, :2], real[:, :2])) == 2
    assert [len(flaw.fakes) for flaw in flaws(fake, real, shown=3)] == [3, 3, 3]


def test_features_that_never_change_do_no_harm():
    fake, real = (torch.cat([x, torch.full((len(x), 5), 2.0)], 1) for x in (planted(4000, 0)[0], normal(4000, 1)))
    assert len(flaws(fake, real)) == 3
    fake = normal(4000, 2, 15)
    fake[:, 10:] = 2
    fake[::2, 12] = 4  # half of the fakes have what no real sample has
    (flaw,) = flaws(fake, real)
    assert flaw.direction[12] / flaw.direction.norm() >= 0.99
    assert flaw.accuracy == pytest.approx(0.75, abs=0.02)


def test_samples_in_an_order_are_split_at_random():
    """Labels that alternate must not leave one class to each half."""
    fake = normal(4000, 0)
    fake[::2, 0] += 6
    real = normal(4000, 1)
    real[1::2, 0] += 6
    assert flaws(fake, real) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_best_rule_is_the_best_of_all_intervals(seed):
    generator = torch.Generator().manual_seed(seed)
    fake, real = (torch.randint(6, (n,), generator=generator).double() for n in (7, 9))  # with many ties

    def accuracy(called_fake, called_real):
        return ((called_fake.double().mean() + 1 - called_real.double().mean()) / 2).item()

    cuts = [-math.inf, *(i + 0.5 for i in range(6)), math.inf]
    intervals = [(accuracy((fake > a) & (fake <= b), (real > a) & (real <= b))) for a, b in combinations(cuts, 2)]
    rule = best_rule(fake, real)
    assert accuracy(rule(fake), rule(real)) == pytest.approx(max(max(each, 1 - each) for each in intervals))


def test_chance_counts_the_ways():
    assert chance(3, 3, 0, 3) == pytest.approx(1 / 20)
    assert chance(0, 5, 2, 9) == pytest.approx(1)
    ways = sum(math.comb(20, k) * math.comb(30, 12 - k) for k in range(8, 13)) / math.comb(50, 12)
    assert chance(8, 20, 4, 30) == pytest.approx(ways, rel=1e-9)
    assert chance(25_000, 25_000, 0, 25_000) == 0


# ---- the metric -----------------------------------------------------------------------------------------------------------------------


def test_figures_do_not_depend_on_batches():
    fake, real = planted(2000, 0)[0], normal(1500, 1)
    _, want = critics(fake, real)
    assert want["flaws/x/count"] == 3
    assert want["flaws/x/1/excess"] > want["flaws/x/2/excess"] > want["flaws/x/3/excess"] > 0
    assert set(want) == {"flaws/x/count"} | {f"flaws/x/{i}/{key}" for i in (1, 2, 3) for key in ("excess", "accuracy", "p_value")}
    assert critics(fake, real, batches=7)[1] == want


def test_a_picture_shows_fakes_beside_real_samples():
    """A fake of kind k is a uniform image of brightness 80 k, a real one is white."""
    fake, kind = planted(2000, 0)
    metric, _ = critics(fake, normal(1500, 1))
    subject = SimpleNamespace(
        spec=Spec((1, 12, 10)), at=lambda i: ((80 * kind[i].float() / 127.5 - 1).view(-1, 1, 1, 1).expand(-1, 1, 12, 10), None)
    )
    metric.reference.at = lambda i: torch.ones(len(i), 1, 12, 10)
    (picture,) = metric.pictures(subject).values()
    assert (picture.dtype, picture.shape) == (torch.uint8, (3, 3 * 14 + 2, 2 * (8 * 12 + 2) + 8))
    assert [picture[0, 2 + 14 * row, 2 + 12 * column].item() for row in range(3) for column in (0, 7)] == [0, 0, 80, 80, 160, 160]
    assert (picture[:, :, 8 * 12 :] == 255).all()
    assert metric.pictures(SimpleNamespace(spec=Spec((2,)))) == {}
    assert critics(normal(100, 0), normal(100, 1))[0].pictures(subject) == {}


def test_the_sentence_tells_the_largest_flaws():
    fake, real = planted(2000, 0)[0], normal(1500, 1)
    metric, figures = critics(fake, real)
    assert metric.sentence(figures).startswith("3 flaws can be told from chance, of excess +1")
    metric, figures = critics(real, real)
    assert metric.sentence(figures) == "0 flaws can be told from chance"


def test_what_cannot_be_compared_is_refused():
    real = normal(100, 0)
    with pytest.raises(UserError, match="at least 20"):
        critics(real[:10], real)
    with pytest.raises(UserError, match="at least 20"):
        critics(real, real[:10])
    with pytest.raises(UserError, match="NaN or infinite"):
        critics(torch.where(real > 2, torch.nan, real), real)
    with pytest.raises(UserError, match="no spread"):
        critics(real, torch.full_like(real, 0.1))
    with pytest.raises(ValueError, match="same F"):
        flaws(real, real[:, :3])
    with pytest.raises(ValueError, match="finite"):
        flaws(torch.where(real > 2, torch.inf, real), real)


@pytest.mark.slow
@pytest.mark.data
def test_a_digit_that_is_never_drawn_is_the_flaw(real_data):
    data = torchvision.datasets.MNIST(real_data, train=True)
    lenet = LeNet(str(real_data / "classifiers" / "lenet_epoch12_acc0.991.pth"))
    chosen = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[:15_000]  # in the file's order, the writers change
    features = torch.cat([lenet(data.data[part][:, None]).features for part in chosen.split(1000)])
    (real, fake), (labels, fake_labels) = features.split(10_000), data.targets[chosen].split(10_000)
    assert flaws(fake, real) == []
    flaw = flaws(fake[fake_labels != 1], real)[0]
    assert flaw.excess < 0
    assert (labels[flaw.reals] == 1).all()
