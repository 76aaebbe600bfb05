"""Runs and sweeps of a few rounds, undisturbed and disturbed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from gan_runner import cli
from gan_runner.assembly import build
from gan_runner.config import composer
from gan_runner.lifecycle import runs
from gan_runner.training.callback import Callback
from read_runs import measured, same, state_of

TINY = ["trainer.accelerator=cpu", "callback.log.every_steps=2", "callback.checkpoint.every_steps=4", "~callback.progress"]


NARROW = (
    "+experiment=gaussians25", "architecture.generator.width=8", "architecture.discriminator.width=8", "batch_size=16", "dataset.n=400",
    "trainer.accelerator=cpu", "callback.grid.n=16", "callback.evaluate.n=200", "callback.evaluate.every_steps=4",
)  # fmt: skip
READING = {  # what the commands that read a run are given
    "sample": ["run=run", "n=4", "out=samples"],
    "evaluate": ["run=run", "n=100"],
    "rate": ["run=run", "out=rating"],
    "runs": ["."],
}


def composed(*overrides):
    return composer.compose(list(overrides)).config


class At(Callback):
    """Does something in one round."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def after_round(self, run, logs):
        if run.step == self.step:
            self.act(run)


def disturbed(monkeypatch, callback):
    """Runs have one more callback from here on."""
    assemble = build.assemble

    def assembled(*args, **kw):
        assembly = assemble(*args, **kw)
        assembly.callbacks = {"at": callback, **assembly.callbacks}
        return assembly

    monkeypatch.setattr(runs, "assemble", assembled)


SMALL = (
    "+experiment=gaussians25",
    "callback.grid.n=16",
    "callback.evaluate.n=200",
    "callback.evaluate.every_steps=3",
    "batch_size=16",
    "metric.mode_coverage.radius_sigmas=40.0",
)  # so wide that every job has a value


JOB = (*SMALL, *TINY, "trainer.steps=8")


def terminal(monkeypatch, capfd, *line):
    monkeypatch.setattr(sys, "argv", ["gan-train", *line])
    capfd.readouterr()
    try:
        code = cli.train()
    except SystemExit as leaving:
        code = leaving.code
    out, err = capfd.readouterr()
    return code, out, err.replace("\n", " ")


def states(out):
    return [line.split()[1] for line in out.splitlines()[1:4]]


def on_seed(seed, step, act):
    """A callback for the job with this seed."""
    return At(step, lambda run: act(run) if run.config["seed"] == seed else None)


TRAIN = "import sys; from gan_runner.cli import train; sys.exit(train())"


def gan_train(folder, *line):
    """gan-train in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, *line], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def check_survives_kill_9(folder, words, steps):
    """A sweep or search of three jobs that is killed in job 1, and started again by the same line, is the undisturbed one."""
    words = [
        *words,
        f"trainer.steps={steps}",
        f"callback.evaluate.every_steps={steps // 2}",
        f"callback.checkpoint.every_steps={steps // 4}",
    ]
    whole = gan_train(folder, *words, "hydra.sweep.dir=whole")
    child = gan_train(folder, *words, "hydra.sweep.dir=killed")
    deadline = time.monotonic() + 240
    while not (folder / "killed/1/checkpoints/last.pt").exists():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.kill()
    child.communicate()
    assert json.loads((folder / "killed/1/status.json").read_text())["state"] == "running"
    assert not (folder / "killed/2").exists()
    before = content(folder / "killed/0")
    for started, name in ((whole, "whole"), (gan_train(folder, *words, "hydra.sweep.dir=killed"), "killed")):
        out = started.communicate()[0]
        assert started.returncode == 0, out
        assert ("going on after round" in out) == (name == "killed")
    assert content(folder / "killed/0") == before
    for job in "012":
        assert same(state_of(folder / "killed" / job), state_of(folder / "whole" / job)) is None
        assert measured(folder / "killed" / job) == measured(folder / "whole" / job)
        assert (folder / "killed" / job / "overrides.yaml").read_text() == (folder / "whole" / job / "overrides.yaml").read_text()
    assert (folder / "killed/table.txt").read_text() == (folder / "whole/table.txt").read_text()


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
