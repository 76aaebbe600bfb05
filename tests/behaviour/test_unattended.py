"""Runs whose terminal goes away, whose data do not come, and whose container is small."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_runner import cli
from read_runs import same, state_of
from tiny_runs import NARROW

SOURCE = Path(cli.__file__).parents[1]
NOISY = ["callback.log.every_steps=1", "callback.progress.every_seconds=0.001", "callback.checkpoint.every_steps=1000"]
LINES = {
    "a run": ["trainer.steps=12", "hydra.run.dir=run"],
    "two processes": ["trainer.steps=12", "trainer.devices=2", "hydra.run.dir=run"],
    "a sweep": ["-m", "trainer.steps=6,12", "hydra.sweep.dir=."],
}


def started(folder: Path, command: str, *words: str, out=subprocess.DEVNULL, **more) -> subprocess.Popen:
    """A command in a process of its own, whose messages go to `out`."""
    program = f"import sys; from gan_runner import cli; sys.exit(cli.{command}())"
    env = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"} | more.pop("env", {})
    return subprocess.Popen([sys.executable, "-c", program, *words], cwd=folder, env=env, **{"stdout": out, "stderr": out} | more)


def states(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["state"] for path in sorted(folder.rglob("status.json"))]


def until(there, child: subprocess.Popen, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of images."""
    (tmp_path / "data").mkdir()
    for i in range(12):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "data" / f"{i}.png")
    return tmp_path / "data"


# ---- the console is a courtesy ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", LINES)
def test_nobody_reads_the_messages(tmp_path, kind):
    read, write = os.pipe()
    child = started(tmp_path, "train", *NARROW, *NOISY, *LINES[kind], out=write)
    os.close(write)
    os.read(read, 1)  # as `| head -c 1` does
    os.close(read)
    assert child.wait(240) == 0
    assert set(states(tmp_path)) == {"finished"}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_log_on_a_full_disk_costs_messages_only(tmp_path):
    with open("/dev/full", "w") as full:
        child = started(tmp_path, "train", *NARROW, *NOISY, *LINES["a run"], out=full)
    assert child.wait(240) == 0
    assert states(tmp_path) == ["finished"]


