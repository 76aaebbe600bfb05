"""Ratings against the paper's example and tournaments whose outcome is known."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import games
from gan_runner.architectures import Discriminator, Generator
from gan_runner.datasets import Ring8
from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.game import DiscriminatorOutput
from gan_runner.game.spec import Spec
from gan_runner.losses import NonSaturating
from gan_runner.metrics.glicko import Rating, Result, expected_score, rated
from gan_runner.metrics.skill_rating import SkillRating, points, spearman, tournament
from gan_runner.penalties import R1
from gan_runner.sampling.subjects import Generated, Snapshot
from gan_runner.tricks import EMA

OPPONENTS = [(Rating(1400, 30), 1.0), (Rating(1550, 100), 0.0), (Rating(1700, 300), 0.0)]


def test_the_worked_example_of_glicko_2():
    """Glickman's paper gives 1464.06, 151.52 and 0.05999, with intermediate values rounded."""
    got = rated(Rating(1500, 200, 0.06), [Result(*each) for each in OPPONENTS], tau=0.5)
    assert got == pytest.approx((1464.06, 151.52, 0.05999), rel=1e-4)
    assert got == pytest.approx((1464.051, 151.517, 0.0600), abs=1e-3)
    assert expected_score(Rating(1500), OPPONENTS[0][0]) == pytest.approx(0.639, abs=1e-3)
    assert expected_score(Rating(1500), OPPONENTS[2][0]) == pytest.approx(0.303, abs=1e-3)


def test_an_idle_player_becomes_less_certain():
    """sqrt(phi^2 + sigma^2), on the scale of 173.7178 points."""
    want = 173.7178 * math.hypot(200 / 173.7178, 0.06)
    assert rated(Rating(1500, 200, 0.06), []) == pytest.approx((1500, want, 0.06), rel=1e-6)


def test_a_rating_that_was_far_off_raises_the_volatility():
    steady = rated(Rating(1500, 50), [Result(Rating(1500, 50), i % 2) for i in range(10)])
    upset = rated(Rating(1500, 50), [Result(Rating(2000, 50), 1)] * 100)
    assert steady.volatility == pytest.approx(0.06, abs=1e-4)
    assert upset.volatility > 0.07
    assert upset.rating > 1800


def test_very_unequal_players_do_not_break_the_arithmetic():
    got = rated(Rating(10_000, 30), [Result(Rating(-10_000, 30), 1)])
    assert all(math.isfinite(value) for value in got)
    assert got.rating == pytest.approx(10_000, abs=1)


def test_a_tournament_finds_known_skills():
    """Wins are drawn with the probabilities of ratings 150 points apart; 20 rounds of matches of 25 games."""
    skill_g, skill_d = 1500 + 150 * (torch.arange(7) - 3.0), 1500 + 150 * (torch.arange(6) - 2.5)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])  # nothing depends on the order in which they are listed
    skill_g = skill_g[order]
    p = 1 / (1 + 10 ** ((skill_d - skill_g[:, None]) / 400))
    wins = torch.rand(20, 25, 7, 6, generator=seeded("games")) < p
    generators, discriminators = tournament(wins.double().mean(1), torch.ones(7, 6, dtype=torch.bool))
    for players, skill in ((generators, skill_g), (discriminators, skill_d)):
        ratings = torch.tensor([player.rating for player in players])
        assert spearman(ratings.double(), skill.double()).item() == pytest.approx(1, abs=1e-12)
        assert (ratings - skill).abs().max() < 75  # half the distance of neighbours
        assert max(player.deviation for player in players) < 60


def test_who_did_not_meet_has_no_result():
    scores = torch.ones(10, 2, 2)
    generators, discriminators = tournament(scores, torch.tensor([[False, True], [False, False]]))
    assert generators[0].rating > 1500 > discriminators[1].rating
    assert generators[1].rating == discriminators[0].rating == 1500


