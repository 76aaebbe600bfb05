"""Refiners in gan-sample and gan-eval, from the command line to what they leave behind."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import gan_runner
from command_settings import settings_of
from gan_runner import cli
from gan_runner.architectures import MLPDiscriminator, MLPGenerator
from gan_runner.assembly import parts
from gan_runner.assembly.signatures import signature
from gan_runner.commands import refining
from gan_runner.commands.settings import Evaluate
from gan_runner.config import composer
from gan_runner.config.groups import config_dir
from gan_runner.datasets import Ring8, Samples
from gan_runner.errors import UserError
from gan_runner.evaluation import evaluate
from gan_runner.evaluation.reference import Reference
from gan_runner.extractors import Identity
from gan_runner.game.spec import Spec
from gan_runner.lifecycle import runs
from gan_runner.metrics import FrechetDistance, ModeCoverage
from gan_runner.refinement import Diagnosis, OnData, Ratio, Refinement, Refiner
from gan_runner.refinement import comparison as refined
from gan_runner.refiners import OBRS, Auto, DGflow
from gan_runner.sampling.subjects import Collected

COMMON = ["batch_size=16", "callback.grid.n=4", "callback.evaluate.n=50", "trainer.accelerator=cpu", "trainer.threads=1"]
TOY = ["+experiment=ring8", "trainer.steps=20", "dataset.n=400", *COMMON]
NARROW = ["architecture.generator.width=16", "architecture.discriminator.width=16"]
FILES = sorted((config_dir() / "refiner").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs `points`, `other` (same data), `labelled`, `critic` and `images`."""
    folder = tmp_path_factory.mktemp("refined")
    lines = {
        "points": [*TOY, *NARROW],
        "other": [*TOY, *NARROW, "seed=1"],
        "labelled": [*TOY, *NARROW, "architecture.conditional=true"],
        "critic": [*TOY, *NARROW, "loss=wasserstein"],
        "grid25": ["+experiment=gaussians25", "trainer.steps=2", "dataset.n=400", *NARROW, *COMMON],
        "scales": ["dataset=triangles", "dataset.n_train=40", "dataset.n_test=40", "dataset.resolution=16", "architecture=msg_gan",
                   "trainer.steps=0", "architecture.generator.width=4", "architecture.discriminator.width=4", *COMMON],
        "images": ["dataset=triangles", "dataset.n_train=40", "dataset.n_test=40", "dataset.resolution=16",
                   "architecture=dcgan", "trainer.steps=2",
                   "architecture.generator.width=4", "architecture.discriminator.width=4", *COMMON],
    }  # fmt: skip
    for name, words in lines.items():
        runs.train(composer.compose(words).config, folder / name)
    return folder


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, folder):
    """Run a command in a copy of the folder: words -> (exit code, standard output, standard error)."""
    shutil.copytree(folder, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    commands = {"gan-sample": cli.sample, "gan-eval": cli.evaluate, "gan-train": cli.train, "gan-runs": cli.runs}

    def call(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words])
        code = commands[name]()
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


# ---- files ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_gives_all_settings_with_the_defaults_of_the_class(path):
    node = composer.compose([f"refiner=[{path.stem}]", "run=x"], config_name="sample").plain()["refiner"][path.stem]
    known = signature(parts.locate(node.pop("_target_"), Refiner, "refiner", ()))
    assert node == {key: default for key, (_, default) in known.items()}


# ---- gan-sample -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["points", "labelled"])
def test_gan_sample_writes_the_samples_that_the_refiner_makes(command, name):
    code, _, err = command("gan-sample", f"run={name}", "refiner=dgflow", "refiner.dgflow.steps=3", "n=7", "seed=5", "format=npz")
    assert code == 0, err
    [path] = Path(name, "samples").glob("*.npz")
    assert path.name == "last_npz_seed5_dgflow_steps3.npz"
    run = gan_runner.load(name)
    [batch] = Refinement(DGflow(steps=3), Ratio(run.generator, run.discriminator), seed=5).batches(7, [3])
    stored = np.load(path)
    np.testing.assert_array_equal(stored["samples"], batch.x[3].numpy())
    assert ("labels" in stored) == (name == "labelled")
    assert "dgflow: 3 steps, 3 evaluations and 3 gradients of D a sample" in err
    assert "s for 1,000" in err


