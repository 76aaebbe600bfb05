"""Published figures of experiments, and runs beside them."""

import json

import pytest
from omegaconf import OmegaConf

from gan_runner import cli
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.config.published import published
from gan_runner.errors import UserError
from gan_runner.inventory.published import rows
from gan_runner.storage import directory, records

FID, IS = "fid/inception_v3_tf", "is/inception_v3_tf"
EXPERIMENTS = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
FULL = {"n_fake": 50_000, "n_real": 50_000, "real": "cifar10:train", "metrics": {"classifier_score": {"splits": 10}}}


def run(folder, *words, lines=((100_000, {FID: 17.0, IS: 7.9}, FULL),), experiment="sngan_cifar10", step=100_000):
    folder.mkdir(parents=True)
    line = [f"+experiment={experiment}", *words]
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(directory.portable(compose(line).config))))
    (folder / "overrides.yaml").write_text(json.dumps(line))
    status = {"state": "finished", "step": step, "steps": 100_000}
    (folder / "status.json").write_text(json.dumps(status))
    text = [{"step": at, "images": 64 * at, "metrics": found, "protocol": said | {"checkpoint": "last.pt"}} for at, found, said in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in text))
    return records.read(folder, folder.parent)


def mimicry(found):
    return {each.figure: each for each in found if each.published.source == "mimicry"}


def test_equal_protocols_differ_in_nothing_but_what_is_said_of_the_training(tmp_path):
    found = mimicry(rows(run(tmp_path / "run", "seed=3", "trainer.devices=2", "logger=[csv]")))
    assert (found[FID].ours, found[FID].published.value) == (17.0, 16.77)
    assert found[FID].differs == found[IS].differs == ["training: no flip, no average of G"]
    assert found["kid/inception_v3_tf"].ours is None
    assert found["kid/inception_v3_tf"].differs == ["not measured"]


def test_the_nearest_measurement_counts_and_says_what_differs(tmp_path):
    few = FULL | {"n_fake": 2000}
    lines = [(20_000, {FID: 60.0}, few), (100_000, {FID: 30.0}, few), (80_000, {FID: 20.0}, FULL)]
    found = mimicry(rows(run(tmp_path / "run", lines=lines)))
    assert found[FID].ours == 20.0
    assert "round 80,000 of 100,000" in found[FID].differs
    found = mimicry(rows(run(tmp_path / "other", lines=lines[:2])))
    assert found[FID].ours == 30.0
    assert found[FID].differs[0] == "n_fake 2,000, not 50,000"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.steps=90000", "trainer.steps=90,000"),
        ("batch_size=128", "batch_size=128"),
        ("loss=minimax", "loss._target_=gan_runner.losses.Minimax"),
        ("dataset.flip=false", "dataset.flip=False"),
        ("seed=7", None),
        ("dataset.root=elsewhere", None),
        ("callback.evaluate.n=100", None),
        ("trainer.accelerator=cpu", None),
    ],
)
def test_a_figure_is_of_the_recipe_only_while_the_configuration_is(tmp_path, word, said):
    found = mimicry(rows(run(tmp_path / "run", word)))[FID].differs
    assert found == ([said] if said else []) + ["training: no flip, no average of G"]


def test_a_part_that_is_taken_away_or_added_is_a_difference(tmp_path):
    added, less = (mimicry(rows(run(tmp_path / name, word)))[FID].differs for name, word in (("a", "+penalty=r1"), ("b", "trick=[ema]")))
    assert added[:3] == ["penalty.r1._target_=gan_runner.penalties.R1", "penalty.r1.weight=10.0", "penalty.r1.every=1"]
    assert less[0] == "no trick.spectral_norm._target_"


def test_an_heir_has_its_own_figures_or_none(tmp_path, monkeypatch):
    assert {each.figure for each in published("cgan_pd_cifar10")} == {FID, IS}
    assert all(each.value not in (16.77, 21.7) for each in published("cgan_pd_cifar10"))
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# Mine\ndefaults: [sngan_cifar10, _self_]\nbatch_size: 32\n")
    assert published("mine", [tmp_path]) == []
    assert compose(["+experiment=mine"], [tmp_path]).plain()["batch_size"] == 32


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_published_is_no_setting_and_can_be_read(name):
    """Figures have the keys of metrics, and protocols those of metrics.jsonl."""
    assert "expect" not in compose([f"+experiment={name}"]).config
    for each in published(name):
        assert each.figure.split("/")[0] in ("fid", "is", "kid")
        assert each.value > 0
        known = {"n_fake", "n_real", "real", "metrics.classifier_score.splits"}
        assert each.protocol.keys() <= known


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{figure: fid/x, value: high, source: s}]", "expect.0.value: Input should be a valid number"),
        ("[{figure: fid/x, value: 1}]", "expect.0.source: Field required"),
        ("[{figure: fid/x, value: 1, source: s, sorce: t}]", "expect.0.sorce: Extra inputs are not permitted"),
        ("3", "expect.: Input should be a valid list"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, text, said):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\nexpect: {text}\n")
    with pytest.raises(UserError, match=said):
        published("mine", [tmp_path])
    for name in ("other", "", "../experiment/sngan_cifar10"):  # the last one of a stranger's run
        with pytest.raises(UserError, match=f"there is no experiment {name}"):
            published(name, [tmp_path])


def test_the_commands_show_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "outputs" / "a")
    run(tmp_path / "outputs" / "b", experiment="gaussians25")
    monkeypatch.setattr("sys.argv", ["gan-runs", "--published"])
    assert cli.runs() == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if "16.77" in line]
    assert line.split()[:3] == ["a", FID, "17"]
    assert "5 published figures, 0 measured alike" in said.err
    monkeypatch.setattr("sys.argv", ["gan-train", "--help", "+experiment=cgan_pd_cifar10"])
    assert cli.train() == 0
    said = capsys.readouterr().out
    assert "10.84 +- 0.03" in said
    assert "conditional batch norm in G" in said
    monkeypatch.setattr("sys.argv", ["gan-train", "--help", "experiment=nothing"])
    assert cli.train() == 2
