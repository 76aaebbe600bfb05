"""Bad input ends in one clear message and the right exit code, and damages nothing: through the commands themselves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from gan_runner import cli
from gan_runner.config.groups import config_dir
from gan_runner.lifecycle import runs
from gan_runner.storage import checkpoint

SOURCE = Path(cli.__file__).parents[1]
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")  # refuses at once
SMALL = ["+experiment=gaussians25", "trainer.accelerator=cpu", "batch_size=16", "callback.grid.n=16", "callback.evaluate.n=200"]
EVIL = 'from pathlib import Path\n\nPath("it_was_imported").touch()\n\n\nclass Loss:\n    pass\n'


def options(group: str) -> list[str]:
    """The names of the files of a group, in order."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(code: int, err: str, said: str, command: str = "train") -> None:
    """Exit code 2 and one message of ours that says so."""
    assert code == 2, err
    assert one_message(err, command)
    assert said in err, err


def one_message(err: str, command: str = "train") -> bool:
    """Whether stderr has one message, indented where it is long, and none of Python's or Hydra's noise."""
    lines = [line for line in err.splitlines() if not line.startswith(f"gan-{command}: note: ")]
    noise = [word for word in ("Traceback", "HYDRA_FULL_ERROR", "GAN_RUNNER_DEBUG", "Warning", "hydra.errors") if word in err]
    assert not noise, err
    assert lines[0].startswith(f"gan-{command}: "), err
    assert all(line.startswith("  ") for line in lines[1:]), err
    return True


# ---- in process ---------------------------------------------------------------------------------------------------------------------


