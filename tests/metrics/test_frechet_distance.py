"""The Frechet distance against closed forms, laws and other libraries; over batches and processes."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.metrics.classifier import ClassifierScore
from gan_runner.metrics.frechet_distance import CHUNK, FrechetDistance, IntraClassFrechet, frechet, joined
from gan_runner.metrics.frechet_infinity import FrechetInfinity, line

EPSILON = 2.0**-52


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d, seed=0):
    return torch.linalg.qr(normal(d, d, seed=seed))[0]


def given(mean, covariance):
    """Moments that have this mean and covariance."""
    covariance = torch.as_tensor(covariance, dtype=torch.float64)
    n = 2**20 + 1  # a power of 2 to multiply by and to divide by: nothing is rounded
    scatter = (n - 1) * (covariance + covariance.T) / 2
    return Moments(torch.tensor(float(n), dtype=torch.float64), torch.as_tensor(mean, dtype=torch.float64), scatter)


def turned(q, spectrum):
    return (q * spectrum) @ q.T


def named(standard=False):
    return SimpleNamespace(name="net", named=lambda own, published: f"{published if standard else own}/net")


def real(features, labels=None, names=None):
    moments = features if isinstance(features, Moments) else Moments.of(features)
    return SimpleNamespace(features=lambda: features, moments=lambda: moments, labels=labels, split="train", class_names=names)


def figures(metric, reference, *batches, extractor=None):
    metric.reference = reference
    for batch in batches:
        metric.update(*batch) if isinstance(batch, tuple) else metric.update(batch)
    return {key: value.item() for key, value in metric.figures(extractor or named()).items()}


# ---- closed forms -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 8, 100])
def test_covariances_that_commute(d):
    """|m1 - m2|^2 + sum (sqrt l1 - sqrt l2)^2."""
    q, m, l1, l2 = rotation(d), normal(2, d, seed=1), normal(d, seed=2).square() + 0.1, normal(d, seed=3).square() + 0.1
    want = (m[0] - m[1]).square().sum() + (l1.sqrt() - l2.sqrt()).square().sum()
    got = frechet(given(m[0], turned(q, l1)), given(m[1], turned(q, l2)))
    assert got.dtype == torch.float64
    assert got.shape == ()
    assert got.item() == pytest.approx(want.item(), rel=1e-12)


def test_eight_dimensions_by_hand():
    """Means apart by 1/2 in each coordinate, variances 1 ... 8 against 1: 8/4 + sum (sqrt k - 1)^2."""
    got = frechet(given([0.5] * 8, torch.diag(torch.arange(1.0, 9))), given([0.0] * 8, torch.eye(8)))
    assert got.item() == pytest.approx(2 + sum((math.sqrt(k) - 1) ** 2 for k in range(1, 9)), rel=1e-13)


def test_one_dimension():
    assert frechet(given([3.0], [[4.0]]), given([1.0], [[25.0]])).item() == pytest.approx(4 + 9, rel=1e-14)


def test_two_dimensions():
    """tr sqrt(A) = sqrt(tr A + 2 sqrt(det A)) for A = S1 S2, 2 x 2."""
    for seed in range(20):
        a, b = (x @ x.T for x in normal(2, 2, 2, seed=seed))
        root = (torch.trace(a @ b) + 2 * (torch.det(a) * torch.det(b)).sqrt()).sqrt()
        want = torch.trace(a) + torch.trace(b) - 2 * root
        assert frechet(given([0.0, 0], a), given([0.0, 0], b)).item() == pytest.approx(want.item(), rel=1e-11)


@pytest.mark.parametrize("d", [2, 30, 300])
def test_covariances_of_rank_one(d):
    """|a|^2 + |b|^2 - 2 |a.b| for S1 = a a^T, S2 = b b^T."""
    a, b = normal(2, d)
    got = frechet(given(torch.zeros(d), torch.outer(a, a)), given(torch.zeros(d), torch.outer(b, b)))
    assert got.item() == pytest.approx((a @ a + b @ b - 2 * (a @ b).abs()).item(), rel=1e-12)


def test_a_singular_covariance_against_a_regular_one():
    """S1 = B B^T of rank 3: the trace is the nuclear norm of B^T L2. Rounding in the null space would show as 1e-8."""
    b, s2 = normal(40, 3), turned(rotation(40, 1), normal(40, seed=2).square() + 0.5)
    want = torch.trace(b @ b.T) + torch.trace(s2) - 2 * torch.linalg.svdvals(b.T @ torch.linalg.cholesky(s2)).sum()
    zero = torch.zeros(40)
    for pair in ((b @ b.T, s2), (s2, b @ b.T)):
        assert frechet(*(given(zero, s) for s in pair)).item() == pytest.approx(want.item(), rel=1e-12)


@pytest.mark.parametrize(("n1", "n2"), [(20, 20), (20, 35), (64, 20), (20, 500), (2, 2), (64, 65)])
def test_fewer_samples_than_features(n1, n2):
    """The trace is the nuclear norm of X1 X2^T, centred, over sqrt((n1 - 1)(n2 - 1))."""
    x, y = normal(n1, 64) @ normal(64, 64, seed=1), normal(n2, 64, seed=2) + 0.3
    centred = [(a - a.mean(0)) / math.sqrt(len(a) - 1) for a in (x, y)]
    want = (x.mean(0) - y.mean(0)).square().sum() + sum(a.square().sum() for a in centred)
    want -= 2 * torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    assert frechet(Moments.of(x), Moments.of(y)).item() == pytest.approx(want.item(), rel=1e-11)


@pytest.mark.parametrize("dull", ["nothing", "constant", "repeated", "nearly"])
def test_singular_covariances_are_as_exact_by_the_quick_route(dull, monkeypatch):
    """One factor by Cholesky, which the first features may be too dull for; wanted is the norm of centred rows."""
    x, y = features(120, 160, 0.3, 0), features(150, 160, 0.2, 1)
    for rows in (x, y):
        if dull == "constant":
            rows[:, 3] = 0.5
        elif dull != "nothing":
            rows[:, 3] = rows[:, 2] + (1e-6 * rows[:, 4] if dull == "nearly" else 0)
    centred = [(a - a.mean(0)) / math.sqrt(len(a) - 1) for a in (x, y)]
    want = (x.mean(0) - y.mean(0)).square().sum() + sum(a.square().sum() for a in centred)
    want -= 2 * torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    monkeypatch.setattr(torch.linalg, "svdvals", None)
    if dull == "nothing":
        monkeypatch.setattr(torch.linalg, "eigh", None)
    for pair in ((x, y), (y, x)):
        assert frechet(*map(Moments.of, pair)).item() == pytest.approx(want.item(), rel=1e-9)


@pytest.mark.parametrize("d", [1, 3, 64])
@pytest.mark.parametrize("n", [2, 20, 64, 65, 1000])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_identical_samples_are_at_distance_zero(d, n, offset):
    x = normal(n, d) + offset
    assert frechet(Moments.of(x), Moments.of(x.flip(0))).item() == pytest.approx(0, abs=1e-9)


def test_constant_features():
    c = torch.full((5, 7), 0.1)
    assert frechet(Moments.of(c), Moments.of(c)).item() == 0
    assert frechet(Moments.of(c), Moments.of(c + 1)).item() == pytest.approx(7, rel=1e-6)  # float32 rows
    x = normal(50, 7)
    want = (x.mean(0) - 0.1).square().sum() + torch.trace(torch.cov(x.T))
    assert frechet(Moments.of(c.double()), Moments.of(x)).item() == pytest.approx((want + 0.0).item(), rel=1e-7)
    one = x.clone()
    one[:, 3] = 2.0
    assert frechet(Moments.of(one), Moments.of(one)).item() == pytest.approx(0, abs=1e-9)


def test_features_of_very_different_scales_keep_their_digits():
    scale = torch.logspace(0, -9, 10, dtype=torch.float64)
    l1, l2 = (1 + normal(10, seed=seed).square() for seed in (0, 1))
    got = frechet(given(torch.zeros(10), torch.diag(scale.square() * l1)), given(torch.zeros(10), torch.diag(l2)))
    want = (scale * l1.sqrt() - l2.sqrt()).square().sum()
    assert got.item() == pytest.approx(want.item(), rel=1e-14)


# ---- laws -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [15, 200])  # singular and regular
def test_symmetry_and_invariance(n):
    x, y, q = normal(n, 30) @ normal(30, 30, seed=1), normal(n + 9, 30, seed=2), rotation(30, 3)
    distance = frechet(Moments.of(x), Moments.of(y)).item()

    def of(a, b):
        return frechet(Moments.of(a), Moments.of(b)).item()

    assert of(y, x) == pytest.approx(distance, rel=1e-11)
    assert of(x @ q, y @ q) == pytest.approx(distance, rel=1e-11)
    assert of(x + 7, y + 7) == pytest.approx(distance, rel=1e-11)
    assert of(3 * x, 3 * y) == pytest.approx(9 * distance, rel=1e-11)
    assert distance > 1


def spectra(d):
    for k in (2, 4, 6, 8):
        yield k, torch.logspace(0, -k, d, dtype=torch.float64)
        yield k, torch.cat([torch.ones(d // 2), torch.full((d - d // 2,), 10.0**-k)]).double()
        yield k, torch.cat([torch.ones(1), torch.full((d - 1,), 10.0**-k)]).double()


@pytest.mark.parametrize(
    ("apart", "quick", "slow"),
    [
        (1.0, {2, 4, 6}, set()),  # of 8, the smallest eigenvalue is below epsilon times the largest: rounding says whether it is above 0
        (1e-3, {2}, {6, 8}),  # sets that are nearly alike need the singular values; of 4, the bound on the error is near TOLERANCE
    ],
)
def test_both_routes_agree(apart, quick, slow, monkeypatch):
    """The quick route is taken only where it is as good as the nuclear norm, to 1e-6, whatever the spectra; most are far nearer.

    Of spectra that span 10^k, which route is taken is certain for some k, and left to the rounding of the machine for others.
    """
    calls = []
    singular_values = torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda a: calls.append(1) or singular_values(a))
    for seed, (k, spectrum) in enumerate(spectra(96)):
        q = rotation(96, seed)
        other = torch.linalg.qr(q + apart * normal(96, 96, seed=99) / 96**0.5)[0]
        s1, s2 = turned(q, spectrum), turned(other, spectrum * (1 + apart * normal(96, seed=98).abs()))
        a, b = given(torch.zeros(96), s1), given(torch.zeros(96), s2)
        calls.clear()
        got = frechet(a, b).item()
        assert k not in (quick if calls else slow), f"spectrum {seed}, over 10^{k}"
        traces = (a.covariance.trace() + b.covariance.trace()).item()
        product = torch.linalg.cholesky(a.covariance).T @ torch.linalg.cholesky(b.covariance)
        want = traces - 2 * singular_values(product).sum().item()
        assert got == pytest.approx(want, rel=1e-6, abs=20 * EPSILON * traces)  # 20: what the traces themselves lose to rounding


def test_the_bias_of_small_samples():
    """E of the distance between two samples of N(0, I_d): (2 d + d (d + 1) / 2) / N, up to order 1 / N^2."""
    d, n = 64, 10_000
    got = [frechet(Moments.of(normal(n, d, seed=2 * i)), Moments.of(normal(n, d, seed=2 * i + 1))).item() for i in range(12)]
    assert np.mean(got) == pytest.approx((2 * d + d * (d + 1) / 2) / n, rel=0.03)  # 0.9 % noise of 12 repetitions, d / N = 0.6 % of order 2


# ---- other libraries --------------------------------------------------------------------------------------------------------------------


def features(n, d, shift, seed):
    """ReLU of normal numbers with a spectrum like 1 / k: what features of a network look like."""
    spectrum = torch.arange(1, d + 1, dtype=torch.float64) ** -0.5
    return ((normal(n, d, seed=seed) * spectrum) @ normal(d, d, seed=77) + shift).relu()


@pytest.mark.parametrize("n", [600, 3000])
def test_torch_fidelity_says_the_same(n):
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = features(n, 128, 0.3, 0), features(n + 50, 128, 0.2, 1)
    want = fid.fid_statistics_to_metric(fid.fid_features_to_statistics(x), fid.fid_features_to_statistics(y), False)
    assert frechet(Moments.of(x), Moments.of(y)).item() == pytest.approx(want["frechet_inception_distance"], rel=1e-9)


def test_torchmetrics_says_the_same():
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = features(1000, 32, 0.3, 0), features(900, 32, 0.2, 1)
    identity = nn.Identity()
    identity.num_features = 32
    other = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
    other.update(x, real=False)
    other.update(y, real=True)
    assert frechet(Moments.of(x), Moments.of(y)).item() == pytest.approx(other.compute().item(), rel=1e-6)


# ---- refusals ---------------------------------------------------------------------------------------------------------------------------


def test_what_has_no_distance_is_refused():
    fine = Moments.of(normal(9, 3))
    with pytest.raises(ValueError, match="at least 2 samples on each side, and the first has 1"):
        frechet(Moments.of(normal(1, 3)), fine)
    with pytest.raises(ValueError, match="and the second has 0"):
        frechet(fine, Moments.zero(3))
    with pytest.raises(ValueError, match="there are 3 and 4"):
        frechet(fine, Moments.of(normal(9, 4)))
    for bad in (math.nan, math.inf):
        x = normal(9, 3)
        x[4, 1] = bad
        with pytest.raises(ValueError, match="features of the second side are not finite"):
            frechet(fine, Moments.of(x))
        with pytest.raises(UserError, match=r"features of the first side are not finite .*first: the samples that are judged"):
            figures(FrechetDistance(), real(normal(9, 3)), x)
    with pytest.raises(UserError, match="the first has 1"):
        figures(FrechetDistance(), real(normal(9, 3)), normal(1, 3))


# ---- the metric -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 100, CHUNK, CHUNK + 1, 1300])
def test_the_figure_has_the_same_bits_for_any_batch(batch):
    x, reference = normal(1300, 8).float(), real(normal(900, 8, seed=1) + 0.5)
    want = figures(FrechetDistance(), reference, x)
    metric = FrechetDistance()
    for _ in range(2):
        assert figures(metric, reference, *x.split(batch)) == want
        assert sum(map(len, metric.waiting)) < CHUNK
        metric.reset()
    assert want == {"fd/net": pytest.approx(frechet(Moments.of(x), reference.moments()).item(), rel=1e-12)}


def test_the_state_does_not_grow_with_the_samples():
    metric = FrechetDistance()
    for _ in range(30):
        metric.update(normal(100, 4).float())
    assert metric.moments.shape == (5, 5)
    assert [len(rows) for rows in metric.waiting] == [3000 % CHUNK]
    assert metric.waiting[0].untyped_storage().nbytes() == 3000 % CHUNK * 4 * 4  # no view of all there was


def test_published_names_are_for_the_published_network():
    assert FrechetDistance().prefix(named()) == "fd/net"
    assert FrechetDistance().prefix(named(standard=True)) == "fid/net"
    assert IntraClassFrechet().prefix(named(standard=True)) == "intra_fid/net"
    assert FrechetInfinity().prefix(named(standard=True)) == "fid_infinity/net"


@pytest.mark.parametrize("shards", [[1000], [300, 700], [1, 2, 997]])
def test_states_of_processes_join(shards):
    x = normal(1000, 5) + 3
    whole = Moments.unpacked(joined(torch.stack([Moments.of(part).packed for part in x.split(shards)])))
    assert whole.n == 1000
    assert torch.allclose(whole.covariance, torch.cov(x.T), rtol=1e-12, atol=1e-12)


def part(rank, folder):
    """What one of two processes does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {name: figures(*make(), *batches.split([cut, len(batches) - cut])[rank].split(100)) for name, make, batches, cut in shared()}
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def shared():
    """Metrics, what they see, and where two processes part it: less than a chunk, whole chunks, and uneven."""
    x, reference = normal(1300, 8), real(normal(900, 8, seed=1) + 0.5)
    for n, cut in ((300, 100), (3 * CHUNK - 236, 2), (1300, CHUNK), (1300, 700)):
        yield f"frechet {n} {cut}", lambda: (FrechetDistance(), reference), x[:n], cut
    yield "score", lambda: (ClassifierScore(), None), 3 * x, 433
    infinity = {"smallest": 300, "points": 4}
    yield "infinity", lambda: (FrechetInfinity(**infinity), reference), x, 700


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], env=environment) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    two = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert two[0] == two[1]
    for name, make, batches, _ in shared():
        assert two[0][name] == pytest.approx(figures(*make(), batches), rel=1e-12)
        assert all(math.isfinite(value) for value in two[0][name].values())


