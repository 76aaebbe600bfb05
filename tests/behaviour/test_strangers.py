"""Run directories of somebody else, or damaged ones: nothing of them is executed, and a command says in one message what is wrong."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from gan_runner import cli
from gan_runner.config import composer
from gan_runner.errors import UserError
from gan_runner.jobs import sweep
from gan_runner.lifecycle import runs
from gan_runner.storage import checkpoint
from gan_runner.trained import load_generator
from read_runs import same, state_of
from tiny_runs import NARROW, READING, content

LINE = [*NARROW, "trainer.steps=8"]
COMMANDS = {"train": ["resume=run", "trainer.steps=9"], **READING}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    runs.train(composer.compose([*LINE, "logger=[tensorboard,csv]"]).config, folder)
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy to spoil, `run` in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, "run"))


@pytest.fixture
def shell(monkeypatch, capfd):
    """(exit code, what was said) of a command, which has a minute to answer."""

    def command(name, *words):
        monkeypatch.setattr(sys, "argv", [f"gan-{name}", *(words or COMMANDS[name])])
        capfd.readouterr()
        before = signal.signal(signal.SIGALRM, hang)
        signal.alarm(60)
        try:
            return getattr(cli, name)(), "".join(capfd.readouterr())
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return command


class Hung(BaseException):
    """Not caught by what a command catches."""


def hang(number, frame):
    raise Hung


def one_message(said):
    assert "Traceback" not in said
    assert "GAN_RUNNER_DEBUG" not in said, said  # that is for what nobody foresaw
    return True


def replace(path, data):
    path.unlink()  # last.pt shares its bytes with step_N.pt
    path.write_bytes(data)


# ---- nothing is executed ----------------------------------------------------------------------------------------------------------------

TOUCH = "{_target_: os.system, command: touch OWNED}"


class Payload:
    def __reduce__(self):
        return os.system, ("touch OWNED",)


def in_config(old, new):
    def spoil(run):
        text = (run / "config.yaml").read_text()
        assert old in text
        (run / "config.yaml").write_text(text.replace(old, new))

    return spoil


def added(text):
    return lambda run: (run / "config.yaml").write_text((run / "config.yaml").read_text() + text)


def written(name, text):
    return lambda run: (run / name).write_text(text)


def pickled(run):
    for path in sorted((run / "checkpoints").iterdir()):
        path.unlink()
        torch.save({"version": checkpoint.VERSION, "game": Payload()}, path)


def package(run):
    """Code beside the run, in the run, and named by its own configuration."""
    for folder in (run, run.parent):
        (folder / "evil.py").write_text("import os\nos.system('touch OWNED')\nclass Loss: pass\n")
    added("packages: [evil]\n")(run)
    in_config("gan_runner.losses.Wasserstein", "evil.Loss")(run)


TAG = "!!python/object/apply:os.system ['touch OWNED']\n"
HOSTILE = {
    **{
        f"class of the {name}": in_config(
            f"_target_: {old}", "command: touch OWNED\n  _target_: os.system".replace("\n", "\n" + " " * more)
        )
        for name, old, more in (
            ("loss", "gan_runner.losses.Wasserstein", 0),
            ("generator", "gan_runner.architectures.MLPGenerator", 2),
            ("data set", "gan_runner.datasets.Gaussians25", 0),
            ("trainer", "gan_runner.trainer.Trainer", 0),
        )
    },
    "value of a key": in_config("batch_size: 16", f"batch_size: {TOUCH}"),
    "seed": in_config("seed: 0", f"seed: {TOUCH}"),
    "key of its own": added(f"x: {TOUCH}\n"),
    "Hydra's callbacks": added(f"hydra: {{callbacks: {{x: {TOUCH}}}, job_logging: {TOUCH}}}\n"),
    "a tag in the configuration": written("config.yaml", f"seed: {TAG}"),
    "a tag beside it": written("overrides.yaml", TAG),
    "a tag among the figures": written("metrics.jsonl", TAG),
    "a pickle": pickled,
    "a package": package,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run_directory_executes_nothing(run, shell, monkeypatch, name):
    monkeypatch.syspath_prepend(str(run.parent))  # as `python -m` would
    HOSTILE[name](run)
    for command in COMMANDS:
        _, said = shell(command)
        assert one_message(said), command
        assert not list(Path().rglob("OWNED")), command


@pytest.mark.slow
def test_a_configuration_that_grows_when_it_is_read_is_not_read(run, shell):
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    (run / "config.yaml").write_text(bomb)
    for command in ("train", "sample", "evaluate"):
        code, said = shell(command)
        assert code == 2
        assert "config.yaml cannot be read" in said


# ---- nothing outside is touched ---------------------------------------------------------------------------------------------------------

NAMES = [
    ".lock", "train.log", "metrics.jsonl", "status.json", "config.yaml", "overrides.yaml", "env.json", "scalars.csv", "samples",
    "checkpoints", "evaluations", "checkpoints/last.pt", "checkpoints/best.pt", "samples/step_00000008.png", "profile.pt.trace.json",
    "events.out.tfevents.9.x", "wandb", "mlflow.json", "checkpoints/.last.pt.PID.part", "changes.jsonl",
    "evaluations/watch.jsonl", "evaluations/.lock", "evaluations/events.out.tfevents.watch",
]  # fmt: skip


@pytest.fixture
def precious(tmp_path):
    """A folder outside of the run, in which nothing may change."""
    folder, before = tmp_path / "precious", {}
    folder.mkdir()

    def look():
        return {path.relative_to(folder): (path.lstat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in folder.rglob("*")}

    yield folder, lambda: before.update(look())
    assert before
    assert look() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_a_run_directory_is_not_followed(run, shell, precious, name):
    """What it leads to is what was in its place, so that a command that follows it would go on."""
    name = name.replace("PID", str(os.getpid()))
    (run / name).parent.mkdir(exist_ok=True)
    target, keep = precious[0] / Path(name).name, precious[1]
    if (run / name).exists():
        shutil.move(run / name, target)
    elif "." in name:
        target.write_text("{}")
    else:
        target.mkdir()
        (target / ".a.part").touch()
    (run / name).symlink_to(target)
    keep()
    for command in COMMANDS:
        code, said = shell(command)
        assert one_message(said)
        assert (code, f"run/{name} is a link" in said) == ((0, False) if command == "runs" else (2, True)), (command, said)


@pytest.mark.parametrize("name", [name for name in NAMES if "." in name])
def test_a_pipe_in_a_run_directory_is_not_waited_for(run, shell, name):
    name = name.replace("PID", str(os.getpid()))
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    for command in COMMANDS:
        code, said = shell(command)
        assert one_message(said)
        assert (code, f"run/{name} is a named pipe" in said) == ((0, False) if command == "runs" else (2, True)), (command, said)


@pytest.mark.slow
def test_a_run_with_second_names_elsewhere_goes_on_and_leaves_those_as_they_are(run, shell, precious):
    folder, keep = precious
    for name in (".lock", "train.log", "metrics.jsonl", "scalars.csv", "status.json", "config.yaml", "checkpoints/last.pt"):
        os.link(run / name, folder / Path(name).name)
    (folder / ".lock").write_text("not empty")
    keep()
    for command in ("train", "evaluate"):
        code, said = shell(command)
        assert code == 0, said
    assert state_of(run)["step"] == 9
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4


TYPED = {  # what is typed -> exit code
    ("sample", "run=run", "checkpoint=pipe"): 2,
    ("sample", "run=run", "checkpoint=/dev/zero"): 2,
    ("sample", "run=run", "export=pipe"): 1,
    ("evaluate", "run=run", "checkpoint=pipe"): 2,
    ("evaluate", "samples=pipe.npz"): 2,
    ("rate", "run=run", "out=rating", "checkpoint=pipe"): 2,
    ("rate", "fake=pipe.npz", "real=pipe.npz", "out=rating"): 2,
    ("rate", "answers=[pipe]", "key=pipe"): 2,
    ("rate", "answers=[/dev/zero]", "key=/dev/zero"): 2,
    ("train", "resume=pipe"): 2,
    ("runs", "pipe"): 2,
    ("runs", ".", "--report", "pipe.html"): 1,
}


@pytest.mark.parametrize("line", TYPED, ids=" ".join)
def test_a_pipe_or_a_device_that_was_typed_is_refused(run, shell, line):
    for name in ("pipe", "pipe.npz", "pipe.html"):
        os.mkfifo(name)
    code, said = shell(*line)
    assert one_message(said)
    assert code == TYPED[line], said
    assert all(Path(name).is_fifo() for name in ("pipe", "pipe.npz", "pipe.html"))


def test_an_exported_generator_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is a named pipe"):
        load_generator(tmp_path / "pipe")


SWEEPS = {
    ".lock": lambda path, out: path.symlink_to(out / "x"),
    "table.txt": lambda path, out: path.symlink_to(out / "x"),
    "multirun.yaml": lambda path, out: path.symlink_to(out / "x"),
    "sweep.yaml": lambda path, out: path.symlink_to(out / "x"),
    "page.md": lambda path, out: path.symlink_to(out / "x"),
    ".submitit": lambda path, out: path.symlink_to(out),
    "study.db-journal": lambda path, out: os.mkfifo(path),
    "0": lambda path, out: path.symlink_to(out),
    "1/train.log": lambda path, out: path.symlink_to(out / "x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_a_link_in_the_directory_of_a_sweep_is_not_followed(tmp_path, monkeypatch, shell, precious, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "check", lambda *_: None)  # of configurations, which are good
    folder, keep = precious
    (folder / "x").write_text("precious")
    keep()
    path = Path("sweep", name)
    path.parent.mkdir(parents=True)
    SWEEPS[name](path, folder)
    code, said = shell("train", "-m", *LINE, "seed=0,1", "hydra.sweep.dir=sweep")
    assert (code, one_message(said)) == (2, True)
    assert f"sweep/{name} is a " in said, said


# ---- nothing moves a cursor -------------------------------------------------------------------------------------------------------------

NASTY = "\x1b[31mred\x1b]0;title\x07\rover\u202egnp\x9b2J"


def harmless(said):
    return [c for c in said if not (c.isprintable() or c == "\n")] == []


def renamed(run):
    run.rename(f"run{NASTY}")
    return f'"run{NASTY}"'


def in_state(change):
    def spoil(run):
        state = change(state_of(run))
        for path in sorted((run / "checkpoints").iterdir()):
            path.unlink()
        torch.save(state, run / "checkpoints" / "last.pt")

    return spoil


def in_figures(run):
    line = {"step": 8, "images": 128, "metrics": {NASTY: 1.0}, "protocol": {NASTY: NASTY}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")


def in_status(run):
    status = json.loads((run / "status.json").read_text()) | {"error": NASTY, "state": "failed"}
    (run / "status.json").write_text(json.dumps(status))


LOSS = "_target_: gan_runner.losses.Wasserstein"
MARKED = {
    "its name": renamed,
    "a key of the configuration": lambda run: in_config("seed: 0", f"seed: 0\n{json.dumps(NASTY)}: 1")(run),
    "a class": lambda run: in_config("gan_runner.losses.Wasserstein", json.dumps(NASTY))(run),
    "a key of a part": lambda run: in_config(LOSS, f"{json.dumps(NASTY)}: 1\n  {LOSS}")(run),
    "a weight": in_state(lambda state: state | {"game": state["game"] | {NASTY: torch.zeros(1)}}),
    "the state": in_state(lambda state: {NASTY: 1}),
    "figures": in_figures,
    "status": in_status,
    "a checkpoint": lambda run: os.mkfifo(run / "checkpoints" / f"step_{NASTY}.pt"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKED)
def test_no_character_of_a_run_directory_reaches_the_terminal_or_the_log(run, shell, name):
    typed = MARKED[name](run) or "run"
    folder = Path(typed.strip('"'))
    for command, (first, *rest) in COMMANDS.items():
        _, said = shell(command, first.replace("=run", f"={typed}"), *rest)
        assert said
        assert one_message(said)
        assert harmless(said), (command, said)
    assert harmless((folder / "train.log").read_text())


# ---- damaged, or of something else ------------------------------------------------------------------------------------------------------

STATES = {  # what stands in the place of a part of the state
    "version": (None, True, 99),
    "step": (None, "x"),
    "game": (None, {}, [1], {"a": [1]}),
    "batches": (None, {}, {"samples": "x", "position": 0}),
    "callbacks": ("x", {"evaluate": "x"}),
    "config": (None, "x", {}, {"seed": [[]]}),
    "data": (None, {}, {"samples": 400}, {"samples": "x", "kind": "\x1b[2J", "items": 3, "listing": 0, "values": "x"}),
    "machine": (None, "x", [1]),
    "rng": ([1], [{"cpu": "x"}], [{"cpu": torch.zeros(3, dtype=torch.uint8)}]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("part", "value"), [(part, value) for part, values in STATES.items() for value in values])
def test_a_state_of_something_else_is_refused_and_the_run_stays(run, shell, part, value):
    state = state_of(run) | {part: value}
    for path in sorted((run / "checkpoints").iterdir()):
        path.unlink()
    torch.save(state, run / "checkpoints" / "last.pt")
    before = content(run)
    code, said = shell("train")
    assert code == 2, said
    assert one_message(said)
    after = content(run)
    assert {name for name in before | after if before.get(name) != after.get(name)} <= {"train.log", ".lock"}


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"[]", b"3", b"{", b"\xff\xfe\x00", b'{"step": "x"}', b"[" * 100_000], ids=lambda data: repr(data[:10]))
@pytest.mark.parametrize("name", ["status.json", "metrics.jsonl", "scalars.csv", "env.json", "overrides.yaml"])
def test_a_run_goes_on_without_what_is_damaged_beside_its_states(run, shell, name, data):
    (run / name).write_bytes(data)
    code, said = shell("train")
    assert code == 0, said
    assert state_of(run)["step"] == 9


@pytest.mark.slow
def test_no_damage_to_a_checkpoint_passes_the_command(run, shell, monkeypatch):
    """Its only one cut at 20 places, and with each of 200 flipped bytes: refused in one message with nothing changed, or read as it was."""
    kept, path = state_of(run), run / "checkpoints" / "last.pt"
    whole, generator = path.read_bytes(), torch.Generator().manual_seed(0)
    for other in (run / "checkpoints").glob("[!l]*.pt"):
        other.unlink()
    gone_on: list[Path] = []
    monkeypatch.setattr(runs, "played", lambda folder, config, packages, start, other_data: gone_on.append(start))
    cuts = [whole[:cut] for cut in torch.randint(len(whole), (20,), generator=generator).tolist()]
    flips = [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        for at, bit in zip(
            torch.randint(len(whole), (200,), generator=generator).tolist(), torch.randint(8, (200,), generator=generator).tolist()
        )
    ]
    refused = 0
    for data in [*cuts, *flips]:
        replace(path, data)
        before = content(run)
        code, said = shell("train")
        assert one_message(said)
        assert {name: each for name, each in content(run).items() if name not in ("train.log", ".lock")} == {
            name: each for name, each in before.items() if name not in ("train.log", ".lock")
        }
        if code == 2:
            refused += 1
            assert "last.pt is damaged" in said or "last.pt is not" in said, said
        else:
            assert (code, gone_on.pop()) == (0, path)
            assert same(state_of(run), kept) is None
    print(f"{refused} of {len(cuts)} cuts and {len(flips)} flipped bits were refused; the others carried nothing")
    assert refused > 110  # most: how many bytes of an archive carry nothing depends on how it was laid out
