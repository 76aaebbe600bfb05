"""Searches: what is tried, what a trial is worth, and that a search outlives whatever ends it."""

import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode

from gan_runner.config.command_line import parsed
from gan_runner.config.composer import Composer, compose
from gan_runner.errors import Diverged, Failed, UserError
from gan_runner.jobs import search, space
from gan_runner.lifecycle import runs
from gan_runner.storage import directory
from gan_runner.storage.directory import locked
from read_runs import lines, same, state_of
from tiny_runs import JOB, SMALL, TINY, check_survives_kill_9, content, disturbed, on_seed

optuna = pytest.importorskip("optuna")

LINE = ("-m", "+experiment=gaussians25", "hydra/sweeper=gan_optuna", "hydra.sweeper.n_trials=4", "hydra.sweep.dir=all")
WEIGHT = "penalty.gradient_penalty.weight=tag(log,interval(0.01,10))"


def trials(folder="all") -> list[Any]:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{Path(folder).absolute()}/study.db").trials


@pytest.fixture
def played(monkeypatch):
    """What stands in for training: a run whose only figure is `value(config)`; None is null, and an error is raised. The folders."""
    folders: list[str] = []

    def complete(config, folder, overrides=(), packages=()):
        folders.append(folder.name)
        if directory.state_of(folder) == "finished":
            return
        directory.lay_out(folder, config, list(overrides))
        status = directory.Status(folder)
        status.write("running", 0, 0)
        value = complete.value(config)
        if isinstance(value, BaseException):
            status.write("diverged" if isinstance(value, Diverged) else "failed", 1, 16, str(value))
            raise value
        figures = {"modes/high_quality": value, "modes/covered": 3.0, "modes/kl": value}
        directory.add_evaluation(folder, {"step": 1, "images": 16, "metrics": figures, "better": {}, "protocol": {}}, {})
        status.write("finished", 1, 16)

    complete.value = lambda config: config.penalty.gradient_penalty.weight
    complete.folders = folders
    monkeypatch.setattr(runs, "complete", complete)
    return complete


# ---- what is tried -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "log", "expected"),
    [
        ("interval(1e-5,1e-2)", False, optuna.distributions.FloatDistribution(1e-5, 1e-2)),
        ("interval(1e-5,1e-2)", True, optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)),
        ("tag(log,interval(1e-5,1e-2))", False, optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)),
        ("int(interval(1,9))", False, optuna.distributions.IntDistribution(1, 9)),
        ("range(1,6)", False, optuna.distributions.IntDistribution(1, 5)),
        ("range(6,1,-2)", False, optuna.distributions.IntDistribution(2, 6, step=2)),
        ("range(0,1,0.25)", False, optuna.distributions.FloatDistribution(0.0, 0.75, step=0.25)),
        ("choice([r1],[r1,drift])", False, optuna.distributions.CategoricalDistribution(["[r1]", "[r1,drift]"])),
        ("1,2.5,abc", False, optuna.distributions.CategoricalDistribution(["1", "2.5", "abc"])),
    ],
)
def test_hydras_syntax_is_the_space(said, log, expected):
    assert space.distribution(parsed([f"key={said}"])[0], log) == expected


@pytest.mark.parametrize("said", ["range(3,1)", "interval(2,1)", "tag(log,interval(0,1))", "range(0,1,0.0)"])
def test_a_space_that_is_none_is_refused(said):
    with pytest.raises(UserError, match="key="):
        space.distribution(parsed([f"key={said}"])[0], False)


