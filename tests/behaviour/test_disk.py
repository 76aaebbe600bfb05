"""Disks that are really full or read-only: a small tmpfs, filled to the last byte in mid-run, and given back."""

import os
import re
import subprocess
import threading

import pytest
import torch

from gan_runner import cli
from gan_runner.assembly import build
from gan_runner.config import composer
from gan_runner.errors import Failed, UserError
from gan_runner.lifecycle import runs
from gan_runner.storage import checkpoint, directory
from gan_runner.training import disk_room
from processes import ROOT, command, ended
from read_runs import curves, lines, same, state_of, status_of

FILLING = """
import os
from concurrent.futures import wait
from pathlib import Path
from gan_runner import Callback


def fill(ballast, left=0):
    \"\"\"Take all that the disk has but for so many bytes.\"\"\"
    with open(ballast, "wb", buffering=0) as file:
        size = 0
        try:
            while written := file.write(bytes(4096)):
                size += written
        except OSError:
            pass
        file.truncate(size - left)


class Filling(Callback):
    \"\"\"Fills the disk once, at a step, before the first or at the end of the run; then says so many words, for the log.

    A round takes as long as what is written meanwhile: what is on the disk when it is full is no matter of chance.
    \"\"\"

    def __init__(self, ballast: str, order: float = -1, step: int = 5, left: int = 0, words: int = 0):
        self.ballast, self.order, self.step, self.left, self.words = Path(ballast), order, step, left, words

    def begin(self, run):
        if self.step == 0:
            self.fill(run)

    def after_round(self, run, logs):
        self.let_write(run)
        if run.step == self.step:
            self.fill(run)

    def end(self, run):
        self.let_write(run)
        if self.step == -1:
            self.fill(run)

    def let_write(self, run):
        wait([run.writer.last] if run.writer.last else [])

    def fill(self, run):
        mark = run.folder / "filled"
        if not mark.exists():
            mark.touch()
            fill(self.ballast, self.left)
        if self.words:
            run.reporter.say("word " * self.words)
"""
TINY = [
    "+experiment=gaussians25",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.steps=12",
    "architecture.generator.width=16",
    "architecture.discriminator.width=16",
    "batch_size=16",
    "dataset.n=200",
    "callback.evaluate.n=50",
    "callback.evaluate.every_steps=100",
    "callback.grid.n=4",
    "callback.grid.every_steps=100",
    "callback.log.every_steps=100",
    "callback.checkpoint.every_steps=4",
]
QUIET = "logger=[]"
CASES = {  # where the disk is full -> what else the line says, when it is filled, the step that is left, what is said
    "a checkpoint": ([QUIET], "step: 8, order: 0.5", 4, r"checkpoints/step_00000008\.pt could not be written: the disk is full"),
    "half a checkpoint": ([QUIET], "step: 8, order: 0.5, left: 20480", 4, r"step_00000008\.pt could not be written: the disk is full"),
    "a picture": ([QUIET, "callback.grid.every_steps=5"], "", 4, r"samples/step_00000005\.png could not be written: the disk is full"),
    "metrics.jsonl": (
        [QUIET, "callback.evaluate.every_steps=5"], "", 4, r"metrics\.jsonl could not be written: No space left on device",
    ),
    "the curves": (  # of so many rounds that they do not fit into what the last pages of their files have left
        ["callback.log.every_steps=1", "trainer.steps=120", "callback.checkpoint.every_steps=60"], "step: 65", 60,
        r"the curves in .*run could not be written: No space left on device",
    ),
    "train.log": ([QUIET], "words: 2000", 4, r"train\.log could not be written: No space left on device"),
    "status.json": ([QUIET], "step: -1, order: 2", 12, r"status\.json could not be written: the disk is full"),
}  # fmt: skip


def mounted(folder, *options):
    """Put a disk of 2 MiB on a folder."""
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A folder with a small disk of its own, and a package that fills it."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "filling.py").write_text(FILLING)
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), str(ROOT / "src")]))
    folder = tmp_path / "disk"
    mounted(folder)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def filled(disk):
    from filling import fill

    fill(disk / "ballast")


def train(monkeypatch, capfd, *words):
    """(exit code, what was said on stderr) of gan-train, in this process."""
    capfd.readouterr()
    monkeypatch.setattr("sys.argv", ["gan-train", *map(str, words)])
    return cli.train(), capfd.readouterr().err


def last_words(said):
    """The only line of the command itself; no trace of where it came from."""
    assert "Traceback" not in said
    assert "Exception" not in said
    assert "GAN_RUNNER_DEBUG" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("gan-train: ")]
    assert said.rstrip().endswith(line)
    return line


