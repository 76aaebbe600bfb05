"""resume=auto: one line that starts a run, and goes on with it when it is typed again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gan_runner import cli
from gan_runner.errors import Interrupted, UserError
from gan_runner.lifecycle import runs
from gan_runner.storage import directory
from read_runs import same, state_of
from tiny_runs import TINY, At, composed, disturbed

BASE = ("+experiment=gaussians25", "callback.grid.n=16", "callback.evaluate.n=200", "batch_size=16", "metric=[]", *TINY)


def auto(folder, *words):
    line = [*BASE, *words]
    return runs.start_or_resume(composed(*line), Path(folder), line)


def interrupted(folder, monkeypatch, step, *words):
    with monkeypatch.context() as patch:
        disturbed(patch, At(step, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(Interrupted):
            auto(folder, *words)


@pytest.mark.slow
def test_a_line_that_is_typed_again_ends_in_the_weights_of_an_uninterrupted_run(tmp_path, monkeypatch, capfd):
    interrupted(tmp_path / "run", monkeypatch, 3, "trainer.steps=6")
    auto(tmp_path / "run", "trainer.steps=6")
    auto(tmp_path / "whole", "trainer.steps=6")
    assert same(state_of(tmp_path / "run")["game"], state_of(tmp_path / "whole")["game"]) is None
    capfd.readouterr()
    before = (tmp_path / "run" / "train.log").read_bytes()
    auto(tmp_path / "run", "trainer.steps=6")
    assert "has finished before; it is not run again" in capfd.readouterr().err
    assert (tmp_path / "run" / "train.log").read_bytes() == before
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["run", "whole"]


@pytest.mark.slow
def test_a_changed_line_is_that_of_a_resume(tmp_path, monkeypatch):
    auto(tmp_path / "auto", "trainer.steps=4")
    auto(tmp_path / "auto", "trainer.steps=6", "callback.checkpoint.every_steps=2")
    auto(tmp_path / "typed", "trainer.steps=4")
    runs.resume(tmp_path / "typed", ["trainer.steps=6", "callback.checkpoint.every_steps=2"])
    assert same(state_of(tmp_path / "auto")["game"], state_of(tmp_path / "typed")["game"]) is None
    assert (tmp_path / "auto" / "config.yaml").read_text() == (tmp_path / "typed" / "config.yaml").read_text()
    for word in ("seed=1", "batch_size=8", "+trick=weight_clip", "loss=hinge", "+logger=csv"):
        with pytest.raises(UserError, match="holds another run: "):
            auto(tmp_path / "auto", "trainer.steps=8", word)


@pytest.mark.slow
def test_a_run_without_a_checkpoint_is_moved_aside_and_started(tmp_path):
    config = composed(*BASE, "trainer.steps=2")
    (tmp_path / "run").mkdir()
    directory.lay_out(tmp_path / "run", config, [*BASE, "trainer.steps=2"])
    directory.Status(tmp_path / "run").write("running", 0, 0)
    auto(tmp_path / "run", "trainer.steps=2")
    assert directory.state_of(tmp_path / "run") == "finished"
    assert directory.state_of(tmp_path / "run.attempt_1") == "running"


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_of_two_starts_at_the_same_time_the_lock_lets_one_through(tmp_path, begun):
    if begun:
        auto(tmp_path / "run", "trainer.steps=2")
    (tmp_path / "run").mkdir(exist_ok=True)
    with directory.locked(tmp_path / "run"):
        other = f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; from test_start_or_resume import auto, UserError\n"
        other += f"try: auto({str(tmp_path / 'run')!r}, 'trainer.steps=4')\nexcept UserError as error: sys.exit(str(error))"
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "another process is writing the run" in done.stderr


@pytest.mark.slow
def test_an_edited_configuration_is_refused(tmp_path):
    auto(tmp_path / "run", "trainer.steps=2")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 5"))
    with pytest.raises(UserError, match="seed"):
        auto(tmp_path / "run", "trainer.steps=4")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["resume=auto"], "name the folder, hydra.run.dir=DIR"),
        (["resume=auto", "-m", "seed=0,1"], "resume=auto is for one run"),
        (["resume=auto", "study=losses"], "resume=auto is for one run"),
    ],
)
def test_a_line_without_a_folder_is_refused(tmp_path, monkeypatch, capsys, line, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-train", *line])
    assert cli.train() == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_starts_and_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for steps in (2, 3):
        monkeypatch.setattr(sys, "argv", ["gan-train", *BASE, "resume=auto", "hydra.run.dir=here", f"trainer.steps={steps}"])
        assert cli.train() == 0
        assert state_of(tmp_path / "here")["step"] == steps
    assert "going on after round 2" in capfd.readouterr().err
    assert "resume" not in (tmp_path / "here" / "overrides.yaml").read_text()