def test_both_ends_and_every_choice_are_checked_before_anything_is_created(shell):
    code, _, err = shell(*LINE, "penalty.gradient_penalty.weight=interval(-0.01,1)", "loss=choice(hinge,hing,logistic)")
    assert code == 2
    assert "there is no loss hing" in err
    assert "there is no loss logistic" in err
    assert "a trial with penalty.gradient_penalty.weight=-0.01" in err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("sampler", "grid", "tpe or random"),
        ("n_trials", 0, "a whole number, 1 or more"),
        ("n_jobs", True, "a whole number, 1 or more"),
        ("seed", 0.5, "a whole number"),
        ("direction", "up", "maximize, minimize or null"),
        ("metric", 3, "a text or null"),
        ("log", "seed", "a list, each a text"),
    ],
)
def test_a_setting_that_is_wrong_is_named(key, value, expected):
    assert list(search.mistakes_in({})) == []
    assert list(search.mistakes_in({key: value})) == [f"hydra.sweeper.{key}={value!r}: expected {expected}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["+hydra.sweeper.trials=3"], "unknown key hydra.sweeper.trials"),
        (["hydra.sweeper.log=[seed]"], "hydra.sweeper.log names seed, which is not searched"),
        (["hydra.sweep.subdir=x"], "hydra.sweep.subdir: the trials of a search are in folders named by their numbers"),
        (["penalty.gradient_penalty.weight=1"], "there is nothing to search"),
        (["callback.evaluate.best.metric=null"], "which metric is searched by?"),
        (["hydra.sweeper.metric=new/one"], "is a large new/one good?"),
        (["metric=[]"], "no metric is measured"),
        (["callback.evaluate.n=choice(100,500)"], "callback.evaluate.n: trials that are measured differently cannot be compared"),
        (["metric.mode_coverage.radius_sigmas=interval(1,4)"], "radius_sigmas: trials that are measured differently cannot be compared"),
        (["hydra.sweeper._target_=gan_runner.jobs.search.Study"], "is refused: only code of hydra"),
        (["hydra.launcher._target_=gan_runner.jobs.search.OptunaSweeper"], "is refused: only code of hydra"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_created(shell, more, said):
    code, _, err = shell(*LINE, WEIGHT, *more)
    assert code == 2
    assert said in err
    assert not list(Path().iterdir())


def test_without_optuna_one_line_says_what_to_install(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = shell(*LINE, WEIGHT)
    assert code == 2
    assert "pip install optuna" in err
    assert not list(Path().iterdir())


# ---- what a trial is worth -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trials_are_jobs_and_the_best_is_told(shell, played):
    code, out, _ = shell(*LINE, WEIGHT)
    found = trials()
    assert code == 0
    assert played.folders == list("0123")
    assert [trial.value for trial in found] == [trial.params["penalty.gradient_penalty.weight"] for trial in found]
    assert len({trial.value for trial in found}) == 4
    best = min(found, key=lambda trial: trial.value)
    assert f"best modes/kl: {best.value:.6g}, of weight={best.value} (job {best.number})" in out
    assert "varied:\n- penalty.gradient_penalty.weight\n" in Path("all/sweep.yaml").read_text()
    assert (Path("all") / "table.txt").read_text() in out


@pytest.mark.parametrize(
    ("words", "metric", "mode"),
    [
        ([], "modes/kl", "min"),
        (["hydra.sweeper.metric=modes/high_quality"], "modes/high_quality", "max"),
        (["hydra.sweeper.metric=mode_coverage"], "modes/covered", "max"),
        (["callback.evaluate.best.metric=mode_coverage"], "modes/covered", "max"),
        (["callback.evaluate.best.mode=max"], "modes/kl", "max"),
        (["hydra.sweeper.metric=modes/covered", "callback.evaluate.best.mode=min"], "modes/covered", "max"),  # it is said of modes/kl
        (["hydra.sweeper.direction=minimize", "hydra.sweeper.metric=modes/covered"], "modes/covered", "min"),
    ],
)
def test_a_search_has_its_direction_from_the_metric(words, metric, mode):
    line = [*LINE[1:], WEIGHT, *words]
    found = search.OptunaSweeper.of(Composer().load_configuration("train", line, RunMode.MULTIRUN))
    found.follow(compose([word for word in words if not word.startswith("hydra.")] + ["+experiment=gaussians25"]))
    assert found.followed == (metric, mode)


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "bad"), [("maximize", -1e12), ("minimize", 1e12)])
def test_a_trial_without_a_value_is_a_bad_one_and_a_failed_one_has_failed(shell, played, direction, bad):
    values = iter([None, Diverged("loss/d is nan"), Failed("the disk is full"), 0.5])
    played.value = lambda config: next(values)
    code, out, _ = shell(*LINE, WEIGHT, f"hydra.sweeper.direction={direction}")
    assert code == 1
    assert [trial.value for trial in trials()] == [bad, bad, None, 0.5]
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert [line.split()[1] for line in out.splitlines()[1:5]] == ["finished", "diverged", "failed", "finished"]


@pytest.mark.slow
def test_that_some_trials_diverge_is_a_result(shell, played):
    values = iter([0.1, Diverged("nan"), 0.2, 0.3])
    played.value = lambda config: next(values)
    assert shell(*LINE, WEIGHT)[0] == 0
    played.value = lambda config: Diverged("nan")
    assert shell(*LINE, WEIGHT, "hydra.sweep.dir=other")[0] == 1


@pytest.mark.slow
def test_a_search_by_a_metric_that_nobody_measures_stops_after_its_first_trial(shell, played):
    code, _, err = shell(*LINE, WEIGHT, "hydra.sweeper.metric=modes/coverd", "hydra.sweeper.direction=maximize")
    assert code == 2
    assert "did you mean modes/covered?" in err
    assert played.folders == ["0"]


# ---- how it goes on ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_in_two_parts_is_the_search_in_one(shell, played):
    """Of 14 trials, for TPE draws the first 10 by chance."""
    line = (*LINE, WEIGHT, "rule.d_steps=range(1,4)", "loss=choice(hinge,wasserstein)")
    shell(*line, "hydra.sweeper.n_trials=14")
    shell(*line, "hydra.sweeper.n_trials=11", "hydra.sweep.dir=parts")
    before = {name: data for name, data in content("parts").items() if name[0].isdigit()}
    played.folders.clear()
    shell(*line, "hydra.sweeper.n_trials=14", "hydra.sweep.dir=parts")
    assert played.folders == ["11", "12", "13"]
    assert before.items() <= content("parts").items()
    assert [trial.params for trial in trials("parts")] == [trial.params for trial in trials()]


@pytest.mark.slow
def test_trials_of_a_batch_that_was_cut_short_are_those_of_a_whole_one(shell, played):
    line = (*LINE, WEIGHT, "hydra.sweeper.n_jobs=3", "hydra.sweeper.n_trials=13")
    shell(*line)
    value = played.value

    def cut(config):
        if played.folders[-1] == "10":
            shutil.rmtree("parts/10")
            raise SystemExit(143)
        return value(config)

    played.value = cut
    assert shell(*line, "hydra.sweep.dir=parts")[0] == 143
    shutil.rmtree("parts/9")  # the stand-in knows no finished run
    played.value = value
    assert shell(*line, "hydra.sweep.dir=parts")[0] == 0
    assert [(trial.params, trial.value) for trial in trials("parts")] == [(trial.params, trial.value) for trial in trials()]


@pytest.mark.slow
def test_a_trial_that_was_interrupted_goes_on_with_its_parameters(shell, monkeypatch):
    line = ("-m", *JOB, *LINE[2:], WEIGHT, "seed=range(0,40)", "hydra.sweeper.n_trials=2", "callback.evaluate.every_steps=4")
    assert shell(*line, "hydra.sweep.dir=whole")[0] == 0
    seed = trials("whole")[1].params["seed"]
    assert seed != trials("whole")[0].params["seed"]
    with monkeypatch.context() as patch:
        disturbed(patch, on_seed(seed, 6, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        code, out, _ = shell(*line)
    assert code == 143
    assert [row.split()[1] for row in out.splitlines()[1:3]] == ["finished", "interrupted"]
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "RUNNING"]
    before = content("all/0")
    code, out, err = shell(*line)
    assert code == 0
    assert "going on after round 6" in err
    assert content("all/0") == before
    assert [(trial.params, trial.value) for trial in trials()] == [(trial.params, trial.value) for trial in trials("whole")]
    assert same(state_of("all/1"), state_of("whole/1")) is None
    assert lines("all/1") == lines("whole/1")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_between_two_trials_ends_the_search_which_goes_on(shell, monkeypatch, played, number, code):
    line = ("-m", *JOB, *LINE[2:], WEIGHT, "seed=range(0,40)", "hydra.sweeper.n_trials=3")
    with monkeypatch.context() as patch:
        value = search.OptunaSweeper.value

        def interrupted(self, folder, state):
            if folder.name == "1":
                os.kill(os.getpid(), number)
            return value(self, folder, state)

        patch.setattr(search.OptunaSweeper, "value", interrupted)
        ended, out, err = shell(*line)
    assert ended == code
    assert "Traceback" not in err
    assert [row.split()[1] for row in out.splitlines()[1:3]] == ["finished", "finished"]
    assert shell(*line)[0] == 0
    assert [trial.state.name for trial in trials()] == ["COMPLETE"] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["trainer.steps=7"], "all holds another search: trainer.steps is not set there and 7 here"),
        (["rule.d_steps=range(1,3)"], "all holds another search: rule.d_steps is not set there"),
        (["hydra.sweeper.seed=1"], "all holds another search: hydra.sweeper.seed is 0 there and 1 here"),
        (["hydra/sweeper=basic", "hydra.sweeper.params={}", "penalty.gradient_penalty.weight=1,2"], "all/0 holds another job"),
    ],
)
def test_another_search_is_refused_and_nothing_is_changed(shell, played, more, said):
    shell(*LINE, WEIGHT, "hydra.sweeper.n_trials=1")
    before = content("all")
    basic = "hydra/sweeper=basic" in more
    line = [*LINE[:2], LINE[-1]] if basic else [*LINE, WEIGHT]
    code, _, err = shell(*line, *(word for word in more if not basic or "sweeper" not in word))
    assert code == 2
    assert said in err
    assert content("all") == before


