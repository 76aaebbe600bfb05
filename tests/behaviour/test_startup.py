"""What the commands import before they do what was asked for: libraries that take seconds come where one of their functions is called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gan_runner

SOURCE = Path(gan_runner.__file__).parents[1]
SLOW = ("torchvision", "torchmetrics", "scipy", "pandas")

# A command whose first round is its last: what it has imported until then is on the last line.
FIRST_ROUND = """
import sys
from gan_runner import cli
from gan_runner.game.game import Game
play = Game.round
def once(self, *given, **named):
    play(self, *given, **named)
    print(*sys.modules, file=sys.__stdout__, flush=True)
    raise KeyboardInterrupt
Game.round = once
sys.argv[0] = "gan-train"
cli.train()
"""
SAMPLE = """
import sys
from gan_runner import cli
sys.argv[0] = "gan-sample"
code = cli.sample()
print(*sys.modules)
sys.exit(code)
"""
TRAIN = "import sys; from gan_runner import cli; sys.argv[0] = 'gan-train'; sys.exit(cli.train())"
RUN = ("+experiment=gaussians25", "trainer.threads=1", "trainer.accelerator=cpu", "trainer.steps=1", "batch_size=16")


def imported(code: str, *line: str) -> set[str]:
    """The modules that a process has imported, as it prints them on its last line."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code, *line], env=environment, capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines()
    assert lines, ended.stderr
    return set(lines[-1].split())


@pytest.mark.slow
def test_the_first_round_comes_before_what_only_later_work_needs(tmp_path: Path) -> None:
    modules = imported(FIRST_ROUND, *RUN, f"hydra.run.dir={tmp_path / 'run'}")
    assert {"torch", "gan_runner.metrics.mode_coverage", "torch.utils.tensorboard"} <= modules
    assert sorted(modules & set(SLOW)) == []


@pytest.mark.slow
def test_samples_need_no_optimiser_and_no_logger(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (sys.executable, "-c", TRAIN, *RUN, "callback.grid.every_steps=2", f"hydra.run.dir={run}")
    subprocess.run(words, env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    modules = imported(SAMPLE, f"run={run}", "format=npz", f"out={tmp_path / 'samples.npz'}")
    assert "gan_runner.architectures.mlp" in modules
    assert (tmp_path / "samples.npz").exists()
    assert sorted(modules & {*SLOW, "matplotlib", "torch._dynamo", "tensorboard", "sympy"}) == []
