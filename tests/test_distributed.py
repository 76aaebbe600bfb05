"""What processes tell each other, and that two of them play the game of one. The terms and tricks are those that have a YAML file."""

import copy
import fcntl
import os
import shutil
import sys
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from gan_runner import distributed, evaluation
from gan_runner.assembly import build
from gan_runner.config.composer import compose
from gan_runner.config.groups import config_dir
from gan_runner.errors import Failed, UserError
from gan_runner.evaluation.reference import Reference
from gan_runner.execution.hardware import devices_of
from gan_runner.lifecycle import runs
from gan_runner.lifecycle.launch import Workers
from gan_runner.sampling.subjects import Generated
from gan_runner.storage import checkpoint, directory
from processes import spawn
from read_runs import floats, furthest

# ---- cases ------------------------------------------------------------------------------------------------------------------------------

TERMS = """
import torch
from gan_runner.game import Loss
import torch.nn.functional as F
from gan_runner import Term


class RelativisticAverage(Loss):
    \"\"\"Couples samples: every logit is compared with the mean of the others.\"\"\"

    coupled = True

    def discriminator(self, play, sign=1):
        real, fake = (sign * out.logits for out in play.on_both)
        return (F.softplus(fake.mean() - real) + F.softplus(fake - real.mean())).mean()

    def generator(self, play):
        return self.discriminator(play, -1)


class FeaturesOnly(Loss):
    \"\"\"Looks at D's features and at no logit, so that the head of D is left out of every backward pass.\"\"\"

    def discriminator(self, play):
        real, fake = play.on_both
        return (real.features - 1).square().mean() + fake.features.square().mean()

    def generator(self, play):
        return (play.on_fake.features - 1).square().mean()


class Likelihood(Loss):
    \"\"\"Like the log_prob of a flow: reaches weights of G by a way other than its forward.\"\"\"

    def discriminator(self, play):
        real, fake = play.on_both
        return F.softplus(-real.logits).mean() + F.softplus(fake.logits).mean()

    def generator(self, play):
        mean, scale = play.G.head.bias, play.G.head.weight.square().sum(1)
        log_prob = -((play.real - mean).square() / (1 + scale) + torch.log1p(scale)).sum(1) / 2
        return -log_prob.mean()
"""


def named(group):
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


SGD = [  # Adam makes steps of rounding errors where a gradient is 0 in theory
    f"{word}"
    for side in ("generator", "discriminator")
    for word in (f"optimizer.{side}._target_=torch.optim.SGD", f"~optimizer.{side}.betas", f"optimizer.{side}.lr=0.02")
]
BASE = [
    *SGD,
    "callback=[checkpoint]",
    "logger=[]",
    "batch_size=16",
    "trainer.steps=8",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.compare_every_steps=2",
]
POINTS = ["dataset=gaussians25", "dataset.n=200", "architecture.generator.width=16", "architecture.discriminator.width=16"]
PICTURES = ["dataset=triangles", "dataset.n_train=64", "dataset.n_test=4", "dataset.resolution=8", "architecture=msg_gan"]
PICTURES += ["architecture.generator.width=8", "architecture.generator.latent=8", "architecture.discriminator.width=8"]
PICTURES += ["architecture.discriminator.minibatch_stddev=false"]
PIXELS = ["dataset=triangles", "dataset.n_train=64", "dataset.n_test=4", "dataset.resolution=8"]
PIXELS += ["architecture.generator.width=16", "architecture.discriminator.width=16"]


SETTINGS = {  # beside 'penalty=[NAME]'; any other has a small weight
    "auxiliary_classifier": ["penalty.auxiliary_classifier.weight=0.1", "architecture.conditional=true"],
    "consistency": ["penalty.consistency.real=0.1", "penalty.consistency.fake=0.1", *PIXELS],
    "gradient_normalisation": [],
    "teacher": ["trick=[ema]", "trick.ema.halflife_kimg=0.02"],
}


