"""Ratio runs: a new discriminator beside the still generator of a run."""

import json
import sys
from pathlib import Path

import pytest
import torch

import gan_runner
from gan_runner import cli
from gan_runner.architectures import MLPGenerator, Trained
from gan_runner.config.composer import compose
from gan_runner.datasets import Spec
from gan_runner.errors import UserError
from gan_runner.jobs import job
from gan_runner.lifecycle import runs
from gan_runner.storage import directory

FIRST = (
    "dataset=ring8",
    "dataset.n=400",
    "architecture.generator.width=8",
    "architecture.discriminator.width=8",
    "trick=[ema]",
    "batch_size=16",
)
QUIET = ("logger=[]", "trainer.threads=1", "trainer.accelerator=cpu")
SHORT = ("trainer.steps=4", "batch_size=16", "metric.ratio_quality.n=50", "callback.evaluate.every_steps=2")


def played(folder, *words):
    """The run of a line, checked as gan-train does."""
    composed = compose([*QUIET, f"hydra.run.dir={folder}", *words])
    job.check(composed)
    runs.train(composed.config, Path(folder), composed.overrides)
    return gan_runner.load(folder)


@pytest.fixture
def at(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before") / "run"
    played(folder, *FIRST, "callback=[checkpoint]", "metric=[]", "trainer.steps=6")
    return f"architecture.generator.run={folder}"


def terminal(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["gan-train", *QUIET, *words])
    return cli.train()


def measured(folder):
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ratio", "ratio_smooth"])
def test_only_the_discriminator_moves_and_best_is_what_was_measured_best(before, at, name):
    first = gan_runner.load(before.partition("=")[2])
    played("fresh", f"+experiment={name}", before, *SHORT, "trainer.steps=0")
    played("ratio", f"+experiment={name}", before, *SHORT)
    fresh, last, best = (gan_runner.load(*which) for which in (["fresh"], ["ratio"], ["ratio", "best"]))
    for run in (fresh, last, best):
        assert torch.equal(run.sample(20), first.sample(20))
        assert type(run.discriminator) is type(first.discriminator)
    weights = [list(run.discriminator.parameters()) for run in (fresh, last, first)]
    assert not any(torch.equal(a, b) for a, b in zip(*weights[:2], strict=True))
    assert [p.shape for p in weights[0]] == [p.shape for p in weights[2]]
    entropies = {line["step"]: line["metrics"]["ratio/cross_entropy"] for line in measured("ratio")}
    assert list(entropies) == [2, 4]
    assert best.step == min(entropies, key=entropies.get)
    assert {line["better"]["ratio/cross_entropy"] for line in measured("ratio")} == {"min"}


@pytest.mark.slow
@pytest.mark.parametrize("conditional", ["true", "false"])
def test_the_ratio_of_a_conditional_run_is_given_labels_or_not(at, conditional):
    played("first", *FIRST, "architecture.conditional=true", "callback=[checkpoint]", "metric=[]", "trainer.steps=1")
    words = ["architecture.generator.run=first", f"architecture.conditional={conditional}"]
    ratio = played("ratio", "+experiment=ratio", *words, *SHORT)
    assert ratio.generator.classes == 8
    assert ratio.discriminator.classes == (8 if conditional == "true" else None)
    assert all(line["metrics"]["ratio/cross_entropy"] is not None for line in measured("ratio"))


@pytest.mark.slow
def test_a_ratio_run_is_started_and_gone_on_with_by_the_same_line(before, at, monkeypatch):
    line = ["+experiment=ratio", before, *SHORT, "hydra.run.dir=ratio", "resume=auto"]
    assert terminal(monkeypatch, *line) == 0
    assert terminal(monkeypatch, *line, "trainer.steps=6") == 0
    monkeypatch.setattr(sys, "argv", ["gan-train", "resume=ratio", "trainer.steps=8"])
    assert cli.train() == 0
    assert [line["step"] for line in measured("ratio")] == [2, 4, 6, 8]
    assert directory.read_config(Path("ratio")).dataset.n == 400


@pytest.mark.slow
def test_a_sweep_over_runs(before, at, monkeypatch):
    played("other", *FIRST, "dataset.n=300", "callback=[checkpoint]", "metric=[]", "trainer.steps=1")
    several = f"{before},other"
    assert terminal(monkeypatch, "-m", "+experiment=ratio", several, *SHORT, "hydra.sweep.dir=sweep") == 0
    assert [directory.read_config(Path("sweep", each)).dataset.n for each in "01"] == [400, 300]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=triangles", "dataset.n_train=8", "dataset.n_test=8"], "makes samples of shape 2, and the data have 1x28x28"),
        (["dataset=sampled", "dataset.run=nowhere"], "these data are samples of another run, and nowhere is no run directory"),
        (["architecture.discriminator.norm=none"], "unknown key architecture.discriminator.norm; architecture.discriminator has width"),
        (["architecture.conditional=true"], "architecture.discriminator is conditional and the generator is not"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_before_anything_is_created(before, at, monkeypatch, capsys, words, said):
    assert terminal(monkeypatch, "+experiment=ratio", before, *SHORT, *words) == 2
    assert said in capsys.readouterr().err
    assert list(at.iterdir()) == []


# ---- what the logit is --------------------------------------------------------------------------------------------------------------


def normal(folder, mean, scale):
    """A run whose samples are N(mean, scale^2) in the plane: relu(z) - relu(-z) = z."""
    net = MLPGenerator(Spec((2,)), latent=2, width=4, depth=1)
    halves = torch.cat([torch.eye(2), -torch.eye(2)])
    values = {"body.0.weight": halves, "body.0.bias": torch.zeros(4), "head.weight": scale * halves.T, "head.bias": torch.tensor(mean)}
    torch.save(net.state_dict() | values, f"{folder}.pt")
    sizes = ["architecture.generator.latent=2", "architecture.generator.width=4", "architecture.generator.depth=1"]
    words = ["architecture.discriminator.width=32", "architecture.discriminator.depth=2", "callback=[checkpoint]", "metric=[]"]
    return played(folder, *sizes, *words, "trainer.steps=0", f"init_from.generator={folder}.pt")


def log_density(x, mean, scale):
    return torch.distributions.Normal(torch.tensor(mean), scale).log_prob(x).sum(1)


@pytest.mark.slow
def test_between_the_samples_of_two_runs_the_logit_is_the_log_ratio_of_their_laws(at):
    laws = {"a": ([0.5, 0.0], 0.8), "b": ([0.0, 0.0], 1.0)}
    a, b = (normal(name, *law) for name, law in laws.items())
    words = ["dataset=sampled", "dataset.run=a", "dataset.n=8000", "trainer.steps=400", "callback.evaluate.every_steps=50"]
    played("ratio", "+experiment=ratio", "architecture.generator.run=b", *words)
    x = torch.cat([run.sample(2000, seed=7) for run in (a, b)])
    exact = log_density(x, *laws["a"]) - log_density(x, *laws["b"])
    logits = gan_runner.load("ratio", "best").discriminator(x).logits
    assert (logits - exact).abs().mean() < 0.1 * exact.abs().mean() + 0.05
    entropy = min(line["metrics"]["ratio/cross_entropy"] for line in measured("ratio"))
    d = exact.double()
    assert entropy == pytest.approx(float(torch.nn.functional.softplus(torch.cat([-d[:2000], d[2000:]])).mean()), abs=0.02)


@pytest.mark.slow
def test_a_generator_of_several_scales_meets_a_discriminator_of_several_scales(at):
    words = ["dataset=triangles", "dataset.n_train=40", "dataset.n_test=20", "architecture=msg_gan", "batch_size=4"]
    small = ["architecture.generator.width=8", "architecture.generator.latent=8", "architecture.discriminator.width=8"]
    first = played("first", *words, *small, "callback=[checkpoint]", "metric=[]", "trainer.steps=1")
    ratio = played("ratio", "+experiment=ratio_smooth", "architecture.generator.run=first", *SHORT, "batch_size=4")
    assert torch.equal(ratio.sample(3), first.sample(3))
    net, z = Trained(first.spec, "first"), torch.randn(2, 8)
    for got, expected in zip(net(z), first.generator(z), strict=True):
        assert torch.equal(got, expected)
    x = first.sample(2)
    assert [each.shape for each in net.view(x, None)] == [each.shape for each in net(z)]
    assert torch.equal(net.show(net(z)), first.generator.show(first.generator(z)))
    assert ratio.discriminator(net(z)).logits.shape == (2,)


def test_images_that_are_resized_are_those_that_are_shown(at):
    words = ["dataset=triangles", "dataset.n_train=40", "dataset.n_test=20", "architecture=msg_gan", "batch_size=4"]
    small = ["architecture.generator.width=8", "architecture.generator.latent=8", "architecture.discriminator.width=8"]
    played("first", *words, *small, "callback=[checkpoint]", "metric=[]", "trainer.steps=0")
    net, z = Trained(Spec((1, 14, 14)), "first"), torch.randn(2, 8)
    shown = net.inner.show(net.inner(z))
    expected = torch.nn.functional.interpolate(shown, 14, mode="bilinear", antialias=True)
    assert torch.equal(net.show(net(z)), expected)
    x = torch.rand(2, 1, 14, 14)
    assert net.view(x, None) is x


def test_a_generator_of_points_that_is_asked_for_images_is_refused(before):
    with pytest.raises(UserError, match="makes samples of shape 2, and the data have 1x28x28"):
        Trained(Spec((1, 28, 28)), before.partition("=")[2])
