"""What a game takes besides two players on numbers: one player, still networks, conditions, several critics, rounds of other operations."""

import copy
import hashlib
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from scipy import stats
from torch import nn

from games import flat, make, play, sgd
from gan_runner.architectures import MLPDiscriminator, MLPGenerator
from gan_runner.assembly import build, parts
from gan_runner.assembly.build import refuse_idle, refuse_mismatch
from gan_runner.config.composer import compose
from gan_runner.draws import CountedDraws, Draws, NumberedDraws, seeded
from gan_runner.errors import UserError
from gan_runner.execution.engine import Engine
from gan_runner.execution.replay import Replayed
from gan_runner.game import Balanced, Batch, Discriminator, DiscriminatorOutput, Loss, Penalty, Play, Spec, Term, Trick
from gan_runner.losses import Hinge, NonSaturating
from gan_runner.penalties import R1, ApproximateR1, FeatureMatching
from gan_runner.rules import Alternate, Solo
from gan_runner.schedules import Linear, Schedule, on_host
from gan_runner.tricks import EMA, InstanceNoise, MinibatchDiscrimination, MinibatchStddev, SpectralNorm
from processes import spawn

G = partial(MLPGenerator, width=32, depth=2)
D = partial(MLPDiscriminator, width=32, depth=2)


class Far(Term):
    """G: the mean square of its samples: a loss for one player."""

    def generator(self, play):
        return play.fake.square().mean()


class Roll(Trick):
    """Move every vector cyclically, each by its own number of places."""

    def augment(self, sample, draws):
        places = torch.arange(sample.shape[1])
        return sample.gather(1, (places + draws.integers(sample.shape[1])[:, None]) % sample.shape[1])


class Linear1(Discriminator):
    """The logit is w x."""

    def __init__(self, w):
        super().__init__()
        self.w, self.features = nn.Parameter(w), len(w)

    def forward(self, sample, y=None):
        return DiscriminatorOutput(sample @ self.w, sample)


def draws_of(n=8, seed=0):
    return Draws(seeded("test", seed), n)


# ---- players ------------------------------------------------------------------------------------------------------------------------


def test_a_game_of_one_player_plays_and_its_state_is_taken_up():
    one, batches = play(3, nets={"generator": G}, terms={"loss": Far()}, rule=Solo(), tricks={"ema": EMA(0.5)})
    assert one.D is None
    other, more = make(nets={"generator": G}, terms={"loss": Far()}, rule=Solo(), tricks={"ema": EMA(0.5)})
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    more.load_state_dict(batches.state_dict())
    for game, data in ((one, batches), (other, more)):
        for _ in range(3):
            assert set(game.round(data)) == {"loss/g"}
    assert torch.equal(flat(one), flat(other))


def test_a_discriminator_learns_alone_against_a_still_generator():
    def still(spec):
        return G(spec).requires_grad_(False)

    game, batches = make(nets={"discriminator": D, "generator": still}, rule=Solo("discriminator"))
    refuse_idle(game)
    before_g, before_d = flat(game.G), flat(game.D)
    game.round(batches)
    assert torch.equal(flat(game.G), before_g)
    assert not torch.equal(flat(game.D), before_d)
    game.load_state_dict(game.state_dict())


@pytest.mark.parametrize(
    ("nets", "terms", "rule", "said"),
    [
        ({"generator": G}, {"loss": Far()}, Alternate(), "moves the discriminator, and the architecture has none"),
        ({"generator": G}, {"loss": Hinge()}, Solo(), r"loss \(Hinge\) has a part for the discriminator"),
        ({"generator": G}, {"loss": Far(), "r1": R1()}, Solo(), r"r1 \(R1\) has a part for the discriminator"),
        ({"discriminator": D, "generator": G}, {"loss": Hinge(), "r1": R1()}, Solo(), r"r1 \(R1\) has no part for the generator"),
        ({"discriminator": D, "generator": G}, {"loss": Far()}, Alternate(), "the discriminator moves in every round, and no term"),
    ],
)
def test_parts_that_do_not_fit_are_refused(nets, terms, rule, said):
    spec = Spec((2,))
    with pytest.raises(UserError, match=said):
        refuse_mismatch({side: net(spec) for side, net in nets.items()}, terms, rule, spec)