@pytest.mark.slow
def test_gan_sample_refines_one_class(command):
    assert command("gan-sample", "run=labelled", "refiner=obrs", "class=2", "n=5", "format=npz", "out=made")[0] == 0
    assert np.load("made.npz")["labels"].tolist() == [2] * 5


@pytest.mark.slow
def test_a_trajectory_has_a_row_for_each_image_and_a_panel_for_each_step_of_points(command):
    assert command("gan-sample", "run=images", "refiner=dgflow", "trajectory=true", "n=3", "scale=1", "out=images.png")[0] == 0
    assert Image.open("images.png").size == (8 * (16 + 2) + 2, 3 * (16 + 2) + 2)
    assert command("gan-sample", "run=points", "refiner=dgflow", "trajectory=true", "n=20", "out=points.png")[0] == 0
    width, height = Image.open("points.png").size
    assert (width, height) == (2400, 1200), "two rows of four panels of 600 pixels"


@pytest.mark.slow
def test_the_first_column_of_a_trajectory_is_what_is_made_without_a_refiner(command):
    command("gan-sample", "run=images", "refiner=dgflow", "refiner.dgflow.eta=100", "trajectory=true", "n=3", "scale=1", "out=steps.png")
    command("gan-sample", "run=images", "n=3", "columns=1", "scale=1", "out=plain.png")
    steps, plain = (np.asarray(Image.open(name).convert("RGB")) for name in ("steps.png", "plain.png"))
    np.testing.assert_array_equal(steps[:, : plain.shape[1] - 2], plain[:, :-2])
    assert (steps[:, -18:] != plain[:, -18:]).any()


# ---- gan-eval ---------------------------------------------------------------------------------------------------------------------------


def lines_of(out):
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_figures_of_refined_samples_are_those_of_the_samples_that_gan_sample_makes(command):
    words = ["run=points", "n=60", "seed=3", "accelerator=cpu"]
    code, out, err = command("gan-eval", *words, "refiner=[dgflow,obrs]", "refiner.dgflow.steps=4", "every=2", "format=json")
    assert code == 0, err
    plain, flow, rejected = lines_of(out)
    assert plain["metrics"] == lines_of(command("gan-eval", *words, "format=json")[1])[0]["metrics"]
    run = gan_runner.load("points")
    made = Refinement(DGflow(steps=4), Ratio(run.generator, run.discriminator), seed=3)
    [batch] = made.batches(60, [2, 4])
    for step, name in ((2, "dgflow@2"), (4, "dgflow")):
        subject = Collected(Samples(batch.x[step]), run.spec)
        metrics = {"mode_coverage": ModeCoverage(run.dataset.spec)}
        expected = evaluate(subject, metrics, Reference(run.dataset)).numbers
        found = {
            key.removeprefix(f"refined/{name}/"): value for key, value in flow["metrics"].items() if key.startswith(f"refined/{name}/")
        }
        assert found == expected | {"evaluations": step}
        assert flow["cost"][name]["evaluations"] == flow["cost"][name]["gradients"] == step
    assert flow["protocol"]["refiner"]["steps"] == 4
    assert rejected["cost"]["obrs"]["gradients"] == 0
    assert set(flow["diagnosis"]) == {"steepness", "cross_entropy", "Z", "calibrated"}


