"""Subjects, and what an evaluation does with them."""

import math

import pytest
import torch
from torch import nn

from gan_runner.architectures import Generator
from gan_runner.datasets import Dataset, Ring8, Samples, Spec
from gan_runner.draws import NumberedDraws
from gan_runner.errors import UserError
from gan_runner.evaluation import evaluate, findings
from gan_runner.evaluation.reference import Reference
from gan_runner.extractors import Extracted, Extractor, RandomConv
from gan_runner.metrics import Metric
from gan_runner.metrics.diversity import MSSSIM
from gan_runner.metrics.frechet_distance import FrechetDistance
from gan_runner.metrics.kernel_density import KernelDensity
from gan_runner.metrics.mode_coverage import ModeCoverage
from gan_runner.metrics.parzen import Parzen
from gan_runner.metrics.support_precision import SupportPrecisionRecall
from gan_runner.sampling import subjects
from gan_runner.sampling.subjects import Collected, Generated


class Linear(Generator):
    """x = A z + label, a point in the plane."""

    latent = 3

    def __init__(self, classes=None):
        super().__init__()
        self.classes = classes
        self.matrix = nn.Parameter(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, z, y=None):
        return self.dropout(z @ self.matrix) + (0 if y is None else y[:, None])


PLANE = Spec((2,), None)


class Mean(Metric):
    """Keeps what it was fed."""

    def __init__(self, reads=("samples",), needs=()):
        super().__init__()
        self.reads, self.needs = reads, frozenset(needs)
        self.add_state("rows", [], dist_reduce_fx="cat")

    def prefix(self, extractor):
        return "mean" if extractor is None else f"mean/{extractor.name}"

    def update(self, *values):
        self.rows.append(torch.cat([value.double().flatten(1) if value.ndim > 1 else value[:, None].double() for value in values], 1))

    def compute(self):
        return {"": torch.cat(self.rows).mean(), "n": torch.tensor(float(sum(map(len, self.rows))))}


class Double(Extractor):
    """Features are twice the points; counts its passes."""

    name, preprocessing = "double", "none"

    def __init__(self, reason=None):
        super().__init__(weights="")
        self.reason, self.passes = reason, 0

    def load(self):
        if self.reason:
            raise UserError(self.reason)

    @property
    def checksum(self):
        return None

    def forward(self, x):
        self.passes += 1
        return Extracted(2 * x, None)


class Plane(Dataset):
    spec = PLANE

    def load(self, split):
        return Samples(torch.ones(5, 2))


def looking(metrics, extractor):
    return {name: metric.look_through(extractor) for name, metric in metrics.items()}


def found(n=10, batch_size=4, metrics=None, generator=None, extractor=None, **words):
    metrics = looking(metrics or {"mean": Mean()}, extractor)
    return evaluate(Generated(generator or Linear(), n, PLANE), metrics, batch_size=batch_size, **words)


# ---- samples --------------------------------------------------------------------------------------------------------------------------


def test_a_row_is_a_function_of_the_key_and_its_number_alone():
    whole = NumberedDraws("a", indices=torch.arange(600))
    rows = [whole.normal(3), whole.integers(10), whole.uniform(2, 2)]
    some = torch.tensor([599, 0, 256, 255, 0])
    part = NumberedDraws("a", indices=some)
    for want, got in zip(rows, [part.normal(3), part.integers(10), part.uniform(2, 2)], strict=True):
        assert torch.equal(got, want[some])
    assert not torch.equal(NumberedDraws("b", indices=torch.arange(600)).normal(3), rows[0])
    assert len(rows[0].unique()) == 1800  # no row of one block is a row of another


def test_numbered_rows_follow_their_distributions():
    draws = NumberedDraws("law", indices=torch.arange(20_000))
    z, y, u = draws.normal(2), draws.integers(4), draws.uniform()
    assert z.mean().abs() < 4 / math.sqrt(40_000)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / 40_000)
    assert (y.bincount() / 20_000 - 0.25).abs().max() < 4 * math.sqrt(0.1875 / 20_000)
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * 20_000)


