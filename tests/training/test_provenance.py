"""A run goes on with the configuration and the data of its state, or says in what they differ."""

import json
import shutil
import sys
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import gan_runner
from gan_runner import cli
from gan_runner.config import composer
from gan_runner.datasets import Gaussians25, Samples
from gan_runner.errors import UserError
from gan_runner.execution import hardware
from gan_runner.lifecycle import runs
from gan_runner.storage import checkpoint, contents, directory
from gan_runner.training import provenance
from read_runs import same, state_of
from tiny_runs import content

SMALL = ["trainer.accelerator=cpu", "logger=[]", "callback=[checkpoint]", "callback.checkpoint.every_steps=2", "callback.checkpoint.keep=9"]
POINTS = ["+experiment=gaussians25", "dataset.n=400", "batch_size=16", "trainer.steps=4", *SMALL]
POINTS += ["architecture.generator.width=8", "architecture.discriminator.width=8"]
PICTURES = ["+experiment=dcgan_image_folder", "dataset.resolution=16", "dataset.test_fraction=0", "batch_size=4", "trainer.steps=2", *SMALL]
PICTURES += ["architecture.generator.width=4", "architecture.discriminator.width=4"]


def trained(folder, *line):
    runs.train(composer.compose(list(line)).config, folder, list(line))
    return folder


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("points") / "run", *POINTS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """(run, data): on twelve pictures of two classes."""
    data, generator = tmp_path_factory.mktemp("data") / "data", torch.Generator().manual_seed(0)
    for i in range(12):
        (data / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(data / "ab"[i % 2] / f"{i:02d}.bmp")
    return trained(tmp_path_factory.mktemp("pictures") / "run", *PICTURES, f"dataset.path={data}"), data


@pytest.fixture
def run(points, tmp_path):
    """A run on points, to spoil."""
    return Path(shutil.copytree(points, tmp_path / "run"))


@pytest.fixture
def shell(monkeypatch, capfd):
    """gan-train resume=...: (exit code, what was said on one line)."""
    return partial(typed, monkeypatch, capfd)


def typed(monkeypatch, capfd, folder, *words):
    monkeypatch.setattr(sys, "argv", ["gan-train", f"resume={folder}", *words])
    capfd.readouterr()
    return cli.train(), "".join(capfd.readouterr()).replace("\n", " ")


def edit(folder, **values):
    """Change keys of config.yaml by hand; `__` stands for a dot, None removes one."""
    tree = OmegaConf.load(folder / "config.yaml")
    for key, value in values.items():
        OmegaConf.update(tree, key.replace("__", "."), value)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(tree))


def alter(path, change):
    state = checkpoint.load(path)
    change(state)
    path.unlink()  # last.pt shares its bytes with step_N.pt
    checkpoint.save(path, state)


def older(folder):
    """The run as a version left it that kept neither configuration nor data in its states."""
    for path in sorted((folder / "checkpoints").iterdir()):
        alter(path, lambda state: [state.pop(name) for name in checkpoint.SINCE])
    return folder


def changes(folder):
    return [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]


def without_lock(folder):
    return {name: data for name, data in content(folder).items() if name != ".lock"}


# ---- config.yaml, edited by hand --------------------------------------------------------------------------------------------------------

