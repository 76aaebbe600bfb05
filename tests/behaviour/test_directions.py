"""Which way a figure is better: said by its metric, written into its line, and read from there by whatever chooses the best."""

import json
import random
from types import SimpleNamespace

import pytest
from torch.utils.tensorboard import summary

from gan_runner.assembly import build
from gan_runner.callbacks import Evaluate
from gan_runner.errors import UserError
from gan_runner.evaluation.findings import aim
from gan_runner.inventory.overview import ordered
from gan_runner.inventory.page import article
from gan_runner.inventory.tables import as_json, row, side_by_side
from gan_runner.jobs import table
from gan_runner.jobs.job import Outcome
from gan_runner.lifecycle import runs
from gan_runner.metrics import Metric
from gan_runner.storage import directory, records
from gan_runner.storage.untrusted import flat
from read_runs import lines, state_of
from tiny_runs import composed
from write_runs import line, make

UP, DOWN = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"
KEYS = {"keys": {"own": {"metric": "mine", "reads": "samples"}}}


class Mine(Metric):
    """Has figures of both directions, and one of neither."""

    better = {"near": "min", "good": "max"}

    def prefix(self, extractor):
        return "own"


def runs_of(folder, values, better, name="own/near"):
    """Runs a, b, ... that follow a figure of a user's own, each with these values of it."""
    best = {"callback": {"evaluate": {"n": 100, "best": {"metric": name, "mode": None}}}}
    for letter, each in zip("abcdef", values):
        written = tuple(line(10 * i, KEYS, better, own__near=value) for i, value in enumerate(each, 1))
        make(folder / letter, lines=written, config=best)
    return [records.read(folder / letter, folder) for letter, _ in zip("abcdef", values)]


VALUES = ((3.0, 2.0), (1.0, 9.0), (5.0, 4.0))


@pytest.mark.parametrize("name", ["own/near", "mine"])
@pytest.mark.parametrize(("better", "best", "order", "mark"), [("min", [2.0, 1.0, 4.0], "bac", DOWN), ("max", [3.0, 9.0, 5.0], "acb", UP)])
def test_a_figure_of_a_user_s_own_is_shown_and_sorted_by_its_direction(tmp_path, name, better, best, order, mark):
    those = runs_of(tmp_path, VALUES, {"own/near": better}, name)
    assert [run.own for run in those] == [("own/near", better)] * 3
    assert [as_json(run, None)["best"] for run in those] == best
    assert [as_json(run, "mine")["best"] for run in those] == best
    assert {as_json(run, None)["mode"] for run in those} == {better}
    assert "".join(run.name for run in ordered(those, "metric", None)) == order
    assert row(those[0], None)["metric"] == f"own/near {mark}"
    assert side_by_side(those, None)["metrics"][f"own/near {mark} best"] == best
    assert article(those[1], None, [])["curves"][0]["caption"].startswith(f"best {best[1]:g} ")


@pytest.mark.parametrize("name", ["own/near", "mine"])
@pytest.mark.parametrize(("better", "said"), [("min", "best own/near: 1, of job 1"), ("max", "best own/near: 9, of job 1")])
def test_the_table_of_a_sweep_follows_a_figure_of_a_user_s_own(tmp_path, capsys, name, better, said):
    those = runs_of(tmp_path, VALUES, {"own/near": better}, name)
    table.report(tmp_path, [Outcome(number, [], run.folder, "finished") for number, run in enumerate(those)], None)
    assert said in capsys.readouterr().out.splitlines()


def test_the_table_of_names_is_read_only_where_a_line_says_nothing(tmp_path):
    old, new = line(10, fd__lenet=2.0, own__near=1.0), line(20, KEYS, {"own/near": "max"}, fd__lenet=1.0, own__near=2.0)
    for number, (written, expected) in enumerate(
        [
            ((old,), ("min", None)),
            ((new,), (None, "max")),  # a line that says something says all
            ((line(10, better={}, fd__lenet=2.0),), (None, None)),
            ((old, new), (None, "max")),
            ((new, line(30, fd__lenet=2.0)), ("min", "max")),
            ((), ("min", None)),
        ]
    ):
        run = records.read(make(tmp_path / str(number), lines=written, config={"callback": {}}), tmp_path)
        assert (run.followed("fd/lenet")[1], run.followed("own/near")[1]) == expected
        assert run.followed("fd/lenet:max")[1] == "max"