@pytest.mark.slow
def test_the_table_begins_with_samples_that_are_not_refined(command):
    code, out, err = command("gan-eval", "run=points", "n=60", "refiner=[dgflow,obrs]", "refiner.dgflow.steps=4", "every=2", "format=table")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows[1:6]] == ["refiner", "none", "dgflow@2", "dgflow", "obrs@2"]
    assert rows[1][-5:] == ["evaluations", "gradients", "s", "/", "1,000"]
    assert rows[2][-3:] == ["0", "0", "0"]
    assert rows[4][-3:-1] == ["4", "4"]
    assert "the discriminator on held-out samples: steepness" in err or "steepness" in out


@pytest.mark.slow
def test_an_evaluation_of_refiners_changes_no_figure_of_the_run_and_is_counted_once(command):
    def listed():
        row = json.loads(command("gan-runs", "points", "--json")[1])
        return row, {key: value for key, value in row["metrics"].items() if not key.startswith("refined/")}

    words = ["gan-eval", "run=points", "n=60", "refiner=[dgflow]", "refiner.dgflow.steps=2"]
    before, own = listed()
    assert command("gan-eval", "run=points", "n=60")[0] == command(*words)[0] == 0
    once, still = listed()
    assert command(*words)[0] == 0
    again, _ = listed()
    assert {key: once[key] for key in ("metric", "best", "last")} == {key: before[key] for key in ("metric", "best", "last")}
    assert own.items() <= still.items()
    assert {key for key in still if key not in own} == {f"{key} (n=60)" for key in own}, "of the samples that are not refined"
    assert again | {"written": None} == once | {"written": None}


@pytest.mark.slow
def test_several_seeds_give_means_and_intervals(command):
    code, out, _ = command("gan-eval", "run=points", "n=60", "refiner=dgflow", "refiner.dgflow.steps=2", "seeds=2", "format=json")
    both = lines_of(out)[1]
    one, two = (
        lines_of(command("gan-eval", "run=points", "n=60", "refiner=dgflow", "refiner.dgflow.steps=2", f"seed={seed}", "format=json")[1])[1]
        for seed in (0, 1)
    )
    key = "refined/dgflow/modes/high_quality"
    assert code == 0
    assert both["metrics"][key] == pytest.approx((one["metrics"][key] + two["metrics"][key]) / 2)
    assert both["protocol"]["seeds"] == [0, 1]
    assert key in both["protocol"]["intervals_95"]


@pytest.mark.slow
def test_a_measure_of_coverage_is_added_where_none_is_chosen(command):
    code, out, err = command(
        "gan-eval", "run=points", "n=60", "refiner=dgflow", "refiner.dgflow.steps=2", "metric=[kernel_density]", "format=json"
    )
    assert code == 0, err
    plain, refined_line = lines_of(out)
    assert "dc/identity/coverage" in plain["metrics"]
    assert "refined/dgflow/dc/identity/coverage" in refined_line["metrics"]


@pytest.mark.slow
def test_metrics_that_look_at_networks_are_left_out_with_one_line(command):
    code, out, err = command(
        "gan-eval", "run=points", "n=60", "refiner=dgflow", "refiner.dgflow.steps=2", "metric=[mode_coverage,adversarial_probing]",
        "metric.adversarial_probing.n=4", "format=json",
    )  # fmt: skip
    assert code == 0, err
    plain, refined_line = lines_of(out)
    assert {key.split("/")[0] for key in plain["metrics"]} > {"modes"}
    assert {key.split("/")[2] for key in refined_line["metrics"]} == {"modes", "evaluations"}
    assert "adversarial_probing looks at networks" in err + out


@pytest.mark.slow
def test_steps_are_chosen_on_a_pilot(command, monkeypatch):
    monkeypatch.setattr(refined, "OF_PILOT", 50)
    monkeypatch.setattr(refined, "LADDER", (1, 2, 3))
    code, out, err = command(
        "gan-eval", "run=points", "n=60", "refiner=dgflow", "refiner.dgflow.steps=auto", "metric=[mode_coverage]", "format=table"
    )
    assert code == 0, err
    assert [line.split()[1] for line in out.splitlines() if "pilot@" in line] == ["pilot@1", "pilot@2", "pilot@3"]
    assert "chosen by modes/" in out + err