def test_a_player_that_never_moves_and_one_that_cannot_are_refused():
    game, _ = make(rule=Solo("generator"))
    with pytest.raises(UserError, match="the discriminator has weights to train, and the rule Solo never moves it"):
        refuse_idle(game)
    game, _ = make(nets={"discriminator": lambda spec: D(spec).requires_grad_(False), "generator": G})
    with pytest.raises(UserError, match="the rule Alternate moves the discriminator, which has no weights"):
        refuse_idle(game)


def test_symbols_are_refused_by_a_network_of_numbers():
    with pytest.raises(UserError, match="the data are symbols, and MLPGenerator makes numbers"):
        refuse_mismatch({"generator": G(Spec((4,)))}, {"loss": Far()}, Solo(), Spec((4,), symbols=7))


class Asks(Term):
    """A term for G that looks at D, and has not said so in `build`."""

    def generator(self, play):
        return play.on_fake.logits.mean()


def test_a_term_that_looks_at_no_discriminator_is_named():
    with pytest.raises(UserError, match=r"loss \(Asks\) needs a discriminator, and the architecture has none"):
        play(1, nets={"generator": G}, terms={"loss": Asks()}, rule=Solo())
    with pytest.raises(ValueError, match="feature_matching compares features of a discriminator"):
        make(nets={"generator": G}, terms={"loss": Far(), "feature_matching": FeatureMatching()}, rule=Solo())


class OldTerm(NonSaturating):
    """A user's term of version 0.1."""

    def build(self, spec, discriminator):
        self.seen = discriminator.features


def test_a_term_of_an_older_version_is_built_with_the_discriminator(caplog):
    build.say_old_signature.cache_clear()
    term = OldTerm()
    make(terms={"loss": term})
    assert term.seen == 32
    for _ in range(2):
        build.say_old_signature("OldTerm")
    assert [record.getMessage() for record in caplog.records] == [
        "OldTerm.build(spec, discriminator) is an old signature, which version 0.3 will not call: "
        "write build(self, spec, nets) and read nets.get('discriminator')"
    ]


class Wider(Trick):
    def wrap(self, part, name):
        if name == "discriminator":
            part.features += 1
        return part


def test_a_trick_that_changes_the_features_under_a_head_is_refused():
    with pytest.raises(ValueError, match=r"trick\.wider changes D\.features from 32 to 33"):
        make(tricks={"wider": Wider()})


# ---- conditions ---------------------------------------------------------------------------------------------------------------------


class Pairs(NonSaturating):
    paired = True


@pytest.mark.parametrize("conditional", [True, False])
def test_fakes_of_a_pairing_loss_are_made_for_the_labels_of_the_reals(conditional):
    game, batches = make(terms={"loss": Pairs()}, conditional=conditional)
    seen = []
    game.watch = lambda play, player: seen.append((play.y, play.fake_y))
    game.round(batches)
    for y, fake_y in seen:
        assert torch.equal(y, fake_y) if conditional else fake_y is None
    game, batches = make(conditional=True)
    seen.clear()
    game.watch = lambda play, player: seen.append((play.y, play.fake_y))
    game.round(batches)
    assert not torch.equal(*seen[0])


class Filling(MLPGenerator):
    """Keeps what it is given, and makes the rest."""

    def asked(self, batch, draws):
        mask = (draws.uniform(*batch.x.shape[1:]) < 0.5).float()
        return batch.x * mask, mask

    given = asked

    def forward(self, z, y=None):
        seen, mask = y
        return mask * seen + (1 - mask) * super().forward(z)


class SeesHoles(MLPDiscriminator):
    def forward(self, sample, y=None):
        seen, mask = y
        return super().forward(sample + seen + mask)


