"""What the tests of several runs in one line of gan-eval share."""

import shutil
import sys

import pytest

from gan_runner import cli


@pytest.fixture
def judged(monkeypatch, capsys, tmp_path, trained):
    """Run gan-eval in a copy of the folder `trained`: words -> (exit code, standard output, standard error)."""
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["gan-eval", "n=60", "accelerator=cpu", *words])
        code = cli.evaluate()
        said = capsys.readouterr()
        return code, said.out, said.err

    return command
