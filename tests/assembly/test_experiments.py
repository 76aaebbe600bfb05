"""Every YAML under configs/ is built, and every experiment is played for two rounds."""

import functools
import itertools
import json
import tempfile
from pathlib import Path

import pytest
import torch

import golden
from games import flat, images
from gan_runner.assembly import build, parts
from gan_runner.assembly.signatures import signature
from gan_runner.config import composer, groups
from gan_runner.datasets import CIFAR10, MNIST, Dataset, FashionMNIST, Samples, stream
from gan_runner.datasets.folder import ImageFiles
from gan_runner.errors import UserError
from gan_runner.execution import captured, engine, engines, hardware, replay
from gan_runner.lifecycle import runs

CONFIGS = groups.config_dir()
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
OWN = [name for name in EXPERIMENTS if not name.startswith("refine_")]  # those play the rounds of others, and refine what comes out
WIDE = {"sngan_cifar10", "cgan_pd_cifar10", "wgan_gp_cifar10"}  # residual networks, which take seconds
GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name not in ("experiment", "study", "refiner"))
ELSEWHERE = ("trained", "sampled", "solo")  # need another run, or a player that is still: played in tests/lifecycle and tests/behaviour
PARTS = [(group, path.stem) for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]
TINY = {
    "architecture.generator.width": 8,
    "architecture.discriminator.width": 8,
    "batch_size": 4,
    "trainer.steps": 2,
    "trainer.accelerator": "cpu",
    "callback.grid.n": 4,
    "callback.evaluate.n": 20,
    "extractor.inception_v3_tf.download": "false",
    "callback.log.every_steps": 1,
    "dataset.workers": 0,
    "dataset.n_train": 64,
    "dataset.n_test": 16,
    "metric.adversarial_probing.n": 4,
    "metric.adversarial_probing.steps": 2,
    "metric.ais.n_images": 2,
    "metric.ais.chains": 4,
    "metric.ais.temperatures": 10,
    "metric.frechet_infinity.smallest": 5,
    "callback.refine.n": 20,
    "callback.refine.every": 1,
    "metric.density_coverage.n_real": 100,
    "metric.geometry_score.draws": 2,
    "metric.geometry_score.landmarks": 8,
    "metric.kernel_distance.subset_size": 10,
    "metric.ratio_quality.n": 10,
    "metric.ms_ssim.pairs": 10,
    "metric.support_precision_recall.n_precision": 4,
    "metric.support_precision_recall.n_recall": 2,
    "metric.support_precision_recall.restarts": 2,
    "metric.support_precision_recall.steps": 2,
}
EXTRAS = {
    "mlflow": "mlflow",
    "trackio": "trackio",
    "wandb": "wandb",
    "dinov2": "timm",
    "clip": "timm",
    "convnext": "timm",
}  # what parts need
NULL = {  # metrics that are null here, and why
    "ct": "CT needs at least 21 samples",
    "skill_rating": "checkpoints of a whole run",
    "classifier_score": "no file",
    "intra_class_frechet": "class",
}


@pytest.fixture(autouse=True)
def _a_few_noisy_images(monkeypatch):
    """In the place of real data: their shapes, but nothing on the disk."""
    for cls in (CIFAR10, MNIST, FashionMNIST, ImageFiles):

        def load(self, split):
            channels, side = self.spec.shape[0], self.spec.shape[-1]
            return Samples(images(16, side, channels)[1].x, torch.arange(16) % self.spec.classes if self.spec.classes else None)

        monkeypatch.setattr(cls, "prepare", lambda self: None)
        monkeypatch.setattr(cls, "load", load)
        monkeypatch.setattr(cls, "open", load)
        monkeypatch.setattr(cls, "at_hand", lambda self, split, tick: self.load(split))
    monkeypatch.setattr(ImageFiles, "summary", lambda self: None)
    monkeypatch.setattr(ImageFiles, "verify", Dataset.verify)
    monkeypatch.setattr(ImageFiles, "fingerprint", Dataset.fingerprint)
    monkeypatch.setattr(ImageFiles, "spec", property(lambda self: build.Spec((self.channels, self.resolution, self.resolution))))


RUNS = tempfile.TemporaryDirectory()


