"""Runs: what they leave behind, that they continue exactly, and how they end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import write_runs
from gan_runner import cli
from gan_runner.assembly import build
from gan_runner.callbacks import evaluate
from gan_runner.errors import Diverged, Failed, Interrupted, UserError
from gan_runner.lifecycle import runs
from gan_runner.metrics import Metric
from gan_runner.storage import files, records
from read_runs import curves, lines, measured, same, state_of
from tiny_runs import TINY, At, composed, disturbed

EVERYTHING = [
    "+experiment=gaussians25",
    "loss=non_saturating",
    "penalty=[gradient_penalty,r1,feature_matching,auxiliary_classifier,lecam]",
    "penalty.r1.every=2",
    "trick=[spectral_norm,ema,instance_noise,label_smoothing,gradient_clip,weight_clip]",
    "trick.weight_clip.limit=1.0",
    "architecture.conditional=true",
    "rule.d_steps=2",
    "batch_size=32",
    "callback.evaluate.every_steps=3",
    "callback.evaluate.n=500",
    "callback.grid.every_steps=5",
    "callback.grid.n=16",
]


def train(folder, *overrides, base=("+experiment=gaussians25", "callback.grid.n=16", "callback.evaluate.n=200", "batch_size=16")):
    return runs.train(composed(*base, *TINY, *overrides), Path(folder))


# ---- what a run leaves behind -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_leaves_behind_what_other_tools_rely_on(tmp_path):
    folder = tmp_path / "run"
    wide = "metric.mode_coverage.radius_sigmas=40.0"  # so that there is a best.pt
    objective = train(folder, "trainer.steps=8", "callback.evaluate.every_steps=4", wide)
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["step"], status["images"]) == ("finished", 8, 128)
    assert {"started", "ended"} <= status.keys()
    assert [line["step"] for line in lines(folder)] == [4, 8]
    protocol = lines(folder)[0]["protocol"]
    assert protocol.pop("metrics")["mode_coverage"]["radius_sigmas"] == 40.0
    assert protocol.pop("keys") == {"modes": {"metric": "mode_coverage", "reads": "samples"}}
    assert "200 samples for 25 modes" in protocol.pop("notes")[0]
    assert protocol == {"n_fake": 200, "seed": 0, "generator": "average of G"}
    best = min(line["metrics"]["modes/kl"] for line in lines(folder))
    assert objective == best
    files = {path.name for path in folder.iterdir() if not path.name.startswith(("events", "."))}
    assert files == {
        "config.yaml",
        "overrides.yaml",
        "env.json",
        "status.json",
        "metrics.jsonl",
        "checkpoints",
        "samples",
        "train.log",
        "D",
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step_00000004.pt", "step_00000008.pt", "last.pt", "best.pt"}
    assert {path.name for path in (folder / "samples").iterdir()} == {"step_00000000.png", "step_00000008.png"}
    assert len(list(folder.glob("events*"))) == 1
    assert [path.name.split(".")[0] for path in (folder / "D").iterdir()] == ["events"]  # the one sub-run, for the colour of D's curves
    env = json.loads((folder / "env.json").read_text())
    assert env["torch"] == torch.__version__


@pytest.mark.slow
def test_tensorboard_has_every_curve(tmp_path):
    train(tmp_path, *EVERYTHING[1:], "trainer.steps=6", base=["+experiment=gaussians25"])
    tags = set(curves(tmp_path))
    terms = {"loss/d", "loss/g", "gradient_penalty/d", "r1/d", "feature_matching/g", "auxiliary_classifier/d", "auxiliary_classifier/g"}
    assert terms <= tags
    assert {"d/real", "d/fake", "g/fake", "grad_norm/d", "grad_norm/g", "lr/d", "lr/g", "progress/images"} <= tags
    assert {"modes/covered", "modes/high_quality"} <= tags
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"samples/fixed_z", "data/real"} <= set(events.Tags()["images"])
    assert "config/text_summary" in events.Tags()["tensors"]


@pytest.mark.slow
def test_the_saved_configuration_runs_again_to_the_same_weights(tmp_path):
    train(tmp_path / "a", "trainer.steps=4")
    from gan_runner.storage.directory import read_config

    runs.train(read_config(tmp_path / "a"), tmp_path / "b")
    assert same(state_of(tmp_path / "a")["game"], state_of(tmp_path / "b")["game"]) is None


def test_the_saved_configuration_does_not_hold_the_place_of_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_DATA", "/somewhere/private")
    from gan_runner.storage.directory import portable

    saved = portable(composed("+experiment=dcgan_mnist"))
    assert "/somewhere/private" not in str(saved)
    assert saved["dataset"]["root"] == "${oc.env:GAN_RUNNER_DATA,data}"
    assert "${" not in str(saved["architecture"])


# ---- exactness ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_callbacks_the_weights_are_the_same(tmp_path):
    train(tmp_path / "watched", *EVERYTHING[1:], "trainer.steps=7", base=["+experiment=gaussians25"])
    unwatched = [word for word in EVERYTHING if not word.startswith("callback")]
    assembly = build.assemble(composed(*unwatched, "trainer.steps=7", "callback=[]", "logger=[]", "metric=[]"))
    from gan_runner.reporting import Reporter
    from gan_runner.training.loop import play
    from gan_runner.training.run import Run
    from gan_runner.training.signals import Signals

    run = Run(assembly, tmp_path, Reporter())
    play(run, Signals())
    assert same(state_of(tmp_path / "watched")["game"], run.state()["game"]) is None


@pytest.mark.slow
def test_resident_and_streamed_data_give_the_same_weights(tmp_path, pictures):
    base = ["+experiment=dcgan_image_folder", f"dataset.path={pictures}", "dataset.resolution=16", "dataset.flip=true", "batch_size=12"]
    base += ["architecture.generator.width=4", "architecture.discriminator.width=4", "callback.grid.n=4", "trainer.steps=5"]
    train(tmp_path / "resident", base=base)
    for workers in (0, 2):
        train(tmp_path / f"streamed{workers}", "dataset.resident_mb=0", f"dataset.workers={workers}", base=base)
        assert same(state_of(tmp_path / "resident")["game"], state_of(tmp_path / f"streamed{workers}")["game"]) is None


@pytest.mark.slow
def test_micro_batches_make_up_one_batch(tmp_path):
    words = ["loss=non_saturating", "penalty=[r1]", "trick=[ema,instance_noise,label_smoothing]", "trainer.steps=6"]
    for k in (1, 4):
        train(tmp_path / f"{k}", *words, f"trainer.accumulate={k}")
    one, four = (state_of(tmp_path / f"{k}")["game"] for k in (1, 4))
    weights = [name for name, value in one.items() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    assert len(weights) > 20
    assert all((one[name] - four[name]).abs().max() < 1e-5 for name in weights)


@pytest.mark.slow
def test_a_longer_run_is_a_resumed_shorter_one(tmp_path):
    """With schedules of fixed length the run of 10 is the run of 6 gone on with."""
    fixed = ["optimizer.generator.lr=1e-3", "optimizer.discriminator.lr=1e-3"]
    train(tmp_path / "long", "trainer.steps=10", *fixed)
    train(tmp_path / "short", "trainer.steps=6", *fixed)
    started = json.loads((tmp_path / "short" / "status.json").read_text())["started"]
    runs.resume(tmp_path / "short", ["trainer.steps=10"])
    assert json.loads((tmp_path / "short" / "status.json").read_text())["started"] == started
    assert same(state_of(tmp_path / "long")["game"], state_of(tmp_path / "short")["game"]) is None
    assert same(state_of(tmp_path / "long")["rng"], state_of(tmp_path / "short")["rng"]) is None


RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from gan_runner.config import composer
from gan_runner.lifecycle import runs
if sys.argv[1] == "train":
    runs.train(composer.compose(sys.argv[3:]).config, Path(sys.argv[2]))
else:
    runs.resume(Path(sys.argv[2]), sys.argv[3:])
"""


