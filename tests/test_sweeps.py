"""Sweeps: that a job goes on with what stands in its folder, and that a sweep runs only what is missing."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from gan_runner import runs
from gan_runner.errors import Diverged, Interrupted, UserError
from test_runs import TINY, At, composed, disturbed, lines, same, state_of

SMALL = ("+experiment=gaussians25", "callback.grid.n=16", "callback.evaluate.n=200", "callback.evaluate.every_steps=3", "batch_size=16")
JOB = (*SMALL, *TINY, "trainer.steps=8")


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
    assert lines(folder) == lines(whole[0])
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def test_an_interrupted_job_that_is_called_again_is_the_undisturbed_one(tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        disturbed(patch, At(5, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(Interrupted):
            complete(tmp_path / "0")
    assert state_of(tmp_path / "0")["step"] == 5
    assert complete(tmp_path / "0") == whole[1]
    check_is_whole(tmp_path / "0", whole)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path, monkeypatch, whole, capfd):
    with monkeypatch.context() as patch:  # what a kill in round 6 leaves behind is a copy of the files in round 6
        disturbed(patch, At(6, lambda run: shutil.copytree(run.folder, tmp_path / "0")))
        complete(tmp_path / "elsewhere")
    assert json.loads((tmp_path / "0" / "status.json").read_text())["state"] == "running"
    assert complete(tmp_path / "0") == whole[1]
    assert "going on after round 4" in capfd.readouterr().err.replace("\n", "")
    check_is_whole(tmp_path / "0", whole)


def test_a_job_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path, monkeypatch, whole):
    with monkeypatch.context() as patch:
        disturbed(patch, At(3, lambda run: shutil.copytree(run.folder, tmp_path / "0")))
        complete(tmp_path / "elsewhere")
    assert complete(tmp_path / "0") == whole[1]
    check_is_whole(tmp_path / "0", whole)
    assert json.loads((tmp_path / "0.attempt_1" / "status.json").read_text())["state"] == "running"


def test_a_finished_job_is_not_played_again(tmp_path, monkeypatch, whole):
    shutil.copytree(whole[0], tmp_path / "0")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "0").rglob("*") if path.name != ".lock"}
    monkeypatch.delattr(runs, "played")
    assert complete(tmp_path / "0") == whole[1]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert whole[1] == max(line["metrics"]["modes/high_quality"] for line in lines(tmp_path / "0"))


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


def test_a_folder_with_another_run_is_refused_and_stays_as_it_is(tmp_path, whole):
    shutil.copytree(whole[0], tmp_path / "0")
    for state in ("finished", "failed", "running"):
        (tmp_path / "0" / "status.json").write_text(json.dumps({"state": state, "step": 8, "images": 128}))
        before = {path: path.read_bytes() for path in (tmp_path / "0").rglob("*") if path.is_file()}
        with pytest.raises(UserError, match=r"holds another run: seed is 0 there and 1 here"):
            complete(tmp_path / "0", "seed=1")
        assert before == {path: path.read_bytes() for path in (tmp_path / "0").rglob("*") if path.is_file()}