# ---- endless samples --------------------------------------------------------------------------------------------------------------------


def test_a_line_is_found_again():
    sizes = [100, 150, 200, 400]
    x = 1 / torch.tensor(sizes, dtype=torch.float64)
    assert [value.item() for value in line(sizes, 3 + 50 * x)] == pytest.approx([3, 50, 0], abs=1e-10)
    noisy = 3 + 50 * x + torch.tensor([0.1, -0.2, 0.05, 0.1])
    (slope, intercept), covariance = np.polyfit(x.numpy(), noisy.numpy(), 1, cov=True)
    assert [value.item() for value in line(sizes, noisy)] == pytest.approx([intercept, slope, math.sqrt(covariance[1, 1])], rel=1e-9)
    with pytest.raises(ValueError, match=r"at least 3 different sizes, not \[5, 9\]"):
        line([5, 9, 9], torch.ones(3))


def test_extrapolation_takes_the_bias_away():
    """Against exact moments half of the bias is left: (d + d (d + 1) / 4) / N, and its slope over 1 / N is d + d (d + 1) / 4."""
    d, n = 24, 6000
    reference = real(given(torch.zeros(d), torch.eye(d)))
    x = normal(n, d)
    metric = FrechetInfinity(smallest=500, points=15)
    got = figures(metric, reference, *x.split(999))
    bias = d + d * (d + 1) / 4
    assert frechet(Moments.of(x), reference.moments()).item() == pytest.approx(bias / n, rel=0.25)  # 300 squares: 8 % noise
    assert abs(got["fd_infinity/net"]) < 0.15 * bias / n
    assert got["fd_infinity/net/slope"] == pytest.approx(bias, rel=0.1)
    assert 0 < got["fd_infinity/net/standard_error"] < 0.15 * bias / n
    assert metric.sizes[0] == 500
    assert metric.sizes[-1] == n
    assert set(np.diff(metric.sizes)) <= {392, 393}
    before = torch.get_rng_state()
    pictures = metric.pictures(None)
    assert figures(FrechetInfinity(smallest=500), reference, x) == got
    assert torch.equal(before, torch.get_rng_state())
    assert list(pictures) == ["fit"]
    assert pictures["fit"].dtype == torch.uint8
    assert pictures["fit"].shape == (3, 400, 600)
    assert len(pictures["fit"].flatten(1).unique(dim=1).T) > 10


