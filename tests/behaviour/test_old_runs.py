"""Runs that older versions have left behind are resumed, sampled, evaluated and listed."""

import json
import sys
import tarfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

import golden
from gan_runner import cli, load
from read_runs import state_of

ARCHIVES = sorted((Path(__file__).parent / "old_runs").glob("*.tar.xz"))
RUNS = ("gaussians25", "images_dcgan", "sweep/1")
# of a Wasserstein critic, which is defined up to a constant: its gradient is rounding alone, and Adam makes a step of the rate of it
CONSTANT = {"gaussians25": "players.discriminator.objective.net.body.4.bias"}


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def old(request, tmp_path, monkeypatch):
    """The working folder of an older version; runs name their images below it."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def command(monkeypatch, capfd):
    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [f"gan-{name}", *words])
        capfd.readouterr()
        code = getattr(cli, {"eval": "evaluate"}.get(name, name))()
        said = capfd.readouterr()
        assert code == 0, said
        return said.out + said.err

    return run


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_before_goes_on_to_the_weights_that_it_would_have_had(old, command, name):
    expected = safetensors.torch.load_file(old / "expected.safetensors")
    expected = {key.partition("|")[2]: value for key, value in expected.items() if key.startswith(f"{name}|")}
    said = command("train", f"resume={name}")
    assert "not checked" in said  # that its data and its configuration are still those that it was made with
    weights = state_of(old / name)["game"]
    exact = (old / "made_by.txt").read_text().strip() == golden.made_by()
    for key, value in expected.items():
        if exact or key != CONSTANT.get(name):
            assert torch.equal(weights[key], value) if exact else torch.allclose(weights[key], value, rtol=1e-3, atol=1e-5), key


@pytest.mark.parametrize("name", [*RUNS, "sweep/0"])
def test_a_run_of_before_is_sampled_and_evaluated(old, command, name):
    run = load(name)
    assert run.sample(3).isfinite().all()
    assert "samples of round" in command("sample", f"run={name}", "n=4", "accelerator=cpu")
    if "gaussians" in name:
        assert '"modes/kl"' in command("eval", f"run={name}", "n=50", "accelerator=cpu")


@pytest.mark.slow
def test_an_unfinished_sweep_of_before_is_finished_by_the_same_line(old, command):
    expected = safetensors.torch.load_file(old / "expected.safetensors")
    expected = {key.partition("|")[2]: value for key, value in expected.items() if key.startswith("sweep/1|")}
    finished = {path: path.read_bytes() for path in (old / "sweep" / "0").rglob("*") if path.is_file()}
    _, *line = json.loads((old / "sweep" / "1" / "env.json").read_text())["command"]
    said = command("train", *line)
    assert "sweep/1 keeps its configuration, since a recipe has changed after it began: callback.evaluate.best.metric from " in said
    assert {path: path.read_bytes() for path in (old / "sweep" / "0").rglob("*") if path.is_file()} == finished
    weights = state_of(old / "sweep" / "1")["game"]
    exact = (old / "made_by.txt").read_text().strip() == golden.made_by()
    for key, value in expected.items():
        assert torch.equal(weights[key], value) if exact else torch.allclose(weights[key], value, rtol=1e-3, atol=1e-5), key


def test_runs_of_before_are_listed(old, command):
    rows = [json.loads(line) for line in command("runs", ".", "--json").splitlines()]
    found = {row["name"]: (row["state"], row["step"]) for row in rows}
    assert found == {
        "gaussians25": ("interrupted", 6), "images_dcgan": ("interrupted", 3), "sweep/0": ("finished", 6), "sweep/1": ("interrupted", 3)
    }  # fmt: skip