@functools.cache
def another_run():
    """What needs another run gets this one, which was never trained."""
    folder = Path(RUNS.name, "run")
    runs.train(tiny("+experiment=gaussians25", **{"trainer.steps": 0}), folder)
    return folder


def tiny(*words, **more):
    overrides = [*words, *(f"dataset.path={'x'}" for word in words if "image_folder" in word or word == "dataset=packed")]
    from omegaconf import OmegaConf

    missing = OmegaConf.missing_keys(composer.compose(overrides).config)
    overrides += [f"{key}={another_run()}" for key in ("architecture.generator.run", "dataset.run") if key in missing]
    known = composer.compose(overrides).config
    settings = {key: value for key, value in (TINY | more).items() if OmegaConf.select(known, key, default=...) is not ...}
    refiners = OmegaConf.select(known, "callback.refine.refiners") or {}
    settings |= {f"callback.refine.refiners.{name}.steps": 2 for name in refiners}
    return composer.compose([*overrides, *(f"{key}={value}" for key, value in settings.items())]).config


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_plays(tmp_path, name):
    composed = tiny(f"+experiment={name}")
    build.check(composed)
    runs.train(composed, tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["step"] == 2


def weights_after(name, rounds, executor, device="cpu", seen=None):
    """Of an experiment at tiny size; executor: of the game, what executes its rounds; seen: collects the logs of each round."""
    settings = tiny(f"+experiment={name}", **{"trainer.steps": rounds})
    assembly = build.assemble(settings, device=torch.device(device))
    batches = stream(assembly.dataset, "train", assembly.game.batch_size, 0, device)
    with engines.one_stream(torch.device(device)):
        turns = executor(assembly.game)
        for _ in range(rounds):
            logs = assembly.game.round(batches, turns.turn)
            if seen is not None:
                seen.append({key: float(value) for key, value in logs.items()})
    assert getattr(turns, "able", True)
    return flat(assembly.game).cpu(), turns


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in WIDE else ()) for name in OWN])
def test_rounds_have_the_golden_losses_and_replayed_ones_are_the_same_bits(name):
    seen = []
    eager, _ = weights_after(name, 30, lambda game: engine.Engine(game, print), seen=seen)
    golden.check(name, seen)
    replayed, turns = weights_after(name, 30, lambda game: replay.Replayed(game, print))
    assert turns.ready
    assert torch.equal(eager, replayed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussians25", "ring8"])
def test_an_experiment_on_points_is_replayed_and_compared(name):
    """As the trainer does it, and every round is compared with an eager one."""
    assembly = build.assemble(tiny(f"+experiment={name}"))
    said = []
    executor = engines.engine_of("auto", assembly.game, said.append, assembly.spec.kind.bounded, assembly.dataset)
    executor.one_in = 1
    batches = stream(assembly.dataset, "train", assembly.game.batch_size, 0, "cpu")
    for _ in range(8):
        assembly.game.round(batches, executor.turn)
    assert executor.able
    assert executor.good == 7
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_compiled_rounds_give_the_eager_result(name):
    eager, _ = weights_after(name, 30, lambda game: engine.Engine(game, print))
    traced, _ = weights_after(name, 30, lambda game: engine.Compiled(game, print, backend="aot_eager"))
    assert (eager - traced).norm() <= 1e-4 * eager.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", OWN)
def test_captured_rounds_give_the_eager_result(name):
    hardware.determine(True)
    try:
        eager, _ = weights_after(name, 30, lambda game: engine.Engine(game, print), "cuda")
        captured, turns = weights_after(name, 30, lambda game: captured.Graphed(game, print), "cuda")
    finally:
        hardware.determine(False)
    assert turns.ready
    assert (eager - captured).norm() <= 1e-5 * eager.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", OWN)
def test_between_log_points_the_host_does_not_wait_for_the_device(name):
    device = torch.device("cuda")
    assembly = build.assemble(tiny(f"+experiment={name}", **{"trainer.steps": 40}), device=device)
    batches = stream(assembly.dataset, "train", assembly.game.batch_size, 0, device)
    with engines.one_stream(device):
        turns = captured.Graphed(assembly.game, print)
        for _ in range(20):
            assembly.game.round(batches, turns.turn)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(20):
                assembly.game.round(batches, turns.turn)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_game_is_built_again_with_weights_of_the_seed_and_the_number():
    """What restart_on_collapse asks for: reproducible, other weights for each number, and no change of the global random state."""
    game = build.assemble(tiny("trick=[restart_on_collapse]")).game
    before = torch.get_rng_state()
    first, same, second = (flat(game.again(number).G) for number in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    other = build.assemble(tiny("trick=[restart_on_collapse]", seed=1)).game
    for weights in (flat(game.G), second, flat(other.again(1).G)):
        assert not torch.equal(first, weights)


def test_a_run_whose_first_weights_are_given_is_not_restarted_from_others():
    with pytest.raises(UserError, match=r"first weights, and those of this run are given \(init_from\): drop the trick"):
        build.assemble(tiny("trick=[restart_on_collapse]", "init_from.generator=G.pt"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_tells_where_it_comes_from(name):
    header = list(
        itertools.takewhile(lambda line: line.startswith("#"), (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines())
    )
    text = "\n".join(header)
    assert header[0] == "# @package _global_"
    assert len(header[1]) > 10
    assert f"gan-train +experiment={name}" in text
    assert "# Paper: " in text
    assert "\n# Expect: " in text
    assert "\n# Time: " in text


def around(group, name):
    """What a part needs beside it to make sense."""
    words = []
    if name == "label_smoothing" and group == "trick":
        words.append("loss=non_saturating")
    if name == "noise_scale":
        words.append("trainer.accumulate=2")
    if group == "trick" and name in ("ada", "diffaugment", "standing_statistics"):
        words += ["dataset=triangles", "architecture=dcgan"]
    if name == "auxiliary_classifier":
        words.append("architecture.conditional=true")
    if name == "teacher":
        words.append("trick=[ema]")
    if name == "consistency":
        words.append("dataset=triangles")
    if group == "architecture" and name != "mlp_toy":
        words.append("dataset=cifar10")
    if name == "codes":
        words.append("architecture.generator.latent=16")
    if name in ("cifar10", "mnist", "fashion_mnist", "image_folder", "packed", "triangles"):
        words.append("architecture=dcgan")
    if name == "classifier_score":
        words += ["dataset=mnist", "architecture=dcgan", "extractor=lenet", "extractor.weights=nowhere.pth"]
    elif name in ("support_precision_recall", "ms_ssim"):
        words += ["dataset=triangles", "architecture=dcgan"]
    elif group == "metric":
        words += ["dataset.n=300", "architecture.conditional=true", "extractor=identity"]
    if group == "extractor":
        words += ["dataset=mnist", "architecture=dcgan"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), [part for part in PARTS if part[1] not in ELSEWHERE], ids=lambda value: value)
def test_every_part_is_built_and_played(tmp_path, monkeypatch, group, name):
    choice = f"{group}=[{name}]" if group in groups.LISTS else f"{group}={name}"
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    monkeypatch.chdir(tmp_path)  # MLflow keeps its database and its pictures there
    composed = tiny(choice, *around(group, name))
    build.check(composed)
    runs.train(composed, tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "finished"
    if group == "metric":
        [line] = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        missing = line["protocol"].get("missing", {})
        assert missing.keys() == {name} & NULL.keys()
        assert NULL.get(name, "") in missing.get(name, "")
        assert (name in NULL) == all(value is None for value in line["metrics"].values())


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), PARTS, ids=lambda value: value)
def test_every_file_says_what_it_is_and_gives_all_defaults(group, name):
    """The first line is for --help; every parameter of the constructor is there to be seen."""
    text = (CONFIGS / group / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    for part in parts.parts_of(
        build.plain(tiny(f"{group}=[{name}]" if group in groups.LISTS else f"{group}={name}", *around(group, name)))
    ):
        if part.path.startswith(group) and (group not in groups.LISTS or part.path == f"{group}.{name}") and group != "optimizer":
            cls = parts.locate(part.node["_target_"], part.base, part.path, ())
            looks = group == "metric" and {"features", "logits", "extractor"} & {*cls.reads, *cls.needs}
            placed = {"through"} if looks else set()
            assert set(signature(cls)) | placed == set(part.node) - {"_target_"}, cls


# ---- what does not fit together -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.generator.lr=-1"], r"optimizer\.generator: Invalid learning rate: -1"),
        (["batch_size=0"], "batch_size=0: expected a whole number, 1 or more"),
        (["batch_size=x"], r"batch_size='x': expected a whole number, 1 or more"),
        (["trainer.steps=1.5"], r"trainer\.steps=1\.5: expected a whole number, 0 or more"),
        (["rule.d_steps=0"], "rule.d_steps=0: expected a whole number, 1 or more"),
        (["rule=stale", "rule.delay=-1"], r"rule\.delay=-1: expected a whole number, 0 or more"),
        (["rule=balance", "rule.low=2"], r"rule: low=2 is above high=1\.39"),
        (["rule=balance", "rule.decay=1.0"], r"rule\.decay=1\.0: expected a number, 0 or more, below 1"),
        (["optimizer=edm2", "optimizer.generator.lr.then.after=0"], r"lr\.then\.after=0: expected a whole number, 1 or more"),
        (["optimizer=optimistic", "+optimizer.generator.nesterov=true"], r"OptimisticAdam takes lr, betas, eps, fused"),
        (["dataset=lgq", "dataset.means=[1.0,2.0]"], "dataset: means and deviations are as many numbers, one or more, not 2 and 1"),
        (["+rule.dsteps=2"], r"unknown key rule\.dsteps; Alternate takes d_steps, g_steps \(did you mean d_steps\?\)"),
        (["penalty=[r1]", "+penalty.r1.wieght=2"], r"unknown key penalty\.r1\.wieght; R1 takes weight, every \(did you mean weight\?\)"),
        (["penalty=[r1]", "penalty.r1.every=0"], r"penalty\.r1\.every=0: expected a whole number, 1 or more"),
        (["penalty=[r1]", "penalty.r1.weight=heavy"], r"penalty\.r1\.weight='heavy'"),
        (["trick=[label_smoothing]", "loss=hinge"], "Hinge has none: choose loss=non_saturating"),
        (["trick=[ada]"], "ada changes images, and the samples are 2 numbers: drop the trick, or use images"),
        (["trick=[standing_statistics]"], "MLPGenerator has none: drop the trick"),
        (["trick=[freeze]", "trick.freeze.layers.discriminator=[bdy]"], r"names bdy, .* there are body, body\.0, body\.2, body\.4, head"),
        (["trick=[noise_scale]"], r"noise_scale compares .*: use trainer\.accumulate=2 or more"),
        (["trick=[restart_on_collapse]", "trick.restart_on_collapse.factor=1.0"], r"factor=1\.0: expected a number, above 0, below 1"),
        (["trick=[ema]", "trick.ema.halflife_kimg=[1,1]"], r"trick\.ema: halflife_kimg=\[1, 1\]: expected half-lives that differ"),
        (["trick=[diffaugment]"], "diffaugment changes images, and the samples are 2 numbers"),
        (["trick=[top_k]", "trick.top_k.share=0"], r"trick\.top_k\.share=0: expected a number, above 0, at most 1, or a Schedule"),
        (["trick=[top_k]", "trainer.accumulate=2"], "top_k ranks all of it: use accumulate=1"),
        (["trick=[minibatch_discrimination]", "trainer.accumulate=2"], "minibatch_discrimination compares all of it: use accumulate=1"),
        (["trick=[minibatch_stddev]", "batch_size=10"], r"groups of 4, and D is given 10 samples at a time: choose batch_size"),
        (["penalty=[auxiliary_classifier]"], r"needs a generator that takes labels: use architecture\.conditional=true"),
        (["dataset=swiss_roll", "architecture.conditional=true"], "labels"),
        (["dataset=cifar10", "architecture=dcgan", "dataset.resolution=30"], "30"),
        (["architecture=dcgan"], "image"),
        (["batch_size=10", "trainer.accumulate=3"], "batch_size=10 cannot be cut"),
        (["penalty=[feature_matching]", "trainer.accumulate=2"], "feature_matching needs all of it"),
        (["loss=mmd", "trainer.accumulate=2"], "loss needs all of it"),
        (["loss=mmd", "batch_size=1"], "mmd compares pairs of samples, and batch_size=1 has none: use batch_size=2 or more"),
        (["loss=optimal_transport", "trainer.accumulate=2"], "loss needs all of it"),
        (["loss=optimal_transport", "batch_size=1"], "batch_size=1 is odd: use an even one"),
        (["loss=optimal_transport", "batch_size=33"], "batch_size=33 is odd: use an even one"),
        (["penalty=[path_length]", "trainer.accumulate=2"], "path_length needs all of it"),
        (["penalty=[gradient_normalisation]", "trainer.accumulate=2"], "gradient_normalisation needs all of it"),
        (["penalty=[gradient_penalty]", "penalty.gradient_penalty.norm=max", "trainer.accumulate=2"], "gradient_penalty needs all of it"),
        (["penalty=[teacher]", "dataset=swiss_roll"], r"teacher needs the average of G that the trick ema keeps: add \+trick=ema"),
        (["penalty=[consistency]", "dataset=swiss_roll"], "consistency flips and shifts images, and the data are none"),
        (["penalty=[orthogonal]", "penalty.orthogonal.players=[]"], "players names nobody, and nothing is penalised: drop the penalty"),
        (["penalty=[orthogonal]", "penalty.orthogonal.players=[critic]"], "expected a list, each generator or discriminator"),
        (["trainer.devices=3"], "batch_size=64 cannot be cut into 3 processes"),
        (["trainer.devices=many"], r"trainer\.devices='many'"),
        (["trainer.precision=8"], r"trainer\.precision=8"),
        (["trainer.accelerator=cuda"], "there is no such device here"),
        (["loss._target_=os.system"], r"loss\._target_=os\.system is not allowed"),
        (["loss._target_=builtins.exec"], r"loss\._target_=builtins\.exec is not allowed"),
        (["loss._target_=torch.hub.load"], r"loss\._target_=torch\.hub\.load is not allowed"),
        (["loss._target_=here.Loss"], r"loss\._target_=here\.Loss is not allowed"),
        (["loss._target_=gan_runner.penalties.R99"], "cannot be imported"),
        (["loss._target_=gan_runner.rules.Alternate"], "is not a Term"),
        (["rule._target_=torch.optim.Adam"], "is not a Rule"),
        (["loss._target_=gan_runnerx.Loss"], "is not allowed"),
        (["optimizer.generator.lr={_target_: os.system}"], "is not allowed"),
        (
            ["optimizer.generator.betas=[{_target_: os.system,command: x},0.9]"],
            r"optimizer\.generator\.betas=.*expected \[a number or a Tensor, a number or a Tensor\]",
        ),
        (
            ["callback.evaluate.best={metric: {_target_: os.system,command: x},mode: max}"],
            "expected {metric: a text or null, mode: max, min or null}",
        ),
        (["penalty=[r1]", "penalty.r1.weight={_target_: gan_runner.schedules.Linear,end: 0,start: {_target_: os.system}}"], "not allowed"),
        (["+loss._partial_=true"], r"unknown key loss\._partial_"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_found_before_anything_is_created(words, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message) as caught:
        build.check(composer.compose(words).config)
    assert "Traceback" not in str(caught.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(UserError) as caught:
        build.check(composer.compose(["batch_size=x", "+rule.x=1", "trainer.steps=-1", "loss._target_=os.system"]).config)
    assert len(str(caught.value).splitlines()) == 4


def test_a_lazy_loss_alone_is_refused():
    composed = composer.compose(["penalty=[r1]", "penalty.r1.every=4"]).config
    composed.loss = {"_target_": "gan_runner.penalties.R1", "every": 4}
    with pytest.raises(UserError, match="the discriminator moves in every round, and no term"):
        build.check(composed)


def test_a_part_of_a_package_that_the_user_names(tmp_path, monkeypatch):
    (tmp_path / "ownparts.py").write_text("from gan_runner import Term\n\n\nclass Mine(Term):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="is not allowed"):
        parts.locate("ownparts.Mine", build.Term, "loss", ())
    assert parts.locate("ownparts.Mine", build.Term, "loss", ["ownparts"]).__name__ == "Mine"
    monkeypatch.setenv("GAN_RUNNER_PACKAGES", "other,ownparts")
    assert parts.locate("ownparts.Mine", build.Term, "loss", ()).__name__ == "Mine"


def test_data_sets_touch_no_file_when_they_are_made():
    assert isinstance(MNIST(root="nowhere"), Dataset)
    assert not Path("nowhere").exists()
