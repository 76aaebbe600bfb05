"""What tests of jobs share."""

from functools import partial

import pytest

from tiny_runs import terminal


@pytest.fixture
def shell(tmp_path, monkeypatch, capfd):
    """gan-train in an empty folder: (exit code, stdout, stderr on one line)."""
    monkeypatch.chdir(tmp_path)
    return partial(terminal, monkeypatch, capfd)