class Terminal:
    """The commands in this process, with an empty working folder and no way to the network; only the training is a stand-in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.trained: list[Path] = []
        monkeypatch.chdir(folder)
        monkeypatch.delenv("GAN_RUNNER_DATA", raising=False)
        for name, value in OFFLINE.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(runs, "train", lambda config, folder, *rest: self.trained.append(folder))

    def __call__(self, *line: str, command: str = "train") -> tuple[int, str]:
        """(exit code, stderr)"""
        self.monkeypatch.setattr(sys, "argv", [f"gan-{command}", *line])
        code = getattr(cli, command)()
        return code, self.capsys.readouterr().err


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


CIFAR = ["dataset=cifar10", "architecture=dcgan"]
WRONG = {
    "misspelt key": (["trainer.stpes=5"], "unknown key trainer.stpes"),
    "misspelt key of no part": (["sede=5"], "unknown key sede (did you mean seed?)"),
    "+ misspelt key": (["+trainer.stpes=5"], "unknown key trainer.stpes; Trainer takes"),
    "+ misspelt key of no part": (["+sede=5"], "unknown key sede (did you mean seed?)"),
    "++ misspelt key": (["++rule.d_stesp=5"], "(did you mean d_steps?)"),
    "+ misspelt player": (["+optimizer.genrator.lr=1e-4"], "unknown key optimizer.genrator; optimizer has generator, discriminator"),
    "++ key beside the players": (["++architecture.widht=8"], "unknown key architecture.widht"),
    "orphan": (["penalty.r1.weight=5"], "r1 is not chosen (penalty: none); add it with +penalty=r1"),
    "orphan of an experiment": (["+experiment=gaussians25", "penalty.r1.weight=5"], "r1 is not chosen (penalty: gradient_penalty)"),
    "+ orphan": (["+penalty.r1.weight=5"], "r1 is not chosen"),
    "os.system": (["loss._target_=os.system"], "loss._target_=os.system is not allowed"),
    "builtins.exec": (["loss={_target_: builtins.exec}"], "_target_=builtins.exec is not allowed"),
    "torch.hub.load": (["architecture.generator._target_=torch.hub.load"], "_target_=torch.hub.load is not allowed"),
    "module of the working folder": (["loss._target_=evil.Loss"], "_target_=evil.Loss is not allowed"),
    "os.system below a part": (["optimizer.generator.lr={_target_: os.system}"], "is not allowed"),
    "os.system as Hydra's callback": (["+hydra.callbacks.x._target_=os.system"], "is refused"),
    "wrong type": (["trainer.steps=many"], "trainer.steps='many': expected a whole number, 0 or more"),
    "no value": (["trainer.steps="], "trainer.steps='': expected a whole number, 0 or more"),
    "a list for a number": (["batch_size=[1]"], "batch_size=[1]: expected a whole number, 1 or more"),
    "negative learning rate": (["optimizer.discriminator.lr=-1e-4"], "optimizer.discriminator: Invalid learning rate"),
    "unknown experiment": (["+experiment=gaussians52"], "there is no experiment gaussians52 (did you mean gaussians25?)"),
    "experiment without plus": (["experiment=gaussians25"], "an experiment is added, with a plus: +experiment=gaussians25"),
    "unknown loss": (["loss=higne"], "there is no loss higne (did you mean hinge?)"),
    "two losses": (["loss=[hinge,wasserstein]"], f"expected the name of a loss; available: {', '.join(options('loss')[:2])}"),
    "no loss": (["loss=null"], "expected the name of a loss"),
    "a number for a loss": (["loss=3"], "expected the name of a loss"),
    "a number for a penalty": (["+penalty=[r1,5]"], f"expected names, 'penalty=[A,B]'; available: {options('penalty')[0]}"),
    "a number for a launcher": (["+hydra/launcher=[[1]]"], "expected the name of a hydra/launcher"),
    "a number taken away": (["~rule=[0.5]"], "expected the name of a rule"),
    "augmented points": (["trick=[ada]"], "ada changes images, and the samples are 2 numbers: drop the trick, or use images"),
    "no sample for G": (["trick=[top_k]", "trick.top_k.share=0"], "trick.top_k.share=0: expected a number, above 0, at most 1"),
    "no such layer": (
        ["trick=[freeze]", "trick.freeze.layers.discriminator=[nowhere]"],
        "freeze.layers.discriminator names nowhere, which has no weights or does not exist; there are body, body.0",
    ),
    "a restart that is no slower": (
        ["trick=[restart_on_collapse]", "trick.restart_on_collapse.factor=1.5"],
        "trick.restart_on_collapse.factor=1.5: expected a number, above 0, below 1",
    ),
    "impossible resolution": ([*CIFAR, "dataset.resolution=30"], "30"),
    "no image for an image network": (["architecture=dcgan"], "image"),
    "no output folder": (["hydra.run.dir=", "hydra.sweep.dir="], "dir has no value"),
    "grammar": (["seed=[1,2"], "cannot read seed=[1,2"),
    "grammar of a word": (["gaussians25"], "an experiment is chosen with +experiment=gaussians25"),
    "missing variable": (["batch_size=${oc.env:NO_SUCH_VARIABLE}"], "NO_SUCH_VARIABLE"),
    "no folder of images": (["+experiment=dcgan_image_folder", "dataset.path=nowhere"], "dataset.path=nowhere is not a folder"),
    "no path of images": (["+experiment=dcgan_image_folder"], "dataset.path has no value yet"),
    "no packed file": (["dataset=packed", "dataset.path=nowhere.zip", "architecture=dcgan"], "dataset.path=nowhere.zip is not a file of"),
    "no path of a packed file": (["dataset=packed", "architecture=dcgan"], "dataset.path has no value yet"),
    "no MNIST": (["+experiment=gan_mnist"], "Put train-images-idx3-ubyte.gz"),
    "no CIFAR-10": (["+experiment=dcgan_cifar10"], "Put cifar-10-python.tar.gz"),
    "several mistakes": (["trainer.steps=-1", "+rule.x=1", "loss._target_=os.system"], "3 mistakes"),
}


@pytest.mark.parametrize("sweep", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["single", "-m"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_is_refused_and_nothing_is_created(terminal: Terminal, name: str, sweep: bool) -> None:
    line, said = WRONG[name]
    (terminal.folder / "evil.py").write_text(EVIL)
    terminal.monkeypatch.syspath_prepend(str(terminal.folder))  # as `python -m` would
    code, err = terminal(*line, *(["-m", "deterministic=false,true"] if sweep else []))
    refused(code, err, said)
    assert list(content(terminal.folder)) == ["evil.py"]
    assert sorted(path.name for path in terminal.folder.iterdir()) == ["evil.py"]  # no folder either
    assert terminal.trained == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["-m", "seed=range(0,0)"], "nothing to sweep over"),
        (["-m", "loss=glob(x*)"], "nothing to sweep over"),
        (["-m", "seed=interval(0,1)"], "have it searched with hydra/sweeper=gan_optuna"),
        (["-m", "seed=0,1", "trainer.steps=5,five"], "jobs 1, 3 (first: seed=0 trainer.steps=five): trainer.steps='five'"),
        (["seed=0,1"], "add -m to run each of them"),
        (["-m", "resume=a,b"], "cannot be swept"),
        (["resume="], "resume has no value"),
        (["resume=nowhere"], "resume=nowhere: there is no run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_sweep_or_resume_is_refused(terminal: Terminal, line: list[str], said: str) -> None:
    code, err = terminal(*line)
    refused(code, err, said)
    assert list(terminal.folder.iterdir()) == []


@pytest.mark.slow
def test_what_is_refused_is_legal_when_it_is_spelt_right(terminal: Terminal) -> None:
    """Else the tests above would pass with a command that refuses everything."""
    good = [
        "penalty=[r1]",
        "penalty.r1.weight=5",
        "rule.d_steps=5",
        "optimizer.generator.lr=1e-4",
        "trainer.steps=5",
        "+experiment=gaussians25",
    ]
    assert terminal(*good)[0] == 0
    assert terminal("-m", "loss=glob(*)", "extractor=null", "penalty=null,[r1]")[0] == 0
    assert len(terminal.trained) == 1 + len(options("loss")) * 2


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        Image.effect_noise((16, 16), 100).convert("RGB").save(folder / f"{i}.png")
    return folder


def folder_of(pictures: Path) -> list[str]:
    widths = ["architecture.generator.width=4", "architecture.discriminator.width=4"]
    sizes = ["batch_size=4", "callback.grid.n=4", "dataset.resolution=16", "trainer.accelerator=cpu", "trainer.steps=6"]
    return ["+experiment=dcgan_image_folder", f"dataset.path={pictures}", *widths, *sizes]


def test_two_shapes_of_a_folder_are_refused(terminal: Terminal, pictures: Path) -> None:
    (pictures / "cats").mkdir()
    shutil.copy(pictures / "0.png", pictures / "cats")
    refused(*terminal(*folder_of(pictures)), "holds both images and folders of images")
    empty = pictures / "cats"
    (empty / "0.png").unlink()
    refused(*terminal(*folder_of(empty)), "there is no image in")
    assert list(terminal.folder.iterdir()) == []


@pytest.mark.data
@pytest.mark.parametrize(
    ("experiment", "file"),
    [("gan_mnist", "MNIST/raw/train-images-idx3-ubyte"), ("dcgan_cifar10", "cifar-10-batches-py/data_batch_3")],
)
@pytest.mark.parametrize("cut", [False, True], ids=["flipped bit", "truncated"])
def test_a_damaged_data_file_is_refused(terminal: Terminal, real_data: Path, experiment: str, file: str, cut: bool) -> None:
    root = terminal.folder / "data"
    (root / file).parent.mkdir(parents=True)
    for path in (real_data / file).parent.iterdir():
        (root / file).with_name(path.name).symlink_to(path.resolve())
    good = (real_data / file).read_bytes()
    (root / file).unlink()
    (root / file).write_bytes(good[: len(good) // 2] if cut else good[:100_000] + bytes([good[100_000] ^ 1]) + good[100_001:])
    before = sorted(path.name for path in (root / file).parent.iterdir())
    refused(*terminal(f"+experiment={experiment}", "dataset.root=data"), f"{file} is damaged: expected md5")
    assert sorted(path.name for path in (root / file).parent.iterdir()) == before
    assert [path.name for path in terminal.folder.iterdir()] == ["data"]


# ---- as the user's shell runs it ----------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("GAN_RUNNER_DATA", "GAN_RUNNER_PACKAGES", "GAN_RUNNER_DEBUG")}
    return {**kept, **OFFLINE, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}


def begin(*line: str, cwd: Path, command: str = "train") -> subprocess.Popen[str]:
    code = f"import sys; from gan_runner.cli import {command}; sys.argv[0] = 'gan-{command}'; sys.exit({command}())"
    words = [sys.executable, "-c", code, *line]
    return subprocess.Popen(words, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shell(*line: str, cwd: Path, command: str = "train") -> tuple[int, str]:
    """(exit code, stderr) of a command that ends by itself."""
    child = begin(*line, cwd=cwd, command=command)
    _, err = child.communicate(timeout=120)
    return child.returncode, err


def until(true: Callable[[], object], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def status(folder: Path) -> dict[str, object]:
    return json.loads((folder / "status.json").read_text())


def last_line(err: str) -> str:
    return err.splitlines()[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight rounds with checkpoints after 4 and 8, left behind by the command."""
    folder = tmp_path_factory.mktemp("trained")
    code, err = shell(
        *SMALL,
        "metric.mode_coverage.radius_sigmas=40.0",
        "trainer.steps=8",
        "callback.checkpoint.every_steps=4",
        "hydra.run.dir=run",
        cwd=folder,
    )
    assert code == 0, err
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil, alone in a working folder."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