@pytest.mark.slow
def test_a_trial_of_somebody_else_is_not_put_on_the_line(shell, played):
    """The database of a search holds its choices a second time: one that was changed there could ask for the environment."""
    line = (*LINE, "loss=choice(hinge,wasserstein)", "hydra.sweeper.n_trials=1")
    shell(*line)
    with sqlite3.connect("all/study.db") as database:
        changed = json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": ["${oc.env:HOME}", "wasserstein"]}})
        database.execute("update trial_params set distribution_json = ?, param_value = 0", [changed])
    database.close()
    before = content("all")
    code, _, err = shell(*line)
    assert code == 2
    assert "all has a trial with loss=${oc.env:HOME}, which this search does not propose" in err
    assert os.environ["HOME"] not in err
    assert content("all") == before


@pytest.mark.slow
def test_a_search_does_not_begin_among_the_jobs_of_a_sweep(shell, played):
    shell("-m", "+experiment=gaussians25", "seed=0,1", "hydra.sweep.dir=all")
    before = content("all")
    code, _, err = shell(*LINE, WEIGHT)
    assert code == 2
    assert "is of another sweep" in err
    assert content("all") == before


@pytest.mark.slow
def test_two_searches_do_not_share_a_folder(shell, played):
    shell(*LINE, WEIGHT, "hydra.sweeper.n_trials=1")
    with locked(Path("all"), "sweep"):
        code, _, err = shell(*LINE, WEIGHT)
    assert code == 2
    assert "another process is writing the sweep" in err
    assert len(trials()) == 1


