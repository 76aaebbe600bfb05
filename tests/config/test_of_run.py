"""Data and discriminator of the run whose generator is a part of a configuration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from gan_runner import cli
from gan_runner.assembly import build
from gan_runner.config.composer import Composer, compose
from gan_runner.errors import UserError

RING = ("+experiment=ring8", "dataset.n=77", "architecture.discriminator.width=9", "architecture.discriminator.activation=tanh")
IMAGES = ("+experiment=dcgan_mnist", "architecture.conditional=true")
NONE = ("+experiment=ring8", "~architecture.discriminator", "rule=solo")
RATIO = "+experiment=ratio"
CRITIC = "architecture.discriminator={_target_: gan_runner.architectures.MLPDiscriminator, depth: 1}"


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder, *words):
    """What composing reads of a run: the configuration of its line."""
    Path(folder).mkdir(parents=True)
    Path(folder, "config.yaml").write_text(OmegaConf.to_yaml(compose([*words]).config))
    Path(folder, "status.json").write_text("{}")
    return f"architecture.generator.run={folder}"


def parts(config):
    """The data and the discriminator of a configuration."""
    found = OmegaConf.to_container(config, resolve=True)
    return found["dataset"], found["architecture"]["discriminator"]


@pytest.mark.slow
@pytest.mark.parametrize("chooser", [RATIO, "+experiment=ratio_smooth", "architecture=trained"])
@pytest.mark.parametrize("words", [RING, IMAGES], ids=["points", "images with labels"])
def test_they_are_those_of_the_run(at, chooser, words):
    before = compose([*words])
    composed = compose([chooser, run("before", *words)])
    assert parts(composed.config) == parts(before.config)
    assert composed.config.architecture.conditional == before.config.architecture.conditional
    assert composed.notes == ["taken from before: dataset, architecture.discriminator"]


def test_keys_of_the_line_change_them(at):
    composed = compose([RATIO, run("before", *RING), "dataset.n=5", "architecture.discriminator.width=3"])
    assert parts(composed.config)[0]["n"] == 5
    assert {key: parts(composed.config)[1][key] for key in ("width", "activation")} == {"width": 3, "activation": "tanh"}


def test_the_discriminator_of_a_conditional_run_may_be_without_labels(at):
    composed = compose([RATIO, run("before", *IMAGES), "architecture.conditional=false"])
    assert parts(composed.config)[1]["conditional"] is False


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gaussians25", "swiss_roll"])
def test_data_that_the_line_chooses_stay_also_where_they_are_the_default(at, data):
    composed = compose([RATIO, run("before", *RING), f"dataset={data}"])
    assert composed.config.dataset == compose([f"dataset={data}"]).config.dataset
    assert parts(composed.config)[1]["width"] == 9
    assert composed.notes == ["taken from before: architecture.discriminator"]


def test_a_discriminator_that_the_line_names_is_that_alone(at):
    composed = compose([RATIO, run("before", *RING), CRITIC])
    assert parts(composed.config)[1] == {"_target_": "gan_runner.architectures.MLPDiscriminator", "depth": 1}
    assert composed.config.dataset.n == 77


def experiment(defaults, body):
    Path("mine/experiment").mkdir(parents=True)
    lines = ["# @package _global_", "# Mine", "defaults:", *(f"  - {each}" for each in defaults), body]
    Path("mine/experiment/e.yaml").write_text("\n".join(lines))
    return {"config_dirs": ["mine"]}


def test_an_experiment_names_the_run_and_changes_keys_of_its_parts(at):
    word = run("before", *RING).partition("=")[2]
    body = f"dataset: {{n: 6}}\narchitecture: {{generator: {{run: {word}}}, discriminator: {{width: 4}}}}\n"
    files = experiment(["ratio"], body)
    data, critic = parts(compose(["+experiment=e"], **files).config)
    assert (data["n"], critic["width"], critic["activation"]) == (6, 4, "tanh")
    assert compose(["+experiment=e", "dataset.n=7"], **files).config.dataset.n == 7
    assert parts(compose(["+experiment=e", CRITIC], **files).config)[1] == {
        "_target_": "gan_runner.architectures.MLPDiscriminator",
        "depth": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gaussians25", "swiss_roll"])
def test_data_that_an_experiment_chooses_stay_also_where_they_are_the_default(at, data):
    word = run("before", *RING)
    composed = compose(["+experiment=e", word], **experiment(["ratio", f"override /dataset: {data}"], ""))
    assert composed.config.dataset == compose([f"dataset={data}"]).config.dataset


def test_the_place_of_the_data_is_asked_of_the_environment_again(at, monkeypatch):
    word = run("before", *IMAGES)
    monkeypatch.setenv("GAN_RUNNER_DATA", "/elsewhere")
    assert compose([RATIO, word]).config.dataset.root == "/elsewhere"


def test_a_mistake_names_the_file_that_it_comes_from(at):
    composed = compose([RATIO, run("before", *RING), "dataset.seed=3"])
    assert "dataset.n is set in before/config.yaml" in composed.sources("dataset.n=77: wrong")
    assert composed.sources("dataset.seed=3: wrong") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere", "^this architecture is the generator of another run, and nowhere is no run directory: has it been moved or deleted"),
        ("empty", "empty/config.yaml is not the configuration of a run, or not all of it"),
        ("broken", "broken/config.yaml cannot be read"),
        ("none", r"architecture.generator.run=none: this run has no discriminator; choose one, for example 'architecture.discriminator="),
    ],
)
def test_a_run_that_has_none_of_them_is_refused_in_one_line(at, words, said):
    for name, text in {"empty": "seed: 0\n", "broken": "a: [\n"}.items():
        Path(name).mkdir()
        Path(name, "config.yaml").write_text(text)
    run("none", *NONE)
    with pytest.raises(UserError, match=said) as caught:
        compose([RATIO, f"architecture.generator.run={words}"])
    assert "\n" not in str(caught.value)


def test_a_run_without_discriminator_goes_with_another_one(at):
    composed = compose([RATIO, run("none", *NONE), CRITIC])
    assert composed.notes == ["taken from none: dataset"]


def spoilt(folder, **replaced):
    """The run `folder`, whose config.yaml was changed by a stranger."""
    path = Path(folder, "config.yaml")
    path.write_text(OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.load(path), replaced)))


def test_the_file_of_a_stranger_names_no_code(at):
    word = run("before", *RING)
    spoilt("before", dataset={"_target_": "os.system"})
    composed = compose([RATIO, word])
    assert any("dataset._target_=os.system is not allowed" in each for each in build.wrong_values(composed.config, []))


def test_the_file_of_a_stranger_reads_no_variable(at):
    word = run("before", *IMAGES)
    spoilt("before", dataset={"root": "${oc.env:SECRET}"})
    with pytest.raises(UserError, match="SECRET"):
        compose([RATIO, word])


def test_the_file_of_a_stranger_is_no_link(at):
    run("elsewhere", *RING)
    word = run("before", *RING)
    Path("before/config.yaml").unlink()
    Path("before/config.yaml").symlink_to(at / "elsewhere/config.yaml")
    with pytest.raises(UserError, match=r"config\.yaml"):
        compose([RATIO, word])


def test_without_a_run_nothing_is_taken(at):
    composed = compose([RATIO])
    assert composed.notes == []
    with pytest.raises(UserError, match=r"^architecture.generator.run has no value yet: add architecture.generator.run=\.\.\.$"):
        composed.plain()


def test_the_run_behind_another_class_is_left_to_it(at):
    word = run("before", *RING)
    Path("mine/architecture").mkdir(parents=True)
    Path("mine/architecture/student.yaml").write_text("# Mine\ngenerator: {_target_: mine.Student, run: null}\n")
    composed = compose(["architecture=student", word], config_dirs=["mine"])
    assert (composed.config.dataset.n, composed.notes) == (compose([]).config.dataset.n, [])


def test_each_job_of_a_sweep_takes_those_of_its_run(at):
    run("a", *RING)
    run("b", *IMAGES)
    composer = Composer()
    frame = composer.load_configuration("train", [RATIO, "architecture.generator.run=a,b", "dataset.n=7"], RunMode.MULTIRUN)
    jobs = [composer.compose_job(frame, [RATIO, f"architecture.generator.run={name}"]) for name in "ab"]
    assert [job.config.dataset._target_.rpartition(".")[2] for job in jobs] == ["Ring8", "MNIST"]
    assert [job.config.architecture.discriminator.width for job in jobs] == [9, 32]


@pytest.mark.slow
@pytest.mark.parametrize("said", ["outputs/e/before", "latest", "outputs", "outputs/e/before/config.yaml"])
def test_cfg_job_prints_them_for_every_address_of_the_run(at, monkeypatch, capsys, said):
    run("outputs/e/before", *RING)
    monkeypatch.setattr(sys, "argv", ["gan-train", RATIO, f"architecture.generator.run={said}", "--cfg", "job"])
    assert cli.train() == 0
    printed, told = capsys.readouterr()
    config = OmegaConf.create(printed)
    assert config.dataset.n == 77
    assert config.architecture.discriminator.width == 9
    assert "note: taken from outputs/e/before: dataset, architecture.discriminator" in told


def test_a_checkpoint_in_the_address_is_that_of_the_generator(at, monkeypatch, capsys):
    run("before", *RING)
    monkeypatch.setattr(sys, "argv", ["gan-train", RATIO, "architecture.generator.run=before:best", "--cfg", "job"])
    assert cli.train() == 0
    config = OmegaConf.create(capsys.readouterr().out)
    assert (config.architecture.generator.checkpoint, config.dataset.n) == ("best", 77)


def test_the_run_is_read_without_torch(at):
    words = [RATIO, run("before", *RING)]
    code = f"import sys; from gan_runner.config.composer import compose; compose({words}).plain(); sys.exit('torch' in sys.modules)"
    source = str(Path(cli.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, check=False).returncode == 0


def test_a_wrong_run_ends_with_2(at, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gan-train", RATIO, "architecture.generator.run=nowhere"])
    assert cli.train() == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(at.iterdir()) == []
