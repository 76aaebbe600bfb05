"""The wheel holds every configuration, and composes every experiment in an environment that has no torch."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AWAY = shutil.ignore_patterns(".*", "outputs", "data", "build", "dist", "*.egg-info", "__pycache__")

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GAN_RUNNER_PACKAGES")} | env
    return subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tree."""
    pytest.importorskip("build")
    tree = tmp_path_factory.mktemp("tree") / "gan-runner"
    shutil.copytree(ROOT, tree, ignore=AWAY)
    done = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", tree, cwd=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (tree / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment that holds the wheel and the two small packages that it needs to compose, nothing else."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    small = [one for one in dependencies if one.startswith(("hydra-core", "annotated-types"))]  # the second, for Hydra's plugins of ours
    reached = run(python, "-m", "pip", "install", "-q", *small, cwd=home)
    if reached.returncode != 0:
        pytest.skip(f"pip cannot install {' and '.join(small)} here: {reached.stderr.strip().splitlines()[-1]}")
    done = run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=home)
    assert done.returncode == 0, done.stderr
    assert run(python, "-c", "import torch", cwd=home).returncode != 0
    return home / "bin"


def test_the_wheel_holds_every_configuration_module_and_page(wheel: Path):
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"gan_runner/configs/{file.relative_to(ROOT / 'configs').as_posix()}" for file in (ROOT / "configs").rglob("*.yaml")}
    files = {file for suffix in ("py", "pyi", "html", "jinja", "safetensors") for file in (ROOT / "src").rglob(f"*.{suffix}")}
    modules = {file.relative_to(ROOT / "src").as_posix() for file in files}
    assert {"gan_runner/configs/train.yaml", "gan_runner/cli.py", "hydra_plugins/gan_runner_launchers.py"} <= configs | modules
    assert (configs | modules) - inside == set()


@pytest.mark.slow
def test_every_experiment_composes_from_the_wheel_without_torch(installed: Path, tmp_path: Path):
    experiments = sorted(file.stem for file in (ROOT / "configs" / "experiment").glob("*.yaml"))
    assert experiments
    for name in experiments:
        done = run(installed / "gan-train", f"+experiment={name}", "--cfg", "job", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert "_target_: gan_runner." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_installed_commands_explain_themselves_without_torch(installed: Path, tmp_path: Path):
    helped = run(installed / "gan-train", "--help", cwd=tmp_path)
    assert helped.returncode == 0
    assert "gaussians25" in helped.stdout
    assert run(installed / "gan-train", "--version", cwd=tmp_path).stdout.startswith("gan-train ")
    completed = run(installed / "gan-train", "-sc", "query=bash", cwd=tmp_path, COMP_LINE="gan-train +experiment=gauss")
    assert completed.stdout.split() == ["+experiment=gaussians25"]
    assert run(installed / "gan-sample", cwd=tmp_path).returncode == 2
