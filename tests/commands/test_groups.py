"""Groups of runs in one line of gan-eval: the spread over training seeds, and Welch's t test between groups."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from scipy import stats

from gan_runner.config import composer
from gan_runner.lifecycle import runs

SMALL = [
    "+experiment=ring8", "trainer.steps=2", "batch_size=16", "callback.grid.n=4", "callback.evaluate.n=50", "dataset.n=400",
    "architecture.generator.width=8", "architecture.discriminator.width=8", "trainer.accelerator=cpu",
]  # fmt: skip
LOOKS = ["metric=[frechet_distance]", "extractor=identity"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs a0, a1, a2 and b0, b1 of two losses, c0 of images, and points in files."""
    folder = tmp_path_factory.mktemp("groups")
    for name, words in {"a": ["loss=wasserstein"], "b": ["loss=hinge"]}.items():
        for seed in range(3 if name == "a" else 2):
            runs.train(composer.compose([*SMALL, *words, f"seed={seed}"]).config, folder / f"{name}{seed}")
    for seed in range(2):
        points = np.random.default_rng(seed).normal(size=(100, 2)).astype(np.float32)
        np.savez(folder / f"points{seed}.npz", samples=points)
    np.savez(folder / "images.npz", images=np.zeros((5, 3, 8, 8), np.uint8))
    return folder


def test_groups_of_runs_are_tested_over_training_seeds(judged):
    code, out, err = judged("run=[[a0,a1,a2],[b0,b1]]", *LOOKS, "format=json")
    assert code == 0
    *lines, last = [json.loads(line) for line in out.splitlines()]
    a, b = np.split(np.array([line["metrics"]["fd/identity"] for line in lines]), [3])
    assert last["groups"] == {"group 1": ["a0", "a1", "a2"], "group 2": ["b0", "b1"]}
    spread = last["figures"]["fd/identity"]
    assert [spread["group 1"]["mean"], spread["group 1"]["deviation"]] == pytest.approx([a.mean(), a.std(ddof=1)])
    assert spread["group 2"]["interval"] == pytest.approx(stats.t.interval(0.95, 1, b.mean(), b.std(ddof=1) / 2**0.5))
    [test] = last["tests"]
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert (test["figure"], test["group"], test["than"]) == ("fd/identity", "group 2", "group 1")
    assert [test["t"], test["freedom"], test["p"]] == pytest.approx([expected.statistic, expected.df, expected.pvalue])
    assert "training seeds were not compared" not in err
    assert "differ in more than the seed" not in err
    assert "Welch's t test over training seeds, two-sided, not corrected" in err


def test_every_format_says_the_same(judged):
    line = ["run=[[a0,a1,a2],[b0,b1]]", *LOOKS]
    last = json.loads(judged(*line, "format=json")[1].splitlines()[-1])
    mean, p = last["figures"]["fd/identity"]["group 2"]["mean"], last["tests"][0]["p"]
    read = list(csv.DictReader(io.StringIO(judged(*line, "format=csv")[1])))
    assert [row["judged"] for row in read] == [
        "a0: round 2",
        "a1: round 2",
        "a2: round 2",
        "b0: round 2",
        "b1: round 2",
        "group 1",
        "group 2",
    ]
    assert (float(read[-1]["value"]), float(read[-1]["p"]), read[-1]["runs"], read[-1]["better"]) == (mean, p, "2", "min")
    assert {row["p"] for row in read[:-1]} == {""}
    for form in ("table", "markdown"):
        out = judged(*line, f"format={form}")[1].splitlines()
        assert {f"{mean:.5g}", f"{p:.5g}", "2"} <= set(out[-1].replace("|", " ").split()), form
    assert [line for line in judged(*line, "format=table")[1].splitlines() if "group 1:" in line] == ["  group 1: a0, a1, a2"]


@pytest.mark.parametrize("words", [["run=[[a0],[b0]]"], ["run=[a0,b0]"], ["run=a0", "samples=points0.npz"]])
def test_one_run_a_side_has_intervals_over_evaluations_alone(judged, words):
    code, out, err = judged(*words, *LOOKS, "format=json", "seeds=2", "n=50")
    assert code == 0
    assert "training seeds were not compared: one run has no spread over training seeds" in err
    lines = [json.loads(line) for line in out.splitlines()]
    assert all(line["protocol"]["intervals_95"] for line in lines[:2])
    assert len(lines) == 3 if "[[" in words[0] else 2
    assert not lines[-1].get("tests")


def test_a_group_of_one_run_is_named(judged):
    _, out, err = judged("run=[[a0,a1],[b0]]", *LOOKS, "format=json")
    assert "training seeds were not compared with group 2: one run has no spread" in err
    last = json.loads(out.splitlines()[-1])
    assert last["tests"] == []
    assert last["figures"]["fd/identity"]["group 2"]["deviation"] is None


def test_what_is_not_alike_is_said(judged):
    _, _, err = judged("run=[[a0,b1],[a1,a2]]", *LOOKS)
    assert "the runs of group 1 differ in more than the seed: loss._target_" in err
    shutil.copytree("a0", "a9")
    _, out, _ = judged("run=[[a0,a9],[b0,b1]]", *LOOKS, "format=json")
    assert json.loads(out.splitlines()[-1])["figures"]["fd/identity"]["group 1"]["deviation"] == 0


def test_figures_that_are_not_measured_alike_are_not_tested(judged, tmp_path):
    """The runs of the second group were trained on other data, with which each is compared."""
    for seed in range(2):
        runs.train(composer.compose([*SMALL, "dataset.n=300", f"seed={seed}"]).config, tmp_path / "runs" / f"d{seed}")
    _, out, err = judged("run=[[a0,a1],[d0,d1]]", *LOOKS, "format=json")
    assert json.loads(out.splitlines()[-1])["tests"] == []
    assert "fd/identity: not measured alike, the protocols differ in n_real" in err


def test_samples_of_other_programs_are_grouped_as_well(judged):
    words = ["samples=[[points0.npz,points1.npz],[ring8,gaussians25]]", "reference=ring8", *LOOKS, "format=json"]
    code, out, err = judged(*words)
    assert code == 0, err
    *lines, last = [json.loads(line) for line in out.splitlines()]
    assert [line["protocol"]["samples"] for line in lines] == ["points0", "points1", "ring8:train", "gaussians25:train"]
    assert len(last["tests"]) == 1


def test_samples_of_different_shapes_are_refused_before_any_is_measured(judged):
    code, out, err = judged("run=a0", "samples=images.npz", *LOOKS)
    assert (code, out) == (2, "")
    assert "samples of a0 have the shape (2,) and those of images.npz (3, 8, 8)" in err
    assert err.count("\n") == 1
