"""The commands over runs, as they are typed."""

import sys

import pytest

from gan_runner import cli


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Types `gan-runs ...`: (exit code, stdout, stderr)."""

    def type_it(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gan-runs", *map(str, words)])
        code = cli.runs()
        return code, *capsys.readouterr()

    return type_it