def test_extrapolation_asks_for_samples():
    with pytest.raises(
        UserError, match=r"from smallest=5000 on, and there are 40; make more, or set metric.frechet_infinity.smallest .* 10"
    ):
        figures(FrechetInfinity(), real(normal(50, 3)), normal(40, 3))


# ---- within classes ---------------------------------------------------------------------------------------------------------------------


def test_distances_within_classes():
    x, y = normal(400, 4), torch.arange(400) % 3
    z, labels = normal(500, 4, seed=1), torch.arange(500) * 7 % 3
    x = x + y[:, None]
    got = figures(IntraClassFrechet(), real(z.float(), labels), *zip(x.split(33), y.split(33), strict=True))
    each = [frechet(Moments.of(x[y == k].float()), Moments.of(z[labels == k].float())).item() for k in range(3)]
    assert got == {"intra_fd/net": pytest.approx(sum(each) / 3), **{f"intra_fd/net/{k}": pytest.approx(each[k]) for k in range(3)}}
    assert each[2] > each[1] > each[0]
    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert figures(IntraClassFrechet(), real(z.float(), labels), (x[shuffled], y[shuffled])) == pytest.approx(got, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "said"), [(50, 60, []), (8, 60, ["8 samples for 8"]), (50, 7, ["7 real samples for 8"])])