def test_a_sample_is_the_same_however_many_are_made():
    x, y = Generated(Linear(classes=3), 700, PLANE).at(torch.arange(700))
    parts, labels = zip(*Generated(Linear(classes=3), 30, PLANE).batches(range(10, 30), batch_size=7), strict=True)
    assert torch.allclose(torch.cat(parts), x[10:30], atol=1e-6)
    assert torch.equal(torch.cat(labels), y[10:30])


def test_making_samples_leaves_the_generator_and_the_random_state_alone():
    G, before = Linear().train(), torch.get_rng_state()
    Generated(G, 5, PLANE).at(torch.arange(5))
    assert G.training
    assert G.dropout.training
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_judged_as_the_256_levels_that_a_file_can_hold():
    x, _ = Generated(Linear(), 20, Spec((1, 1, 2))).at(torch.arange(20))
    levels = (x + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-4)


def test_collected_samples_are_read_in_order():
    items = Samples(torch.arange(12, dtype=torch.uint8).view(6, 1, 1, 2), torch.arange(6))
    for n in (None, 6, 99):
        subject = Collected(items, Spec((1, 1, 2), 6), n=n)
        x, y = zip(*subject.batches(range(subject.n), 2), strict=True)
        assert torch.allclose(torch.cat(x), items.x / 127.5 - 1)
        assert torch.cat(y).tolist() == [0, 1, 2, 3, 4, 5]
        assert subject.labelled
        assert subject.protocol() == {}


def test_a_part_of_collected_samples_is_a_choice_by_the_seed():
    """Of 100 samples of each of 10 classes, sorted: as many of each class as 100 draws without replacement give."""
    items = Samples(torch.arange(1000, dtype=torch.float32)[:, None].expand(-1, 2), torch.arange(10).repeat_interleave(100))
    subjects = [Collected(items, Spec((2,), 10), n=100, seed=seed) for seed in (0, 0, 1)]
    x, again, other = (torch.cat([x for x, _ in subject.batches(range(100), size)]) for subject, size in zip(subjects, (100, 7, 100)))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert len(x[:, 0].unique()) == 100
    counts = torch.cat([y for _, y in subjects[0].batches(range(100), 30)]).bincount(minlength=10)
    assert counts.min() >= 1
    assert (counts - 10).square().sum() / 10 < 27.9  # chi^2 of 9 degrees, 99.9 %
    assert subjects[2].protocol() == {"seed": 1, "chosen": "100 of 1000 at random"}


def test_labelled_is_what_has_labels():
    """A data set may know its classes, and one of its splits have no labels."""
    assert not Collected(Samples(torch.zeros(4, 2)), Spec((2,), 3)).labelled
    assert Collected(Samples(torch.zeros(4, 2), torch.arange(4)), Spec((2,), None)).labelled
    for labels in (torch.arange(4), torch.arange(4) - 1):
        with pytest.raises(UserError, match=r"has labels from .* expected 0 to 2, as there are 3 classes"):
            Collected(Samples(torch.zeros(4, 2), labels), Spec((2,), 3))


# ---- an evaluation ----------------------------------------------------------------------------------------------------------------------


def test_neither_batches_nor_processes_move_a_figure(monkeypatch):
    want = found(n=103, batch_size=103).numbers
    assert want["mean/n"] == 103
    for batch_size in (1, 50):
        assert found(n=103, batch_size=batch_size).numbers == pytest.approx(want, abs=1e-7)
    shares = []
    monkeypatch.setattr(findings.distributed, "agree", lambda number: number)
    monkeypatch.setattr(findings.distributed, "everyones_tensors", lambda tensors, device: list(tensors))
    for size in (1, 2, 3):
        monkeypatch.setattr(findings.distributed, "size", lambda size=size: size)
        rows = []
        for rank in range(size):
            monkeypatch.setattr(findings.distributed, "rank", lambda rank=rank: rank)
            metric = Mean()
            evaluate(Generated(Linear(), 103, PLANE), {"mean": metric}, batch_size=9)
            rows += metric.rows
        shares.append(torch.cat(rows))  # in the order of ranks, as they are gathered
    assert torch.allclose(shares[0], shares[1], atol=1e-6)
    assert torch.allclose(shares[0], shares[2], atol=1e-6)
    monkeypatch.setattr(findings.distributed, "size", lambda: 200)
    with pytest.raises(ValueError, match="103 samples cannot be shared by 200 processes"):
        found(n=103)