def test_a_number_of_steps_is_enough_where_the_best_one_is_within_the_error():
    assert refined.surely_below([1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.0])
    assert not refined.surely_below([1.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.5])  # apart by .125, with a standard error of .59
    assert not refined.surely_below([2.0] * 4, [2.0] * 4)


def test_a_loss_of_coverage_of_more_than_5_percent_is_a_warning():
    metrics = {"mode_coverage": ModeCoverage(Ring8(n=8).spec), "frechet_distance": FrechetDistance().look_through(Identity())}
    before = {"modes/covered": 8.0, "modes/covered_well": 8.0, "modes/high_quality": 0.5, "modes/kl": 0.1}
    after = {"modes/covered": 7.0, "modes/covered_well": 7.7, "modes/high_quality": 0.1, "modes/kl": 0.2}
    assert list(refined.losses(metrics, before, after)) == ["modes/covered falls from 8 to 7"]
    assert list(refined.losses(metrics, before, before)) == []
    assert list(refined.losses(metrics, before, after | {"modes/covered": None})) == []


@pytest.mark.slow
def test_the_warnings(command):
    far = command(
        "gan-eval",
        "run=grid25",
        "metric=[mode_coverage]",
        "metric.mode_coverage.radius_sigmas=1000",
        "n=300",
        "refiner=dgflow",
        "refiner.dgflow.eta=1e5",
        "refiner.dgflow.steps=2",
        "format=json",
    )
    assert far[0] == 0
    assert "latents have left the prior: mean |z|^2 / Z is" in far[1] + far[2]
    code, _, err = command("gan-eval", "run=points", "n=60", "refiner=dgflow", "refiner.dgflow.eta=1e300")
    assert code == 1
    assert "refinement diverged at step" in err
    assert "smaller eta" in err


@pytest.mark.slow
def test_a_critic_is_centred_with_one_line(command):
    code, out, err = command("gan-sample", "run=critic", "refiner=dgflow", "refiner.dgflow.divergence=js", "n=4", "out=x.png")
    assert code == 0, err
    assert (out + err).count("the logit is defined up to a constant") == 1
    code, out, err = command("gan-sample", "run=points", "refiner=dgflow", "refiner.dgflow.divergence=js", "n=4", "out=y.png")
    assert "defined up to a constant" not in out + err


# ---- discriminators of other runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_discriminator_and_a_corrector_of_other_runs_are_used(command):
    words = ["run=points", "refiner=dgflow", "refiner.dgflow.steps=2", "n=6", "format=npz"]
    for name, more in {"own": [], "other": ["discriminator=other:last"], "sum": ["corrector=other:last"]}.items():
        code, _, err = command("gan-sample", *words, *more, f"out={name}")
        assert code == 0, err
    run, other = gan_runner.load("points"), gan_runner.load("other")
    judge = OnData(other.discriminator, run.generator)
    for name, ratio in {"other": Ratio(run.generator, judge), "sum": Ratio(run.generator, run.discriminator, judge)}.items():
        [batch] = Refinement(DGflow(steps=2), ratio).batches(6, [2])
        np.testing.assert_array_equal(np.load(f"{name}.npz")["samples"], batch.x[2].numpy())
    assert not np.array_equal(np.load("own.npz")["samples"], np.load("other.npz")["samples"])