@pytest.mark.slow
def test_a_search_may_be_kept_elsewhere(shell, played, tmp_path):
    storage = f"sqlite:///{tmp_path}/mine.db"
    for n in (1, 3):
        assert shell(*LINE, WEIGHT, f"hydra.sweeper.storage={storage}", f"hydra.sweeper.n_trials={n}")[0] == 0
    code, _, err = shell(*LINE, WEIGHT, f"hydra.sweeper.storage={storage}", "hydra.sweeper.seed=1")
    assert (code, "holds another search" in err) == (2, True)
    (summary,) = optuna.get_all_study_summaries(storage)
    assert (summary.study_name, summary.n_trials) == (str(tmp_path / "all"), 3)
    assert not Path("all/study.db").exists()


@pytest.mark.slow
def test_the_shipped_search_is_one(shell, played):
    code, _, err = shell("study=optuna_gaussians25", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=all")
    assert code == 0, err
    assert [json.loads((Path("all") / job / "status.json").read_text())["state"] for job in "01"] == ["finished"] * 2
    assert len(trials()[0].params) == 4
    assert optuna.load_study(study_name="search", storage=f"sqlite:///{Path('all').absolute()}/study.db").direction.name == "MINIMIZE"


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path):
    words = ["-m", *SMALL, *TINY, *LINE[2:-1], WEIGHT, "rule.d_steps=range(1,3)", "hydra.sweeper.n_trials=3"]
    check_survives_kill_9(tmp_path, words, 160)
    assert [(trial.params, trial.value) for trial in trials(tmp_path / "killed")] == [
        (trial.params, trial.value) for trial in trials(tmp_path / "whole")
    ]
