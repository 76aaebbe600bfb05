"""Sweeps: that a job goes on with what stands in its folder, and that a sweep runs only what is missing."""

import json
import os
import shlex
import shutil
import signal
import statistics
import sys
from pathlib import Path

import pytest

from gan_runner import cli
from gan_runner.config.command_line import parsed
from gan_runner.errors import Diverged, Interrupted, UserError
from gan_runner.jobs.sweep import line_again
from gan_runner.lifecycle import runs
from gan_runner.storage import checkpoint, contents, directory
from gan_runner.storage.directory import locked
from gan_runner.studies import Table
from read_runs import lines, measured, same, state_of
from tiny_runs import JOB, SMALL, TINY, At, check_survives_kill_9, composed, content, disturbed, on_seed, states

# ---- one job --------------------------------------------------------------------------------------------------------------------------


def complete(folder, *more, **kw):
    return runs.complete(composed(*JOB, *more), Path(folder), [*JOB, *more], **kw)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, objective) of the job that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "0"
    return folder, complete(folder)


def check_is_whole(folder, whole):
    assert same(state_of(folder), state_of(whole[0])) is None
    assert measured(folder) == measured(whole[0])
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_an_interrupted_job_that_is_called_again_is_the_undisturbed_one(tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        disturbed(patch, At(5, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(Interrupted):
            complete(tmp_path / "0")
    assert state_of(tmp_path / "0")["step"] == 5
    assert complete(tmp_path / "0") == whole[1]
    check_is_whole(tmp_path / "0", whole)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path, monkeypatch, whole, capfd):
    def leave_behind(run):  # what a kill in this round does: a copy of the files, once the state of round 4 is among them
        run.writer.wait()
        shutil.copytree(run.folder, tmp_path / "0")

    with monkeypatch.context() as patch:
        disturbed(patch, At(6, leave_behind))
        complete(tmp_path / "elsewhere")
    assert json.loads((tmp_path / "0" / "status.json").read_text())["state"] == "running"
    assert complete(tmp_path / "0") == whole[1]
    assert "going on after round 4" in capfd.readouterr().err.replace("\n", "")
    check_is_whole(tmp_path / "0", whole)


@pytest.mark.slow
def test_a_job_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        disturbed(patch, At(3, lambda run: shutil.copytree(run.folder, tmp_path / "0")))
        complete(tmp_path / "elsewhere")
    assert complete(tmp_path / "0") == whole[1]
    check_is_whole(tmp_path / "0", whole)
    assert json.loads((tmp_path / "0.attempt_1" / "status.json").read_text())["state"] == "running"


@pytest.mark.slow
def test_a_finished_job_is_not_played_again(tmp_path, monkeypatch, whole):
    shutil.copytree(whole[0], tmp_path / "0")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "0").rglob("*") if path.name != ".lock"}
    monkeypatch.delattr(runs, "played")
    assert complete(tmp_path / "0") == whole[1]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert whole[1] == min(line["metrics"]["modes/kl"] for line in lines(tmp_path / "0"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0", "a folder [with] brackets"])
def test_a_failed_job_begins_anew_and_what_it_left_stays_beside_it(tmp_path, monkeypatch, whole, name):
    def fail(run):
        raise Diverged("loss/d is nan")

    for _ in range(2):
        with monkeypatch.context() as patch:
            disturbed(patch, At(5, fail))
            with pytest.raises(Diverged):
                complete(tmp_path / name)
    assert complete(tmp_path / name) == whole[1]
    check_is_whole(tmp_path / name, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.attempt_1", f"{name}.attempt_2"]
    assert {json.loads((tmp_path / f"{name}.attempt_{n}" / "status.json").read_text())["state"] for n in (1, 2)} == {"diverged"}


@pytest.mark.slow
def test_a_folder_with_another_run_is_refused_and_stays_as_it_is(tmp_path, whole):
    shutil.copytree(whole[0], tmp_path / "0")
    for state in ("finished", "failed", "running"):
        (tmp_path / "0" / "status.json").write_text(json.dumps({"state": state, "step": 8, "images": 128}))
        before = {path: path.read_bytes() for path in (tmp_path / "0").rglob("*") if path.is_file()}
        with pytest.raises(UserError, match=r"holds another job: seed is 0 there and 1 here"):
            complete(tmp_path / "0", "seed=1")
        assert before == {path: path.read_bytes() for path in (tmp_path / "0").rglob("*") if path.is_file()}


# ---- a sweep --------------------------------------------------------------------------------------------------------------------------

LINE = ("-m", *JOB, "trainer.steps=6", "seed=0,1,2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of the sweep that nothing disturbed, and its table."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["gan-train", *LINE, "hydra.sweep.dir=all"])
        assert cli.train() == 0
    return folder / "all", (folder / "all" / "table.txt").read_text()


@pytest.mark.slow
def test_a_sweep_that_was_interrupted_is_finished_by_the_same_line(shell, monkeypatch, undisturbed):
    with monkeypatch.context() as patch:
        disturbed(patch, on_seed(1, 3, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        code, out, err = shell(*LINE, "hydra.sweep.dir=all")
    assert (code, states(out)) == (143, ["finished", "interrupted", "waiting"])
    assert (Path("all") / "table.txt").read_text() in out
    before = content("all/0")
    (again,) = [line for line in err.splitlines() if "go on with the sweep by" in line]
    assert shlex.split(again)[-len(LINE) - 1 :] == [*LINE, "hydra.sweep.dir=all"]
    code, out, err = shell(*LINE, "hydra.sweep.dir=all")
    assert (code, states(out)) == (0, ["finished"] * 3)
    assert content("all/0") == before
    assert "going on after round 3" in err
    for job in "012":
        state = state_of(f"all/{job}")
        state["callbacks"].pop("at", None)  # what disturbed job 1 was also in job 0
        assert same(state, state_of(undisturbed[0] / job)) is None
        assert measured(f"all/{job}") == measured(undisturbed[0] / job)
    assert (Path("all") / "table.txt").read_text() == undisturbed[1]


@pytest.mark.slow
def test_only_the_job_that_failed_is_run_again(shell, monkeypatch, undisturbed):
    def fail(run):
        raise Diverged("loss/d is nan")

    with monkeypatch.context() as patch:
        disturbed(patch, on_seed(1, 3, fail))
        code, out, _ = shell(*LINE, "hydra.sweep.dir=all")
    assert (code, states(out)) == (1, ["finished", "diverged", "finished"])
    before = content("all/0"), content("all/2")
    assert shell(*LINE, "hydra.sweep.dir=all")[0] == 0
    assert (content("all/0"), content("all/2")) == before
    assert same(state_of("all/1"), state_of(undisturbed[0] / "1")) is None
    assert Path("all/1.attempt_1/status.json").is_file()


@pytest.mark.slow
def test_a_longer_sweep_in_the_same_folder_adds_its_jobs(shell, undisturbed):
    shutil.copytree(undisturbed[0], "all")
    before = content("all")
    code, out, _ = shell(*LINE, "seed=0,1,2,3", "hydra.sweep.dir=all")
    after = content("all")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:5]] == list("0123")
    assert {name for name in before if after[name] != before[name]} <= {"table.txt", "multirun.yaml", *contents.SUMMARY}
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"3"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["seed=0,2,1"], r"all/1 holds another job: seed=1 there and seed=2 here"),
        (["trainer.steps=7"], r"all/0 holds another job: trainer.steps=6 there and trainer.steps=7 here"),
        (["rule.d_steps=2"], r"all/0 holds another job: rule.d_steps is 1 there and 2 here"),
    ],
)
def test_another_line_is_refused_and_nothing_is_changed(shell, undisturbed, more, said):
    shutil.copytree(undisturbed[0], "all")
    before = content("all")
    code, out, err = shell(*LINE, *more, "hydra.sweep.dir=all")
    assert (code, out) == (2, "")
    assert said in err
    assert content("all") == before