def penalty(name):
    return [f"penalty=[{name}]", *SETTINGS.get(name, [f"penalty.{name}.weight=0.1"])]


@cache
def composed(*words):
    data = [] if any(word.startswith("dataset=") for word in words) else POINTS
    return compose([*data, *BASE, *words, "packages=[given_terms]"]).config


def config_of(*words, loss=None, every=1):
    """The configuration of a line; the loss and how often penalties are due are laid over it, which is faster than composing again."""
    config = copy.deepcopy(composed(*words))
    if loss is not None:
        config.loss = composed(f"loss={loss}").loss
    for each in config.penalty.values():
        if "every" in each:
            each.every = every
    return config


CASES = {  # every loss with every penalty in each round: tests/game/test_combinations.py
    f"{loss}, {name} every {every}": partial(config_of, *penalty(name), loss=loss, every=every)
    for loss in ("non_saturating", "wasserstein")
    for name in named("penalty")
    for every in (2, 4)
}
CASES |= {f"{loss}, spectral norm, ema": partial(config_of, "trick=[spectral_norm,ema]", loss=loss) for loss in named("loss")}
IMAGES = {"ada", "diffaugment"}  # tricks for images
BESIDE = {  # what lets a trick act within a few rounds
    "ada": [*PICTURES, "trick.ada.kimg=0.05", "trick.ada.every=3"],
    "diffaugment": PICTURES,
    "dropout": ["trick.dropout.players=[generator,discriminator]"],
    "freeze": ["trick.freeze.layers.discriminator=[body.0]"],
    "noise_scale": ["trainer.accumulate=2"],
    "restart_on_collapse": [f"trick.restart_on_collapse.{word}" for word in ("ratio=0.99", "every=3", "patience=1")],
}
APART = {"standing_statistics"}  # needs batch norm, which each process computes of its own rows
TRICKS = [name for name in named("trick") if name not in APART]
CASES |= {name: partial(config_of, f"trick=[{name}]", *BESIDE.get(name, [])) for name in TRICKS}
CASES |= {name: partial(config_of, f"rule={name}") for name in named("rule") if name != "solo"}  # for which a player has to be still
ALL = [
    f"penalty=[{','.join(name for name in named('penalty') if name != 'consistency')}]",  # which needs images, and these have no labels
    f"trick=[{','.join(name for name in TRICKS if name not in IMAGES | {'noise_scale'})}]",
    "architecture.conditional=true",
    "trick.weight_clip.limit=1.0",
    "rule.d_steps=2",
]
LONG = ["loss=wasserstein", *penalty("gradient_penalty"), "trick=[ema]", "rule.d_steps=2"]
CASES |= {
    "all terms and tricks": partial(config_of, *ALL, every=2),
    "steepest slope": partial(config_of, "penalty.gradient_penalty.norm=max", *penalty("gradient_penalty"), "trick=[instance_noise]"),
    "witness": partial(config_of, "loss=mmd", "trick=[instance_noise]"),
    "relativistic average": partial(config_of, "loss._target_=given_terms.RelativisticAverage", *penalty("r1"), every=4),
    "log_prob": partial(config_of, "loss._target_=given_terms.Likelihood"),
    "log_prob, r1 every 2": partial(config_of, "loss._target_=given_terms.Likelihood", *penalty("r1"), every=2),
    "features only": partial(config_of, "loss._target_=given_terms.FeaturesOnly"),
    "features only, classifier": partial(config_of, "loss._target_=given_terms.FeaturesOnly", *penalty("auxiliary_classifier"), every=4),
    "micro-batches": partial(config_of, "trainer.accumulate=2", *penalty("gradient_penalty"), every=4),
    "pictures of every scale": partial(config_of, *PICTURES, "loss=hinge", *penalty("r1"), "trick=[ema,instance_noise]", every=4),
    "50 rounds": partial(config_of, "trainer.steps=50", *LONG),
}
BATCH_NORM = ["dataset=triangles", "dataset.n_train=64", "dataset.n_test=4", "dataset.resolution=16", "architecture=dcgan"]
BATCH_NORM += ["architecture.generator.width=8", "architecture.discriminator.width=8"]
SETS = "kernel_distance,precision_recall,density_coverage,fd_ratio,cmmd,mind,sliced_wasserstein,vendi,authenticity,ct,fld"
JUDGED = [*POINTS, "extractor=identity", f"metric=[mode_coverage,frechet_distance,{SETS}]", "metric.kernel_distance.subset_size=100"]