ONE_OF_EACH = ["+ misspelt key of no part", "module of the working folder", "no MNIST"]  # before torch, after it, after the data


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("sweep", [[], ["-m", "batch_size=16,32"]], ids=["single", "-m"])
def test_the_process_of_a_wrong_configuration(tmp_path: Path, name: str, sweep: list[str]) -> None:
    line, said = WRONG[name]
    (tmp_path / "evil.py").write_text(EVIL)  # `python -c` has the working folder on its path
    refused(*shell(*line, *sweep, cwd=tmp_path), said)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["evil.py"]


@pytest.mark.slow
@pytest.mark.parametrize("resident_mb", [4096, 0], ids=["in memory", "through workers"])
def test_broken_pictures_are_all_named_and_nothing_is_created(tmp_path: Path, pictures: Path, resident_mb: int) -> None:
    for name in ("3.png", "7.png"):
        (pictures / name).write_bytes((pictures / name).read_bytes()[:200])
    line = [*folder_of(pictures), f"dataset.resident_mb={resident_mb}", "dataset.test_fraction=0.0", "hydra.run.dir=run"]
    code, err = shell(*line, cwd=tmp_path)
    assert code == 2, err
    assert "Traceback" not in err
    assert [f"cannot decode the image {pictures / name}" in err for name in ("3.png", "7.png")] == [True, True]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("line", [["hydra.run.dir=file/run"], ["-m", "batch_size=16,32", "hydra.sweep.dir=file/run"]], ids=" ".join)
