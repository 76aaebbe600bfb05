"""What a run says at its start and end, and that the commands in it work as they are printed."""

import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from gan_runner import cli
from gan_runner.errors import Interrupted
from gan_runner.lifecycle import messages, runs
from gan_runner.storage.records import read
from read_runs import state_of
from tiny_runs import TINY, At, composed, disturbed

BASE = ("+experiment=gaussians25", "callback.grid.n=16", "callback.evaluate.n=200", "batch_size=16", *TINY)
WIDE = "metric.mode_coverage.radius_sigmas=40.0"  # so that there is a best figure


def typed(monkeypatch, line):
    """Type a printed command into a shell; returns its exit code."""
    program, *words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [program, *words])
    commands = {"gan-train": cli.train, "gan-eval": cli.evaluate, "gan-sample": cli.sample}
    return commands[Path(program).name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["outputs/run", "my run's", "année #1, [a]"])
def test_the_commands_at_the_end_work_as_printed(tmp_path, monkeypatch, capfd, name):
    monkeypatch.chdir(tmp_path)
    runs.train(composed(*BASE, WIDE, "trainer.steps=4"), tmp_path / name)
    said = capfd.readouterr().err
    lines = dict(re.findall(r"^(go on|measure|sample|curves|best|samples): +(.+)$", said, flags=re.MULTILINE))
    assert (tmp_path / lines["samples"]).is_file()
    run = read(tmp_path / name, tmp_path)
    figure = run.objective(*run.own)
    assert lines["best"] == f"modes/kl {figure:.5g} after round 4"
    program, flag, folder = shlex.split(lines["curves"])
    assert (Path(program).name, flag, (tmp_path / folder).resolve()) == ("tensorboard", "--logdir", (tmp_path / name).parent)
    assert typed(monkeypatch, lines["sample"] + " n=4") == 0
    assert typed(monkeypatch, lines["measure"] + " n=100") == 0
    assert typed(monkeypatch, lines["go on"]) == 0
    assert state_of(tmp_path / name)["step"] == 8


@pytest.mark.slow
def test_an_interrupted_run_says_the_line_that_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        disturbed(patch, At(2, lambda run: os.kill(os.getpid(), signal.SIGINT)))
        with pytest.raises(Interrupted):
            runs.train(composed(*BASE, "metric=[]", "trainer.steps=4"), tmp_path / "a run")
    (line,) = re.findall(r"^go on with it by +(.+)$", capfd.readouterr().err, flags=re.MULTILINE)
    assert typed(monkeypatch, line) == 0
    assert state_of(tmp_path / "a run")["step"] == 4


def test_a_run_without_checkpoints_names_no_line(tmp_path):
    assert messages.interrupted(tmp_path, []) is None


@pytest.mark.slow
def test_the_table_at_the_start(tmp_path, capfd):
    runs.train(composed(*BASE, "metric=[]", "trainer.steps=2", "trainer.threads=1", "dataset.n=400"), tmp_path / "run")
    said = capfd.readouterr().err.splitlines()
    at = said.index(f"run directory: {tmp_path / 'run'}")
    assert said[at + 1 : at + 5] == [
        "  device    cpu, float32, 1 CPU thread",
        "  data      gaussians25: 400 samples of 2 numbers, 25 classes",
        "  networks  G 34,434, D 33,537 parameters",
        "  length    2 rounds of 16: 32 samples, 0.08 epochs",
    ]


def test_packages_are_repeated_unless_the_environment_allows_them(monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_PACKAGES", "mine")
    assert messages.named("run", Path("outputs/x"), ["other", "mine"]) == ["run=outputs/x", "packages=[other]"]
    assert messages.named("run", Path("outputs/x"), ["mine"]) == ["run=outputs/x"]