def play(config, folder):
    """A whole run, as one of however many processes there are."""
    runs.work(Path(folder), OmegaConf.create(config), ["given_terms"], None)


def weights(folder):
    """Every tensor of floats in the state of the game, by name."""
    return compared(checkpoint.load(Path(folder) / "checkpoints" / "last.pt")["game"])


def compared(state):
    """Every tensor of floats in a state, by name, but for estimates that are made of gradients of micro-batches."""
    return {name: value for name, value in floats(state).items() if not name.startswith("tricks.noise_scale.")}


def figures():
    """What metrics say of 301 samples of untrained networks, with shares and batches that do not come out even."""
    assembly = build.assemble(compose([*JUDGED, "trainer.accelerator=cpu"]).config)
    subject = Generated(assembly.game.sampler, 301, assembly.spec, seed=0, device="cpu", discriminator=assembly.game.D)
    reference = Reference(assembly.dataset, "train", device="cpu")
    return evaluation.evaluate(subject, assembly.metrics, reference, batch_size=64).numbers


# ---- two processes ----------------------------------------------------------------------------------------------------------------------


def refusal(act, *arguments):
    try:
        act(*arguments)
    except (Failed, UserError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def facts(rank):
    """What the functions of distributed.py say here."""
    said = {
        "size": distributed.size(),
        "is_first": distributed.is_first(),
        "rows": {n: list(distributed.rows(n)) for n in (2, 3, 10)},
        "too few rows": refusal(distributed.rows, 1),
        "share": distributed.share(24, 3),
        "share of one": distributed.share(24, 3, 1),
        "no share": refusal(distributed.share, 10, 2),
        "agree": [distributed.agree(rank), distributed.agree(-rank)],
        "shared": distributed.shared({"from": rank}),
        "everyones": distributed.everyones((rank, "word")),
        "mean": distributed.mean({"a": torch.tensor(float(rank)), "b": torch.tensor(3.0 - 2 * rank, dtype=torch.float64)}),
        "mean of nothing": distributed.mean({}),
    }
    rows = torch.full((2, 3), float(rank), requires_grad=True)
    whole = distributed.gather(rows)
    (whole * torch.arange(12.0).view(4, 3)).sum().backward()
    said |= {"gathered": whole.detach(), "slope": rows.grad}
    rows = torch.full((2, 3), 1.0 + rank, requires_grad=True)
    apart = distributed.gather_apart(rows)
    (slope,) = torch.autograd.grad((10.0**rank * apart.pow(3)).sum(), rows, create_graph=True)  # each rank has a value of its own
    slope.sum().backward()
    with distributed.same_rows():
        same = distributed.gather_apart(rows) is rows
    said |= {"apart": apart.detach(), "slope apart": slope.detach(), "curvature apart": rows.grad, "same": same}
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    said["same weights"] = refusal(distributed.compare, net)
    net(torch.randn(8, 2) + 5 * rank)
    distributed.copy_buffers(net)
    said["buffers"] = dict(net.named_buffers())
    with torch.no_grad():  # the last bit of one weight, and two that change places
        if rank:
            net[0].bias[0] = torch.nextafter(net[0].bias[0], torch.tensor(9.0))
            net[0].weight.copy_(net[0].weight.flip(0))
    said["other weights"] = refusal(distributed.compare, net)
    return said


def play_all(rank, folder):
    torch.save({"facts": facts(rank), "figures": figures()}, f"{folder}/{rank}.pt")
    for name in CASES:
        play(OmegaConf.load(f"{folder}/two/{name}/config.yaml"), f"{folder}/two/{name}")
    one = Path(folder) / "one" / "50 rounds"
    runs.work(one, OmegaConf.load(f"{folder}/longer.yaml"), [], one / "checkpoints" / "step_00000050.pt")


@contextmanager
def importable(folder):
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder of all cases, played by one process and by two; made once, whichever of pytest's processes asks first."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    folder = folder / "distributed"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock, importable(folder), pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "done").exists():
            return folder
        patch.setenv("GAN_RUNNER_CACHE", str(folder / "cache"))
        (folder / "given_terms.py").write_text(TERMS)
        for name, case in CASES.items():
            config = case()
            for size in ("one", "two"):
                (folder / size / name).mkdir(parents=True)
                directory.lay_out(folder / size / name, config, [])
            play(config, folder / "one" / name)
        longer = config_of(*LONG, "trainer.steps=60")
        OmegaConf.save(longer, folder / "longer.yaml")
        alone = folder / "alone"
        (alone / "checkpoints").mkdir(parents=True)
        start = shutil.copy(folder / "one" / "50 rounds" / "checkpoints" / "step_00000050.pt", alone / "checkpoints")
        runs.work(alone, longer, [], Path(start))
        spawn(2, __file__, "play_all", folder)
        (folder / "done").touch()
    return folder


def both(folder, key):
    return [torch.load(folder / f"{rank}.pt", weights_only=False)[key] for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "50 rounds"])
