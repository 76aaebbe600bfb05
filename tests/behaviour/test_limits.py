"""Values beyond the limits of the system, and files of other editors: one line, exit code 2, nothing created."""

import json
import os
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner import cli
from gan_runner.assembly.build import judges
from gan_runner.commands.sample import ending_in
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.datasets import ImageFolder
from gan_runner.datasets.stored import Stored
from gan_runner.errors import UserError, amount, verdict
from gan_runner.evaluation.findings import evaluate
from gan_runner.evaluation.reference import Reference
from gan_runner.execution import hardware
from gan_runner.lifecycle import runs
from gan_runner.loggers.csv_file import CSV
from gan_runner.sampling.subjects import Collected
from gan_runner.storage import directory
from gan_runner.training.callback import Callback
from read_runs import state_of
from tiny_runs import NARROW, disturbed, terminal

LONG = "x" * 300
DIGITS = "9" * 5000
BODY = "# @package _global_\n# caf\u00e9\ndefaults:\n  - gaussians25\nseed: 7\n"


@pytest.fixture
def shell(tmp_path, monkeypatch, capfd):
    """A command in an empty folder: (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*line, command="train"):
        monkeypatch.setattr("sys.argv", [f"gan-{command}", *line])
        capfd.readouterr()
        code = getattr(cli, command)()
        return code, capfd.readouterr().err

    return run


def refused(answer: tuple[int, str], said: str, command: str = "train") -> None:
    code, err = answer
    assert code == 2, err
    assert said in err
    assert err.count("\n") == 1, err
    assert "Error:" not in err
    assert len(err) < 700


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("train", [*NARROW, f"hydra.run.dir={LONG}"]),
        ("train", [*NARROW, f"hydra.run.dir={'/'.join(['y' * 200] * 30)}"]),
        ("train", [*NARROW, "-m", "seed=0,1", f"hydra.sweep.dir={LONG}"]),
        ("train", ["+experiment=dcgan_image_folder", f"dataset.path={LONG}"]),
        ("train", ["dataset=packed", f"dataset.path={LONG}.zip", "architecture=dcgan"]),
        ("train", ["dataset=cifar10", f"dataset.root={LONG}", "architecture=dcgan"]),
        ("train", [*NARROW, f"init_from={LONG}"]),
        ("train", ["+experiment=gaussians25", "--config-dir", LONG]),
        ("sample", [f"run={LONG}"]),
        ("evaluate", [f"samples={LONG}", "reference=ring8", "metric=[kernel_density]"]),
        ("rate", [f"run={LONG}", "out=x"]),
        ("runs", [LONG]),
    ],
)
def test_a_path_that_is_too_long(shell, tmp_path, command, line):
    refused(shell(*line, command=command), "is longer than this system allows", command)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["seed", "dataset.seed", "callback.grid.seed", "trainer.steps"])
@pytest.mark.parametrize("more", [[], ["-m", "batch_size=1,2"]], ids=["single", "-m"])
def test_a_number_of_more_digits_than_are_read(shell, tmp_path, key, more):
    refused(shell("+experiment=gaussians25", f"{key}={DIGITS}", *more), "cannot read ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["trainer.threads=100000", "trainer.threads=1025", "dataset.workers=100000"])
def test_more_threads_or_workers_than_a_machine_can_start(shell, tmp_path, word):
    line = ["dataset=packed", "dataset.path=x.zip", "dataset.resolution=8", "architecture=dcgan", word]
    refused(shell(*line), f"{word}: expected a whole number, ")
    assert not list(tmp_path.iterdir())
    refused(shell("samples=x.npz", "reference=ring8", "metric=[kernel_density]", "threads=100000", command="evaluate"), "at most 1024")


# ---- memory -----------------------------------------------------------------------------------------------------------------------------

HUGE = [str(2**62), "1e30", "9" * 4000]


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize("key", ["dataset.n", "batch_size", "dataset.n_train", "dataset.n_test"])
def test_more_samples_than_memory_holds_are_refused_at_once(shell, tmp_path, key, number):
    line = ["dataset=triangles", "architecture=dcgan"] if "n_t" in key else NARROW
    refused(shell(*line, f"{key}={number}"), f"gan-train: {key} is too large: its samples take ")
    assert not list(tmp_path.iterdir())


def test_more_samples_than_a_picture_shows_are_refused_at_once(shell, tmp_path):
    refused(shell(*NARROW, f"callback.grid.n={2**62}"), "at most 1000000")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_samples_of_a_run_that_memory_does_not_hold_are_refused(shell, tmp_path):
    assert shell(*NARROW, "trainer.steps=1", "hydra.run.dir=run")[0] == 0
    before = sorted(Path("run").rglob("*"))
    refused(shell("run=run", f"n={2**62}", command="sample"), "gan-sample: n is too large: its samples take 32 EiB")
    line = ["dataset=sampled", "dataset.run=run", f"dataset.n={2**62}", "hydra.run.dir=other"]
    refused(shell(*NARROW, *line), "gan-train: dataset.n is too large: its samples take 32 EiB")
    assert sorted(Path("run").rglob("*")) == before
    assert not Path("other").exists()


def asks(*shape: int) -> Exception:
    """The error of torch for a tensor of this shape."""
    with pytest.raises(RuntimeError) as found:
        torch.empty(shape)
    return found.value


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (asks(2**42, 2), "32 TiB"),
        (asks(2**62), None),
        (OverflowError("int too big to convert"), None),
        (MemoryError(), None),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB"), "20.00 GiB"),
    ],
)
def test_a_lack_of_memory_is_one_line(error, size):
    asked = f" for {size} at once" if size else ""
    assert verdict(error)[1].splitlines()[0] == f"not enough memory{asked}; a smaller batch_size or n needs less"


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), OverflowError("math range error"), ValueError("out of memory")])
def test_another_error_keeps_its_words(error):
    assert verdict(error)[1].startswith(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1 KiB"), (2**30 - 1, "1,023 MiB"), (2**62, "4 EiB"), (10**999, "1,024 YiB")],
)
def test_amounts_are_rounded_down(size, said):
    assert amount(size) == said


# ---- files of other editors -------------------------------------------------------------------------------------------------------------


def experiment(folder: Path, content: bytes) -> None:
    (folder / "c" / "experiment").mkdir(parents=True)
    (folder / "c" / "experiment" / "mine.yaml").write_bytes(content)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    experiment(tmp_path, b"\xef\xbb\xbf" + BODY.encode())
    assert compose(["+experiment=mine"], [tmp_path / "c"]).config.seed == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "latin-1"])
def test_another_encoding_is_named_with_the_file(tmp_path, encoding):
    experiment(tmp_path, BODY.encode(encoding))
    with pytest.raises(UserError, match=r"experiment/mine\.yaml, line [12]: not encoded as UTF-8; save the file as UTF-8"):
        compose(["+experiment=mine"], [tmp_path / "c"])


def test_an_experiment_that_names_itself(tmp_path):
    experiment(tmp_path, BODY.replace("gaussians25", "mine").encode())
    with pytest.raises(UserError, match=r"^experiment/mine\.yaml: its defaults lead back to itself$"):
        compose(["+experiment=mine"], [tmp_path / "c"])
    (tmp_path / "c" / "experiment" / "mine.yaml").write_text(BODY.replace("gaussians25", "yours"))
    (tmp_path / "c" / "experiment" / "yours.yaml").write_text(BODY.replace("gaussians25", "mine"))
    with pytest.raises(UserError, match=r"^experiment/(mine|yours)\.yaml: its defaults lead back to itself$"):
        compose(["+experiment=mine"], [tmp_path / "c"])


@pytest.mark.parametrize(
    ("out", "path"),
    [("model_v1.5", "model_v1.5.npz"), ("model_v1.6", "model_v1.6.npz"), ("a.npz", "a.npz"), ("a.NPZ", "a.NPZ"), ("d.x/a", "d.x/a.npz")],
)
def test_a_dot_in_a_name_is_no_suffix(out, path):
    assert ending_in("npz", Path(out)) == Path(path)


def test_bf16_without_instructions_for_it_is_told(monkeypatch):
    cpu = hardware.torch.device("cpu")
    for there in (False, True):
        monkeypatch.setattr(hardware, "multiplies_bf16", lambda device, there=there: there)
        said = {precision: hardware.slower_than_float32(precision, cpu) for precision in ("auto", 32, 16, "bf16")}
        assert [precision for precision, note in said.items() if note] == ([] if there else ["bf16"])
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda device: False)
    assert hardware.slower_than_float32("bf16", hardware.torch.device("cuda")) is None


# ---- what is in the folder of a run -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_and_checkpoints_may_be_removed_while_a_run_rests(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert terminal(monkeypatch, capfd, *NARROW, "trainer.steps=4", "callback.grid.every_steps=2", "hydra.run.dir=run")[0] == 0
    for path in Path("run/samples").iterdir():
        path.unlink()
    Path("run/samples").rmdir()
    code, _, err = terminal(monkeypatch, capfd, "resume=run", "trainer.steps=6")
    assert code == 0, err
    assert [path.name for path in Path("run/samples").iterdir()] == ["step_00000006.png"]


@pytest.mark.slow
def test_a_run_that_left_no_checkpoint_says_what_to_type(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    line = [*NARROW, "trainer.steps=2", "seed=3"]
    assert terminal(monkeypatch, capfd, *line, "hydra.run.dir=run")[0] == 0
    for path in Path("run/checkpoints").iterdir():
        path.unlink()
    code, _, err = terminal(monkeypatch, capfd, "resume=run", "trainer.steps=9")
    assert code == 2
    assert "run has no checkpoint to go on from: play it again from its first round, into another folder, by gan-train " in err
    typed = shlex.split(err.partition(", by gan-train ")[2])
    assert compose(typed).yaml(True) == compose(line).yaml(True)


class Told:
    """What a logger needs to know of a run."""

    def __init__(self, folder, step):
        self.folder, self.step = folder, step


ENDS = [b"", b"7,loss/d,0.", b"4,loss/d,0.", b"4,", b"\0\0\0\0", b"\xff\n", b"4,loss/g,\0\0\n", b"4,loss/g,\n", b"9" * 99]


@pytest.mark.parametrize("end", ENDS)
def test_what_a_power_cut_left_at_the_end_of_a_table_is_dropped(tmp_path, end):
    rows = "step,name,value\n2,loss/d,0.5\n4,loss/d,nan\n4,loss/g,-inf\n"
    (tmp_path / "scalars.csv").write_bytes(rows.encode() + b"6,loss/d,1.5\n" + end)
    logger = CSV()
    logger.begin(Told(tmp_path, 4))
    logger.scalars(6, {"loss/d": 2.5})
    logger.close("finished")
    assert (tmp_path / "scalars.csv").read_text() == rows + "6,loss/d,2.5\n"


# ---- images -----------------------------------------------------------------------------------------------------------------------------


def picture(path: Path, mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(1, 256, (16, 16, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)


IMAGES = [
    "+experiment=dcgan_image_folder", "dataset.path=data", "dataset.resolution=8", "dataset.workers=0", "architecture.generator.width=4",
    "architecture.discriminator.width=4", "batch_size=4", "trainer.accelerator=cpu", "trainer.engine=eager", "hydra.run.dir=run",
]  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kept", ["true", "false"])
def test_all_unreadable_images_of_both_splits_are_named_before_there_is_a_run(shell, tmp_path, cache, monkeypatch, kept):
    monkeypatch.setattr(runs, "train", lambda *rest: None)
    for split in ("train", "test"):
        for i in range(12):
            picture(Path("data", split, f"{i:02d}.png"), seed=i)
    broken = [Path("data", split, f"{i:02d}.png") for split in ("train", "test") for i in range(0, 12, 3)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    line = [*IMAGES, f"dataset.keep_decoded={kept}"]
    code, err = shell(*line)
    assert code == 2
    assert err.startswith("gan-train: 8 mistakes\n")
    assert all(f"cannot decode the image {path} (" in err for path in broken)
    assert not Path("run").exists()
    for path in broken:
        picture(path)
    assert shell(*line)[0] == 0
    assert shell(*line)[0] == 0
    picture(broken[-1], seed=99)
    os.utime(broken[-1], (0, 0))
    broken[-1].write_bytes(b"no image")
    refused(shell(*line), f"cannot decode the image {broken[-1]} (")


def test_all_dangling_links_and_empty_files_are_named(shell, tmp_path, cache):
    picture(Path("data/good.png"))
    for i in range(20):
        os.symlink("/nowhere", f"data/link{i:02d}.png")
        Path(f"data/empty{i:02d}.png").touch()
    code, err = shell(*IMAGES)
    assert code == 2
    assert all(f"{name}{i:02d}.png" in err for i in range(20) for name in ("link", "empty"))
    assert not Path("run").exists()


@pytest.mark.slow
def test_names_that_are_no_utf8_are_read(shell, tmp_path, cache):
    for name in (b"caf\xe9", b"th\xe9"):
        for i in range(6):
            picture(Path("data", os.fsdecode(name), f"{os.fsdecode(name)}{i}.png"), seed=i)
    answer = shell(*IMAGES, "trainer.steps=1", "dataset.test_fraction=0", "architecture.conditional=true")
    assert answer[0] in (0, 2), answer[1]
    assert "Error" not in answer[1]
    config = yaml.safe_load(Path("run/config.yaml").read_text()) if Path("run").exists() else None
    assert config is None or config["dataset"]["path"] == "data"
    other = os.fsdecode(b"d\xe9")
    Path("data").rename(other)
    code, err = shell(*[word.replace("=data", f"={other}").replace("=run", "=run2") for word in IMAGES], "trainer.steps=1")
    assert "Error" not in err, err
    assert code in (0, 2), err
    assert code == 0 or not Path("run2").exists()


# ---- four channels ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(tmp_path, monkeypatch, cache):
    """A folder of images with opacity, in two classes."""
    monkeypatch.chdir(tmp_path)
    for i in range(24):
        picture(Path("data", "ab"[i % 2], f"{i:02d}.png"), "RGBA", seed=i)
    return ImageFolder("data", 16, 4, test_fraction=0.3, keep_decoded=False)


NETWORKS = ("none", "identity", "random_conv", "digits")
SKIPPED = ("adversarial_probing", "ais", "classifier_score", "geometry_score", "skill_rating")  # ask for a D, a classifier; or slow


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_figure_of_four_channels_is_refused_at_once_or_null_with_the_reason(four, network):
    samples = Collected(four.load("train"), four.spec, 12, torch.device("cpu"))
    seen = 0
    for file in sorted((config_dir() / "metric").glob("*.yaml")):
        if file.stem in SKIPPED:
            continue
        line = ["dataset=image_folder", "dataset.path=data", "dataset.resolution=16", "dataset.channels=4", "architecture=dcgan"]
        config = compose([*line, f"metric=[{file.stem}]", f"extractor=[{'' if network == 'none' else network}]"]).plain()
        try:
            metrics = judges(config, [], four.spec)
        except UserError:  # before anything is created
            continue
        found = evaluate(samples, metrics, Reference(four, "test", n=6), batch_size=6)  # and nothing is raised
        lacking = found.protocol.get("missing", {})
        assert all(lacking.get(name) for name, each in found.figures.items() if None in each.values() and len(each) == 1)
        seen += 1
    assert seen or network in ("random_conv", "digits")


def test_images_with_opacity_are_written_and_read_back(four, tmp_path):
    stored = four.load("train").x
    x = four.to_float(stored)
    assert torch.equal(four.spec.kind.as_bytes(x), stored)
    assert four.spec.kind.suffix == "png"
    for i, image in enumerate(stored):
        directory.write_picture(make(tmp_path / "back" / f"{i:02d}.png"), image)
    assert torch.equal(ImageFolder("back", 16, 4, test_fraction=0.0, keep_decoded=False).load("train").x, stored)
    np.savez(tmp_path / "back.npz", samples=stored.numpy())
    np.savez(tmp_path / "last.npz", samples=stored.permute(0, 2, 3, 1).numpy())
    for name in ("back.npz", "last.npz"):
        assert torch.equal(Stored(name).load("train").x, stored)
    np.savez(tmp_path / "narrow.npz", samples=stored[:, :3, :4, :4].numpy())  # four pixels wide, as before
    assert Stored("narrow.npz").load("train").x.shape[1:] == (3, 4, 4)
    picture_of_all = four.picture(x, 4)
    directory.write_picture(tmp_path / "grid.png", picture_of_all)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), picture_of_all.permute(1, 2, 0).numpy())


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# ---- before the first round -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_was_interrupted_before_its_first_round_has_every_picture_once(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    line = [*NARROW, "trainer.steps=2", "logger=[tensorboard,csv]", "hydra.run.dir=run"]

    class Stop(Callback):
        order = -9

        def begin(self, run):
            if run.step == 0 and not Path("stopped").exists():
                Path("stopped").touch()
                os.kill(os.getpid(), signal.SIGTERM)

    disturbed(monkeypatch, Stop())
    assert terminal(monkeypatch, capfd, *line)[0] == 143
    assert state_of(Path("run"))["step"] == 0
    assert terminal(monkeypatch, capfd, "resume=run")[0] == 0
    events = EventAccumulator("run", size_guidance={"images": 0, "tensors": 0}).Reload()
    assert [each.step for each in events.Images("samples/fixed_z")] == [0, 2]
    assert [each.step for each in events.Images("data/real")] == [0]


@pytest.mark.slow
def test_a_signal_before_the_first_round_ends_a_run_at_once(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assemble = runs.assemble

    def interrupted(*args, **more):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on") from None

    monkeypatch.setattr(runs, "assemble", interrupted)
    code, _, err = terminal(monkeypatch, capfd, *NARROW, "trainer.steps=2", "hydra.run.dir=run")
    assert (code, err) == (143, "gan-train: interrupted by signal 15 ")
    assert json.loads(Path("run/status.json").read_text())["state"] == "interrupted"
    monkeypatch.setattr(runs, "assemble", assemble)
