"""The base of all metrics, held against that of torchmetrics."""

import copy
import pickle

import pytest
import torch
import torchmetrics
from torch import Tensor
from torchmetrics import MeanSquaredError
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef

from gan_runner.assembly.parts import LIST, locate
from gan_runner.datasets import Samples, Spec
from gan_runner.evaluation import evaluate
from gan_runner.metrics import Metric
from gan_runner.sampling.subjects import Collected
from processes import spawn


def widest(stacked):
    """A reduction of a user."""
    return stacked.abs().amax(0)


class Everything:
    """Every kind of state, and one figure of each."""

    def __init__(self):
        super().__init__()
        for name in ("sum", "mean", "max", "min"):
            self.add_state(name, torch.zeros(3, dtype=torch.float64), dist_reduce_fx=name)
        self.add_state("n", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("own", torch.zeros(3, dtype=torch.float64), dist_reduce_fx=widest)
        self.add_state("stacked", torch.zeros(3, dtype=torch.float64))
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("scalars", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, x):
        for name in ("sum", "mean", "max", "min", "own", "stacked"):
            setattr(self, name, getattr(self, name) + x.sum(0))
        self.n += len(x)
        self.rows.append(x)
        self.scalars.append(x.mean())
        self.labels.append(x[:, 0].mul(100).long())
        assert not (x + torch.zeros(3, requires_grad=True)).requires_grad  # an update builds no graph

    def compute(self):
        found = {name: getattr(self, name) for name in ("sum", "mean", "max", "min", "n", "own", "stacked")}
        listed = {name: getattr(self, name) for name in ("rows", "scalars", "labels")}
        return found | {
            name: rows if isinstance(rows, Tensor) else torch.cat([row.reshape(1) if row.ndim == 0 else row for row in rows])
            for name, rows in listed.items()
        }


class Ours(Everything, Metric):
    """On the project's base."""


class Theirs(Everything, torchmetrics.Metric):
    """On torchmetrics'."""


NAMES = {f"dim_zero_{name}": name for name in ("sum", "mean", "max", "min", "cat")}


def ported(kind):
    """A metric of torchmetrics with the project's base below it, which has to supply all that its formulas rely on."""

    class Ported(Metric):
        dtype = torch.float32
        update, compute = kind.update, kind.compute

        def __init__(self):
            super().__init__()
            model = kind()
            vars(self).update(
                {key: value for key, value in vars(model).items() if key not in {*vars(self), *model._defaults, "update", "compute"}}
            )
            for name, default in model._defaults.items():
                reduction = model._reductions[name]
                self.add_state(name, default, getattr(reduction, "__name__", None) and NAMES.get(reduction.__name__, reduction))

    return Ported()


REAL = (MeanSquaredError, PearsonCorrCoef, SpearmanCorrCoef)  # states that are summed, stacked, and rows
SHARES = ((40, 40), (7, 73), (70, 10))  # two batches or more: torchmetrics waits for ever where one process has a single scalar


def points(n=80, seed=0):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fed(metric, x, size=3):
    """The figures of a metric that was given x in batches."""
    for batch in x.split(size):
        metric.update(*(batch.float().unbind(1)[:2] if not isinstance(metric, Everything) else [batch]))
    return metric.compute()


def same(a, b):
    a, b = (value if isinstance(value, dict) else {"": value} for value in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[key].squeeze(), b[key].squeeze()) and a[key].dtype == b[key].dtype for key in a)


def test_one_process_finds_what_torchmetrics_finds():
    assert all(same(fed(ported(kind), points()), fed(kind(), points())) for kind in REAL)
    assert same(fed(Ours(), points()), fed(Theirs(), points()))


def test_a_reset_begins_again():
    for kind, make in ((Ours, Theirs), *((ported(kind).__class__, kind) for kind in REAL)):
        metric, again = kind(), make()
        fed(metric, points(seed=1))
        rows = metric.rows if kind is Ours else None
        metric.reset()
        assert same(fed(metric, points()), fed(again, points()))
        assert rows is None or len(rows) == 27  # what was taken from it before is still there


def test_a_default_is_not_changed_in_place():
    default = torch.zeros(3)
    metric = Metric()
    metric.add_state("total", default, "sum")
    metric.total += 1
    metric.reset()
    assert metric.total.tolist() == default.tolist() == [0, 0, 0]