@pytest.mark.slow
def test_a_ratio_run_refines_samples_of_several_scales(command):
    words = ["+experiment=ratio", "architecture.generator.run=scales", "trainer.steps=2", "batch_size=8", "metric=[]"]
    code, _, err = command("gan-train", *words, "hydra.run.dir=ratio", "trainer.accelerator=cpu")
    assert code == 0, err
    code, _, err = command(
        "gan-sample", "run=scales", "refiner=dgflow", "refiner.dgflow.steps=2", "discriminator=ratio", "n=3", "format=npz", "out=x"
    )
    assert code == 0, err
    run, ratio = gan_runner.load("scales"), gan_runner.load("ratio")
    [batch] = Refinement(DGflow(steps=2), Ratio(run.generator, ratio.discriminator)).batches(3, [2])
    expected = run.spec.kind.as_bytes(batch.x[2]).numpy()
    np.testing.assert_array_equal(np.load("x.npz")["samples"], expected)


@pytest.mark.slow
def test_best_of_another_run_is_taken_unless_it_is_named(command):
    shutil.copy("other/checkpoints/last.pt", "other/checkpoints/best.pt")
    for said, expected in {"other": "best.pt", "other:last": "last.pt"}.items():
        out = command("gan-eval", "run=points", "n=20", "refiner=dgflow", "refiner.dgflow.steps=1", f"discriminator={said}", "format=json")[
            1
        ]
        assert expected in lines_of(out)[1]["protocol"]["discriminator"]


# ---- auto -------------------------------------------------------------------------------------------------------------------------------


def test_auto_moves_by_a_smooth_logit_and_chooses_by_a_log_ratio():
    torch.manual_seed(0)
    real, fake = torch.randn(20000) / 2 + 0.5, torch.randn(20000)  # log p/q is exact below
    d = (-0.5 * ((real - 0.5) / 0.5) ** 2 + 0.5 * real**2 + np.log(2)), (-0.5 * ((fake - 0.5) / 0.5) ** 2 + 0.5 * fake**2 + np.log(2))
    exact = Diagnosis.of(*d)
    assert exact.steepness == pytest.approx(1, abs=0.05)
    chosen, why = Auto().chosen(exact)
    assert isinstance(chosen, OBRS)
    assert "log ratio" in why
    flow, why = Auto(steps=7).chosen(Diagnosis.of(*(part / 5 for part in d)))
    assert isinstance(flow, DGflow)
    assert flow.steps == 7
    assert "smooth" in why
    with pytest.raises(UserError, match=r"too steep for a log ratio.*experiment=ratio"):
        Auto().chosen(Diagnosis.of(*(part * 5 for part in d)))
    noise = torch.randn(2, 20000)
    with pytest.raises(UserError, match="hardly apart"):
        Auto().chosen(Diagnosis.of(*noise))


@pytest.mark.slow
def test_auto_says_what_it_chose(command):
    code, out, err = command("gan-sample", "run=points", "refiner=auto", "n=4", "out=x.png")
    assert (code, "is chosen" in out + err) == (0, True) or "refiner=auto: this discriminator" in err


# ---- bad input --------------------------------------------------------------------------------------------------------------------------