def test_no_more_samples_than_features_are_noted(n, m, said):
    metric = FrechetDistance()
    figures(metric, real(normal(m, 8).float()), (normal(n, 8, seed=1),))
    assert len(metric.notes()) == len(said)
    assert all(note.startswith(start) for start, note in zip(said, metric.notes()))


def test_a_generator_that_ignores_the_label_is_found_out():
    """Its samples are right as a whole and wrong within each class."""
    y = torch.arange(2000) % 2
    z = normal(2000, 2) + 10 * y[:, None]
    blind = normal(2000, 2, seed=1) + 10 * y.roll(1)[:, None]
    assert frechet(Moments.of(blind), Moments.of(z)).item() < 0.1
    assert figures(IntraClassFrechet(), real(z, y), (blind, y))["intra_fd/net"] == pytest.approx(200, rel=0.05)


def test_classes_need_two_samples_on_both_sides():
    labels = torch.tensor([0, 0, 1, 1, 2])
    y = torch.tensor([0, 0, 1, 2, 2])
    with pytest.raises(
        UserError, match=r"at least 2 samples of each on both sides; class 1: 1 samples, 2 real ones; class 2: 2 samples, 1 real"
    ):
        figures(IntraClassFrechet(), real(normal(5, 2), labels), (normal(5, 2), y))
    with pytest.raises(UserError, match="class dog: 1 samples, 2 real ones; class ship: 2 samples, 1 real"):
        figures(IntraClassFrechet(), real(normal(5, 2), labels, ("cat", "dog", "ship")), (normal(5, 2), y))


if __name__ == "__main__":
    part(int(sys.argv[1]), sys.argv[2])
