"""callback.refine: refiners that are judged after the last round, their keys, and what a sweep says of them."""

import json

import pytest

import gan_runner
from gan_runner.assembly import build
from gan_runner.config import composer
from gan_runner.errors import UserError
from gan_runner.evaluation import evaluate
from gan_runner.evaluation.reference import Reference
from gan_runner.inventory.curves import blank
from gan_runner.inventory.summary import alike, drawn
from gan_runner.lifecycle import runs
from gan_runner.metrics import ModeCoverage
from gan_runner.refinement.comparison import Comparison, Networks
from gan_runner.refiners import OBRS, DGflow
from gan_runner.reporting import Reporter
from gan_runner.sampling.subjects import Generated
from gan_runner.storage.records import read
from gan_runner.studies import Refiners
from gan_runner.studies.summary import Figure, Row

SMALL = [
    "+experiment=ring8", "trainer.steps=10", "batch_size=16", "callback=[checkpoint,evaluate,refine]", "callback.evaluate.n=50",
    "dataset.n=400", "trainer.accelerator=cpu", "callback.refine.n=60",
    "callback.refine.every=2", "callback.refine.refiners.dgflow.steps=3",
    "architecture.generator.width=16", "architecture.discriminator.width=16", "metric.mode_coverage.radius_sigmas=60",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("callback") / "run"
    runs.train(composer.compose(SMALL).config, folder)
    return folder


def refined_lines(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if all(key.startswith("refined/") for key in line["metrics"])]


@pytest.mark.slow
def test_figures_are_those_of_a_comparison_of_the_saved_run(folder):
    plain, *lines = refined_lines(folder)
    run = gan_runner.load(folder)
    metrics, reference = {"mode_coverage": ModeCoverage(run.dataset.spec, 60.0)}, Reference(run.dataset)
    expected = evaluate(Generated(run.generator, 60, run.spec, discriminator=run.discriminator), metrics, reference).numbers
    assert plain["metrics"] == {f"refined/none/{key}": value for key, value in expected.items()} | {"refined/none/evaluations": 0}
    with Reporter() as reporter:
        networks = Networks(run.generator, run.discriminator)
        comparison = Comparison(networks, run.dataset, run.spec, metrics, reference, n=60, seeds=[0], every=2, reporter=reporter)
        judged = [comparison.judge(*each) for each in {"dgflow": DGflow(steps=3), "obrs": OBRS(steps=100)}.items()]
    assert [line["metrics"] for line in lines] == [each.line(10, 160, {})["metrics"] for each in judged]
    assert [line["protocol"]["refiner"].get("steps") for line in lines] == [3, 100]


@pytest.mark.slow
def test_a_sweep_has_a_row_for_each_number_of_steps(folder):
    rows = Refiners("?", ["modes/covered", "modes/kl"]).rows([read(folder, folder.parent)])
    assert [row.labels["refiner"] for row in rows][:4] == ["none", "dgflow@2", "dgflow", "obrs@2"]
    [plain] = [line for line in refined_lines(folder) if "refined/none/evaluations" in line["metrics"]]
    assert rows[0].figures["modes/covered"].mean == plain["metrics"]["refined/none/modes/covered"]
    assert rows[2].figures["evaluations"].mean == 3


def test_a_plot_has_a_panel_for_each_group_in_which_a_refiner_looks_the_same():
    def row(experiment, refiner, **figures):
        return Row({"experiment": experiment, "refiner": refiner}, [], {key: Figure(value, None, 1) for key, value in figures.items()})

    points = [row("points", "none", evaluations=0, kl=3), row("points", "dgflow@1", evaluations=1, kl=2)]
    points += [row("points", "dgflow", evaluations=2, kl=1), row("points", "obrs", evaluations=2, kl=2.5)]
    digits = [row("digits", name, evaluations=cost, fd=fd) for name, cost, fd in (("none", 0, 9), ("obrs", 4, 8), ("dgflow", 5, 7))]
    rows = [*points, *digits]
    summary = Refiners("?", ["kl", "fd", "typo"])
    parts = summary.panels(rows)
    assert [[each.labels["experiment"] for each in part] for part in parts] == [["points"] * 4, ["digits"] * 3]
    with blank(5, 5) as figure:
        labels, looks = [], []
        for axes, part in zip(figure.subplots(2), parts, strict=True):
            summary.plot(axes, part)
            labels += [label for label in axes.get_legend_handles_labels()[1] if label not in labels]
            alike(axes, labels)
            looks.append({line.get_label(): (line.get_color(), line.get_marker(), list(line.get_ydata())) for line in axes.get_lines()})
    assert {name: y for name, (_, _, y) in looks[0].items()} == {"none": [3, 3], "dgflow": [2, 1], "obrs": [2.5]}
    assert all(looks[0][name][:2] == looks[1][name][:2] for name in ("none", "dgflow", "obrs"))
    assert len({look[:2] for look in looks[0].values()}) == 3
    assert drawn(summary, rows).startswith(b"\x89PNG")
    assert summary.reading(rows).startswith("No run has a figure typo.")


WRONG = {
    "+callback.refine.refiners.dgflow.eta=-1": "callback.refine.refiners.dgflow.eta=-1: expected a number, above 0",
    "+callback.refine.refiners.dgflow.stps=3": "unknown key callback.refine.refiners.dgflow.stps; DGflow takes",
    "callback.refine.refiners.dgflow._target_=gan_runner.tricks.EMA": "callback.refine.refiners.dgflow",
    "callback.refine.refiners=3": "callback.refine.refiners=3: expected",
    "+callback.refine.refiners.mine=3": "callback.refine.refiners.mine has no _target_",
}


@pytest.mark.parametrize("word", WRONG)
def test_mistakes_in_refiners_below_a_callback_are_found_before_the_run(word):
    config = composer.compose([*SMALL, word]).config
    with pytest.raises(UserError) as error:
        build.check(config)
    assert WRONG[word] in str(error.value)


def test_whole_numbers_below_a_callback_are_whole():
    config = build.plain(build.whole_numbers(composer.compose([*SMALL, "callback.refine.refiners.dgflow.steps=3.0"]).config, ()))
    assert repr(config["callback"]["refine"]["refiners"]["dgflow"]["steps"]) == "3"
