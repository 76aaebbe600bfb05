"""Lines that are made wrong by chance, and hostile directories; the scripts make hundreds of them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "faults.py"


@pytest.mark.slow
def test_wrong_lines_end_in_one_message_and_create_nothing(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("faults", SCRIPT)
    faults = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faults)
    monkeypatch.setattr("sys.argv", ["gan-train"])
    assert faults.main(lines=25, seed=7) == 0, capsys.readouterr().out


# ---- hostile directories ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import hostile.play

    return hostile


@pytest.fixture
def seen(hostile, tmp_path):
    """What the watch finds wrong with a gan-sample that did this and ended so."""
    for name in ("outside", "here/run", "home"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("outside/precious", "here/run/config.yaml", "here/run/train.log"):
        (tmp_path / name).write_text("kept")
    trees = {name: hostile.watch.content(tmp_path / name, times=name == "outside") for name in ("outside", "here")}
    (tmp_path / "before.json").write_text(json.dumps(trees))

    def check(act=lambda root: None, code=0, said="", answer=None, **more):
        act(tmp_path)
        parts = {
            "killed": "",
            "out": b"",
            "err": said if isinstance(said, bytes) else said.encode(),
            "sent": b"",
            "left": 0,
            "seconds": 1.0,
        }
        return hostile.watch.faults(hostile.watch.Ending("sample", code, **parts | more), tmp_path, answer)

    return check


def test_the_watch_finds_nothing_wrong_with_what_is_right(seen):
    assert seen(said="samples of round 4\n") == []
    assert seen(code=2, said="gan-sample: 2 mistakes\n  one\n  other\n") == []
    assert seen(lambda root: (root / "here/run/train.log").write_text("refused"), code=2, said="gan-sample: no\n") == []
    assert seen(code=2, said="gan-sample: no\n", answer="refuse") == []
    assert seen(said="changed: seed from 0 to 1\n", answer=r"changed.*\bseed\b") == []


HARM = {
    "executed": {"act": lambda root: (root / "here" / "OWNED").touch()},
    "outside touched": {"act": lambda root: (root / "outside/precious").write_text("kept")},
    "outside touched: new": {"act": lambda root: (root / "outside/new").symlink_to("x")},
    "sent": {"sent": b"GET / HTTP/1.1"},
    "shown: the secret": {"out": b"secret-of-the-environment"},
    "written: the token": {"act": lambda root: (root / "here/run/x").write_text("a token-of-mlflow b")},
    "a process is left": {"left": 1},
    "hung": {"killed": "hung: waits for ever"},
    "exit code -11": {"code": -11},
    "a traceback": {"code": 1, "said": "Traceback (most recent call last):\ngan-sample: x\n"},
    "an error that was not foreseen": {"code": 1, "said": "gan-sample: KeyError: 'x'\n  set GAN_RUNNER_DEBUG=1 to see where\n"},
    "control characters": {"said": "a\x1b[2Jb\n"},
    "control characters: '\\u202e'": {"said": "a\u202eb\n"},
    "no UTF-8": {"said": b"\xff\n"},
    "a line that a stranger wrote": {"said": "there is no x\nFORGED rm\n"},
    "no message": {"code": 2},
    "2 messages": {"code": 2, "said": "gan-sample: a\ngan-sample: b\n"},
    "something is said after the message": {"code": 2, "said": "gan-sample: a\nb\n"},
    "refused, but changed": {"code": 2, "said": "gan-sample: a\n", "act": lambda root: (root / "here/run/config.yaml").write_text("x")},
    "wrong in silence": {"answer": "refuse"},
    "wrong in silence: exit code 0, and nothing is named": {"said": "seed 1\n", "answer": r"changed.*\bseed\b"},
}


@pytest.mark.parametrize("reason", HARM)
def test_the_watch_sees_harm(seen, reason):
    assert [found for found in seen(**HARM[reason]) if found.startswith(reason)], seen(**HARM[reason])


def test_the_cases_repeat_and_hold_every_kind(hostile):
    names = [str(case) for case in hostile.play.cases(200, 0)]
    assert names == [str(case) for case in hostile.play.cases(200, 0)]
    assert len(set(names)) == 200
    attacks = hostile.play.catalogue()
    assert len({(attack.kind, attack.name) for attack in attacks}) == len(attacks)
    assert {attack.kind for attack in attacks} == {case.attack.kind for case in hostile.play.cases(200, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("only", ["metrics that are no numbers", "a header that calls", "key: a list"])
def test_hostile_directories_do_no_harm_to_the_five_commands(only):
    """One case of those that the script plays, so that it stays alive."""
    line = [sys.executable, str(SCRIPT), "--hostile", "1000", "--only", only]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 commands" in done.stdout or "10 commands" in done.stdout