def test_one_pass_of_the_extractor_serves_every_metric():
    extractor = Double()
    got = found(n=10, batch_size=5, metrics={"a": Mean(("features",)), "b": Mean(("features", "samples"))}, extractor=extractor)
    assert extractor.passes == 2
    assert got.figures["a"].keys() == {"mean/double", "mean/double/n"}
    assert got.figures["a"]["mean/double"] == pytest.approx(2 * found(n=10).numbers["mean"], rel=1e-6)
    assert got.protocol["extractor"] == "double"


def test_without_a_metric_that_looks_the_extractor_is_left_alone():
    extractor = Double("no weights")
    assert found(extractor=extractor).numbers["mean"] is not None
    assert extractor.passes == 0


@pytest.mark.parametrize(
    ("metric", "extractor", "why"),
    [
        (Mean(("features",)), None, "no extractor is chosen"),
        (Mean(("features",)), Double("no file x.pth"), "no file x.pth"),
        (Mean(needs=("reference",)), None, "no real samples to compare with"),
        (Mean(needs=("discriminator",)), None, "looks at a discriminator"),
        (Mean(needs=("snapshots",)), None, "use gan-eval run=RUN_DIR"),
        (Mean(needs=("labels",)), None, "labels of both"),
        (Mean(needs=("log_prob",)), None, "no generator is there that overrides log_prob"),
        (Mean(needs=("encoder",)), None, "no generator is there that overrides encode"),
        (Mean(needs=("clock",)), None, "use gan-eval run=RUN_DIR"),
        (Mean(needs=("clock", "encoder")), None, "use gan-eval run=RUN_DIR; it asks from which latents"),
    ],
)
def test_what_cannot_be_computed_is_null_with_its_reason_and_the_rest_is_there(metric, extractor, why):
    got = found(metrics={"a": metric, "fine": Mean()}, extractor=extractor)
    assert list(got.figures["a"].values()) == [None]
    assert why in got.protocol["missing"]["a"]
    assert all(value is not None for value in got.figures["fine"].values())


class Likely(Linear):
    """Knows how probable data are."""

    def log_prob(self, x, y, draws):
        return -x.square().sum(1)


class Encoding(Linear):
    """Knows latents of data."""

    def encode(self, x, y, draws):
        return x


class Inheriting(Likely, Encoding):
    """Overrides nothing itself."""


@pytest.mark.parametrize("promised", [False, True])
@pytest.mark.parametrize(
    ("kind", "needs"), [(Linear, ()), (Likely, ("log_prob",)), (Encoding, ("encoder",)), (Inheriting, ("log_prob", "encoder"))]
)
def test_what_a_generator_can_do_is_what_its_class_overrides(monkeypatch, kind, needs, promised):
    """promised: the base class has the verbs, which refuse."""
    for verb in ("log_prob", "encode") if promised else ():
        monkeypatch.setattr(Generator, verb, lambda self, x, y, draws: pytest.fail("not overridden"), raising=False)
    metrics = {need: Mean(needs=(need,)) for need in ("log_prob", "encoder")}
    for name, metric in metrics.items():
        metric.prefix = lambda extractor, name=name: name
    got = found(metrics=metrics, generator=kind())
    assert {name for name in metrics if got.numbers.get(name) is not None} == set(needs)
    assert {name for name in metrics if name in got.protocol.get("missing", {})} == metrics.keys() - set(needs)
    collected = evaluate(Collected(Samples(torch.ones(5, 2), None), PLANE), metrics)
    assert collected.protocol["missing"].keys() == metrics.keys(), "there is no generator"