def process(*words):
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def killed_after(folder, step, words):
    """Start a run and kill it with SIGKILL some time after the checkpoint of `step` is there."""
    child = process("train", folder, *words)
    deadline = time.monotonic() + 120
    while not (Path(folder) / "checkpoints" / f"step_{step:08d}.pt").exists():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()


SMALL = [
    "architecture.generator.width=4",
    "architecture.discriminator.width=4",
    "batch_size=8",
    "callback.grid.n=4",
    "callback.grid.every_steps=7",
]


def check_killed_and_resumed_is_the_uninterrupted_run(folder, words, steps, every):
    """2N rounds == N + kill -9 + resume + N: weights, optimisers, random numbers, losses, TensorBoard, metrics."""
    words = [*words, f"trainer.steps={steps}", *TINY, f"callback.checkpoint.every_steps={every}"]
    whole = process("train", folder / "whole", *words)
    killed_after(folder / "killed", every, words)
    out = whole.communicate()[0]
    assert whole.returncode == 0, out
    status = json.loads((folder / "killed" / "status.json").read_text())
    assert status["state"] == "running"  # nobody had time to say otherwise
    resumed = process("resume", folder / "killed")
    out = resumed.communicate()[0]
    assert resumed.returncode == 0, out
    assert "going on after round" in out
    assert same(state_of(folder / "whole"), state_of(folder / "killed")) is None
    assert curves(folder / "whole") == curves(folder / "killed")
    if (folder / "whole" / "metrics.jsonl").exists():
        assert measured(folder / "whole") == measured(folder / "killed")