def whole(folder):
    """The number of checkpoints that a run has left behind, all of which can be read; nothing is half written."""
    assert not list(folder.rglob(".*.part"))
    assert status_of(folder)["state"] in ("failed", "running")  # what was there before stays, where the disk takes no more
    paths = list((folder / "checkpoints").glob("*.pt"))
    for path in paths:
        checkpoint.load(path)
    return len(paths)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_disk_that_is_full_in_mid_run(tmp_path, monkeypatch, capfd, disk, name):
    """One message, exit code 1, the checkpoint before it intact; given room, the run goes on to the bits of one that had it all along."""
    words, when, step, message = CASES[name]
    filling = f"+callback.filling={{_target_: filling.Filling, ballast: {disk}/ballast{when and ', ' + when}}}"
    words = [*TINY, *words, filling, "packages=[filling]"]
    folder, straight = disk / "run", tmp_path / "straight"
    straight.mkdir()
    (straight / "filled").touch()
    assert train(monkeypatch, capfd, *words, f"hydra.run.dir={straight}")[0] == 0
    with capfd.disabled():
        code, said = ended(command(*words, f"hydra.run.dir={folder}"))
    assert code == 1, said
    assert re.search(message, last_words(said)), said
    assert state_of(folder)["step"] == step
    assert whole(folder) >= 2  # its own name, and last.pt

    (disk / "ballast").unlink()
    code, said = train(monkeypatch, capfd, f"resume={folder}", "packages=[filling]")
    assert code == 0, said
    assert status_of(folder)["state"] == "finished"
    assert same(state_of(straight), state_of(folder)) is None
    assert lines(straight) == lines(folder)
    if QUIET not in words:
        assert curves(straight) == curves(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("step: 0", r"samples/step_00000000\.png could not be written: the disk is full"),
        ("step: 4, order: 0.5", r"checkpoints/step_00000004\.pt could not be written: the disk is full"),
    ],
    ids=["first picture", "first checkpoint"],
)
def test_a_disk_that_is_full_before_there_is_a_checkpoint(monkeypatch, capfd, disk, when, message):
    """One message, exit code 1, nothing half written; there is nothing to go on from, which a resume says."""
    filling = f"+callback.filling={{_target_: filling.Filling, ballast: {disk}/ballast, {when}}}"
    with capfd.disabled():
        code, said = ended(command(*TINY, QUIET, filling, "packages=[filling]", f"hydra.run.dir={disk}/run"))
    assert code == 1, said
    assert re.search(message, last_words(said)), said
    assert whole(disk / "run") == 0
    (disk / "ballast").unlink()
    code, said = train(monkeypatch, capfd, f"resume={disk}/run", "packages=[filling]")
    assert code == 2, said
    assert last_words(said).startswith(f"gan-train: {disk}/run has no checkpoint to go on from: play it again from its first round")


@pytest.mark.slow
def test_a_disk_that_is_full_while_a_checkpoint_is_written_and_rounds_go_on(tmp_path, monkeypatch, disk):
    """What the round cannot write is told, and the thread that cannot write the checkpoint neither hides it nor leaves half of a file."""
    save, begun, full = checkpoint.save, threading.Event(), threading.Event()

    def late(path, state, *root):
        if state["step"] == 8 and not full.is_set():
            begun.set()
            assert full.wait(60)
        save(path, state, *root)

    def draw(path, picture, *root):
        if path.name == "step_00000009.png" and not full.is_set():
            assert begun.wait(60)
            filled(disk)
            full.set()
        write_picture(path, picture, *root)

    write_picture = directory.write_picture
    monkeypatch.setattr(checkpoint, "save", late)
    monkeypatch.setattr(directory, "write_picture", draw)
    composed = composer.compose([*TINY, QUIET, "callback.grid.every_steps=9"]).config
    with pytest.raises(Failed, match=r"samples/step_00000009\.png could not be written: the disk is full"):
        runs.train(composed, disk / "run")
    assert state_of(disk / "run")["step"] == 4
    assert whole(disk / "run") == 2
    (disk / "ballast").unlink()
    runs.resume(disk / "run")
    runs.train(composed, tmp_path / "straight")
    assert same(state_of(tmp_path / "straight"), state_of(disk / "run")) is None


@pytest.mark.slow
def test_a_disk_that_is_full_ends_two_processes(tmp_path, disk):
    filling = f"+callback.filling={{_target_: filling.Filling, ballast: {disk}/ballast, step: 8, order: 0.5}}"
    code, said = ended(
        command(*TINY, QUIET, filling, "packages=[filling]", "trainer.devices=2", f"hydra.run.dir={disk}/run", TMPDIR=tmp_path)
    )
    assert code == 1, said
    assert re.search(r"step_00000008\.pt could not be written: the disk is full", last_words(said)), said
    assert state_of(disk / "run")["step"] == 4


@pytest.mark.slow
def test_a_cache_on_a_full_disk_costs_no_figure(tmp_path, monkeypatch, disk):
    """Features of real samples that cannot be kept are made anew."""
    filled(disk)
    words = [*TINY, "trainer.steps=2", "metric=[frechet_distance]", "extractor=identity", QUIET]
    for name, cache in (("full", disk / "cache"), ("free", tmp_path / "cache")):
        monkeypatch.setenv("GAN_RUNNER_CACHE", str(cache))
        runs.train(composer.compose(words).config, tmp_path / name)
    assert list((tmp_path / "cache").rglob("features.npy")) or list((tmp_path / "cache").rglob("moments.npz"))
    assert not [path for path in disk.rglob("*") if path.is_file() and path.name != "ballast"]
    assert lines(tmp_path / "full") == lines(tmp_path / "free")
    assert all(value is not None for value in lines(tmp_path / "full")[0]["metrics"].values())