def test_a_condition_may_be_a_tree_and_is_joined_for_one_pass_of_d():
    holes = {"discriminator": partial(SeesHoles, width=8, depth=2), "generator": partial(Filling, width=8, depth=2)}
    game, batches = make(nets=holes)
    batch = next(batches)
    both, apart = (Play(game.G, game.D, batch, draws_of(32), game.augment) for _ in range(2))
    assert all(len((seen.y, seen.fake_y, seen.z)) == 3 for seen in (both, apart))  # asked for in one order
    for one, other in zip(both.on_both, (apart.on_real, apart.on_fake), strict=True):
        torch.testing.assert_close(one.logits, other.logits)
    seen, mask = both.fake_y
    assert torch.equal(both.fake * mask, seen)
    assert torch.equal(seen, batch.x * mask)
    game.round(batches)


# ---- several critics ----------------------------------------------------------------------------------------------------------------


class TwoCritics(MLPDiscriminator):
    def forward(self, sample, y=None):
        out = super().forward(sample, y)
        return out._replace(logits=torch.stack([out.logits, 2 * out.logits], 1))


def test_several_critics_count_equally():
    game, batches = make(nets={"discriminator": partial(TwoCritics, width=8, depth=2), "generator": G})
    seen = Play(game.G, game.D, next(batches), draws_of(32), game.augment)
    real, fake = seen.on_both
    loss = (nn.functional.softplus(-real.logits) + nn.functional.softplus(fake.logits)).mean()
    assert NonSaturating().discriminator(seen).item() == pytest.approx(loss.item(), rel=1e-6)
    logs = game.round(batches)
    assert logs["d/real"].shape == ()


# ---- draws that are read again ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_draws", [draws_of, *(partial(made, "test", 0, indices=torch.arange(8)) for made in (NumberedDraws, CountedDraws))]
)
def test_draws_are_read_again_from_where_they_were(make_draws):
    draws = make_draws()
    draws.normal(2)
    again = draws.again()
    ahead = draws.again()
    first = [draws.normal(2), draws.integers(5), draws.uniform()]
    assert all(torch.equal(a, b) for a, b in zip(first, [again.normal(2), again.integers(5), again.uniform()], strict=True))
    assert torch.equal(ahead.normal(2), first[0])


def test_counted_numbers_are_those_of_splitmix64():
    """Against the published function in Python's whole numbers of any length."""
    everything = (1 << 64) - 1
    gamma = 0x9E3779B97F4A7C15

    def mixed(x):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & everything
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & everything
        return x ^ (x >> 31)

    key = int.from_bytes(hashlib.sha256(b"test/7").digest()[:8], "little")
    draws = CountedDraws("test", 7, indices=torch.tensor([0, 3, 10**9]))
    for call in (1, 2):
        rows = [mixed(mixed(i * gamma + key & everything) + call * gamma & everything) for i in (0, 3, 10**9)]
        words = [[mixed(row + j * gamma & everything) >> 40 for j in (1, 2)] for row in rows]
        assert torch.equal(draws.uniform(2), torch.tensor(words) * 2.0**-24)
    assert mixed(gamma) == 0xE220A8397B1DCDAF, "the first number of SplitMix64 with seed 0, as published"


def test_counted_numbers_have_their_laws_and_do_not_depend_on_the_batch():
    n = 100_000
    draws = CountedDraws("test", indices=torch.arange(n))
    x, u, k = draws.normal(3), draws.uniform(), draws.integers(10)
    assert stats.kstest(x.flatten().numpy(), "norm").pvalue > 0.001
    assert stats.kstest(u.numpy(), "uniform").pvalue > 0.001
    assert stats.chisquare(torch.bincount(k, minlength=10).numpy()).pvalue > 0.001
    pairs = torch.corrcoef(torch.cat([x, u[:, None], x[:, :1].roll(1, 0)], 1).T) - torch.eye(5)
    assert pairs.abs().max() < 4.5 / n**0.5
    few = CountedDraws("test", indices=torch.tensor([5, 70_000]))
    assert torch.equal(few.normal(3), x[[5, 70_000]])
    assert torch.equal(few.uniform(), u[[5, 70_000]])
    assert not torch.equal(CountedDraws("other", indices=torch.arange(3)).normal(3), x[:3])