def test_two_processes_equal_one(played, name):
    difference, where = furthest(weights(played / "one" / name), weights(played / "two" / name))
    assert difference < 1e-6, where


@pytest.mark.slow
def test_fifty_rounds_of_two_processes_equal_those_of_one(played):
    """A run of 50, of which the one process's was gone on with for 10 more by two."""
    difference, where = furthest(weights(played / "alone"), weights(played / "one" / "50 rounds"))
    assert difference < 1e-6, where
    fifty = [checkpoint.load(played / size / "50 rounds" / "checkpoints" / "step_00000050.pt")["game"] for size in ("one", "two")]
    difference, where = furthest(*map(floats, fifty))
    assert difference < 1e-6, where
    log = (played / "one" / "50 rounds" / "train.log").read_text()
    assert "played by 1 processes until now and by 2 from here on: the same run up to rounding" in log


@pytest.mark.slow
def test_training_moved_the_weights(played):
    """Without this, the equalities above could be those of runs that did nothing."""
    for name in CASES:
        with importable(played):
            game = build.assemble(OmegaConf.load(played / "two" / name / "config.yaml"), ["given_terms"]).game
        assert furthest(compared(game.state_dict()), weights(played / "two" / name))[0] > 1e-4, name


@pytest.mark.slow
def test_figures_do_not_depend_on_the_number_of_processes(played, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(played / "cache"))
    one, two = figures(), both(played, "figures")
    assert two[0] == two[1]
    known = {name: value for name, value in one.items() if value is not None}
    assert len(known) > 8
    assert two[0].keys() == one.keys()
    assert {name: value for name, value in two[0].items() if value is not None} == pytest.approx(known, rel=0, abs=1e-9)