EDITS = {
    "loss": ({"loss___target_": "gan_runner.losses.Hinge"}, "loss._target_ from gan_runner.losses.Wasserstein to gan_runner.losses.Hinge"),
    "batch size": ({"batch_size": 32}, "batch_size from 16 to 32"),
    "seed": ({"seed": 1}, "seed from 0 to 1"),
    "deterministic": ({"deterministic": True}, "deterministic from False to True"),
    "accumulate": ({"trainer__accumulate": 2}, "trainer.accumulate from 1 to 2"),
    "precision": ({"trainer__precision": "bf16"}, "trainer.precision from 32 to bf16"),
    "length": ({"trainer__steps": 8}, "trainer.steps from 4 to 8"),
    "learning rate": ({"optimizer__generator__lr": 0.5}, "optimizer.generator.lr from "),
    "weight": ({"penalty__gradient_penalty__weight": 3.0}, "penalty.gradient_penalty.weight from 0.1 to 3.0"),
    "trick": ({"trick__ema__halflife_kimg": 1.0}, "trick.ema.halflife_kimg from 17.7 to 1.0"),
    "prior": ({"architecture__generator__prior": "uniform"}, "architecture.generator.prior from None to {"),
    "activation": ({"architecture__generator__activation": "tanh"}, "architecture.generator.activation from relu to tanh"),
    "data": ({"dataset__seed": 3}, "dataset.seed from 0 to 3"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_configuration_is_refused_by_key_with_both_values_and_the_run_stays(run, shell, name):
    values, said = EDITS[name]
    edit(run, **values)
    before = without_lock(run)
    code, message = shell(run, "trainer.steps=9")
    assert code == 2, message
    assert said in message
    assert "accept=config" in message
    assert "Traceback" not in message
    assert without_lock(run) == before


@pytest.mark.slow
def test_an_edited_configuration_that_is_accepted_is_named_kept_and_resumed_again(run, shell):
    edit(run, batch_size=32, optimizer__generator__lr=0.5)
    states = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    code, message = shell(run, "trainer.steps=6", "accept=config")
    assert code == 0, message
    assert "accepted: batch_size from 16 to 32" in message
    assert "accepted: optimizer.generator.lr" in (run / "train.log").read_text().replace("\n", " ")
    assert state_of(run)["config"]["batch_size"] == 32
    assert {each["key"]: each["to"] for each in changes(run)} == {"batch_size": 32, "optimizer.generator.lr": 0.5, "trainer.steps": 6}
    for path in (run / "checkpoints").iterdir():  # as if it had been killed before its first checkpoint
        path.unlink()
    for name, data in states.items():
        (run / "checkpoints" / name).write_bytes(data)
    assert shell(run)[0] == 0
    assert len(changes(run)) == 3
    assert shell(run, "trainer.steps=7")[0] == 0
    edit(run, batch_size=16)
    assert shell(run, "trainer.steps=8")[0] == 2


@pytest.mark.slow
def test_what_the_line_changes_is_allowed_named_recorded_and_resumed_again(run, shell):
    states = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    code, message = shell(run, "trainer.steps=6", "trainer.accumulate=2", "trainer.precision=bf16", "callback.checkpoint.keep=3")
    assert code == 0, message
    assert "changed: trainer.accumulate from 1 to 2" in message
    assert "changed: trainer.precision from 32 to bf16" in message
    assert "not bit for bit" in message
    for name, data in states.items():
        (run / "checkpoints" / name).unlink(missing_ok=True)
        (run / "checkpoints" / name).write_bytes(data)
    assert shell(run)[0] == 0
    assert [each["key"] for each in changes(run)] == [
        "callback.checkpoint.keep",
        "trainer.steps",
        "trainer.accumulate",
        "trainer.precision",
    ]
    edit(run, trainer__accumulate=4)
    assert shell(run, "trainer.steps=7")[0] == 2


def test_a_run_that_is_resumed_unchanged_leaves_no_list_of_changes(run, shell):
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "running"}))
    assert shell(run)[0] == 0
    assert not (run / "changes.jsonl").exists()


@pytest.mark.parametrize("word", ["accept=everything", "accept=", "accept=3", "accept=[data,x]", "accept=data,config"])
def test_the_line_accepts_data_or_configuration_and_nothing_else(run, shell, word):
    code, message = shell(run, "trainer.steps=6", word)
    assert code == 2
    assert "accept=data, accept=config" in message


