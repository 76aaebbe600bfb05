"""An error in a part of the user: one message with file, line and function, and where the traceback is."""

import sys
from pathlib import Path

import pytest

from gan_runner import cli
from tiny_runs import NARROW

PART = """
from gan_runner.callbacks import Log
from gan_runner.losses import Hinge


class Bad(Hinge):
    def __init__(self, error: str = "", where: str = ""):
        super().__init__()
        self.error, self.where = error, where
        self.fail("init")

    def fail(self, where):
        if self.where == where:
            raise __builtins__[self.error]("no such thing")

    def generator(self, play):
        self.fail("generator")
        return super().generator(play)


class Watch(Log):
    def after_round(self, run, logs):
        raise KeyError("mine")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_errors").mkdir()
    (tmp_path / "own_errors" / "__init__.py").write_text("")
    (tmp_path / "own_errors" / "parts.py").write_text(PART)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("own_errors")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "own_errors" / "parts.py"


def told(monkeypatch, capfd, *words):
    line = [*NARROW, "trainer.steps=2", "metric=[]", "~callback.evaluate", "packages=[own_errors]", "hydra.run.dir=run", *words]
    line = [word for word in line if not word.startswith("callback.evaluate")]
    monkeypatch.setattr(sys, "argv", ["gan-train", *line])
    code = cli.train()
    return code, capfd.readouterr().err


def bad(error, where):
    return ["loss=hinge", "loss._target_=own_errors.parts.Bad", f"+loss.error={error}", f"+loss.where={where}"]


@pytest.mark.slow
@pytest.mark.parametrize(("error", "code"), [("ValueError", 2), ("KeyError", 1), ("ZeroDivisionError", 1)])
def test_an_error_in_init(own, monkeypatch, capfd, error, code):
    found, err = told(monkeypatch, capfd, *bad(error, "init"))
    assert found == code
    assert f"{own}, line 14, in Bad.fail" in err
    assert "no such thing" in err
    assert "Traceback" not in err
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ValueError", "ZeroDivisionError"])
def test_an_error_in_a_round(own, monkeypatch, capfd, error):
    found, err = told(monkeypatch, capfd, *bad(error, "generator"))
    assert found == 1
    place = f"raised in {own}, line 14, in Bad.fail; the traceback is in {Path('run').resolve() / 'train.log'}"
    assert f"{error}: no such thing\n  {place}" in err
    assert "Traceback" not in err
    assert "Traceback" in Path("run/train.log").read_text()


@pytest.mark.slow
def test_an_error_in_a_callback(own, monkeypatch, capfd):
    found, err = told(monkeypatch, capfd, "+callback.watch={_target_:own_errors.parts.Watch}")
    assert found == 1
    assert f"raised in {own}, line 23, in Watch.after_round; the traceback is in " in err
    assert "Traceback" not in err