WRONG = {
    "two": (["gan-sample", "run=points", "refiner=[dgflow,obrs]"], "gan-sample takes one"),
    "eta": (["gan-sample", "run=points", "refiner=dgflow", "refiner.dgflow.eta=0"], "refiner.dgflow.eta=0: expected a number, above 0"),
    "epsilon": (["gan-eval", "run=points", "refiner=ddls", "refiner.ddls.epsilon=-1"], "epsilon=-1: expected a number, above 0"),
    "budget": (["gan-eval", "run=points", "refiner=obrs", "refiner.obrs.budget=1"], "refiner.obrs.budget=1: expected a number, above 1"),
    "steps": (["gan-eval", "run=points", "refiner=dot", "refiner.dot.steps=0"], "refiner.dot.steps=0: expected a whole number, 1 or more"),
    "adjust": (["gan-sample", "run=points", "refiner=ddls", "refiner.ddls.noise=.5"], "adjust=true is for noise=1"),
    "misspelt": (["gan-eval", "run=points", "refiner=dgflow", "refiner.dgflow.stps=3"], "did you mean refiner.dgflow.steps"),
    "unknown": (["gan-eval", "run=points", "refiner=[dgflo]"], "did you mean dgflow"),
    "auto steps": (["gan-sample", "run=points", "refiner=dgflow", "refiner.dgflow.steps=auto"], "gan-eval chooses it"),
    "train": (["gan-train", "+experiment=ring8", "+refiner=dgflow"], "gan-train takes no refiner; gan-eval and gan-sample do"),
    "train key": (["gan-train", "+experiment=ring8", "refiner.dgflow.eta=1"], "gan-train takes no refiner"),
    "samples": (["gan-eval", "samples=x.npz", "refiner=dgflow"], "refiners work with the networks of one run"),
    "several": (["gan-eval", "run=[points,other]", "refiner=dgflow"], "refiners work with the networks of one run"),
    "watch": (["gan-eval", "run=points", "refiner=dgflow", "watch=true"], "watch=true follows the figures of training"),
    "every": (["gan-eval", "run=points", "every=2"], "every=2: this is for refiners"),
    "corrector alone": (["gan-sample", "run=points", "corrector=other"], "corrector=other: this is for refiners"),
    "trajectory": (["gan-sample", "run=points", "trajectory=true"], "needs refiner=NAME"),
    "interpolation": (["gan-sample", "run=points", "refiner=dgflow", "format=interpolation"], "nothing to refine"),
    "export": (["gan-sample", "run=points", "refiner=dgflow", "export=x.safetensors"], "nothing to refine"),
    "root alone": (["gan-sample", "run=points", "dataset.root=data"], "only a refiner looks at data"),
    "root": (["gan-sample", "run=points", "refiner=obrs", "dataset.root=data"], "reads no files"),
    "shape": (["gan-eval", "run=points", "refiner=dgflow", "discriminator=images"], "judges samples of shape"),
    "classes": (["gan-eval", "run=points", "refiner=dgflow", "discriminator=labelled"], "given one of 8 classes"),
    "form": (["gan-sample", "run=images", "refiner=dgflow", "discriminator=scales"], "judges samples in a form that"),
    "no run": (["gan-eval", "run=points", "refiner=dgflow", "discriminator=nowhere"], "nowhere"),
}  # fmt: skip


def stub(generator, discriminator):
    """What `refining.networks` looks at of a run."""
    return SimpleNamespace(folder="x", generator=generator, discriminator=discriminator, shift_invariant=False, packages=())


def test_a_run_without_a_discriminator_and_a_generator_that_works_on_data_are_refused():
    G, D = MLPGenerator(Spec((2,)), width=8), MLPDiscriminator(Spec((2,)), width=8)
    settings = settings_of(Evaluate, run="x")
    assert refining.networks(stub(G, D), settings)[0].discriminator is D
    with pytest.raises(UserError, match=r"x has no discriminator, and a refiner needs one: gan-train \+experiment=ratio"):
        refining.networks(stub(G, None), settings)

    class OnItems(MLPGenerator):
        def asked(self, batch, draws):
            return batch.x

    with pytest.raises(UserError, match="this generator works on data, which refiners cannot"):
        refining.networks(stub(OnItems(Spec((2,)), width=8), D), settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_line_and_creates_nothing(command, name):
    words, said = WRONG[name]
    before = sorted(map(str, Path().rglob("*")))
    code, _, err = command(*words)
    assert code == 2, err
    assert said in err
    assert len([line for line in err.splitlines() if line.startswith("gan-")]) == 1
    assert sorted(map(str, Path().rglob("*"))) == before


@pytest.mark.slow
def test_help_of_gan_train_names_no_refiner_and_that_of_the_others_does(command):
    assert "dgflow" not in command("gan-train", "--help")[1]
    assert "dgflow" in command("gan-sample", "--help")[1]
    assert "dgflow" in command("gan-eval", "--help")[1]