def test_what_the_line_of_a_run_says_counts_more_than_what_its_metric_says(tmp_path):
    best = {"callback": {"evaluate": {"best": {"metric": "own/near", "mode": "max"}}}}
    written = (line(10, KEYS, {"own/near": "min"}, own__near=2.0), line(20, KEYS, {"own/near": "min"}, own__near=1.0))
    run = records.read(make(tmp_path / "a", lines=written, config=best), tmp_path)
    assert run.own == run.followed() == run.followed("own/near") == ("own/near", "max")
    assert run.objective(*run.own) == 2.0


@pytest.mark.parametrize("said", [[], "min", 3, {"own/near": "up"}, {"own/near": ["min"]}, {"own/near": None}, {"own/near": {"a": "min"}}])
def test_a_direction_of_a_stranger_is_none(tmp_path, said):
    text = json.loads(line(10, KEYS, own__near=2.0)) | {"better": said}
    run = records.read(make(tmp_path / "a", lines=(json.dumps(text),), config={"callback": {}}), tmp_path)
    assert run.followed("own/near") == ("own/near", None)
    assert row(run, None)["best"] == "-"


# ---- what is known before it is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "name", "expected"),
    [
        ("min", "mine", ("own", "min")),
        ("min", "own/x/y", ("own/x/y", "min")),
        ({"a": "max", "": "min"}, "mine", ("own", "min")),
        ({"a": "max", "b": "min"}, "mine", ("own/a", "max")),
        ({"a": "max", "b": "min"}, "own/b", ("own/b", "min")),
        ({"a": "max"}, "own", ("own", None)),
        ({"a": "max"}, "own/aa", ("own/aa", None)),
        ({"a": "max"}, "ownership", None),
        (None, "mine", ("own", None)),
    ],
)
def test_what_a_name_aims_at(better, name, expected):
    metric = Mine()
    metric.better = better
    assert aim(name, {"mine": metric}) == expected


POINTS = ("+experiment=ring8", "metric=[kernel_density]", "trainer.accelerator=cpu")


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["callback.evaluate.best.metric=kde/fake_under_real"], True),
        (["callback.evaluate.best.metric=kde/fake_under_real", "callback.evaluate.best.mode=max"], False),
        (["callback.evaluate.best.metric=kde/real_under_fake"], False),
        (["callback.evaluate.best.metric=kernel_density"], False),
        (["callback.evaluate.best.metric=modes/kl"], False),  # nobody measures it: a line says so after the first evaluation
        (["metric=[]"], False),
    ],
)
def test_a_figure_without_a_direction_is_followed_only_where_the_line_gives_it_one(words, refused):
    config = composed(*POINTS, *words)
    if refused:
        with pytest.raises(UserError, match=r"is a large kde/fake_under_real good\? .* callback\.evaluate\.best\.mode=max or min"):
            build.check(config)
    else:
        build.check(config)


def test_a_mode_that_is_not_set_does_not_tell_jobs_apart():
    def config(metric, mode):
        return {"callback": {"evaluate": {"best": {"metric": metric, "mode": mode}}}}

    assert list(directory.differences(config("a", "max"), config("a", None))) == []
    assert list(directory.differences(config("a", None), config("a", "max"))) == []
    assert [each.key for each in directory.differences(config("a", "max"), config("a", "min"))] == ["callback.evaluate.best.mode"]
    assert [each.key for each in directory.differences(config("a", "max"), config("b", None))] == ["callback.evaluate.best.metric"]


# ---- what best.pt follows ---------------------------------------------------------------------------------------------------------------


def play(folder, evaluations, best, stop=None):
    """(the callback, rounds at which best.pt was written) after these figures; it is saved and taken up again after `stop` of them."""
    folder.mkdir()
    kept, said = [], []
    run = SimpleNamespace(folder=folder, metrics={"mine": Mine()}, extractor=None, objective=None)
    run.reporter = SimpleNamespace(say=said.append)
    run.save = lambda path: kept.append((path.name, run.step))
    callback = Evaluate(n=100, best=best)
    callback.told = set()
    callback.settle(run)
    for run.step, figures in enumerate(evaluations, 1):
        better = {key: mode for key in figures if (mode := Mine().direction(key.removeprefix("own").removeprefix("/")))}
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(line(run.step, KEYS, better, **figures) + "\n")
        found = records.Evaluation(run.step, 10 * run.step, figures, dict(flat(KEYS)), better)
        callback.follow(run, found, best["metric"])
        if run.step == stop:
            state, callback = callback.state_dict(), Evaluate(n=100, best=best)
            callback.told = set()
            callback.settle(run)
            callback.take_up(run, state)
    return callback, kept, said