def test_a_file_accepts_nothing(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\naccept: [data, config]\n")
    with pytest.raises(UserError, match="accept, which is read from the command line only"):
        composer.compose(["+experiment=mine"], [tmp_path])


@pytest.mark.slow
def test_a_run_of_an_older_version_goes_on_and_says_what_was_not_checked(run, shell):
    code, message = shell(older(run), "trainer.steps=6")
    assert code == 0, message
    assert message.count("not checked: whether configuration and data are those of last.pt, which an older version wrote") == 1
    assert {"config", "data", "machine"} <= state_of(run).keys()
    assert "not checked" not in shell(run, "trainer.steps=8")[1]


def test_every_state_of_a_run_says_what_it_was_made_with(points):
    paths = sorted((points / "checkpoints").iterdir())
    assert len(paths) > 2
    first = checkpoint.load(paths[0])
    for path in paths:
        assert all(same(checkpoint.load(path)[name], first[name]) is None for name in checkpoint.SINCE)
    assert "root" not in first["config"]["dataset"]


def test_the_place_of_the_data_is_no_part_of_the_configuration(monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_DATA", "/somewhere/private")
    line = ["+experiment=dcgan_mnist", "extractor=lenet"]
    made = directory.made_with(composer.compose(line).config)
    assert "/somewhere/private" not in str(made)
    assert made == directory.made_with(composer.compose([*line, "dataset.root=/elsewhere"]).config)


def test_configurations_are_compared_as_they_are_read():
    plain = {"a": {"x": 1, "nan": float("nan")}, "b": [1, 2], "c": None}
    assert list(directory.differences(plain, plain)) == []
    other = {"a": {"x": 2, "nan": float("nan"), "new": 3}, "b": [2, 1]}
    assert [str(each) for each in directory.differences(plain, other)] == [
        "a.x from 1 to 2",
        "a.new from not set to 3",
        "b from [1, 2] to [2, 1]",
        "c from None to not set",
    ]
    assert "\x1b" not in str(directory.Difference("a\x1b[2J", "\x1b[2J", "b\nc"))


@pytest.mark.slow
def test_whatever_a_resume_writes_is_looked_at_before_the_next_one(run, shell):
    assert shell(run, "trainer.steps=6", "callback.checkpoint.keep=3")[0] == 0
    assert "changes.jsonl" in {path.name for path in run.iterdir()}
    assert [path.name for path in run.iterdir() if not any(fnmatch(path.name, name) for name in contents.RUN)] == []


def test_a_key_that_older_versions_lack_has_the_value_that_they_used():
    made = directory.made_with(composer.compose(["+experiment=dcgan_image_folder", "dataset.path=x"]).config)
    before = made | {"dataset": {key: value for key, value in made["dataset"].items() if key != "background"}}
    assert list(directory.differences(before, made)) == []
    black = made | {"dataset": made["dataset"] | {"background": "black"}}
    assert [str(each) for each in directory.differences(before, black)] == ["dataset.background from white to black"]


@pytest.mark.parametrize("group", ["trick", "penalty"])
def test_parts_that_change_places_are_another_configuration(group):
    names = {"trick": ["ema", "spectral_norm"], "penalty": ["r1", "gradient_penalty"]}[group]
    line = ["+experiment=gaussians25", f"{group}=[{','.join(names)}]"]
    made, other = (directory.made_with(composer.compose([*line, f"{group}=[{','.join(each)}]"]).config) for each in (names, names[::-1]))
    assert [str(each) for each in directory.differences(made, other)] == [f"{group} from {', '.join(names)} to {', '.join(names[::-1])}"]
    assert list(directory.differences({"loss": {"a": 1, "b": 2}}, {"loss": {"b": 2, "a": 1}})) == []


# ---- other data -------------------------------------------------------------------------------------------------------------------------


def black(data):
    for path in data.rglob("*.bmp"):
        Image.new("RGB", (16, 16)).save(path)


def one(data):
    Image.new("RGB", (16, 16)).save(data / "a" / "04.bmp")


def swapped(data):
    first, second = (data / "a" / name for name in ("02.bmp", "04.bmp"))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


def added(data):
    Image.new("RGB", (16, 16)).save(data / "b" / "new.bmp")


def removed(data):
    (data / "b" / "05.bmp").unlink()


def relabelled(data):
    (data / "a" / "00.bmp").rename(data / "b" / "00.bmp")


OTHERS = {
    black: "other contents in 12 of 12 that are compared",
    one: "other contents in 1 of 12 that are compared: a/04.bmp",
    swapped: "other contents in 2 of 12 that are compared: a/02.bmp, a/04.bmp",
    added: "12 samples then, 13 samples now; new: b/new.bmp",
    removed: "12 samples then, 11 samples now; gone: b/05.bmp",
    relabelled: "gone: a/00.bmp; new: b/00.bmp",
}


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: change.__name__)
def test_other_pictures_are_refused_with_what_differs_and_the_run_stays(pictures, tmp_path, shell, change):
    run, data = Path(shutil.copytree(pictures[0], tmp_path / "run")), Path(shutil.copytree(pictures[1], tmp_path / "data"))
    change(data)
    before = without_lock(run)
    code, message = shell(run, "trainer.steps=3", f"dataset.path={data}")
    assert code == 2, message
    assert OTHERS[change] in message
    assert "accept=data" in message
    assert without_lock(run) == before


def test_the_same_pictures_at_another_place_are_the_same_data(pictures, tmp_path, shell):
    run, data = Path(shutil.copytree(pictures[0], tmp_path / "run")), Path(shutil.copytree(pictures[1], tmp_path / "data"))
    code, message = shell(run, "trainer.steps=3", f"dataset.path={data}")
    assert code == 0, message
    assert "other data" not in message
    assert "accepted" not in message


@pytest.mark.slow
def test_other_pictures_that_are_accepted_are_named_and_trained_on(pictures, tmp_path, shell):
    """More of them than before, and once more from the state of before, as after a kill."""
    run, data = Path(shutil.copytree(pictures[0], tmp_path / "run")), Path(shutil.copytree(pictures[1], tmp_path / "data"))
    added(data)
    state = (run / "checkpoints" / "last.pt").read_bytes()
    code, message = shell(run, "trainer.steps=3", f"dataset.path={data}", "accept=data")
    assert code == 0, message
    assert "accepted: other data: 12 samples then, 13 samples now; new: b/new.bmp" in message
    assert state_of(run)["data"]["samples"] == state_of(run)["batches"]["samples"] == 13
    (run / "checkpoints" / "last.pt").unlink()
    (run / "checkpoints" / "last.pt").write_bytes(state)
    assert shell(run)[0] == 0
    assert [each["key"] for each in changes(run)].count("data") == 1
    assert shell(run, "trainer.steps=4")[0] == 0
    removed(data)
    assert shell(run, "trainer.steps=5")[0] == 2


def test_a_run_of_an_older_version_goes_on_with_more_pictures_where_that_is_accepted(pictures, tmp_path, shell):
    run, data = older(Path(shutil.copytree(pictures[0], tmp_path / "run"))), Path(shutil.copytree(pictures[1], tmp_path / "data"))
    added(data)
    words = (run, "trainer.steps=3", f"dataset.path={data}")
    code, message = shell(*words)
    assert code == 2
    assert "the data have changed: 12 training samples when the run began, 13 now" in message
    assert "accept=data" in message
    assert shell(*words, "accept=data")[0] == 0


@pytest.mark.slow
def test_to_accept_one_is_not_to_accept_the_other(pictures, tmp_path, shell):
    run, data = Path(shutil.copytree(pictures[0], tmp_path / "run")), Path(shutil.copytree(pictures[1], tmp_path / "data"))
    one(data)
    edit(run, seed=1)
    words = (run, "trainer.steps=3", f"dataset.path={data}")
    assert "accept=data" in shell(*words, "accept=config")[1]
    assert "accept=config" in shell(*words, "accept=data")[1]
    assert shell(*words, "accept=[data,config]")[0] == 0


@pytest.fixture
def other_points(monkeypatch):
    """The points of the data set are others from here on, in one label."""
    load = Gaussians25.load

    def relabelled(self, split):
        x, y = (samples := load(self, split)).x, samples.y
        return Samples(x, torch.where(torch.arange(len(y)) == 17, (y + 1) % 25, y))

    return lambda: monkeypatch.setattr(Gaussians25, "load", relabelled)


def test_other_samples_in_memory_are_refused(run, shell, other_points):
    other_points()
    code, message = shell(run, "trainer.steps=6")
    assert code == 2
    assert "other labels in 1 of 400 that are compared: 17" in message


def test_what_a_data_set_raises_is_not_taken_for_a_fault_of_the_state(run, monkeypatch):
    monkeypatch.setattr(Gaussians25, "load", lambda self, split: {}["mine"])
    with pytest.raises(KeyError, match="mine"):
        runs.resume(run, ["trainer.steps=6"])


def test_several_processes_are_not_started_on_other_data(run, shell, other_points, monkeypatch):
    other_points()
    monkeypatch.delattr(runs, "launch")
    code, message = shell(run, "trainer.steps=6", "trainer.devices=2")
    assert code == 2
    assert "other labels" in message


# ---- a job of a sweep -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(points, tmp_path):
    """A job that was interrupted before its last round."""
    folder = Path(shutil.copytree(points, tmp_path / "sweep" / "0"))
    for name in ("last.pt", "step_00000004.pt"):
        (folder / "checkpoints" / name).unlink()
    (folder / "status.json").write_text(json.dumps({"state": "interrupted", "step": 2, "images": 32}))
    return folder


def complete(folder, *words):
    return runs.complete(composer.compose(POINTS).config, folder, [*POINTS, *words])


def test_a_job_of_the_same_data_and_configuration_is_completed(interrupted, points):
    complete(interrupted)
    assert same(state_of(interrupted), state_of(points)) is None


@pytest.mark.slow
def test_a_job_on_other_data_is_refused_or_accepted(interrupted, other_points):
    other_points()
    before = without_lock(interrupted)
    with pytest.raises(UserError, match="other labels in 1 of 400"):
        complete(interrupted)
    assert without_lock(interrupted) == before
    complete(interrupted, "accept=data")
    assert state_of(interrupted)["step"] == 4


@pytest.mark.slow
def test_the_state_of_a_job_is_compared_and_not_its_configuration_alone(interrupted):
    alter(interrupted / "checkpoints" / "step_00000002.pt", lambda state: state["config"].update(batch_size=32))
    before = without_lock(interrupted)
    with pytest.raises(UserError, match="batch_size from 32 to 16"):
        complete(interrupted)
    assert without_lock(interrupted) == before
    complete(interrupted, "accept=config")


@pytest.mark.slow
def test_a_sweep_is_refused_before_any_job_is_run(interrupted, other_points, monkeypatch, capfd):
    other_points()
    line = ["-m", *POINTS, "seed=0,1", f"hydra.sweep.dir={interrupted.parent}"]
    (interrupted / "overrides.yaml").write_text(OmegaConf.to_yaml([*POINTS, "seed=0"]))
    before = without_lock(interrupted.parent)
    monkeypatch.setattr(sys, "argv", ["gan-train", *line])
    assert cli.train() == 2
    assert "other labels in 1 of 400" in capfd.readouterr().err.replace("\n", " ")
    assert without_lock(interrupted.parent) == before
    monkeypatch.setattr(sys, "argv", ["gan-train", *line, "accept=data"])
    assert cli.train() == 0
    assert [state_of(interrupted.parent / job)["step"] for job in "01"] == [4, 4]
    assert "accept" not in (interrupted.parent / "1" / "overrides.yaml").read_text()
    monkeypatch.setattr(sys, "argv", ["gan-train", *line])  # the line without the word is the same sweep
    assert cli.train() == 0


# ---- samples of a run -------------------------------------------------------------------------------------------------------------------

OTHER_NETWORKS = {
    "activation": {"architecture__generator__activation": "tanh"},
    "prior": {"architecture__generator__prior": "uniform"},
    "trick": {"trick__ema__halflife_kimg": 1.0},
    "seed": {"seed": 5},
    "data": {"dataset___target_": "gan_runner.datasets.Ring8"},
}


@pytest.mark.parametrize("name", OTHER_NETWORKS)
def test_networks_are_not_built_of_an_edited_configuration(run, name):
    ((key, value),) = OTHER_NETWORKS[name].items()
    edit(run, **{key: value})
    said = key.replace("___", "._").replace("__", ".")
    with pytest.raises(
        UserError, match=rf"(?i)last\.pt was made with another configuration than .*config\.yaml says: {said} from .* to .*{value}"
    ):
        gan_runner.load(run)


def test_a_checkpoint_of_another_run_is_refused_by_name(run, points, tmp_path):
    other = trained(tmp_path / "other", *POINTS, "seed=1")
    for which in ("last.pt", "step_00000002.pt"):
        with pytest.raises(UserError, match=r"other/checkpoints/.*made with another configuration.*seed from 1 to 0"):
            gan_runner.load(run, str(other / "checkpoints" / which))
    assert gan_runner.load(run, str(points / "checkpoints" / "last.pt")).step == 4


def test_what_no_network_depends_on_may_differ(run):
    edit(run, trainer__steps=99, callback__checkpoint__keep=1)
    older = gan_runner.load(run, str(run / "checkpoints" / "step_00000002.pt"))
    assert older.step == 2


@pytest.mark.slow
def test_states_of_before_a_change_that_was_accepted_are_sampled_as_long_as_the_networks_are_theirs(run, shell):
    edit(run, optimizer__generator__lr=0.5)
    assert shell(run, "trainer.steps=6", "accept=config")[0] == 0
    assert gan_runner.load(run, str(run / "checkpoints" / "step_00000002.pt")).step == 2
    edit(run, architecture__generator__activation="tanh")
    assert shell(run, "trainer.steps=8", "accept=config")[0] == 0
    assert gan_runner.load(run).step == 8
    with pytest.raises(UserError, match="activation from relu to tanh"):
        gan_runner.load(run, str(run / "checkpoints" / "step_00000002.pt"))


def test_states_of_an_older_version_are_sampled(run):
    assert gan_runner.load(older(run)).sample(3).shape == (3, 2)


# ---- bit for bit ------------------------------------------------------------------------------------------------------------------------


def test_where_a_run_is_no_longer_bit_for_bit_it_says_why(run, shell):
    alter(run / "checkpoints" / "last.pt", lambda state: state["machine"].update({"torch": "1.0", "threads": 99}))
    code, message = shell(run, "trainer.steps=5")
    assert code == 0
    assert "from here on not bit for bit what an uninterrupted run would be: torch was 1.0 and is 2" in message
    assert "threads was 99 and is " in message


@pytest.mark.parametrize("key", ["torch", "device", "instructions of the CPU", "threads", "precision"])
def test_whatever_bits_depend_on_is_compared(key):
    facts = hardware.facts(torch.device("cpu"), 32)
    assert key in facts
    assert provenance.inexact(facts | {key: "another"}, facts, deterministic=True) == [f"{key} was another and is {facts[key]}"]


def test_on_the_same_machine_nothing_is_said_of_bits(run, shell):
    assert "bit for bit" not in shell(run, "trainer.steps=5")[1]


def test_a_gpu_repeats_bits_where_that_was_asked_for():
    facts = {"torch": "2", "device": "H100", "threads": 1}
    assert provenance.inexact(facts, facts, deterministic=True) == []
    assert provenance.inexact(facts, facts, deterministic=False) == ["H100 without deterministic=true"]
    assert provenance.inexact(None, facts | {"device": "cpu"}, deterministic=False) == []