@pytest.mark.slow
def test_what_is_printed_is_lost_with_a_message_and_the_figures_are_kept(tmp_path):
    assert started(tmp_path, "train", *NARROW, *LINES["a run"]).wait(240) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().count("\n")
    with open("/dev/full", "w") as full:
        child = started(tmp_path, "evaluate", "run=run", "n=100", stdout=full, stderr=subprocess.PIPE)
    said = child.communicate(timeout=240)[1].decode()
    assert child.returncode == 1
    assert said.endswith("gan-eval: standard output could not be written: No space left on device\n")
    read, write = os.pipe()
    os.close(read)
    child = started(tmp_path, "evaluate", "run=run", "n=100", out=write)
    os.close(write)
    assert child.wait(240) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == lines + 2
    read, write = os.pipe()
    os.close(read)
    child = started(tmp_path, "runs", ".", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    said = child.communicate(timeout=240)[1].decode()
    assert child.returncode == 0
    assert all(line.startswith("gan-runs: ") for line in said.splitlines()), said


@pytest.mark.slow
def test_an_ascii_python_trains(tmp_path, pictures):
    place = pictures.rename(tmp_path / "caf\u00e9 \u2026")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"}
    words = ["+experiment=dcgan_image_folder", f'dataset.path="{place.name}"', *IMAGES, "trainer.steps=2", "hydra.run.dir=run"]
    child = started(tmp_path, "train", *words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = child.communicate(timeout=240)[0].decode("ascii")
    assert child.returncode == 0, said
    assert "12 images in" in said


IMAGES = [
    "dataset.resolution=32", "dataset.test_fraction=0", "batch_size=4", "architecture.generator.width=4", "trainer.accelerator=cpu",
    "architecture.discriminator.width=4", "callback.grid.n=4", "trainer.engine=eager",
]  # fmt: skip


# ---- signals ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("ignored", "devices"), [(False, 1), (False, 2), (True, 1)], ids=["", "two processes", "nohup"])
def test_the_end_of_a_terminal_saves_the_run_unless_it_is_ignored(tmp_path, ignored, devices):
    steps = 400
    words = [*NARROW, *NOISY, f"trainer.devices={devices}", "callback.evaluate.every_steps=1000", f"trainer.steps={steps}"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    log = tmp_path / "log"
    try:
        with open(log, "w") as out:
            child = started(tmp_path, "train", *words, "hydra.run.dir=run", out=out)
    finally:
        signal.signal(signal.SIGHUP, before)
    until(lambda: "\nround " in log.read_text(), child)
    child.send_signal(signal.SIGHUP)  # a terminal that closes sends two
    child.send_signal(signal.SIGHUP)
    assert child.wait(240) == (0 if ignored else 128 + signal.SIGHUP), log.read_text()
    assert states(tmp_path) == ["finished" if ignored else "interrupted"]
    if ignored or devices == 2:
        return
    assert started(tmp_path, "train", "resume=run").wait(240) == 0
    assert started(tmp_path, "train", *words, "hydra.run.dir=whole").wait(240) == 0
    assert same(state_of(tmp_path / "run"), state_of(tmp_path / "whole")) is None


STALLED = """
import time
from torch.utils.data import get_worker_info
from gan_runner.datasets.points import Gaussians25

class Stalled(Gaussians25):
    \"\"\"Points whose reading stops after so many.\"\"\"

    def __init__(self, most: int, n: int = 400, seed: int = 0):
        super().__init__(n, seed)
        self.most, self.resident_mb, self.workers = most, 0, 1

    def at_hand(self, split, tick=None):
        return Slow(super().at_hand(split), self.most)

class Slow:
    def __init__(self, items, most):
        self.items, self.most, self.read = items, most, 0
        self.labels, self.nbytes = items.labels, items.nbytes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]

    def take(self, indices):
        self.read += len(indices) * (get_worker_info() is not None)
        time.sleep(1000 if self.read > self.most else 0)
        return self.items.take(indices)
"""


@pytest.mark.slow
def test_a_signal_ends_a_run_whose_data_do_not_come_and_saves_it(tmp_path):
    (tmp_path / "stalled.py").write_text(STALLED)
    words = [
        *NARROW,
        *NOISY,
        "packages=[stalled]",
        "dataset._target_=stalled.Stalled",
        "+dataset.most=100",
        "callback.evaluate.every_steps=2",
    ]
    log = tmp_path / "log"
    with open(log, "w") as out:
        env = {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(tmp_path)])}
        child = started(tmp_path, "train", *words, "trainer.steps=20", "hydra.run.dir=run", out=out, env=env)
    try:
        until((tmp_path / "run" / "metrics.jsonl").exists, child)  # of round 2; a round reads two batches of 16
        time.sleep(2)
        child.terminate()
        assert child.wait(60) == 128 + signal.SIGTERM, log.read_text()
    finally:
        child.kill()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 3)
    assert state_of(tmp_path / "run")["step"] == 3


def may_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="needs to mount a small /dev/shm, as root")
def test_a_small_dev_shm_is_told_and_the_run_goes_on(tmp_path, pictures):
    words = ["+experiment=dcgan_image_folder", "dataset.path=data", *IMAGES, "batch_size=64", "dataset.workers=2", "dataset.resident_mb=0"]
    program = "import sys; from gan_runner import cli; sys.exit(cli.train())"
    line = [sys.executable, "-c", program, *words, "trainer.steps=2", "hydra.run.dir=run"]
    script = f"mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {shlex.join(line)}"
    env = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["unshare", "-m", "bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("/dev/shm has no room") == 1
    assert "Traceback" not in done.stderr