def test_a_one_sided_tournament_stays_on_the_scale():
    """The stronger side always wins, in 100 rounds: the ratings fall into line and do not run away."""
    beats = (torch.arange(20)[:, None] > torch.arange(20)).double().expand(100, 20, 20)
    generators, discriminators = tournament(beats, torch.ones(20, 20, dtype=torch.bool))
    ratings = torch.tensor([player.rating for player in generators])
    assert (ratings.diff() > 0).all()
    assert ratings.abs().max() < 10_000
    assert max(player.volatility for player in generators + discriminators) < 0.1


def test_spearman_compares_ranks():
    a = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert spearman(a, a.exp()).item() == pytest.approx(1)
    assert spearman(a, -(a**3)).item() == pytest.approx(-1)
    assert spearman(a, torch.tensor([1.0, 2.0, 4.0, 3.0])).item() == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert spearman(a, torch.tensor([1.0, 2.0, 2.0, 4.0])).item() == pytest.approx(4.5 / math.sqrt(5 * 4.5))  # ranks 1, 2.5, 2.5, 4
    assert spearman(a, torch.ones(4)).isnan()


def test_points_of_a_game():
    fake, real = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([-2.0, 0.0, 3.0])
    assert points(fake).tolist() == [0, 0.5, 1]
    assert points(fake, real).tolist() == [1, 0.5, 0]


# ---- a run ----------------------------------------------------------------------------------------------------------------------------


class Cloud(Generator):
    """A normal distribution around (distance, 0), moved by the label."""

    latent = 2

    def __init__(self, distance, classes=None):
        super().__init__()
        self.classes, self.at = classes, nn.Parameter(torch.tensor([float(distance), 0.0]))

    def forward(self, z, y=None):
        return z + self.at + (0 if y is None else 50.0 * y[:, None])


class Separator(Discriminator):
    """The best discriminator of data around the origin from a cloud at `distance`, of equal spread; `offset` spoils its calibration."""

    features = 2

    def __init__(self, distance, classes=None, offset=0.0):
        super().__init__()
        self.distance, self.classes, self.offset = distance, classes, offset

    def forward(self, sample, y=None):
        x = sample - (0 if y is None else 50.0 * y[:, None])
        return DiscriminatorOutput(self.distance**2 / 2 - self.distance * x[:, 0] + self.offset, x)


def run(distances, classes=None, offset=0.0, discriminators=True):
    """A run whose generator comes closer to the data, and how often its snapshots were asked for."""

    def snapshots():
        for step, distance in enumerate(distances):
            D = Separator(distance, classes, offset) if discriminators else None
            yield Snapshot(100 * step, Cloud(distance, classes).eval(), D)

    return Generated(Cloud(0, classes), 8, Spec((2,), classes), snapshots=snapshots)


def tournament_of(subject, game="pair", labels=None, **kw):
    metric = SkillRating(game=game, **{"n_games": 200} | kw)
    n = 2000 if labels is None else len(labels)
    real = torch.randn(n, 2, generator=seeded("real")) + (0 if labels is None else 50.0 * labels[:, None])
    if "reference" in metric.needs:
        metric.reference = SimpleNamespace(n=n, labels=labels, at=lambda indices: real[indices])
    metric.update()
    metric.examine(subject)
    return {key: value.item() for key, value in metric.figures(None).items()}, metric


APPROACH = (5.0, 3.0, 2.0, 1.2, 0.6)


@pytest.mark.parametrize("game", ["pair", "half"])
def test_generators_that_approach_the_data_rise(game):
    got, metric = tournament_of(run(APPROACH), game)
    assert got["skill/spearman_with_step"] == pytest.approx(1)
    ratings = [got[f"skill/g/{100 * i}"] for i in range(5)]
    assert ratings == sorted(ratings)
    assert got["skill/last"] == ratings[-1]
    assert ratings[-1] > ratings[0] + 400
    assert {f"skill/d/{100 * i}" for i in range(5)} < set(got)
    assert torch.equal(metric.rates.isnan(), torch.eye(5, dtype=torch.bool))  # nobody meets who was trained against them
    assert metric.sentence(got).endswith("over 5 snapshots, highest after round 400")