@pytest.mark.slow
def test_what_processes_tell_each_other(played):
    first, second = both(played, "facts")
    for said in (first, second):
        assert said["size"] == 2
        assert said["agree"] == [1, 0]
        assert said["shared"] == {"from": 0}
        assert said["everyones"] == [(0, "word"), (1, "word")]
        assert said["mean"] == {"a": 0.5, "b": 2.0}
        assert said["mean of nothing"] == {}
        assert said["same weights"] == ""
        assert said["other weights"].startswith("Failed: the processes no longer agree on 0.weight, 0.bias: ")
        assert said["gathered"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
        assert said["apart"].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
        assert said["same"]
        assert (said["share"], said["share of one"]) == (4, 8)
        assert said["no share"] == "ValueError: batch_size=10 cannot be cut into 2 processes x accumulate=2 equal parts"
        assert said["too few rows"] == "ValueError: 1 samples cannot be shared by 2 processes"
    for said, x in ((first, 1.0), (second, 2.0)):  # the value of rank 0 is the sum of x^3, that of rank 1 ten times as much
        assert said["slope apart"].tolist() == [[(1 + 10) * 3 * x**2] * 3] * 2
        assert said["curvature apart"].tolist() == [[(1 + 10) * 6 * x] * 3] * 2
    assert [first["is_first"], second["is_first"]] == [True, False]
    for n, rows in first["rows"].items():
        assert rows + second["rows"][n] == list(range(n))
        assert abs(len(rows) - len(second["rows"][n])) <= 1
    # times 2, for DistributedDataParallel divides by it
    assert torch.equal(torch.cat([first["slope"], second["slope"]]), 2 * torch.arange(12.0).view(4, 3))
    assert all(torch.equal(value, second["buffers"][name]) for name, value in first["buffers"].items())
    assert first["buffers"]["1.running_mean"].abs().max() < 2  # those of the first, whose samples were not shifted


def test_alone_a_process_has_everything():
    net = torch.nn.Linear(2, 2)
    values = {"a": torch.tensor(1.0)}
    assert distributed.size() == 1
    assert distributed.is_first()
    assert distributed.rows(3) == range(3)
    assert distributed.agree(7) == 7
    assert distributed.shared("word") == "word"
    assert distributed.everyones("word") == ["word"]
    assert distributed.mean(values) == values
    assert distributed.gather(net.weight) is net.weight
    distributed.compare(net)
    distributed.copy_buffers(net)
    distributed.leave()


# ---- how many ---------------------------------------------------------------------------------------------------------------------------


def pretend(monkeypatch, gpus=0, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_takes_all_gpus_and_one_of_anything_else(monkeypatch):
    pretend(monkeypatch, gpus=3)
    assert devices_of("auto", "auto") == devices_of("auto", "cuda") == 3
    assert devices_of("auto", "cpu") == 1
    assert devices_of(5, "cpu") == 5
    pretend(monkeypatch)
    assert devices_of("auto", "auto") == 1
    assert devices_of(5, "auto") == 5


def test_more_devices_than_there_are_is_a_mistake(monkeypatch):
    pretend(monkeypatch, gpus=2)
    with pytest.raises(UserError, match=r"^trainer\.devices=3: there are 2 GPUs; say trainer\.devices=2, or trainer\.accelerator=cpu$"):
        devices_of(3, "auto")
    pretend(monkeypatch, mps=True)
    for accelerator in ("auto", "mps"):
        with pytest.raises(UserError, match=r"^trainer\.devices=2: there is one MPS device"):
            devices_of(2, accelerator)
    assert devices_of(2, "cpu") == 2
    pretend(monkeypatch)
    with pytest.raises(UserError, match=r"trainer\.accelerator=cuda: there is no such device"):
        devices_of(2, "cuda")


def test_a_batch_that_cannot_be_shared_is_a_mistake():
    config = config_of("batch_size=15", "trainer.devices=2")
    with pytest.raises(UserError, match="batch_size=15 cannot be cut into 2 processes x accumulate=1 equal parts"):
        build.check(config)


def test_an_error_of_the_process_group_says_that_another_is_gone():
    for text in ("[pair.cc:561] Connection closed by peer [127.0.0.1]:1", "Timed out waiting 10000ms for recv operation to complete"):
        with pytest.raises(distributed.Lost, match="another process is gone"), distributed.translate_lost_peers():
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), distributed.translate_lost_peers():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(OSError, match="timed out"), distributed.translate_lost_peers():  # somebody's download
        raise OSError("the read operation timed out")


# ---- checkpoints of before --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_checkpoint_of_version_1_goes_on(tmp_path):
    """Before there were several processes, `rng` held the random state of the only one."""
    config = config_of("trainer.steps=6", "callback.checkpoint.every_steps=3", *penalty("gradient_penalty"))
    for name in ("straight", "old"):
        runs.train(config, tmp_path / name)
    path = tmp_path / "old" / "checkpoints" / "step_00000003.pt"
    state = checkpoint.load(path)
    state |= {"version": 1, "rng": state["rng"][0]}
    for each in (tmp_path / "old" / "checkpoints").iterdir():
        each.unlink()
    torch.save(state, path)
    assert isinstance(checkpoint.load(path)["rng"], list)
    runs.resume(tmp_path / "old")
    assert furthest(weights(tmp_path / "straight"), weights(tmp_path / "old"))[0] == 0
    states = [checkpoint.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("straight", "old")]
    assert torch.equal(states[0]["rng"][0]["cpu"], states[1]["rng"][0]["cpu"])


# ---- GPUs -------------------------------------------------------------------------------------------------------------------------------

A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SEVERAL_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason=f"needs 2 GPUs, and there are {torch.cuda.device_count()}")