@pytest.mark.slow
def test_what_only_watches_does_not_tell_jobs_apart(shell, undisturbed):
    shutil.copytree(undisturbed[0], "all")
    before = content("all/0")
    for more in (["callback.log.every_steps=3"], ["+callback=progress"]):
        code, out, err = shell(*LINE, *more, "hydra.sweep.dir=all")
        assert (code, states(out)) == (0, ["finished"] * 3), err
        assert "keeps its configuration" not in err
    assert content("all/0") == before
    for more, said in [
        ("grid.n=9", "callback.grid.n"),
        ("evaluate.n=300", "callback.evaluate.n"),
        ("checkpoint.keep=3", "callback.checkpoint.keep"),
    ]:
        code, _, err = shell(*LINE, f"callback.{more}", "hydra.sweep.dir=all")
        assert code == 2
        assert f"holds another job: {said}" in err


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["-m", "seed=0,1"], ["hydra.sweep.dir=outputs/a sweep"]),
        (["-m", "seed=0,1", "penalty=[r1]", "study=losses"], ["hydra.sweep.dir=outputs/a sweep"]),
        (["-m", "seed=0,1", "hydra.sweep.dir=here"], []),
    ],
)
def test_the_line_that_goes_on_with_a_sweep_names_its_folder(tmp_path, monkeypatch, words, added):
    monkeypatch.chdir(tmp_path)
    again = shlex.split(line_again(words, tmp_path / "outputs" / "a sweep"))[1:]
    assert again[: len(words)] == words
    assert [f"{each.key_or_group}={each.value()}" for each in parsed(again[len(words) :])] == added