def broken(spec, value):
    """A generator that emits this in one sample of 40 or so."""
    generator = Linear()
    generator.forward = lambda z, y=None: torch.where(z[:, :1] > 2, value, z[:, :2]).view(-1, *spec.shape)
    return generator


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spec", [PLANE, Spec((1, 1, 2), None)])
def test_a_generator_that_gives_nan_or_inf_has_no_figures(spec, value):
    """As pixels, nan would be black, inf white and -inf black."""
    got = evaluate(Generated(broken(spec, value), 500, spec), {"a": Mean()}, batch_size=100)
    assert got.figures["a"] == {"mean": None}
    assert got.protocol["missing"] == {"a": "not all samples are finite (nan or inf)"}


def test_points_through_a_network_that_takes_images_have_no_figure_but_a_reason():
    got = found(metrics={"fd": FrechetDistance()}, extractor=RandomConv(width=8), reference=Reference(Plane()))
    assert list(got.numbers.values()) == [None]
    assert "takes images, N C H W, and was given 1 x 2" in got.protocol["missing"]["fd"]


def test_samples_that_are_not_finite_are_not_called_black():
    generator = Linear()
    generator.forward = lambda z, y=None: torch.full((len(z), 1, 1, 2), math.nan)
    got = evaluate(Generated(generator, 5, Spec((1, 1, 2))), {"a": Mean()})
    assert "notes" not in got.protocol


def test_real_images_that_are_floats_and_not_finite_end_no_evaluation():
    images, x = Plane(), torch.zeros(5, 1, 12, 12)
    x[3, 0, 0, 0] = math.nan
    images.spec, images.load = Spec((1, 12, 12)), lambda split: Samples(x)
    generator = Linear()
    generator.forward = lambda z, y=None: z[:, :1].tanh().view(-1, 1, 1, 1).expand(-1, 1, 12, 12)
    got = evaluate(Generated(generator, 50, images.spec), {"a": MSSSIM(images.spec, pairs=40)}, reference=Reference(images))
    assert got.numbers == {"ms_ssim": None}
    assert "finite" in got.protocol["missing"]["a"]
    assert "notes" not in got.protocol, "floats up to 1 are not nearly black"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_metric_has_a_figure_of_samples_that_are_not_finite(value):
    """Also those that refuse such samples themselves, that are fed nothing, or that would be fed features of them; and nothing ends."""
    ring, extractor = Ring8(n=64), Double()
    metrics = {
        "parzen": Parzen(),
        "kde": KernelDensity(ring.spec),
        "support": SupportPrecisionRecall(ring.spec, n_precision=500, n_recall=2, steps=1),
        "modes": ModeCoverage(ring.spec),
        "fd": FrechetDistance(),
    }
    subject = Generated(broken(PLANE, value), 500, PLANE)
    got = evaluate(subject, looking(metrics, extractor), Reference(ring, "train"), batch_size=100)
    assert {*got.numbers.values()} == {None}
    assert got.protocol["missing"] == dict.fromkeys(metrics, "not all samples are finite (nan or inf)")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_images_that_are_not_finite_are_as_alike_as_nobody_knows(value):
    spec = Spec((1, 12, 12))
    generator = Linear()
    generator.forward = lambda z, y=None: torch.where(z[:, :1] > 2, value, z[:, :1]).view(-1, 1, 1, 1).expand(-1, *spec.shape)
    images = Plane()
    images.spec, images.load = spec, lambda split: Samples(torch.zeros(5, 1, 12, 12, dtype=torch.uint8))
    got = evaluate(Generated(generator, 500, spec), {"a": MSSSIM(spec, pairs=400)}, reference=Reference(images))
    assert got.numbers == {"ms_ssim": None}
    assert got.protocol["missing"] == {"a": "not all samples are finite (nan or inf)"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_real_samples_that_are_not_finite_give_no_figure(value):
    ring, extractor = Ring8(n=64), Double()
    x = ring.load("test").x
    x[3, 1] = value
    ring.load = lambda split: Samples(x)
    metrics = {"kde": KernelDensity(ring.spec), "parzen": Parzen(), "fd": FrechetDistance()}
    got = evaluate(Generated(Linear(), 50, PLANE), looking(metrics, extractor), Reference(ring, "train"))
    assert {*got.numbers.values()} == {None}
    assert all("finite" in reason for reason in got.protocol["missing"].values())


# ---- labels that are asked for --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [0, 2, torch.tensor(1), torch.arange(6) % 3, [2, 1, 0, 2, 1, 0], torch.zeros(6, dtype=torch.uint8)])
def test_labels_are_those_that_are_asked_for(y):
    _, labels = Generated(Linear(classes=3), 6, PLANE, y=y).at(torch.arange(6))
    assert labels.dtype == torch.int64
    assert torch.equal(labels, torch.as_tensor(y).long().expand(6))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (99, "y=99: a class number of this generator is 0 to 2"),
        (3, "0 to 2"),
        (-1, "y=-1"),
        (torch.tensor([0, 1, 2, 3, 0, 0]), "y=3"),
        (torch.tensor([0, 1, 2, -2, 0, 0]), "y=-2"),
        (torch.zeros(5, dtype=torch.int64), r"or 6 of them, and not torch.int64 of shape \(5,\)"),
        (torch.zeros(6, 1, dtype=torch.int64), r"shape \(6, 1\)"),
        (torch.zeros(1, dtype=torch.int64), r"shape \(1,\)"),
        (torch.zeros(6), "not torch.float32"),
        (1.0, "not torch.float32"),
        (True, "not torch.bool"),
        ("cat", "and not str"),
        (["cat"] * 6, "and not list"),
    ],
)
def test_labels_of_no_class_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        subjects.samples(Linear(classes=3), 6, y=y)
    with pytest.raises(ValueError, match="this generator takes no labels"):
        subjects.samples(Linear(), 6, y=y)


