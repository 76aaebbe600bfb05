"""Runs that start from weights: of another run, of files; and parts that are another run."""

import pickle
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import gan_runner
from gan_runner.architectures import MLPDiscriminator, MLPGenerator, Trained
from gan_runner.config.composer import compose
from gan_runner.datasets import Sampled, Spec
from gan_runner.errors import UserError
from gan_runner.jobs import job
from gan_runner.lifecycle import initial, runs
from gan_runner.storage import directory
from gan_runner.storage.starts import place_of, spelled
from gan_runner.trained import export

SMALL = [
    "dataset=ring8", "dataset.n=200", "batch_size=16", "trainer.threads=1",
    "architecture.generator.width=8", "architecture.discriminator.width=8", "callback.grid.n=8", "metric=[]", "logger=[]",
]  # fmt: skip


def played(folder, *words):
    """The run of a line, checked as gan-train does."""
    composed = compose([*SMALL, f"hydra.run.dir={folder}", *words])
    job.check(composed)
    runs.train(composed.config, Path(folder), composed.overrides)
    return gan_runner.load(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for name, words in {"plain": [], "ema": ["trick=[ema]"], "normed": ["trick=[spectral_norm]"]}.items():
        played(folder / name, "trainer.steps=12", *words)
    return folder


@pytest.fixture
def at(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def logits(run):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    return run.discriminator(x).logits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "ema", "normed"])
def test_no_rounds_from_a_run_are_that_run(trained, at, name, capfd):
    before = gan_runner.load(trained / name)
    run = played("again", "trainer.steps=0", f"init_from={trained / name}")
    assert "trainer.steps=1000" in capfd.readouterr().err, "the line that goes on plays rounds"
    assert run.step == 0
    assert torch.equal(run.sample(50), before.sample(50))
    if name == "normed":  # its norm is folded into the weights
        torch.testing.assert_close(logits(run), logits(before), rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(logits(run), logits(before))
    assert {path.name for path in Path("again/checkpoints").iterdir()} == {"last.pt", "step_00000000.pt"}
    assert Path("again/samples/step_00000000.png").is_file()
    assert directory.state_of(Path("again")) == "finished"


@pytest.mark.slow
def test_the_weights_are_read_once_and_their_checksum_is_kept(trained, at):
    shutil.copytree(trained / "plain", "from")
    played("run", "trainer.steps=2", "init_from=from")
    config = directory.read_config(Path("run"))
    assert config.init_from.run == "from"
    assert len(config.init_from.sha256) == 64
    shutil.rmtree("from")
    runs.resume(Path("run"), ["trainer.steps=4"])
    played("whole", "trainer.steps=4", f"init_from={trained / 'plain'}")
    a, b = (torch.load(Path(run, "checkpoints/last.pt"), weights_only=True)["game"] for run in ("run", "whole"))
    assert all(torch.equal(a[key], b[key]) for key in a if isinstance(a[key], torch.Tensor))


@pytest.mark.slow
def test_a_job_of_a_sweep_goes_on_although_its_checksum_was_recorded(trained, at):
    composed = compose([*SMALL, "trainer.steps=2", f"init_from={trained / 'plain'}"])
    runs.complete(composed.config, Path("job"), composed.overrides)
    runs.complete(composed.config, Path("job"), composed.overrides)  # is known as the same job
    assert gan_runner.load("job").step == 2


@pytest.mark.slow
def test_a_checksum_on_the_line_must_be_that_of_the_file(trained, at):
    good = directory.read_config(played("first", "trainer.steps=0", f"init_from={trained / 'plain'}").folder).init_from.sha256
    line = [f"init_from.run={trained / 'plain'}", f"init_from.sha256={good}"]
    played("second", "trainer.steps=0", *line)
    with pytest.raises(UserError, match=r"last\.pt has changed, or is another file"):
        job.check(compose([*SMALL, line[0], f"init_from.sha256={'0' * 64}"]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_of_files(trained, at, kind, capfd):
    before = gan_runner.load(trained / "normed")
    torch.manual_seed(1)
    critic = MLPDiscriminator(Spec((2,)), width=8)
    if kind == "pt":
        generator = MLPGenerator(Spec((2,)), width=8)
        torch.save(generator.state_dict(), "g.pt")
        torch.save(critic.state_dict(), "d.pt")
    else:
        export(before, Path("g.safetensors"))
        safetensors.torch.save_file(critic.state_dict(), "d.safetensors")
    run = played("run", "trainer.steps=0", f"init_from.generator=g.{kind}", f"init_from.discriminator=d.{kind}")
    assert torch.equal(logits(run), logits(type("Pair", (), {"discriminator": critic})))
    if kind == "safetensors":
        assert torch.equal(run.sample(20), before.sample(20))
    assert "random" not in capfd.readouterr().err
    alone = played("alone", "trainer.steps=0", f"init_from.discriminator=d.{kind}")
    assert "the weights of the generator are random: init_from.generator names no file" in capfd.readouterr().err
    fresh = played("fresh", "trainer.steps=0")
    assert "random" not in capfd.readouterr().err
    assert torch.equal(alone.sample(20), fresh.sample(20))


@pytest.mark.parametrize(("wrapper", "of_file"), [("net.", ""), ("", "module."), ("net.", "module."), ("a.net.", "b.module.")])
def test_a_network_may_hold_the_one_of_which_the_weights_are(at, wrapper, of_file):
    def net(path):
        inner = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        for name in reversed(path.split(".")[:-1]):
            inner = nn.ModuleDict({name: inner})
        return inner

    theirs, ours = net(of_file), net(wrapper)
    torch.save(theirs.state_dict(), "g.pt")
    initial.load({"generator": ours}, {"init_from": spelled({"generator": "g.pt"})}, ())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    torch.save({key: value for key, value in theirs.state_dict().items() if not key.endswith("0.bias")}, "less.pt")
    with pytest.raises(UserError, match=f"do not fit: missing {wrapper}0.bias$"):
        initial.load({"generator": ours}, {"init_from": spelled({"generator": "less.pt"})}, ())


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


def wrong_files():
    Path("pickle.pt").write_bytes(pickle.dumps({"head.weight": Evil()}))
    torch.save({"head.weight": Evil()}, "zip.pt")
    torch.save([torch.zeros(2)], "list.pt")
    torch.save(MLPGenerator(Spec((2,)), width=8).state_dict() | {"more": torch.zeros(2)}, "more.pt")
    torch.save({"head.weight": torch.zeros(2, 9)}, "less.pt")
    Path("cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    Path("text.pt").write_text("hello")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init_from=nowhere"], r"init_from\.run=nowhere: there is no file nowhere/checkpoints/last\.pt"),
        (["init_from=RUN:best"], r"there is no file .*best\.pt"),
        (["init_from.generator=none.pt"], r"init_from\.generator=none\.pt: there is no file none\.pt"),
        (["init_from.run=RUN", "init_from.generator=less.pt"], "names a run and a file"),
        (["init_from=RUN", "architecture.generator.width=9"], r"generator do not fit: body\.0\.weight is \(8, 8\) and should be \(9"),
        (["init_from.generator=less.pt"], r"head\.weight is \(2, 9\) and should be \(2, 8\); missing body\.0\.weight, .* and \d more"),
        (["init_from.generator=more.pt"], "do not fit: not known more"),
        (["init_from.generator=list.pt"], r"list\.pt has no tensors by name"),
        (["init_from.generator=pickle.pt"], r"pickle\.pt is damaged"),
        (["init_from.generator=zip.pt"], r"zip\.pt is damaged"),
        (["init_from.generator=text.pt"], r"text\.pt is damaged"),
        (["init_from.generator=cut.safetensors"], r"cut\.safetensors cannot be read|has no tensors by name"),
        (["init_from.generator=RUN/checkpoints/last.pt"], "is the state of a run: say init_from=RUN_DIR"),
        (["init_from=3"], r"init_from=3: expected \{run: a text or null"),
        (["init_from=true"], r"init_from=True: expected \{run: a text or null"),
        (["init_from.generator=3"], r"init_from=.*: expected \{run: a text or null"),
        (["init_from.critic=a"], "unknown key init_from.critic|Key 'critic' is not in struct"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_loaded_are_refused_before_anything_is_created(trained, at, words, said):
    wrong_files()
    there = {path.name for path in at.iterdir()}
    with pytest.raises(UserError, match=said):
        played("run", "trainer.steps=2", *[word.replace("RUN", str(trained / "plain")) for word in words])
    assert {path.name for path in at.iterdir()} == there


def test_how_init_from_is_written():
    empty = dict.fromkeys(("run", "generator", "discriminator", "sha256"))
    assert spelled(None) == empty
    assert spelled("a/b:best") == empty | {"run": "a/b:best"}
    assert place_of("a/b:best") == ("a/b", "best")
    assert place_of("C:/a") == ("C:/a", "last")
    assert place_of("12:30") == ("12:30", "last")


# ---- parts that are another run -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_discriminator_is_trained_against_the_generator_of_a_run(trained, at):
    before = gan_runner.load(trained / "ema")
    words = ["architecture=trained", f"architecture.generator.run={trained / 'ema'}", "rule=solo", "rule.player=discriminator"]
    small = [word for word in SMALL if "generator.width" not in word]
    composed = compose([*small, *words, "trainer.steps=3"])
    job.check(composed)
    runs.train(composed.config, Path("ratio"), composed.overrides)
    run = gan_runner.load("ratio")
    assert torch.equal(run.sample(20), before.sample(20))
    assert run.step == 3


def test_a_trained_generator_stays_as_it_is(trained):
    net = Trained(Spec((2,)), str(trained / "plain"))
    assert not net.train().training
    assert not any(p.requires_grad for p in net.parameters())
    with pytest.raises(UserError, match="makes samples of shape 2, and the data have 3x8x8"):
        Trained(Spec((3, 8, 8)), str(trained / "plain"))
    with pytest.raises(UserError, match="nowhere is no run directory: has it been moved or deleted"):
        Trained(Spec((2,)), "nowhere")


def test_images_of_a_trained_generator_are_resized(tmp_path):
    words = [
        "dataset=triangles",
        "dataset.n_train=20",
        "dataset.n_test=20",
        "architecture=mlp",
        "batch_size=4",
        "metric=[]",
        "trainer.steps=0",
    ]
    composed = compose([*words, "logger=[]"])
    runs.train(composed.config, tmp_path / "run", composed.overrides)
    net = Trained(Spec((1, 14, 14)), str(tmp_path / "run"))
    z = torch.randn(3, net.latent)
    whole = net.inner(z)
    torch.testing.assert_close(net(z), nn.functional.interpolate(whole, 14, mode="bilinear", antialias=True))
    assert torch.equal(Trained(Spec((1, 28, 28)), str(tmp_path / "run"))(z), whole)


def test_samples_of_a_run_are_a_data_set(trained):
    before, data = gan_runner.load(trained / "plain"), Sampled(str(trained / "plain"), n=30, seed=3)
    assert torch.equal(data.load("train").x, before.sample(30, seed=3))
    assert torch.equal(data.load("test").x, before.sample(30, seed=4))
    assert data.load("train") is data.load("train")
    assert data.spec.shape == (2,)
    with pytest.raises(UserError, match="nowhere is no run directory"):
        Sampled("nowhere").prepare()