@pytest.mark.slow
@pytest.mark.parametrize("word", ["trainer.steps=6.0", "trainer.steps=.6e1"])
def test_a_number_that_is_typed_in_another_way_is_the_same_job(shell, undisturbed, word):
    shutil.copytree(undisturbed[0], "all")
    before = content("all/0")
    code, out, err = shell(*LINE, word, "hydra.sweep.dir=all")
    assert (code, states(out)) == (0, ["finished"] * 3), err
    assert content("all/0") == before


def of_another_recipe(folder, old, new):
    """Let a job be one that a recipe with other values has made: configuration and states alike."""
    config = folder / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    for path in (folder / "checkpoints").glob("*.pt"):
        state = checkpoint.load(path)
        state["config"] = directory.made_with(directory.read_config(folder))
        path.unlink()
        checkpoint.save(path, state)


@pytest.mark.slow
def test_jobs_of_a_recipe_that_has_changed_go_on_as_they_began(shell, monkeypatch, undisturbed):
    with monkeypatch.context() as patch:
        disturbed(patch, on_seed(1, 5, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        shell(*LINE, "hydra.sweep.dir=all")
    for job in ("all/0", "all/1"):
        of_another_recipe(Path(job), "metric: modes/kl\n      mode: null", "metric: modes/covered\n      mode: max")
    finished = content("all/0")
    code, out, err = shell(*LINE, "hydra.sweep.dir=all")
    assert (code, states(out)) == (0, ["finished"] * 3), err
    said = (
        "keeps its configuration, since a recipe has changed after it began (callback.evaluate.best.metric from modes/covered to modes/kl"
    )
    assert err.count(said.replace(" (", ": ")) == 2, err
    assert content("all/0") == finished
    assert "modes/covered" in Path("all/1/config.yaml").read_text()
    assert "modes/kl" in Path("all/2/config.yaml").read_text()  # it had not begun
    for job in "12":
        assert same(state_of(Path("all", job))["game"], state_of(undisturbed[0] / job)["game"]) is None


@pytest.mark.slow
def test_a_recipe_that_its_user_has_edited_is_refused(shell):
    Path("mine/experiment").mkdir(parents=True)
    file = Path("mine/experiment/e.yaml")
    file.write_text("# @package _global_\n# e\ndefaults:\n  - gaussians25\nbatch_size: 16\n")
    line = ("-m", "+experiment=e", *JOB[1:-1], "trainer.steps=2", "seed=0,1", "hydra.sweep.dir=all", "--config-dir", "mine")
    line = tuple(word for word in line if not word.startswith("batch_size"))
    assert shell(*line)[0] == 0
    file.write_text(file.read_text().replace("16", "17"))
    code, _, err = shell(*line)
    assert code == 2
    assert "all/0 holds another job: batch_size is 16 there and 17 here" in err


@pytest.mark.slow
def test_a_line_that_means_something_else_by_now_is_refused(shell, undisturbed):
    shutil.copytree(undisturbed[0], "all")
    config = Path("all/2/config.yaml")
    config.write_text(config.read_text().replace("width: 128", "width: 64", 1))
    before = content("all")
    code, _, err = shell(*LINE, "hydra.sweep.dir=all")
    assert code == 2
    assert "all/2 holds another job: architecture.generator.width is 64 there and 128 here" in err
    assert content("all") == before


@pytest.mark.slow
def test_two_sweeps_do_not_share_a_folder(shell, undisturbed):
    shutil.copytree(undisturbed[0], "all")
    before = content("all")
    with locked(Path("all"), "sweep"):
        code, _, err = shell(*LINE, "hydra.sweep.dir=all")
    assert code == 2
    assert "another process is writing the sweep in" in err
    assert content("all") == before


@pytest.mark.slow
def test_the_table_tells_the_best_value_of_what_is_followed(undisturbed):
    folder, table = undisturbed
    head, *rows, best = table.splitlines()
    values = [min(line["metrics"]["modes/kl"] for line in lines(folder / job)) for job in "012"]
    assert head.split() == ["job", "state", "best", "of", "what", "differs"]
    ended = [[job, "finished", f"{value:.6g}", "modes/kl", f"seed={job}"] for job, value in zip("012", values)]
    assert [row.split() for row in rows] == ended
    first = values.index(min(values))
    assert best == f"best modes/kl: {min(values):.6g}, of seed={first} (job {first})"
    named = {path.parent.relative_to(folder).as_posix() for path in folder.glob("*/*/events.out.tfevents.*")}
    assert named == {"0/seed=0", "1/seed=1", "2/seed=2"}  # as TensorBoard names the jobs


def test_a_sweep_ends_in_its_summary_and_gan_runs_writes_the_same_again(undisturbed, tmp_path, monkeypatch, capfd):
    folder = shutil.copytree(undisturbed[0], tmp_path / "elsewhere")
    written = {name: (folder / name).read_bytes() for name in contents.SUMMARY}
    values = [min(line["metrics"]["modes/kl"] for line in lines(folder / job)) for job in "012"]
    cell = f"`{statistics.fmean(values):.4g} \u00b1 {statistics.stdev(values):.2g} (n=3)`"
    assert (folder / "table.md").read_text() == f"| `finished` | `modes/kl, lowest` |\n|---|---|\n| `3 of 3` | {cell} |\n"
    line = "gan-train -m +experiment=gaussians25 callback.grid.n=16"
    assert f"```sh\n{line}" in (folder / "page.md").read_text()
    monkeypatch.setattr(sys, "argv", ["gan-runs", str(folder), "--summary"])
    assert cli.runs() == 0
    assert {name: (folder / name).read_bytes() for name in contents.SUMMARY} == written


STUDY = """\
# @package _global_
# Which seed?
hydra: {{mode: MULTIRUN, sweeper: {{params: {{seed: '0,1'}}}}}}
summary: {{_target_: {target}, question: '{question}', columns: ['${{callback.evaluate.best.metric}}'], y: null}}
"""
OF_TWO = ("study=which", *JOB, "trainer.steps=3", "hydra.sweep.dir=all", "--config-dir", "mine")


def study(question="Which seed is the better?", target="gan_runner.studies.Table"):
    """A study of two jobs in a --config-dir."""
    Path("mine/study").mkdir(parents=True, exist_ok=True)
    Path("mine/study/which.yaml").write_text(STUDY.format(question=question, target=target))


@pytest.mark.slow
def test_a_study_says_what_its_sweep_comes_to(shell):
    study()
    assert shell(*OF_TWO)[0] == 0
    assert Path("all/page.md").read_text().startswith("# Which seed is the better?\n")
    assert "| `finished` | `modes/kl, last` |" in Path("all/table.md").read_text()
    assert "summary" not in Path("all/0/config.yaml").read_text()
    before = content("all/0")
    code, _, err = shell(*OF_TWO, "summary.columns=[modes/covered]")  # the jobs are the same
    assert code == 0, err
    assert "| `finished` | `modes/covered, last` |" in Path("all/table.md").read_text()
    assert content("all/0") == before
    assert Path("all/0/overrides.yaml").read_text().count("summary") == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target": "mygan.studies.Own"}, "summary._target_=mygan.studies.Own is not allowed"),
        ({"target": "gan_runner.losses.Hinge"}, "summary._target_=gan_runner.losses.Hinge is not a Summary"),
        ({"question": "', x: 'loss"}, "summary: x is loss: expected images, or one of the keys in rows"),
        ({"question": "', question_: '"}, "unknown key summary.question_; Table takes question"),
        ({"question": "${no.such.key}"}, "summary.question: Interpolation key 'no.such.key' not found"),
    ],
)
def test_a_summary_that_cannot_be_made_is_refused_before_the_first_folder(shell, given, said):
    study(**given)
    code, _, err = shell(*OF_TWO)
    assert (code, said in err) == (2, True), err
    assert not Path("all").exists()