class Timed(Metric):
    """Seconds that its clock says."""

    needs = frozenset({"clock"})
    better = "min"

    def prefix(self, extractor):
        return "seconds"

    def examine(self, subject):
        before = subject.clock()
        self.seconds = torch.tensor(subject.clock() - before, dtype=torch.float64)

    def compute(self):
        return {"": self.seconds}


@pytest.mark.slow
def test_metrics_jsonl_is_the_same_bytes_after_a_resume_and_times_come_from_gan_eval(tmp_path, monkeypatch, capsys):
    words = ("trainer.steps=8", "callback.evaluate.every_steps=3", f"+metric.timed={{_target_: {__name__}.Timed}}")
    config = composed("+experiment=gaussians25", "callback.grid.n=16", "callback.evaluate.n=200", "batch_size=16", *TINY, *words)
    runs.train(config, tmp_path / "whole", packages=[__name__])
    with monkeypatch.context() as patch:
        disturbed(patch, At(5, lambda run: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(Interrupted):
            runs.train(config, tmp_path / "stopped", packages=[__name__])
    runs.resume(tmp_path / "stopped", packages=[__name__])
    assert [line["step"] for line in lines(tmp_path / "stopped")] == [3, 6, 8]
    assert measured(tmp_path / "stopped") == measured(tmp_path / "whole")
    assert all(line["metrics"]["seconds"] is None for line in lines(tmp_path / "whole"))
    said = (tmp_path / "whole" / "train.log").read_text()
    assert said.index("timed will be null: it measures time") < said.index("round 3")
    monkeypatch.setattr(sys, "argv", ["gan-eval", f"run={tmp_path / 'whole'}", "n=20", "accelerator=cpu", f"packages=[{__name__}]"])
    assert cli.evaluate() == 0, capsys.readouterr().err
    last = lines(tmp_path / "whole")[-1]
    assert last["metrics"]["seconds"] >= 0
    assert last["better"]["seconds"] == "min"


@pytest.mark.slow
def test_gaussians25_with_every_trick_survives_kill_9(tmp_path):
    check_killed_and_resumed_is_the_uninterrupted_run(tmp_path, EVERYTHING, 600, 60)
    assert "cannot execute" not in (tmp_path / "killed" / "train.log").read_text()  # rounds were replayed, before the kill and after


@pytest.mark.slow
def test_dcgan_on_pictures_survives_kill_9(tmp_path, pictures):
    words = ["+experiment=dcgan_image_folder", f"dataset.path={pictures}", "dataset.resolution=32", *SMALL]
    check_killed_and_resumed_is_the_uninterrupted_run(tmp_path, words, 300, 30)


@pytest.mark.slow
@pytest.mark.data
def test_dcgan_cifar10_survives_kill_9(tmp_path, real_data):
    words = ["+experiment=dcgan_cifar10", f"dataset.root={real_data}", *SMALL, "metric.classifier_score.splits=2"]
    words += ["extractor=cifar_resnet", "callback.evaluate.every_steps=25", "callback.evaluate.n=50"]
    check_killed_and_resumed_is_the_uninterrupted_run(tmp_path, words, 300, 30)


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(40):
        pixels = torch.randint(256, (36, 40, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return folder


# ---- endings ------------------------------------------------------------------------------------------------------------------------


def work_with(monkeypatch, folder, callback, *overrides):
    """A run with one more callback."""
    disturbed(monkeypatch, callback)
    return train(folder, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_so(tmp_path, monkeypatch, number):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        work_with(monkeypatch, tmp_path, At(5, lambda run: os.kill(os.getpid(), number)), "trainer.steps=100")
    assert caught.value.signal == number
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 5)
    assert state_of(tmp_path)["step"] == 5


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    def poison(run):
        with torch.no_grad():
            run.game.D.head.weight.fill_(float("nan"))

    with pytest.raises(Diverged, match=r"loss/d is nan in round 6; the last checkpoint is .*last\.pt"):
        work_with(monkeypatch, tmp_path, At(5, poison), "trainer.steps=100")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "diverged"
    assert state_of(tmp_path)["step"] == 4
    assert all(value.isfinite().all() for value in state_of(tmp_path)["game"].values() if isinstance(value, torch.Tensor))


@pytest.mark.slow
def test_a_spike_of_the_loss_does_not_stop_the_run(tmp_path, monkeypatch):
    """A loss of millions, up to weights that are thrown far away, is no reason to end a run: only what is not finite is."""
    losses = []

    def spike(run):
        with torch.no_grad():
            run.game.D.head.weight.mul_(1e7)

    def note(run, logs):
        losses.append(float(logs["loss/d"]))

    at = At(5, spike)
    at.after_round = lambda run, logs: (note(run, logs), At.after_round(at, run, logs))
    work_with(monkeypatch, tmp_path, at, "trainer.steps=12")
    assert max(map(abs, losses)) > 1e5 * max(map(abs, losses[:5]))
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 12)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    save = torch.save

    def full(state, part, *args, **kw):
        if state["step"] > 4:
            part.write(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 640 vs 534")
        save(state, part, *args, **kw)

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: type("usage", (), {"free": 0}))
    with pytest.raises(Failed, match=r"step_00000008\.pt could not be written: the disk is full"):
        train(tmp_path, "trainer.steps=20")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"
    assert state_of(tmp_path)["step"] == 4
    assert not list((tmp_path / "checkpoints").glob(".*part"))


@pytest.mark.slow
def test_a_truncated_checkpoint_is_passed_over(tmp_path, capfd):
    train(tmp_path, "trainer.steps=8")
    for name in ("last.pt", "step_00000008.pt"):
        path = tmp_path / "checkpoints" / name
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data[: len(data) // 2])
    runs.resume(tmp_path, ["trainer.steps=12"])
    said = capfd.readouterr().err.replace("\n", "")
    assert "last.pt is damaged" in said
    assert "step_00000008.pt is damaged" in said
    assert "going on after round 4" in said
    assert state_of(tmp_path)["step"] == 12


@pytest.mark.slow
def test_a_resumed_run_stays_what_it_is(tmp_path):
    train(tmp_path, "trainer.steps=4")
    for line in ("architecture.generator.width=64", "+trainer.x=1", "seed=1", "penalty=[]", "~callback.log"):
        with pytest.raises(UserError, match="may change trainer"):
            runs.resume(tmp_path, [line, "trainer.steps=8"])
    with pytest.raises(UserError, match=r"no key trainer\.stpes"):
        runs.resume(tmp_path, ["trainer.stpes=8"])
    with pytest.raises(UserError, match="has played its 4 rounds"):
        runs.resume(tmp_path, [])
    with pytest.raises(UserError, match="is not a run directory"):
        runs.resume(tmp_path / "nothing", [])
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("width: 128", "width: 64"))
    with pytest.raises(UserError, match=r"architecture\.generator\.width from 128 to 64"):
        runs.resume(tmp_path, ["trainer.steps=8"])
    with pytest.raises(UserError, match=r"does not fit the run's configuration: size mismatch for architecture\.generator\.head\.weight"):
        runs.resume(tmp_path, ["trainer.steps=8", "accept=config"])


@pytest.mark.slow
def test_two_runs_do_not_share_a_directory(tmp_path):
    train(tmp_path, "trainer.steps=1")
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt"))
    with pytest.raises(UserError, match="holds a run already"):
        train(tmp_path, "trainer.steps=1")
    from gan_runner.storage.directory import locked

    with locked(tmp_path), pytest.raises(UserError, match="another process is writing"):
        runs.resume(tmp_path, ["trainer.steps=2"])
    assert before == sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt"))


@pytest.mark.slow
def test_old_checkpoints_are_removed(tmp_path):
    train(tmp_path, "trainer.steps=20", "callback.checkpoint.keep=3")
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*")) == [f"step_{i:08d}.pt" for i in (12, 16, 20)]


@pytest.mark.slow
def test_an_extractor_that_cannot_be_used_gives_null_and_a_reason(tmp_path, capfd):
    extractor = ["extractor=lenet", "extractor.weights=nowhere/classifiers/lenet.pth"]  # which is not asked for: these are points
    train(tmp_path, "trainer.steps=2", "metric=[mode_coverage,classifier_score]", *extractor)
    (line,) = lines(tmp_path)
    assert line["metrics"]["cs/lenet"] is None
    assert line["metrics"]["modes/covered"] is not None
    assert line["protocol"]["missing"]["classifier_score"] == "extractor lenet takes images, N C H W, and was given 1 x 2"
    assert "classifier_score will be null" in capfd.readouterr().err.replace("\n", "")


@pytest.mark.slow
def test_schedules_that_follow_the_run_are_named_when_it_grows(tmp_path, capfd):
    train(tmp_path, "trainer.steps=4")
    runs.resume(tmp_path, ["trainer.steps=6"])
    said = capfd.readouterr().err.replace("\n", " ")
    assert "changed: trainer.steps from 4 to 6" in said
    assert "follow the length of the run" in said
    assert "later now: optimizer.discriminator.lr, optimizer.generator.lr" in said


# ---- what best.pt follows ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of 8 rounds that followed the share of good samples."""
    folder = tmp_path_factory.mktemp("half") / "run"
    best = "callback.evaluate.best={metric: modes/high_quality, mode: max}"
    train(folder, best, "trainer.steps=8", "callback.evaluate.every_steps=4", "callback.evaluate.n=300")
    return folder


def resumed(half, folder, *words, older=False):
    """(the run when it has gone on to round 12, what it said, the state before)."""
    shutil.copytree(half, folder)
    path = folder / "checkpoints" / "last.pt"
    before = torch.load(path, weights_only=True)
    if older:
        before["callbacks"]["evaluate"] = {"value": before["callbacks"]["evaluate"]["value"]}
        torch.save(before, path)
    runs.resume(folder, ["trainer.steps=12", *words])
    return records.read(folder, folder), (folder / "train.log").read_text(), before["callbacks"]["evaluate"]


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_the_best_value_of_a_resumed_run_is_kept(half, tmp_path, older):
    run, said, before = resumed(half, tmp_path / "run", older=older)
    values = [line["metrics"]["modes/high_quality"] for line in lines(tmp_path / "run")]
    assert len(values) == 3
    assert before["value"] == max(values[:2]) > 0
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["callbacks"]["evaluate"]
    assert state["value"] == run.objective("modes/high_quality", "max") == max(values)
    assert "best.pt followed another figure" not in said
    assert "another protocol" not in said


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_the_value_of_another_metric_is_not_held_against_the_one_that_is_followed_now(half, tmp_path, older):
    """A share of good samples is at most 1, and kl of samples around the centre is above it: it would never be better."""
    words = ["callback.evaluate.best.metric=modes/kl", "callback.evaluate.best.mode=min"]
    _, said, before = resumed(half, tmp_path / "run", *words, older=older)
    last = lines(tmp_path / "run")[-1]["metrics"]["modes/kl"]
    assert last > before["value"], "so this shows something"
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["step"] == 12
    assert best["callbacks"]["evaluate"]["value"] == last
    assert "from here on it follows modes/kl" in said


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_another_number_of_samples_is_another_figure(half, tmp_path, older):
    run, said, _ = resumed(half, tmp_path / "run", "callback.evaluate.n=20", older=older)
    measured = lines(tmp_path / "run")
    assert [line["protocol"]["n_fake"] for line in measured] == [300, 300, 20]
    last = measured[-1]["metrics"]["modes/high_quality"]
    assert run.curve("modes/high_quality") == [(192, last)]
    assert [images for images, _ in run.curve("modes/high_quality (n=300)")] == [64, 128]
    assert run.objective("modes/high_quality", "max") == last
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["callbacks"]["evaluate"]
    assert state["value"] == last
    assert "another protocol from here on (n_fake from 300 to 20); their curves are called KEY (n=20)" in said
    drawn = curves(tmp_path / "run")
    assert [step for step, _ in drawn["modes/high_quality"]] == [4, 8]
    assert [step for step, _ in drawn["modes/high_quality (n=20)"]] == [12]
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["callbacks"]["evaluate"]["value"] == last


@pytest.mark.parametrize(
    ("said", "n_real"),
    [({"n_real": 500}, "the first 500"), ({"n_real": 500, "real_chosen": "500 of 1000"}, 500), ({}, 500)],
)
def test_a_run_that_was_compared_with_the_first_real_samples_is_measured_by_another_protocol(tmp_path, said, n_real):
    (tmp_path / "metrics.jsonl").write_text(write_runs.line(4, {"seed": 0} | said, fd__lenet=3.0) + "\n")
    measures = {"n_fake": 100, "seed": 0, "split": "train", "n_real": 500}
    best = {"metric": "fd/lenet", "mode": "min"}
    found = evaluate.recalled(tmp_path, measures, best, 3.0)
    assert found == {"followed": measures | {"n_real": n_real} | best, "first": measures | {"n_real": n_real}}


def test_two_metrics_under_one_key_are_refused():
    with pytest.raises(UserError, match=r"metric.mode_coverage and metric.other both measure modes"):
        build.check(composed("+experiment=gaussians25", "+metric.other={_target_: gan_runner.metrics.ModeCoverage, radius_sigmas: 2.0}"))


def test_an_extractor_that_does_not_take_the_images_is_refused_before_the_start(tmp_path):
    Image.new("RGBA", (16, 16)).save(tmp_path / "a.png")
    images = ["+experiment=dcgan_image_folder", f"dataset.path={tmp_path}", "dataset.resolution=16", "dataset.channels=4"]
    with pytest.raises(UserError, match="takes images of 1 or 3 channels, not of 4; choose no metric that looks through it"):
        build.check(composed(*images, "metric=[frechet_distance]", "extractor=random_conv"))


@pytest.mark.slow
def test_a_run_that_was_killed_after_its_last_round_is_finished_by_a_resume(tmp_path):
    train(tmp_path / "run", "trainer.steps=4", "callback.evaluate.every_steps=2")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("metrics.jsonl", "checkpoints/last.pt")}
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    (tmp_path / "run" / "status.json").write_text(json.dumps(status | {"state": "running"}))
    runs.resume(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}
    with pytest.raises(UserError, match="has played its 4 rounds"):
        runs.resume(tmp_path / "run")