def test_an_output_folder_that_cannot_be_made(tmp_path: Path, line: list[str]) -> None:
    (tmp_path / "file").write_text("a file where a folder is needed")
    refused(*shell("+experiment=gaussians25", *line, cwd=tmp_path), "directory: [Errno 20] Not a directory")
    assert content(tmp_path) == {"file": b"a file where a folder is needed"}


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over(run: Path, tmp_path: Path) -> None:
    for name in ("last.pt", "step_00000008.pt"):
        data = (run / "checkpoints" / name).read_bytes()
        (run / "checkpoints" / name).unlink()
        (run / "checkpoints" / name).write_bytes(data[: len(data) // 2])
    code, err = shell("resume=run", "trainer.steps=10", cwd=tmp_path)
    assert code == 0, err
    assert "last.pt is damaged" in err
    assert "step_00000008.pt is damaged" in err
    assert "going on after round 4" in err
    assert (status(run)["state"], status(run)["step"]) == ("finished", 10)


def no_checkpoint(run: Path) -> None:
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")


def other_network(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "width: 128" in text
    (run / "config.yaml").write_text(text.replace("width: 128", "width: 64"))


def hostile(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("gan_runner.losses.Wasserstein", "os.system"))


def hostile_yaml(run: Path) -> None:
    (run / "config.yaml").write_text("seed: !!python/object/apply:os.system ['touch it_was_run']\n")


def not_yaml(run: Path) -> None:
    (run / "config.yaml").write_bytes(b"a: [\xff\x00")


def not_a_run(run: Path) -> None:
    (run / "config.yaml").unlink()


def half_a_config(run: Path) -> None:
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    (run / "config.yaml").write_text("".join(lines[: len(lines) // 3]))


def nothing(run: Path) -> None:
    pass


REFUSED_RESUMES = {
    "finished": (nothing, [], "has played its 8 rounds"),
    "other network on the line": (nothing, ["architecture.generator.width=64", "trainer.steps=9"], "a resumed run stays what it is"),
    "other seed on the line": (nothing, ["seed=1", "trainer.steps=9"], "a resumed run stays what it is"),
    "wrong type": (nothing, ["trainer.steps=many"], "trainer.steps='many'"),
    "misspelt key": (nothing, ["trainer.stpes=9"], "this run has no key trainer.stpes"),
    "other network in the file": (other_network, ["trainer.steps=9"], "architecture.generator.width from 128 to 64"),
    "other network in the file, accepted": (other_network, ["trainer.steps=9", "accept=config"], "does not fit"),
    "nothing to accept": (nothing, ["trainer.steps=9", "accept=all"], "accept=data, accept=config"),
    "no checkpoint": (no_checkpoint, ["trainer.steps=9"], "no checkpoint to go on from"),
    "no run": (not_a_run, ["trainer.steps=9"], "there is no run"),
    "hostile": (hostile, ["trainer.steps=9"], "_target_=os.system is not allowed"),
    "hostile YAML": (hostile_yaml, ["trainer.steps=9"], "config.yaml"),
    "no YAML": (not_yaml, ["trainer.steps=9"], "config.yaml"),
    "half a configuration": (half_a_config, ["trainer.steps=9"], "is not the configuration of a run, or not all of it"),
}


@pytest.mark.parametrize("name", REFUSED_RESUMES)
def test_a_wrong_resume_is_refused_and_the_run_stays(run: Path, tmp_path: Path, name: str, monkeypatch, capfd) -> None:
    spoil, line, said = REFUSED_RESUMES[name]
    spoil(run)
    before = content(run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-train", "resume=run", *line])
    code = cli.train()
    err = capfd.readouterr().err
    assert code == 2, err
    assert "Traceback" not in err
    assert said in err.replace("\n", " ")
    assert err.count("gan-train: ") == 1
    assert [one for one in err[err.index("gan-train: ") :].splitlines()[1:] if not one.startswith("  ")] == []
    after = content(run)
    differing = {name for name in before | after if before.get(name) != after.get(name)}
    may_tell = {"train.log", ".lock"}
    assert {one for one in differing if one not in may_tell} == set()
    assert not (tmp_path / "it_was_run").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_a_second_run_into_a_directory_is_refused(run: Path, tmp_path: Path) -> None:
    before = content(run)
    refused(*shell(*SMALL, "trainer.steps=2", "hydra.run.dir=run", cwd=tmp_path), "holds a run already; go on with it by resume=")
    assert content(run) == before


FOREVER = [*SMALL, "trainer.steps=10000000", "callback.checkpoint.every_steps=50", "hydra.run.dir=run"]


@pytest.mark.slow
@pytest.mark.parametrize("line", [[*SMALL, "hydra.run.dir=run"], ["resume=run"]], ids=["train", "resume"])
def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path, line: list[str]) -> None:
    first = begin(*FOREVER, cwd=tmp_path)
    try:
        until((tmp_path / "run" / "checkpoints" / "last.pt").exists, first)
        refused(*shell(*line, cwd=tmp_path), "another process is writing the run in" if line == ["resume=run"] else "run")
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 143, first.communicate()[1]
    finally:
        first.kill()
        first.communicate()
    assert status(tmp_path / "run")["state"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_and_resume_finishes(tmp_path: Path, number: signal.Signals, code: int) -> None:
    child = begin(*FOREVER, cwd=tmp_path)
    until((tmp_path / "run" / "checkpoints" / "last.pt").exists, child)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert last_line(err) == f"gan-train: interrupted by signal {number.value}"
    assert "Traceback" not in err
    ended = status(tmp_path / "run")
    assert ended["state"] == "interrupted"
    steps = int(str(ended["step"])) + 3
    code, err = shell("resume=run", f"trainer.steps={steps}", cwd=tmp_path)
    assert code == 0, err
    assert f"going on after round {ended['step']}" in err
    assert (status(tmp_path / "run")["state"], status(tmp_path / "run")["step"]) == ("finished", steps)


@pytest.mark.slow
def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    """One round takes minutes here, so that the first signal can have no effect yet."""
    line = [*SMALL, "rule.d_steps=1000000", "hydra.run.dir=run"]
    child = begin(*line, cwd=tmp_path)
    try:
        until(lambda: any(tmp_path.glob("run/samples/*.png")), child)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.wait(5) == -signal.SIGINT
    finally:
        child.kill()
        child.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True], ids=["single", "-m"])
def test_a_loss_that_is_not_finite_is_exit_code_3(tmp_path: Path, sweep: bool) -> None:
    """Of a sweep it is 1, whatever kept its jobs from finishing.

    The rates grow without bound from the half of the run on; until then there are checkpoints."""
    growing = "lr={_target_: gan_runner.schedules.Exponential, start: 1e-4, end: 1e30}"
    rates = [f"optimizer.{side}.{growing}" for side in ("generator", "discriminator")]
    often = ["trainer.check_every_steps=1", "callback.checkpoint.every_steps=1", "trainer.steps=50"]
    where = ["-m", "seed=0,1", "hydra.sweep.dir=runs"] if sweep else ["hydra.run.dir=run"]
    code, err = shell(*SMALL, "penalty=[]", *rates, *often, *where, cwd=tmp_path)
    assert code == (1 if sweep else 3), err
    assert "Traceback" not in err
    for folder, job in [("runs/0", "job 0: "), ("runs/1", "job 1: ")] if sweep else [("run", "")]:
        found = re.search(rf"^gan-train: {job}loss/[dg] is (nan|-?inf) in round (\d+); the last checkpoint is (.*)$", err, re.MULTILINE)
        assert found, err
        assert checkpoint.load(Path(found[3]))["step"] == int(found[2]) - 1
        assert status(tmp_path / folder)["state"] == "diverged"


# ---- gan-sample ---------------------------------------------------------------------------------------------------------------------


def damaged(run: Path) -> None:
    path = run / "checkpoints" / "last.pt"
    data = path.read_bytes()
    path.unlink()  # it shares its bytes with step_N.pt
    path.write_bytes(data[: len(data) // 2])


def no_best(run: Path) -> None:
    (run / "checkpoints" / "best.pt").unlink()


REFUSED_SAMPLES = {
    "no run": (nothing, ["run=nowhere"], "nowhere is not a run directory"),
    "no config": (not_a_run, [], "there is no run in"),
    "class of none": (nothing, ["class=3"], "class=3: this generator takes no labels"),
    "no best": (no_best, ["checkpoint=best"], "there is no run/checkpoints/best.pt"),
    "no such checkpoint": (nothing, ["checkpoint=nowhere.pt"], "there is no nowhere.pt"),
    "damaged": (damaged, [], "last.pt is damaged"),
    "empty": (no_checkpoint, [], "last.pt is damaged"),
    "hostile": (hostile, [], "_target_=os.system is not allowed"),
    "hostile YAML": (hostile_yaml, [], "config.yaml cannot be read"),
    "no YAML": (not_yaml, [], "config.yaml cannot be read"),
    "half a configuration": (half_a_config, [], "config.yaml"),
    "other network": (other_network, [], "architecture.generator.width from 128 to 64"),
    "out below a file": (nothing, ["out=run/config.yaml/x"], "run/config.yaml is a file, not a folder"),
    "out is a file": (nothing, ["format=png", "out=run/config.yaml"], "run/config.yaml is a file, not a folder"),
    "export below a file": (nothing, ["export=run/config.yaml/x.safetensors"], "run/config.yaml is a file, not a folder"),
    "export to a folder": (nothing, ["export=run"], "export='run': expected the path of a file or null; run is a folder"),
    "points as pictures": (nothing, ["format=png"], "format=png writes one picture a sample"),
    "no such device": (nothing, ["accelerator=quantum"], "accelerator='quantum': expected auto, cpu, cuda or mps"),
    "a list for a run": (nothing, ["run=[a]"], "run=['a']: expected the folder of a run"),
    "a number for a checkpoint": (nothing, ["checkpoint=3"], "checkpoint=3: expected last, best or the path of a file"),
}


@pytest.mark.parametrize("name", REFUSED_SAMPLES)
def test_a_wrong_sampling_is_refused_and_the_run_stays(run: Path, tmp_path: Path, name: str, monkeypatch, capfd) -> None:
    spoil, line, said = REFUSED_SAMPLES[name]
    spoil(run)
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-sample", *([] if line[:1] and line[0].startswith("run=") else ["run=run"]), *line])
    code = cli.sample()
    refused(code, capfd.readouterr().err, said, "sample")
    assert content(tmp_path) == before


@pytest.mark.slow
def test_a_class_out_of_range_is_refused(tmp_path: Path) -> None:
    code, err = shell(*SMALL, "architecture.conditional=true", "trainer.steps=1", "hydra.run.dir=run", cwd=tmp_path)
    assert code == 0, err
    refused(*shell("run=run", "class=25", cwd=tmp_path, command="sample"), "class=25: there is no class 25: it must be 0 to 24", "sample")
    assert shell("run=run", "class=24", cwd=tmp_path, command="sample")[0] == 0