@pytest.mark.slow
def test_a_summary_that_fails_ends_no_sweep(shell, monkeypatch):
    def fail(self, rows):
        raise ZeroDivisionError("mine")

    study()
    with monkeypatch.context() as patch:
        patch.setattr(Table, "reading", fail)
        code, out, err = shell(*OF_TWO)
    assert code == 0
    assert "finished" in out
    assert "the summary was not written: ZeroDivisionError: mine" in err
    assert f"gan-runs {Path.cwd()}/all --summary" in err
    assert not Path("all/page.md").exists()
    monkeypatch.setattr(sys, "argv", ["gan-runs", "all", "--summary"])
    assert cli.runs() == 0


@pytest.mark.slow
def test_the_summary_of_a_sweep_that_was_interrupted_names_what_is_left(shell, monkeypatch):
    with monkeypatch.context() as patch:
        disturbed(patch, on_seed(1, 3, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        assert shell(*LINE, "hydra.sweep.dir=all")[0] == 143
    page = Path("all/page.md").read_text()
    assert "2 runs: 1 finished, 1 interrupted; 1 job has not begun" in page
    assert "| `1` | `interrupted` | `3 of 6` |" in page
    assert "Not begun: `2`" in page


# ---- killed ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path):
    check_survives_kill_9(tmp_path, ["-m", *SMALL, *TINY, "seed=0,1,2"], 160)