def test_the_first_figure_of_a_metric_that_is_there_and_has_a_direction_is_followed_and_stays(tmp_path):
    values = [
        {"own": None},
        {"own/none": 5.0, "own/near": None, "own/good": 1.0},
        {"own/none": 6.0, "own/near": 7.0, "own/good": 0.5},
        {"own/none": 7.0, "own/near": 6.0, "own/good": 2.0},
    ]
    for number, (best, key, value, kept) in enumerate(
        [
            ({"metric": "mine", "mode": None}, "own/good", 2.0, [2, 4]),
            ({"metric": "mine", "mode": "min"}, "own/none", 5.0, [2]),
            ({"metric": "own/near", "mode": None}, "own/near", 6.0, [3, 4]),
            ({"metric": "own/near", "mode": "max"}, "own/near", 7.0, [3]),
            ({"metric": "own/good", "mode": None}, "own/good", 2.0, [2, 4]),
        ]
    ):
        callback, written, _ = play(tmp_path / str(number), values, best)
        assert (callback.key, callback.value) == (key, value), best
        assert written == [("best.pt", step) for step in kept], best


@pytest.mark.parametrize("mode", [None, "min", "max"])
@pytest.mark.parametrize("name", ["mine", "own/near", "own/good"])
def test_readers_follow_the_figure_that_best_pt_followed_resumed_or_not(tmp_path, name, mode):
    """On figures that are null by chance: the value that the run returned, and the one that gan-runs and tables read from its files."""
    best = {"metric": name, "mode": mode}
    for seed in range(30):
        chance = random.Random(seed)
        values = []
        for _ in range(chance.randint(1, 6)):
            some = {f"own/{key}": chance.choice([None, chance.random()]) for key in ("none", "near", "good")}
            values.append(chance.choice([some, some, {"own": None}]))
        whole, kept, said = play(tmp_path / f"{seed}", values, best)
        again, *rest = play(tmp_path / f"{seed}_again", values, best, stop=chance.randint(1, len(values)))
        assert (again.key, again.value, again.state_dict()) == (whole.key, whole.value, whole.state_dict())
        assert rest == [kept, said]
        written = tuple((tmp_path / f"{seed}" / "metrics.jsonl").read_text().splitlines())
        config = {"callback": {"evaluate": {"n": 100, "best": best}}}
        run = records.read(make(tmp_path / f"{seed}_read", lines=written, config=config), tmp_path)
        assert run.own[0] == (whole.key or name)
        assert run.objective(*run.own) == whole.value


@pytest.mark.slow
def test_a_run_follows_the_metric_that_is_named(tmp_path, monkeypatch):
    """From the line to best.pt, the HPARAMS tab, and what others read."""
    compared, hparams = [], summary.hparams
    monkeypatch.setattr(summary, "hparams", lambda values, figures: compared.extend(figures) or hparams(values, figures))
    words = ("trainer.steps=6", "callback.evaluate.every_steps=2", "callback.evaluate.n=100", "callback.grid.n=4", "batch_size=16")
    config = composed("+experiment=ring8", "trainer.accelerator=cpu", *words, "callback.evaluate.best.metric=mode_coverage")
    objective = runs.train(config, tmp_path / "run")
    covered = [each["metrics"]["modes/covered"] for each in lines(tmp_path / "run")]
    assert objective == max(covered)
    assert state_of(tmp_path / "run", "best.pt")["step"] == 2 * (1 + covered.index(max(covered)))
    run = records.read(tmp_path / "run", tmp_path)
    assert run.own == ("modes/covered", "max")
    assert run.objective(*run.own) == objective
    assert compared[:3] == ["modes/covered", "loss/d", "loss/g"]


def test_a_state_of_before_that_followed_the_same_key_keeps_its_value(tmp_path):
    """Which then had its mode from the file, and now has it from the metric."""
    (tmp_path / "metrics.jsonl").write_text(line(1, KEYS, own__near=3.0) + "\n")
    run = SimpleNamespace(folder=tmp_path, metrics={"mine": Mine()}, extractor=None, reporter=SimpleNamespace(say=pytest.fail))
    for name, mode in (("own/near", "min"), ("own/good", "max")):
        callback = Evaluate(n=100, best={"metric": name, "mode": None})
        callback.settle(run)
        callback.take_up(run, {"value": 3.0, "followed": {**callback.measures, "metric": name, "mode": mode}, "first": callback.measures})
        assert callback.value == 3.0