def test_logits_of_an_extractor_that_is_no_classifier_are_refused():
    with pytest.raises(UserError, match="metric a reads logits, and the extractor is no classifier"):
        found(metrics={"a": Mean(("logits",))}, extractor=Double())


def test_the_protocol_says_what_was_compared_with_what():
    reference = Reference(Plane(), "test")
    got = found(n=10, metrics={"a": Mean(needs=("reference",))}, reference=reference)
    assert got.protocol.pop("keys") == {"mean": {"metric": "a", "reads": "reference, samples"}}
    assert got.protocol == {"n_fake": 10, "seed": 0, "real": "plane:test", "n_real": 5, "real_sha256": Plane().checksum("test")}


def test_an_evaluation_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    found(n=300)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_line_says_which_way_each_figure_is_better():
    mean, none, other = Mean(), Mean(needs=("discriminator",)), Mean()
    mean.better, none.better = {"n": "max"}, "min"
    none.prefix, other.prefix = lambda extractor: "none", lambda extractor: "other"
    got = found(metrics={"a": mean, "b": none, "c": other})
    assert got.better == {"mean/n": "max", "none": "min"}, "also of a figure that is null"
    line = got.line(3, 30, protocol={})
    assert line == {"step": 3, "images": 30, "metrics": got.numbers, "better": got.better, "protocol": {}}


class Absent(RandomConv):
    """A network whose weights are not there."""

    def available(self):
        return "its weights are not there"


@pytest.mark.parametrize(("shape", "said"), [((3, 8, 8), "its weights are not there"), ((2,), "takes images, N C H W")])
def test_a_network_is_named_once_and_its_weights_are_not_asked_for_where_it_does_not_take_the_samples(shape, said):
    metrics = {f"m{i}": FrechetDistance().look_through(Absent()) for i in range(2)} | {"other": Mean(needs=["snapshots"])}
    samples = Collected(Samples(torch.zeros(4, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32)), Spec(shape), 4)
    found = findings.by_reason(findings.unmeasurable(metrics, samples, None))
    ((reason, _),) = [pair for pair in found.items() if pair[1] == "m0, m1"]
    assert said in reason
    assert "weights" not in reason or len(shape) == 3
    assert sorted(found.values()) == ["m0, m1", "other"]
