"""Lines that are made wrong by chance; the script makes hundreds of them."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "faults.py"


@pytest.mark.slow
def test_wrong_lines_end_in_one_message_and_create_nothing(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("faults", SCRIPT)
    faults = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faults)
    monkeypatch.setattr("sys.argv", ["gan-train"])
    assert faults.main(lines=25, seed=7) == 0, capsys.readouterr().out
