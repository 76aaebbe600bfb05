"""When figures are measured in a run, on how many samples, and what follows them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gan_runner.callbacks import evaluate
from gan_runner.config.composer import compose
from gan_runner.errors import UserError
from gan_runner.lifecycle import runs
from gan_runner.storage import records

RING = (
    "dataset=ring8", "dataset.n=120", "architecture.generator.width=8", "architecture.discriminator.width=8", "batch_size=16",
    "metric=[frechet_distance,mode_coverage]", "extractor=[identity]", "callback.evaluate.n=40", "callback.evaluate.every_steps=2",
    "callback.evaluate.best.metric=frechet_distance", "trainer.accelerator=cpu", "~callback.grid", "~callback.progress",
)  # fmt: skip


def train(folder: Path, *words: str, steps: int = 4) -> list[dict]:
    runs.train(compose([*RING, *words, f"trainer.steps={steps}"]).config, folder)
    return lines(folder)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def kept(line: dict) -> tuple:
    return line["step"], line["protocol"]["n_fake"], line["protocol"]["n_real"], line["protocol"].get("checkpoint")


@pytest.mark.slow
def test_the_last_round_is_measured_once_more_as_published_figures_are(tmp_path):
    found = train(tmp_path, "callback.evaluate.final.n=100", "callback.evaluate.n_real=50")
    assert [*map(kept, found)] == [(2, 40, 50, None), (4, 40, 50, None), (4, 100, 120, "last.pt")]
    assert found[2]["metrics"].keys() == found[1]["metrics"].keys()
    run = records.read(tmp_path, tmp_path)
    assert {"fd/identity", "fd/identity (n=100, n_real=120)"} <= set(run.keys)
    assert run.best("fd/identity", "min")[1] == min(line["metrics"]["fd/identity"] for line in found[:2])
    assert run.last("fd/identity") == found[1]["metrics"]["fd/identity"]


@pytest.mark.slow
def test_it_has_curves_and_pictures_of_its_own(tmp_path):
    """Of the names that gan-runs gives it: those of training stay."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [
        "dataset=triangles",
        "dataset.n_train=60",
        "dataset.n_test=20",
        "architecture=mlp",
        "metric=[flaw_critics]",
        "extractor=random_conv",
    ]
    small = [word for word in RING if not word.startswith(("dataset", "metric", "extractor", "callback.evaluate.best"))]
    more = ["callback.evaluate.n=60", "callback.evaluate.n_real=50", "callback.evaluate.final.n=64", "trainer.steps=2"]
    runs.train(compose([*small, *words, *more]).config, tmp_path)
    drawn = EventAccumulator(str(tmp_path)).Reload().Tags()
    figures = [key for key in lines(tmp_path)[0]["metrics"] if key.endswith("count")]
    assert len(lines(tmp_path)) == 2
    assert {figures[0], f"{figures[0]} (n=64, n_real=60)"} <= set(drawn["scalars"])
    assert set(records.read(tmp_path, tmp_path).keys) >= {f"{figures[0]} (n=64, n_real=60)"}
    plain = [tag for tag in drawn["images"] if tag.startswith("flaws/") and "(" not in tag]
    again = [tag for tag in drawn["images"] if tag.startswith("flaws/") and "(n=64, n_real=60)" in tag]
    files = sorted(path.name for path in (tmp_path / "evaluations").iterdir())
    assert plain
    assert len(files) == len(plain) + len(again) == 2 * len(plain)
    assert sum("(n=64" in name for name in files) == len(again)


@pytest.mark.slow
def test_it_is_what_gan_eval_measures_of_the_last_checkpoint(tmp_path, monkeypatch, capsys):
    import sys

    from gan_runner import cli

    *_, last = train(tmp_path / "run", "callback.evaluate.final.n=100")
    monkeypatch.setattr(sys, "argv", ["gan-eval", f"run={tmp_path / 'run'}", "n=100", "format=json"])
    assert cli.evaluate() == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == last["metrics"]


@pytest.mark.slow
def test_a_longer_run_is_measured_so_at_its_new_end(tmp_path):
    before = train(tmp_path, "callback.evaluate.final.n=100")
    with pytest.raises(UserError, match="has played its 4 rounds"):
        runs.resume(tmp_path)
    assert lines(tmp_path) == before
    runs.resume(tmp_path, ["trainer.steps=6"])
    assert [*map(kept, lines(tmp_path)[len(before) :])] == [(6, 40, 120, None), (6, 100, 120, "last.pt")]


@pytest.mark.parametrize(("said", "n_real"), [("auto", 60), ("null", 120), ("30", 30)])
def test_the_number_of_real_samples_is_in_the_protocol(tmp_path, monkeypatch, said, n_real):
    monkeypatch.setattr(evaluate, "REAL_ON_A_CPU", 60)
    found = train(tmp_path, f"callback.evaluate.n_real={said}", steps=2)
    assert [*map(kept, found)] == [(2, 40, n_real, None)]


@pytest.mark.slow
@pytest.mark.parametrize("n", ["auto", "null"])
def test_on_a_cpu_the_last_round_is_not_measured_again_unless_it_is_asked_for(tmp_path, n):
    assert len(train(tmp_path, f"callback.evaluate.final.n={n}", steps=2)) == 1


@pytest.mark.slow
def test_metrics_that_lack_the_same_are_one_line(tmp_path, capfd):
    ring = [word for word in RING if not word.startswith(("dataset", "metric", "extractor"))]
    data = ["dataset=triangles", "dataset.n_train=40", "dataset.n_test=20", "architecture=mlp", "architecture.generator.width=8"]
    looks = ["metric=[frechet_distance,kernel_distance]", "extractor=[lenet]", "extractor.weights=nowhere.pth", "trainer.steps=1"]
    runs.train(compose([*ring, *data, *looks]).config, tmp_path)
    said = capfd.readouterr().err.replace("\n", " ")
    assert said.count("will be null") == 1
    assert "frechet_distance, kernel_distance will be null: extractor lenet needs its weights" in said


@pytest.mark.slow
def test_evaluations_are_announced_with_their_time_and_the_last_one_by_the_time_of_the_others(tmp_path, capfd, monkeypatch):
    """By a clock that runs 16 s faster in each timing: 16 samples, 1 s each; then 40 in an evaluation, 0.4 s each."""
    clock = iter(range(0, 10_000, 16))
    monkeypatch.setattr(evaluate, "Stopwatch", lambda: SimpleNamespace(seconds=float(next(clock) and 16)))
    train(tmp_path, "callback.evaluate.final.n=100", steps=5)
    said = capfd.readouterr().err.replace("\n", " ")
    assert "evaluations: 3 of 40 samples, about 40 s each; one of 100 after the last round, about 1 min 40 s (16 samples were" in said
    assert "once more on 100 samples against all real ones: about 40 s, the real ones not counted" in said
    capfd.readouterr()
    runs.resume(tmp_path, ["trainer.steps=6"])
    assert "evaluations: 1 of 40 samples" in capfd.readouterr().err.replace("\n", " ")


def test_nothing_is_announced_where_no_network_is_passed(tmp_path, capfd):
    train(tmp_path, "metric=[mode_coverage]", "callback.evaluate.best.metric=null", steps=2)
    assert "evaluations:" not in capfd.readouterr().err
