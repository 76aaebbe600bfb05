"""gan-eval, from the command line to what it leaves behind."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner import cli
from gan_runner.config import composer
from gan_runner.lifecycle import runs
from gan_runner.storage import records

PIXELS = np.random.default_rng(0).integers(256, size=(40, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "run"
    words = ["+experiment=ring8", "trainer.steps=6", "batch_size=16", "callback.grid.n=4", "callback.evaluate.n=50", "dataset.n=400"]
    words += ["callback.checkpoint.every_steps=2", "callback.checkpoint.keep=9", "trainer.accelerator=cpu"]
    runs.train(composer.compose(words).config, folder)
    return folder


@pytest.fixture
def gan_eval(monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["gan-eval", *map(str, words)])
        code = cli.evaluate()
        said = capsys.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines() if line.startswith("{")], said.err

    return command


def folder_of(path, pixels=PIXELS):
    path.mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(path / f"{i}.png")
    return path


@pytest.mark.slow
def test_a_run_is_judged_by_the_metrics_it_was_trained_with(run, gan_eval):
    before = (run / "metrics.jsonl").read_text()
    code, [line], said = gan_eval(f"run={run}", "n=100", "accelerator=cpu")
    assert code == 0
    assert line["step"] == 6
    assert line["images"] == 96
    assert set(line["metrics"]) == {"modes/covered", "modes/covered_well", "modes/high_quality", "modes/kl"}
    assert line["better"] == dict.fromkeys(set(line["metrics"]) - {"modes/kl"}, "max") | {"modes/kl": "min"}
    assert {"n_fake": 100, "seed": 0, "checkpoint": "last.pt"}.items() <= line["protocol"].items()
    assert line["protocol"]["metrics"]["mode_coverage"]["radius_sigmas"] == 4.0
    assert (run / "metrics.jsonl").read_text() == before + json.dumps(line) + "\n"
    assert "round 6" in said


def test_the_figure_is_that_of_training_where_the_protocol_is(run, gan_eval):
    trained = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = next(line for line in trained if line["step"] == 6 and line["protocol"]["n_fake"] == 50)
    _, [line], _ = gan_eval(f"run={run}", "n=50", "batch_size=7", "accelerator=cpu")
    assert line["metrics"] == pytest.approx(trained["metrics"], nan_ok=True)


def test_every_checkpoint_is_judged_and_the_curves_are_in_tensorboard(run, gan_eval, tmp_path):
    out = tmp_path / "out"
    words = ["metric=[frechet_distance]", "extractor=identity", "n=300", "n_real=300", f"out={out}", "accelerator=cpu"]
    code, lines, _ = gan_eval(f"run={run}", "checkpoint=all", *words)
    assert code == 0
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[0]["protocol"] | {"real": "ring8:train", "n_real": 300, "extractor": "identity"} == lines[0]["protocol"]
    curve = EventAccumulator(str(out)).Reload().Scalars("fd/identity")
    assert [point.step for point in curve] == [2, 4, 6]
    assert [point.value for point in curve] == pytest.approx([line["metrics"]["fd/identity"] for line in lines], rel=1e-6)


@pytest.mark.slow
def test_several_seeds_give_a_mean_and_an_interval(run, gan_eval, tmp_path):
    words = ["metric=[frechet_distance]", "extractor=identity", "n=200", "accelerator=cpu", f"out={tmp_path}"]
    _, [line], said = gan_eval(f"run={run}", "seeds=3", *words)
    each = [gan_eval(f"run={run}", f"seed={seed}", *words)[1][0]["metrics"]["fd/identity"] for seed in range(3)]
    assert len(set(each)) == 3
    assert line["metrics"]["fd/identity"] == pytest.approx(np.mean(each))
    low, high = line["protocol"]["intervals_95"]["fd/identity"]
    assert high - low == pytest.approx(2 * 4.302653 * np.std(each, ddof=1) / 3**0.5, rel=1e-6)
    assert "[" in said


def test_images_from_any_source_are_judged(gan_eval, tmp_path):
    mine = folder_of(tmp_path / "mine")
    np.savez(tmp_path / "real.npz", images=PIXELS)
    words = ["metric=[frechet_distance]", "extractor=random_conv", "accelerator=cpu"]
    code, [line], _ = gan_eval(f"samples={mine}", f"reference={tmp_path / 'real.npz'}", *words)
    assert code == 0
    [value] = [value for key, value in line["metrics"].items() if key.startswith("fd/random_conv")]
    assert value == pytest.approx(0, abs=1e-6)  # the same images
    assert line["protocol"]["n_fake"] == line["protocol"]["n_real"] == 40
    assert "lossy" not in line["protocol"]


@pytest.mark.slow
def test_a_figure_by_another_protocol_has_a_curve_of_its_own(run, gan_eval, tmp_path):
    """HParams shows the last point of a curve: it stays that of training."""
    folder = shutil.copytree(run, tmp_path / "run")
    trained = EventAccumulator(str(folder)).Reload().Scalars("modes/high_quality")
    for words in (
        ["n=100"],
        ["n=50"],
        ["n=50", "seed=3"],
        ["n=50", "seeds=2"],
        ["n=50", f"checkpoint={folder}/checkpoints/step_00000002.pt"],
    ):
        assert gan_eval(f"run={folder}", *words, "accelerator=cpu")[0] == 0
    events = EventAccumulator(str(folder)).Reload()
    assert [(point.step, point.value) for point in events.Scalars("modes/high_quality")] == [(each.step, each.value) for each in trained]
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("modes/high_quality ")}
    assert tags == {f"modes/high_quality ({each})" for each in ("n=100", "gan-eval", "seed=3", "seeds=[0, 1]")}
    assert {point.step for point in events.Scalars("modes/high_quality (gan-eval)")} == {6, 2}
    seen = records.read(folder, folder)
    assert seen.curve("modes/high_quality") == [(96, pytest.approx(trained[-1].value))]
    assert len(seen.curve("modes/high_quality (n=100)")) == 1


def test_two_metrics_under_one_key_are_refused(run, gan_eval):
    other = "+metric.other={_target_: gan_runner.metrics.ModeCoverage, radius_sigmas: 2.0}"
    code, lines, said = gan_eval(f"run={run}", "metric=[mode_coverage]", other, "n=50", "accelerator=cpu")
    assert (code, lines) == (2, [])
    assert "metric.mode_coverage and metric.other both measure modes; take one of them out: ~metric.other" in said


@pytest.mark.parametrize(("name", "metric"), [("ring8", "mode_coverage"), ("swiss_roll", "kernel_density")])
def test_points_are_judged_against_a_data_set_by_its_name(gan_eval, tmp_path, name, metric):
    """These have no dataset.root, for which evaluate.yaml has a value."""
    np.savez(tmp_path / "points.npz", samples=np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32))
    words = [f"samples={tmp_path / 'points.npz'}", f"reference={name}", f"metric=[{metric}]", "n_real=500", "accelerator=cpu"]
    code, [line], _ = gan_eval(*words)
    assert code == 0
    assert {*line["metrics"].values()} - {None}
    code, _, said = gan_eval(*words, "dataset.root=elsewhere")
    assert (code, "unknown key dataset.root" in said) == (2, True)


def test_nearly_black_images_and_few_samples_are_noted(gan_eval, tmp_path):
    np.savez(tmp_path / "black.npz", images=PIXELS // 128)
    np.savez(tmp_path / "real.npz", images=PIXELS)
    words = ["metric=[frechet_distance]", "extractor=random_conv", "accelerator=cpu"]
    black, real = "all values of the {} are 0 or 1, of 255", "real images"
    _, [line], said = gan_eval(f"samples={tmp_path / 'black.npz'}", f"reference={tmp_path / 'real.npz'}", *words)
    assert any(note.startswith(black.format("samples")) for note in line["protocol"]["notes"])
    assert not any(real in note for note in line["protocol"]["notes"])
    assert any("40 samples for" in note and "bias is most of the distance" in note for note in line["protocol"]["notes"])
    assert said.count(black.format("samples")) == 1
    _, [line], said = gan_eval(f"samples={tmp_path / 'real.npz'}", f"reference={tmp_path / 'black.npz'}", *words)
    assert any(note.startswith(black.format(real)) for note in line["protocol"]["notes"])
    assert black.format("samples") not in said


def test_folders_that_differ_in_opacity_alone_differ_and_the_protocol_says_how(gan_eval, tmp_path):
    opaque = np.concatenate([PIXELS, np.full((*PIXELS.shape[:3], 1), 255, np.uint8)], 3)
    faint = opaque.copy()
    faint[..., 3] = 60
    words = [f"samples={folder_of(tmp_path / 'faint', faint)}", f"reference={folder_of(tmp_path / 'opaque', opaque)}", "accelerator=cpu"]
    (tmp_path / "faint" / "notes.txt").write_text("no image")
    code, [line], said = gan_eval(*words, "metric=[frechet_distance]", "extractor=random_conv")
    assert code == 0
    [value] = [value for key, value in line["metrics"].items() if key.startswith("fd/random_conv")]
    assert value > 0.1
    assert line["protocol"]["opacity"] == line["protocol"]["real_opacity"] == "laid on white"
    assert f"samples: 40 images in {tmp_path / 'faint'}; left out: 1 .txt" in said
    assert f"real: 40 images in {tmp_path / 'opaque'}\n" in said


IMAGES = ["samples={images}", "reference={images}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to judge"),
        (["metric=[frechet_distance]"], "say what to judge: run=RUN_DIR or samples="),
        (["run={run}", "samples={run}"], "is named twice"),
        (["run={run}/nothing"], "not a run directory"),
        (["run={run}", "checkpoint=nowhere.pt"], "there is no nowhere.pt"),
        (["run={run}", "n=1"], "n=1: expected a number of samples, 2 or more"),
        (["run={run}", "split=valid"], "split='valid': expected train or test"),
        (["run={run}", "metric=[frechet]"], "there is no metric frechet"),
        (["run={run}", "metric=[frechet_distance]"], "no extractor is chosen"),
        (["run={run}", "metric=[frechet_distance]", "extractor=lenet", "extractor.weights=nowhere.pth"], "takes images, N C H W"),
        ([*IMAGES, "metric=[frechet_distance]", "extractor=lenet", "extractor.weights=nowhere.pth"], "there is no file nowhere.pth"),
        (["run={run}", "metrics=[a]"], "did you mean metric"),
        (["run={run}", "-m", "seed=1,2"], "-m is for gan-train"),
        (["samples={images}", "metric=[mode_coverage]"], "needs data whose modes are known"),
        (["samples={images}", "metric=[frechet_distance]", "extractor=random_conv"], "no real samples to compare with"),
        (["samples={images}", "metric=[skill_rating]"], "looks at the checkpoints of a whole run"),
        (["samples={images}"], "no metric is chosen"),
        (["run={run}", "metric=[frechet_distance]", "extractor=random_conv"], "takes images, N C H W"),
        (["samples={images}", "reference={small}", "metric=[frechet_distance]", "extractor=random_conv"], "they cannot be compared"),
    ],
)
def test_a_wrong_line_is_one_clear_message(run, gan_eval, tmp_path, words, message):
    np.savez(tmp_path / "images.npz", images=PIXELS)
    np.savez(tmp_path / "small.npz", images=PIXELS[:, :4])
    places = {"run": run, "images": tmp_path / "images.npz", "small": tmp_path / "small.npz"}
    before = (run / "metrics.jsonl").read_bytes()
    code, lines, said = gan_eval(*[word.format(**places) for word in words])
    assert code == 2
    assert lines == []
    assert message in said
    assert "Traceback" not in said
    assert (run / "metrics.jsonl").read_bytes() == before


def test_figures_do_not_depend_on_the_threads_random_state(run, gan_eval):
    torch.manual_seed(1)
    first = gan_eval(f"run={run}", "n=64", "accelerator=cpu")[1]
    torch.manual_seed(2)
    assert gan_eval(f"run={run}", "n=64", "accelerator=cpu")[1] == first