def test_a_win_rate_is_what_the_clouds_say():
    """The last generator against the first D, which sees a difference of N(0.6, 1) and N(0, 1): P(fake < real) = Phi(-0.6 / sqrt 2)."""
    _, metric = tournament_of(run(APPROACH), n_games=4000)
    want = torch.special.ndtr(torch.tensor(-0.6 / math.sqrt(2))).item()
    assert metric.rates[4, 0].item() == pytest.approx(want, abs=0.03)
    _, metric = tournament_of(run(APPROACH), "half", n_games=4000)
    assert metric.rates[4, 0].item() == pytest.approx(torch.special.ndtr(torch.tensor(5 / 2 - 0.6)).item(), abs=0.02)


def test_pairs_ask_only_for_an_order():
    """An offset makes every D say "real" of everything: nothing is left of the game at 1/2, and nothing changes for pairs."""
    assert tournament_of(run(APPROACH, offset=1000.0))[0] == tournament_of(run(APPROACH))[0]
    assert math.isnan(tournament_of(run(APPROACH, offset=1000.0), "half")[0]["skill/spearman_with_step"])


def test_labels_go_to_both_networks():
    """Without them D would see a difference of 50."""
    labels = torch.arange(2000) % 2
    got, metric = tournament_of(run(APPROACH, classes=2), labels=labels)
    _, other = tournament_of(run(APPROACH), labels=None)
    assert got["skill/spearman_with_step"] == pytest.approx(1)
    assert (metric.rates - other.rates).nan_to_num().abs().max() < 0.15


def test_batches_do_not_change_the_ratings(monkeypatch):
    whole, _ = tournament_of(run(APPROACH))
    monkeypatch.setattr("gan_runner.metrics.skill_rating.ROWS", 37)
    assert tournament_of(run(APPROACH))[0] == pytest.approx(whole, rel=1e-9)


def test_the_picture_is_a_heat_map():
    subject = run(APPROACH)
    picture = tournament_of(subject)[1].pictures(subject)[""]
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 700, 700)
    assert len(picture.flatten(1).unique(dim=1)[0]) > 50


def test_what_a_tournament_needs():
    assert SkillRating(game="half").needs == {"snapshots"}
    assert SkillRating().needs == {"snapshots", "reference"}
    with pytest.raises(UserError, match=r"at least 3 snapshots.*there are 2"):
        tournament_of(run(APPROACH[:2]))
    with pytest.raises(UserError, match="needs a discriminator"):
        tournament_of(run(APPROACH, discriminators=False))
    with pytest.raises(UserError, match="not finite after round 0"):
        tournament_of(run(APPROACH, offset=math.nan))


@pytest.mark.slow
def test_a_real_training_rises():
    """A ring of eight Gaussians, and the average of G. The rounds in between are a game of chase, in which it does not rise."""
    game, batches = games.make({"loss": NonSaturating(), "r1": R1(0.1)}, tricks={"ema": EMA(1.0)}, batch_size=64, steps=1200)
    found = []
    for step in range(1201):
        if step in (0, 150, 450, 900, 1200):
            found.append(Snapshot(step, copy.deepcopy(game.sampler).eval(), copy.deepcopy(game.D).eval()))
        if step < 1200:
            game.round(batches)
    ring = Ring8(n=512)
    x = ring.load("train").x
    metric = SkillRating()
    metric.reference = SimpleNamespace(n=len(x), labels=None, at=lambda indices: x[indices])
    metric.update()
    metric.examine(Generated(found[-1].generator, 8, ring.spec, snapshots=lambda: found))
    assert metric.compute()["spearman_with_step"] > 0.8