def test_the_whole_of_some_draws_are_the_rows_of_all_in_one_order_of_asking():
    part, same = draws_of().of(slice(2, 4)), draws_of()
    order = [part.normal(3), part.whole.uniform(2), part.normal(3)]
    expected = [same.normal(3)[2:4], same.uniform(2), same.normal(3)[2:4]]
    assert all(torch.equal(a, b) for a, b in zip(order, expected, strict=True))
    assert torch.equal(part.whole.again().normal(1), same.normal(1))
    assert torch.equal(part.normal(1), same.made[-1][2:4])


@pytest.mark.parametrize("first", ["on_real", "on_both", None])
def test_two_passes_of_d_see_the_same_augmentation(first):
    """|D(T(x + s e)) - D(T(x))| of a linear critic is s |w T(e)|: with the same T in both it is that without any, up to the place of w."""
    torch.manual_seed(0)
    x, noise = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    critic, generator = Linear1(torch.ones(5, dtype=torch.float64)), MLPGenerator(Spec((5,)), width=8, depth=1).double()
    seen = Play(generator, critic, Batch(x, None), draws_of(), Roll().augment)
    seen.z = torch.randn(8, generator.latent, dtype=torch.float64)
    if first:
        getattr(seen, first)
    moved = critic(Roll().augment(x + noise, seen._seen_with("real"))).logits
    assert torch.equal(seen.judge(x + noise, None, like="real").logits, moved.float())
    slope = moved - critic(Roll().augment(x, seen._seen_with("real"))).logits
    torch.testing.assert_close(slope, critic(noise).logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("like", [None, "real", "fake"])
def test_samples_of_all_processes_are_judged_under_the_augmentation_of_all_rows(like):
    """Of a process with two of four rows: what it judges are the rows of everyone."""
    critic, generator, noise = Linear1(torch.ones(5)), MLPGenerator(Spec((5,)), width=8, depth=1), InstanceNoise(1.0)
    draws = draws_of()
    seen = Play(generator, critic, Batch(torch.zeros(2, 5), None), draws.of(slice(2, 4)), noise.augment)
    assert seen.on_both
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    logits = seen.whole.judge(x, None, like).logits
    made = draws.made[{"real": 0, "fake": 2, None: 3}[like]]
    torch.testing.assert_close(logits, critic(x + made).logits)
    assert len(made) == 8
    assert seen.whole.own is seen
    assert seen.own is seen


def test_two_passes_of_d_have_one_power_iteration():
    """Under spectral norm: the same samples have the same logits. A pass that is not compared makes an iteration of its own."""
    torch.manual_seed(0)
    critic = SpectralNorm().wrap(MLPDiscriminator(Spec((5,)), width=8, depth=2), "discriminator")
    seen = Play(MLPGenerator(Spec((5,)), width=8, depth=1), critic, Batch(torch.randn(8, 5), None), draws_of(), lambda x, draws: x)
    real, fake = seen.on_both
    for sample, like, before in ((seen.real, "real", real), (seen.fake, "fake", fake)):
        torch.testing.assert_close(seen.judge(sample, None, like).logits, before.logits, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(seen.judge(sample, None, like, rows=slice(1, None, 3)).logits, before.logits[1::3], rtol=1e-6, atol=1e-7)
    assert (seen.judge(seen.real, None).logits - real.logits).abs().max() > 1e-4
    assert all(module.training for module in critic.modules())


class Seen(Penalty):
    """D says of the samples of the loss what it said of them in the pass of the loss, however many passes of D are between."""

    differences: list[float]

    def __init__(self):
        super().__init__()
        self.differences = []

    def discriminator(self, play):
        outs = {"real": play.on_real, "fake": play.on_fake}
        play.judge(play.real + 1, play.y)
        for which, out in outs.items():
            sample, y = (play.real, play.y) if which == "real" else (play.fake, play.fake_y)
            again = play.judge(sample, y, like=which)
            self.differences.append((again.logits - out.logits).abs().max().item())
        return (again.logits * 0).mean()


@pytest.mark.parametrize("more", [{}, {"stddev": lambda: MinibatchStddev()}, {"noise": lambda: InstanceNoise(0.1)}])
def test_d_says_the_same_of_the_samples_of_the_loss_under_spectral_norm(more):
    seen = Seen()
    tricks = {"spectral_norm": SpectralNorm(["discriminator"])} | {name: make() for name, make in more.items()}
    play(5, {"loss": Hinge(), "r1": R1(), "seen": seen}, tricks=tricks)
    assert len(seen.differences) == 10
    assert max(seen.differences) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("engine", [Engine, Replayed])
def test_approximate_r1_beside_another_pass_is_near_the_exact_one_under_spectral_norm(engine):
    """In expectation over its noise; before the singular vectors were those of the pass of the loss, it was many times as large."""
    terms = {"loss": Hinge(), "r1": R1(1e-3), "approximate_r1": ApproximateR1(5e-4)}
    game, batches = make(terms, tricks={"spectral_norm": SpectralNorm(["discriminator"])}, batch_size=64)
    turns = engine(game, pytest.fail)
    logs = [game.round(batches, turns.turn) for _ in range(60)]
    exact, approximate = (sum(each[f"{name}/d"].item() for each in logs) for name in ("r1", "approximate_r1"))
    assert approximate == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_share_of_samples_that_d_couples_is_seen_in_the_whole_batch(share):
    """The penalty of a share is an estimate of that of all, and in lower precision it is the same."""

    def value(share, precision=nullcontext):
        tricks = {"discrimination": MinibatchDiscrimination(kernels=6)}
        terms = {"loss": NonSaturating(), "a": ApproximateR1(1.0, share=share)}
        game, batches = make(terms, tricks=tricks, batch_size=64, precision=precision)
        return game.round(batches)["a/d"].item()

    assert value(share) == pytest.approx(value(1.0), rel=0.5)
    assert value(share, partial(torch.autocast, "cpu", torch.bfloat16)) == pytest.approx(value(share), rel=0.1)


# ---- what tricks see ----------------------------------------------------------------------------------------------------------------


class Watching(Trick):
    def __init__(self):
        super().__init__()
        self.seen = []

    def watch(self, play, player):
        assert not torch.is_grad_enabled()
        assert all(p.grad is not None for p in player.weights())
        self.seen.append((player.name, play.on_fake.logits.detach().mean().item()))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trick_watches_every_play_and_changes_nothing(accumulate):
    watching = Watching()
    game, _ = play(2, tricks={"watching": watching}, accumulate=accumulate)
    plain, _ = play(2, accumulate=accumulate)
    assert [name for name, _ in watching.seen] == 2 * [*accumulate * ["discriminator"], *accumulate * ["generator"]]
    assert torch.equal(flat(*(player.net for player in game.players.values())), flat(*(player.net for player in plain.players.values())))


class Reads(NonSaturating):
    def generator(self, play):
        self.average = play.average
        return super().generator(play)


def test_the_average_of_g_is_within_reach():
    term = Reads()
    game, _ = play(1, terms={"loss": term}, tricks={"ema": EMA(0.5)})
    assert term.average is game.sampler
    play(1, terms={"loss": term})
    assert term.average is None


# ---- rounds of other operations -----------------------------------------------------------------------------------------------------


class Steps(Schedule):
    """0, 1, 2, ...: one more every `rounds` rounds."""

    capturable = True

    def __init__(self, rounds):
        super().__init__()
        self.rounds = rounds

    def at(self, step, run):
        return step // self.rounds


class Deepening(MLPGenerator):
    """Repeats a layer as often as a schedule says."""

    capturable = True

    def __init__(self, spec, times):
        super().__init__(spec, latent=8, width=8, depth=1)
        self.more, self.times = nn.Linear(2, 2), on_host(times)

    def forward(self, z, y=None):
        x = super().forward(z, y)
        for _ in range(int(self.times.now)):
            x = self.more(x)
        return x


def deepening(times):
    return make(nets={"discriminator": D, "generator": partial(Deepening, times=times)}, optimizer=sgd)


def test_rounds_of_other_operations_are_captured_apart():
    said, ends = [], []
    for engine in (Engine, Replayed):
        game, batches = deepening(Steps(7))
        turn = engine(game, said.append).turn
        for _ in range(24):
            game.round(batches, turn)
        ends.append(flat(game))
    assert not said
    assert torch.equal(*ends)
    assert game.phase == ("loss", 3, 1.0, 1.0)


@pytest.mark.slow
def test_a_number_that_changes_in_every_round_is_left_to_eager_execution():
    said = []
    game, batches = deepening(Linear(0, 4, 40))
    turn = Replayed(game, said.append).turn
    for _ in range(40):
        game.round(batches, turn)
    assert said == [
        "trainer.engine=replay cannot execute this run, which goes on with eager: "
        "a schedule has changed the operations of a round more than 32 times"
    ]


def test_a_loaded_game_has_the_numbers_of_its_last_round():
    game, batches = deepening(Steps(2))
    for _ in range(5):
        game.round(batches)
    z = torch.randn(3, 8)
    other, _ = deepening(Steps(2))
    other.load_state_dict(game.state_dict())
    assert torch.equal(other.G(z), game.G(z))
    assert other.G.times.now == 2


# ---- the first batch ----------------------------------------------------------------------------------------------------------------


class Centred(MLPGenerator):
    def __init__(self, spec):
        super().__init__(spec, width=8, depth=1)
        self.centre = nn.Parameter(torch.zeros(2))

    def initialise(self, x, draws):
        self.centre.data.copy_(x.mean(0) + 0 * draws.normal(2).mean(0))


def test_a_generator_initialises_itself_and_its_average_from_the_first_batch():
    game, _ = make(nets={"discriminator": D, "generator": Centred}, tricks={"ema": EMA(0.5)})
    before = game.generator.get_state()
    x = torch.randn(32, 2)
    game.initialise(x)
    torch.testing.assert_close(game.G.centre.detach(), x.mean(0))
    assert torch.equal(game.sampler.centre, game.G.centre)
    assert torch.equal(game.generator.get_state(), before)


# ---- the weight of the loss in G's objective ----------------------------------------------------------------------------------------


class Slope(Penalty):
    """G: the mean of s x over its samples: linear in the weights of its last layer."""

    def __init__(self, s, every=1):
        super().__init__(1.0, every)
        self.register_buffer("s", torch.tensor(s))

    def generator(self, play):
        return (play.fake @ self.s).mean()


class Away(Loss):
    """The same as a loss, beside a D that does nothing."""

    def __init__(self, s, generator_weight):
        super().__init__(generator_weight)
        self.register_buffer("s", torch.tensor(s))

    def generator(self, play):
        return (play.fake @ self.s).mean()


def weighed(weight, every=1, rounds=1, **more):
    return play(
        rounds,
        nets={"generator": G},
        rule=Solo(),
        optimizer=sgd,
        terms={"loss": Away([3.0, 4.0], weight), "pull": Slope([0.0, 1.0], every)},
        **more,
    )[0]


@pytest.mark.parametrize("layer", [None, "head", "head."])
def test_a_balanced_weight_is_the_ratio_of_the_gradients(layer):
    """Both are linear in the output, so that their gradients at the last layer are as |(0, 1)| to |(3, 4)|."""
    game = weighed(Balanced("pull", layer and layer.rstrip(".")))
    assert game.terms["loss"].generator_weight.value.item() == pytest.approx(1 / 5, rel=1e-6)
    assert weighed(Balanced("pull", limit=0.1)).terms["loss"].generator_weight.value.item() == pytest.approx(0.1)


def test_a_weight_is_a_factor_of_the_summand():
    by_hand = play(3, nets={"generator": G}, rule=Solo(), optimizer=sgd, terms={"loss": Away([0.6, 0.8], 1.0), "pull": Slope([0.0, 1.0])})[
        0
    ]
    for weight in (0.2, Balanced("pull"), Linear(0.2, 0.2)):
        torch.testing.assert_close(flat(weighed(weight, rounds=3).G), flat(by_hand.G))
    game, batches = make(nets={"generator": G}, rule=Solo(), terms={"loss": Away([3.0, 4.0], 0.0), "pull": Slope([0.0, 1.0])})
    assert game.round(batches)["loss/g"] == 0


def test_a_balanced_weight_stays_where_the_other_is_not_due_and_is_in_the_state():
    game = weighed(Balanced("pull"), every=2, rounds=2)
    assert game.due.keys() == {"loss"}
    assert game.terms["loss"].generator_weight.value.item() == pytest.approx(1 / 5, rel=1e-6)
    assert [key for key in game.state_dict() if key.endswith("generator_weight.value")]
    game, batches = make(nets={"generator": G}, rule=Solo(), terms={"loss": Away([3.0, 4.0], Balanced("pull")), "pull": Slope([0.0, 1.0])})
    assert game.round(batches)["loss/weight"].item() == pytest.approx(1 / 5, rel=1e-6)


def test_a_balanced_weight_needs_the_whole_batch_and_a_summand_to_balance():
    with pytest.raises(ValueError, match=r"accumulate=2 cuts the batch, and loss needs all of it"):
        weighed(Balanced("pull"), accumulate=2)
    nets, spec = {"generator": G(Spec((2,)))}, Spec((2,))
    for against, layer, said in (
        ("from", None, "against=from is no penalty with a part for the generator"),
        ("loss", None, "against=loss is no penalty"),
        ("pull", "tail", r"layer=tail is no layer of the generator with weights: body\.0, body\.2, head"),
    ):
        terms = {"loss": Away([3.0, 4.0], Balanced(against, layer)), "pull": Slope([0.0, 1.0])}
        with pytest.raises(UserError, match=said):
            refuse_mismatch(nets, terms, Solo(), spec)


def test_a_loss_without_a_weight_costs_no_operation():
    assert not Hinge().weighs
    assert Hinge(0.5).weighs
    assert not list(Hinge().state_dict())


@pytest.mark.slow
def test_two_processes_balance_as_one(tmp_path):
    spawn(2, __file__, "balance", tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "balanced.pt"), flat(weighed(Balanced("pull"), rounds=3)), rtol=1e-6, atol=1e-7)


def balance(rank, folder):
    weights = flat(weighed(Balanced("pull"), rounds=3))
    if rank == 0:
        torch.save(weights, f"{folder}/balanced.pt")


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ("2", None),
        ("{_target_: gan_runner.schedules.Linear, start: 0, end: 1}", None),
        ("{_target_: gan_runner.losses.Balanced, against: feature_matching}", None),
        ("{_target_: gan_runner.losses.Balanced}", "loss.generator_weight needs against; Balanced has no default for it"),
        ("{_target_: gan_runner.priors.Uniform}", "_target_=gan_runner.priors.Uniform is not a Balanced or a Schedule"),
        ("much", "loss.generator_weight='much': expected a number, a Schedule or a Balanced"),
    ],
)
def test_the_weight_on_the_line(weight, said):
    config = compose(["dataset=ring8", f"loss.generator_weight={weight}"]).plain()
    part = next(part for part in parts.parts_of(config) if part.path == "loss")
    found = list(parts.mistakes_in(part, ()))
    assert (found == []) if said is None else said in found[0]
