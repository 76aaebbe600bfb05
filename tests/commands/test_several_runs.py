"""Several runs in one line of gan-eval."""

import csv
import io
import json

import pytest

from gan_runner.config import composer
from gan_runner.lifecycle import runs

SMALL = [
    "+experiment=ring8", "trainer.steps=2", "batch_size=16", "callback.grid.n=4", "callback.evaluate.n=50", "dataset.n=400",
    "architecture.generator.width=8", "architecture.discriminator.width=8", "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    for seed, name in enumerate("ab"):
        runs.train(composer.compose([*SMALL, f"seed={seed}"]).config, folder / name)
    return folder


def test_each_run_has_its_own_figures_and_keeps_them(judged, tmp_path):
    looks = ["metric=[frechet_distance]", "extractor=identity", "format=json"]
    alone = [json.loads(judged(f"run={name}", *looks)[1]) for name in "ab"]
    code, out, _ = judged("run=[a,b]", *looks)
    together = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["metrics"] for line in together] == [line["metrics"] for line in alone]
    assert together[0]["metrics"] != together[1]["metrics"]
    for name, line in zip("ab", together):
        assert json.loads((tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()[-1]) == line


def test_they_are_one_table(judged):
    _, out, _ = judged("run=[a,b]", "format=table")
    heading, *rows = out.splitlines()
    assert heading.split()[:3] == ["judged", "figure", "value"]
    figures = [row.split()[3] for row in rows]
    assert [row.split()[0] for row in rows] == ["a:", "b:"] * 4
    assert figures == sorted(figures)
    assert len({*figures}) == 4
    _, out, _ = judged("run=[a,b]", "format=csv")
    read = list(csv.DictReader(io.StringIO(out)))
    assert [row["judged"] for row in read] == ["a: round 2"] * 4 + ["b: round 2"] * 4
    _, out, _ = judged("run=[a,b]", "format=markdown")
    assert len(out.splitlines()) == 2 + 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=[a,nowhere]"], "nowhere is not a run directory"),
        (["run=[a,b]", "out=x"], "out=x: the figures of several runs are added to each of them"),
        (["run=[]"], "run has no value: there is none in the list"),
        (["run=[a,b]", "samples=nowhere"], "nowhere is neither a folder of images nor a"),
        (["run=[a,a]"], "a is named twice"),
        (["run=[[a,b],[a]]"], "a is named twice"),
        (["run=[[a],[]]"], "run has no value: there is none in the list"),
        (["run=[[a],[b]]", "checkpoint=all"], "checkpoint=all: groups are compared at one checkpoint of each run"),
        (["run=[[a],b]"], "expected the folder of a run"),
        (["run=[a,3]"], "expected the folder of a run"),
    ],
)
def test_what_is_refused_measures_none_of_them(judged, tmp_path, words, said):
    before = [(tmp_path / "runs" / name / "metrics.jsonl").read_text() for name in "ab"]
    code, out, err = judged(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert [(tmp_path / "runs" / name / "metrics.jsonl").read_text() for name in "ab"] == before


def test_a_list_of_one_is_that_run(judged):
    assert judged("run=[a]", "format=table")[1] == judged("run=a", "format=table")[1]