@pytest.mark.slow
def test_a_disk_without_room_for_the_checkpoints_is_refused_before_the_start(monkeypatch, capfd, disk):
    filled(disk)
    code, said = train(monkeypatch, capfd, *TINY, f"hydra.run.dir={disk}/run")
    assert code == 2
    assert re.fullmatch(
        rf"gan-train: the disk of {disk}/run has 0\.0 MiB free, and this run keeps up to 4 checkpoints of 0\.\d MiB each: make room, "
        r"choose another place, or lower callback\.checkpoint\.keep", last_words(said),
    )  # fmt: skip
    assert not (disk / "run").exists()
    code, said = train(monkeypatch, capfd, "-m", *TINY, "seed=0,1", f"hydra.sweep.dir={disk}/sweep")
    assert code == 2
    assert f"every job: the disk of {disk}/sweep has" in last_words(said)
    assert [path.name for path in disk.iterdir()] == ["ballast"]


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["with room", "full"])
def test_a_disk_that_is_read_only_is_refused_before_the_start(monkeypatch, capfd, disk, full):
    """Also to a run that was begun there. One that is full besides is not said to lack room."""
    runs.train(composer.compose([*TINY, QUIET]).config, disk / "run")
    if full:
        filled(disk)
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for words in ([*TINY, f"hydra.run.dir={disk}/other"], [f"resume={disk}/run", "trainer.steps=16"], [*TINY, f"hydra.run.dir={disk}/run"]):
        code, said = train(monkeypatch, capfd, *words)
        assert code == 2, said
        assert last_words(said).endswith("cannot be written: Read-only file system")
    assert before == {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}


# ---- how much room a run needs ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "torch.optim.SGD"])
def test_the_room_that_is_asked_for_is_what_a_checkpoint_takes(tmp_path, optimizer):
    words = [*TINY, QUIET, "trainer.steps=2", "architecture.generator.width=256", "architecture.discriminator.width=256"]
    if optimizer == "torch.optim.SGD":
        words += [
            word
            for side in ("generator", "discriminator")
            for word in (f"optimizer.{side}._target_={optimizer}", f"~optimizer.{side}.betas")
        ]
    else:
        words += [f"optimizer={optimizer}"]
    composed = composer.compose(words).config
    expected = disk_room.state_bytes(build.check(composed).game)
    runs.train(composed, tmp_path)
    size = (tmp_path / "checkpoints" / "last.pt").stat().st_size
    assert expected <= size < 1.05 * expected + 50_000


@pytest.mark.slow
def test_a_run_that_goes_on_needs_no_room_for_what_is_there(tmp_path, monkeypatch):
    composed = composer.compose([*TINY, QUIET, "metric.mode_coverage.radius_sigmas=40.0"]).config  # so that there is a best.pt
    runs.train(composed, tmp_path)
    assembly = build.check(composed)
    each, files = disk_room.state_bytes(assembly.game), {p.stat().st_ino: p.stat().st_size for p in (tmp_path / "checkpoints").iterdir()}
    assert len(files) == 3  # two of their own, and best.pt; last.pt is a second name
    for free, enough in ((4 * each - sum(files.values()), True), (4 * each - sum(files.values()) - 1, False)):
        monkeypatch.setattr(disk_room.shutil, "disk_usage", lambda folder, free=free: type("usage", (), {"free": free}))
        if enough:
            disk_room.refuse_shortage(assembly, tmp_path)
        else:
            with pytest.raises(UserError, match=r"more than the 0\.\d MiB that are there: make room"):
                disk_room.refuse_shortage(assembly, tmp_path)


# ---- a file in the place of a folder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["samples", "checkpoints"])
def test_a_file_in_the_place_of_a_folder(tmp_path, name):
    composed = composer.compose([*TINY, QUIET]).config
    (tmp_path / name).touch()
    with pytest.raises(Failed, match=rf"{name} could not be created: File exists"):
        runs.train(composed, tmp_path)


def test_a_file_in_the_place_of_the_folder_of_evaluations(tmp_path):
    (tmp_path / "evaluations").touch()
    with pytest.raises(Failed, match="evaluations could not be created: File exists"):
        directory.add_evaluation(tmp_path, {"step": 1}, {"a": torch.zeros(3, 1, 1, dtype=torch.uint8)})


def test_a_log_that_cannot_be_opened(tmp_path):
    (tmp_path / "train.log").mkdir()
    with pytest.raises(Failed, match=r"train\.log could not be opened: Is a directory"):
        runs.train(composer.compose([*TINY, QUIET]).config, tmp_path)
