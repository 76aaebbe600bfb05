"""Subjects, and what an evaluation does with them."""

import math

import pytest
import torch
from torch import nn

from gan_runner import evaluation
from gan_runner.architectures import Generator
from gan_runner.datasets import Dataset, Samples, Spec
from gan_runner.draws import NumberedDraws
from gan_runner.errors import UserError
from gan_runner.evaluation import Findings, evaluate, over_seeds, student_t
from gan_runner.extractors import Extracted, Extractor
from gan_runner.metrics import Metric
from gan_runner.reference import Reference
from gan_runner.subjects import Collected, Generated


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


def found(n=10, batch_size=4, metrics=None, generator=None, **words):
    return evaluate(Generated(generator or Linear(), n, PLANE), metrics or {"mean": Mean()}, batch_size=batch_size, **words)


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
    subject = Collected(items, Spec((1, 1, 2), 6), n=5)
    x, y = zip(*subject.batches(range(5), 2), strict=True)
    assert torch.allclose(torch.cat(x), items.x[:5] / 127.5 - 1)
    assert torch.cat(y).tolist() == [0, 1, 2, 3, 4]
    assert subject.labelled


# ---- an evaluation ----------------------------------------------------------------------------------------------------------------------


def test_neither_batches_nor_processes_move_a_figure(monkeypatch):
    want = found(n=103, batch_size=103).numbers
    assert want["mean/n"] == 103
    for batch_size in (1, 50):
        assert found(n=103, batch_size=batch_size).numbers == pytest.approx(want, abs=1e-7)
    shares = []
    monkeypatch.setattr(evaluation.distributed, "agree", lambda number: number)
    for size in (1, 2, 3):
        monkeypatch.setattr(evaluation.distributed, "size", lambda size=size: size)
        rows = []
        for rank in range(size):
            monkeypatch.setattr(evaluation.distributed, "rank", lambda rank=rank: rank)
            metric = Mean()
            evaluate(Generated(Linear(), 103, PLANE), {"mean": metric}, batch_size=9)
            rows += metric.rows
        shares.append(torch.cat(rows))  # in the order of ranks, as they are gathered
    assert torch.allclose(shares[0], shares[1], atol=1e-6)
    assert torch.allclose(shares[0], shares[2], atol=1e-6)
    monkeypatch.setattr(evaluation.distributed, "size", lambda: 200)
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
    assert found(extractor=extractor).numbers["mean/double"] is not None


@pytest.mark.parametrize(
    ("metric", "extractor", "why"),
    [
        (Mean(("features",)), None, "no extractor is chosen"),
        (Mean(("features",)), Double("no file x.pth"), "no file x.pth"),
        (Mean(needs=("reference",)), None, "no real samples to compare with"),
        (Mean(needs=("discriminator",)), None, "looks at a discriminator"),
        (Mean(needs=("snapshots",)), None, "use gan-eval run=RUN_DIR"),
        (Mean(needs=("labels",)), None, "labels of both"),
    ],
)
def test_what_cannot_be_computed_is_null_with_its_reason_and_the_rest_is_there(metric, extractor, why):
    got = found(metrics={"a": metric, "fine": Mean()}, extractor=extractor)
    assert list(got.figures["a"].values()) == [None]
    assert why in got.protocol["missing"]["a"]
    assert all(value is not None for value in got.figures["fine"].values())


@pytest.mark.parametrize("spec", [PLANE, Spec((1, 1, 2), None)])
def test_a_generator_that_gives_nan_has_no_figures(spec):
    """As pixels, nan would be black."""
    generator = Linear()
    generator.forward = lambda z, y=None: torch.where(z[:, :1] > 2, math.nan, z[:, :2]).view(-1, *spec.shape)
    got = evaluate(Generated(generator, 500, spec), {"a": Mean()}, batch_size=100)
    assert got.figures["a"] == {"mean": None}
    assert got.protocol["missing"] == {"a": "not all samples are finite (nan or inf)"}


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


def test_figures_over_seeds_have_an_interval():
    def finding(value):
        return Findings({"a": {"a": value, "b": None}}, {}, {})

    means, intervals = over_seeds([finding(1.0), finding(2.0), finding(6.0)])
    assert means == {"a": 3.0, "b": None}
    half = 4.303 * math.sqrt(7) / math.sqrt(3)
    assert intervals == {"a": pytest.approx([3 - half, 3 + half])}


def test_student_t_approaches_the_normal_distribution():
    assert student_t(1) == 12.706
    assert student_t(30) == pytest.approx(2.042, rel=2e-3)
    assert student_t(10**6) == pytest.approx(1.96, rel=1e-3)