def test_states_move_and_keep_their_types():
    ours, theirs = Ours(), Theirs()
    for metric in (ours, theirs):
        fed(metric, points())
        metric.half().float().double().to("meta")
        assert metric.device.type == "meta"
        states = [getattr(metric, name) for name in ("sum", "n", "rows", "labels")]
        assert [(state[0] if isinstance(state, list) else state).dtype for state in states] == [
            torch.float64,
            torch.int64,
            torch.float64,
            torch.int64,
        ]
        assert {tensor.device.type for state in states for tensor in (state if isinstance(state, list) else [state])} == {"meta"}
        metric.reset()
        assert metric.sum.device.type == "meta"
    assert Ours().to(torch.float32).sum.dtype == torch.float64


def test_copies_have_states_of_their_own():
    metric = Ours()
    fed(metric, points())
    for made in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        made.update(points(5))
        assert made.compute()["n"] == 85
        assert metric.compute()["n"] == 80


@pytest.mark.parametrize(
    ("default", "reduction", "said"),
    [([1], "cat", "must be a tensor or an empty list"), (1.0, "sum", "must be a tensor or an empty list"), ([], "sum", "one of cat, not"),
     (torch.zeros(1), "cat", "one of sum, mean, max, min, not 'cat'"), (torch.zeros(1), "median", "not 'median'")],
)  # fmt: skip
def test_states_that_cannot_be_joined_are_refused(default, reduction, said):
    with pytest.raises(ValueError, match=said):
        Metric().add_state("state", default, reduction)


# ---- two processes ----------------------------------------------------------------------------------------------------------------------


def as_one_of_two(rank, folder):
    """Both bases side by side in one of two processes, unevenly fed; figures, and the states that each has of its own afterwards."""
    for share in SHARES:
        mine = points().split(share)[rank]
        for make, model in ((Ours, Theirs), *((lambda kind=kind: ported(kind), kind) for kind in REAL)):
            metric, twin = make(), model()
            for _ in range(2):  # the second time: what is a process's own is still its own
                assert same(fed(metric, mine), fed(twin, mine)), (share, model)
            states = {name: state for name, state in twin.metric_state.items() if isinstance(state, Tensor)}
            assert all(torch.equal(state, getattr(metric, name)) for name, state in states.items())
    lonely = Ours()
    lonely.add_state("batches", [], dist_reduce_fx=lambda batches: [len(batch) for batch in batches])
    lonely.add_state("all", [])
    if rank:
        lonely.batches = list(points().split(30))
        lonely.all = [points()]
        lonely.update(points())
    found = lonely.compute()
    assert torch.equal(found["rows"], points())
    assert torch.equal(found["labels"], points()[:, 0].mul(100).long())
    with lonely.joined():
        assert lonely.batches == [30, 30, 20]
        assert torch.equal(torch.stack(lonely.all), points()[None])
    with pytest.raises(RuntimeError, match="on purpose"), lonely.joined():
        raise RuntimeError("on purpose")
    assert len(lonely.rows) == rank
    mixed = Error()
    figures = evaluate(Collected(Samples(points().float()), SPEC), {"mse": mixed}).numbers
    torch.save(figures, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_find_what_torchmetrics_finds(tmp_path):
    spawn(2, __file__, "as_one_of_two", tmp_path)
    whole = MeanSquaredError()
    whole.update(*points().float().unbind(1)[:2])
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx({"mse": whole.compute().item()}, rel=1e-6)


# ---- a metric of torchmetrics -----------------------------------------------------------------------------------------------------------


SPEC = Spec((3,), None)


class Error(MeanSquaredError, Metric):
    """A metric of torchmetrics as one of the project."""

    reads = ("samples",)

    def prefix(self, extractor):
        return "mse"

    def update(self, samples):
        super().update(samples[:, 0].contiguous(), samples[:, 1].contiguous())

    def compute(self):
        return {"": super().compute()}


def test_a_metric_of_torchmetrics_is_accepted():
    metric, x = Error(), points().float()
    assert locate(f"{__name__}.Error", LIST["metric"], "metric.mse", [__name__.partition(".")[0]]) is Error
    for _ in range(2):  # it is reset
        found = evaluate(Collected(Samples(x), SPEC), {"mse": metric}, batch_size=7)
        assert found.numbers == pytest.approx({"mse": (x[:, 0] - x[:, 1]).square().mean().item()}, rel=1e-6)
        assert found.better == {"mse": "min"}, "as torchmetrics says"


@pytest.mark.parametrize(
    ("higher", "better", "said"),
    [(True, None, "max"), (False, None, "min"), (None, None, None), (False, "max", "max"), (False, {}, None), (True, {"a": "min"}, None)],
)
def test_what_the_metric_says_counts_more_than_what_torchmetrics_says(higher, better, said):
    metric = type("Said", (Error,), {"higher_is_better": higher, "better": better})()
    assert metric.direction("") == said
    assert metric.direction("a") == (better.get("a") if isinstance(better, dict) else said)
