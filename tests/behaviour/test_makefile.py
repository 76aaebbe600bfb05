"""What each command of the Makefile installs on a bare machine: what it needs, and no more."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
INSTALLED = {
    "demo": ".",
    "install": ".",
    "test": ".[test]",
    "test-gpu": ".[test]",
    "install-all": ".[dev]",
    "check": ".[dev]",
    "format": ".[dev]",
}

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path)
    return tmp_path


def said(folder: Path, target: str) -> str:
    """What make would run."""
    return subprocess.run(["make", "-n", target], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", INSTALLED)
def test_a_target_installs_one_level_and_makes_the_environment_first(bare: Path, target: str):
    lines = said(bare, target)
    assert re.findall(r"--editable '([^']+)'", lines) == [INSTALLED[target]]
    assert lines.index("-m venv .venv") < lines.index("--editable")


def test_a_level_has_those_below_it_and_is_installed_once(bare: Path):
    (bare / ".venv" / "bin").mkdir(parents=True)
    (bare / ".venv" / "bin" / "pip").touch()
    (made,) = re.findall(r"touch (.*)", said(bare, "test"))
    for stamp in made.split():
        (bare / stamp).touch()
    assert not any("pip" in said(bare, target) for target in ("demo", "test"))
    assert re.findall(r"--editable '([^']+)'", said(bare, "check")) == [".[dev]"]
    (made,) = re.findall(r"touch (.*)", said(bare, "check"))
    for stamp in made.split():
        (bare / stamp).touch()
    assert not any("--editable" in said(bare, target) for target in INSTALLED)


def test_the_tools_of_check_come_with_every_optional_package():
    (own,) = [each for each in EXTRAS["dev"] if each.startswith("gan-runner[")]
    assert set(own.removeprefix("gan-runner[").removesuffix("]").split(",")) == EXTRAS.keys() - {"dev"}


def test_what_is_run_on_every_change_installs_everything_and_checks_it():
    script = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make .*", script, re.MULTILINE) == ["make install-all", "make check"]