def by_gpus(folder, devices, config):
    config.trainer.accelerator, config.trainer.devices = "cuda", devices
    runs.train(config, folder / str(devices))
    return weights(folder / str(devices))


@pytest.fixture
def float32(monkeypatch):
    """No TensorFloat32, here and in the processes that are started."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.gpu
@pytest.mark.slow
@A_GPU
@pytest.mark.usefixtures("float32")
def test_a_group_of_one_gpu_is_one_gpu(tmp_path):
    """It joins by NCCL, plays and leaves as one of several would."""
    config = config_of("trainer.accelerator=cuda", *penalty("gradient_penalty"), "trick=[ema]")
    alone, folder, room = by_gpus(tmp_path, 1, config), tmp_path / "group", tmp_path / "room"
    for each in (folder, room):
        each.mkdir()
    directory.lay_out(folder, config, [])
    Workers(runs.work, 1, room).run(folder, directory.portable(config), [], None)
    difference, where = furthest(alone, weights(folder))
    assert difference < 1e-5, where


@pytest.mark.gpu
@pytest.mark.slow
@A_GPU
@pytest.mark.usefixtures("float32")
def test_synchronised_batch_norm_of_one_gpu_is_batch_norm(tmp_path):
    """Under DistributedDataParallel it is compared over two, below."""
    plain, synchronised = (
        by_gpus(tmp_path / word, 1, config_of(*BATCH_NORM, f"trainer.sync_batch_norm={word}")) for word in ("false", "true")
    )
    difference, where = furthest(plain, synchronised)
    assert difference < 1e-5, where


@pytest.mark.gpu
@pytest.mark.slow
@SEVERAL_GPUS
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", ["all terms and tricks", "pictures of every scale", "wasserstein, gradient_penalty every 4"])
def test_two_gpus_equal_one(tmp_path, name):
    one, two = (by_gpus(tmp_path, devices, CASES[name]()) for devices in (1, 2))
    difference, where = furthest(one, two)
    assert difference < 1e-5, where


@pytest.mark.gpu
@pytest.mark.slow
@SEVERAL_GPUS
@pytest.mark.usefixtures("float32")
def test_synchronised_batch_norm_of_two_gpus_is_that_of_the_whole_batch(tmp_path):
    one, two = (by_gpus(tmp_path, devices, config_of(*BATCH_NORM, "trainer.sync_batch_norm=true")) for devices in (1, 2))
    difference, where = furthest(one, two)
    assert difference < 1e-5, where
