"""Samples of a run, from nothing but its directory."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import gan_runner
from command_settings import settings_of
from gan_runner import Generator, trained
from gan_runner.architectures import DCGANGenerator, MLPGenerator
from gan_runner.assembly import build, parts
from gan_runner.commands import sample
from gan_runner.commands.evaluate import of_checkpoint
from gan_runner.commands.settings import Evaluate, Sample
from gan_runner.config import composer
from gan_runner.datasets import Spec
from gan_runner.errors import UserError
from gan_runner.game.kind import GAP
from gan_runner.lifecycle import runs
from gan_runner.priors import Uniform
from gan_runner.sampling.subjects import samples
from gan_runner.sampling.walks import interpolation, slerp
from gan_runner.tricks import SpectralNorm


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A conditional run on points, with an average of G and spectral norm on both players."""
    folder = tmp_path_factory.mktemp("points") / "run"
    words = ["+experiment=gaussians25", "trainer.steps=4", "trainer.accelerator=cpu", "architecture.conditional=true", "batch_size=16"]
    words += [
        "trick=[spectral_norm,ema]",
        "trick.spectral_norm.players=[generator,discriminator]",
        "callback.evaluate.n=100",
        "callback.grid.n=9",
    ]
    runs.train(composer.compose([*words, "callback.evaluate.every_steps=2"]).config, folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An unconditional run on a folder of pictures that is gone afterwards."""
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("pictures") / "run"
    pixels = np.random.default_rng(0).integers(256, size=(20, 16, 16, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(data / f"{i}.png")
    words = ["+experiment=dcgan_image_folder", f"dataset.path={data}", "dataset.resolution=16", "trainer.steps=2", "batch_size=4"]
    words += ["architecture.generator.width=4", "architecture.discriminator.width=4", "callback.grid.n=4", "trainer.accelerator=cpu"]
    runs.train(composer.compose(words).config, folder)
    shutil.rmtree(data)
    return folder


def main(folder, **words):
    sample.main(settings_of(Sample, run=str(folder), accelerator="cpu", **{"n": 16, **words}))


def test_a_run_is_loaded_and_sampled_without_its_data(pictures):
    run = gan_runner.load(pictures)
    x = run.sample(5, seed=3)
    assert x.shape == (5, 3, 16, 16)
    assert x.abs().max() <= 1
    assert torch.equal(x, run.sample(5, seed=3))
    assert not torch.equal(x, run.sample(5, seed=4))
    assert run.config["dataset"]["resolution"] == 16
    assert not run.generator.training
    assert not any(p.requires_grad for p in run.generator.parameters())
    assert run.discriminator(x).logits.shape == (5,)


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch_size(points):
    run = gan_runner.load(points)
    assert torch.allclose(run.sample(50, batch_size=50), run.sample(50, batch_size=7), atol=1e-6)


@pytest.mark.slow
def test_the_average_is_what_is_sampled(points):
    run = gan_runner.load(points)
    state = torch.load(points / "checkpoints" / "last.pt", weights_only=True)["game"]
    own = {name.removeprefix("tricks.ema.net."): tensor for name, tensor in state.items() if name.startswith("tricks.ema.net.")}
    assert own
    assert all(torch.equal(tensor, own[name]) for name, tensor in run.generator.state_dict().items())


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run with two averages of G, judged with statistics of batch norm of their own."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    words = ["dataset=triangles", "dataset.n_train=32", "dataset.n_test=8", "dataset.resolution=16", "architecture=dcgan", "batch_size=8"]
    words += ["trick=[ema,standing_statistics]", "trick.ema.halflife_kimg=[0.01,50]", "architecture.generator.width=4"]
    words += ["architecture.discriminator.width=4", "trainer.steps=6", "trainer.accelerator=cpu", "callback=[checkpoint]"]
    runs.train(composer.compose(words).config, folder)
    return folder


@pytest.mark.slow
def test_another_average_is_sampled_where_it_is_asked_for(averaged, tmp_path):
    judged, other = gan_runner.load(averaged), gan_runner.load(averaged, ema=50)
    state = torch.load(averaged / "checkpoints" / "last.pt", weights_only=True)["game"]
    for run, key in ((judged, "net"), (other, "others.0")):
        assert torch.equal(run.generator.start[0].weight, state[f"tricks.ema.{key}.start.0.weight"])
        assert not torch.equal(run.generator.start[2].running_mean, state[f"tricks.ema.{key}.start.2.running_mean"])
    assert (judged.whose, other.whose) == ("average of G", "average of G with a half-life of 50 kimg")
    for run, whose in ((judged, judged.whose), (other, other.whose)):  # figures of both have names of their own
        assert of_checkpoint(run, settings_of(Evaluate, run=str(averaged))).protocol["generator"] == whose
    again = gan_runner.load(averaged, ema=0.01)
    assert torch.equal(again.sample(8), judged.sample(8))
    assert again.whose == judged.whose
    assert not torch.allclose(other.sample(8), judged.sample(8))
    main(averaged, ema=50.0, n=4)
    assert (averaged / "samples" / "last_ema50_grid_seed0.png").is_file()
    main(averaged, ema=50.0, export=str(tmp_path / "x.safetensors"))
    exported = trained.load_generator(tmp_path / "x.safetensors")
    z = torch.randn(4, exported.latent)
    torch.testing.assert_close(exported(z), other.generator(z))


@pytest.mark.parametrize("kind", ["grid", "interpolation"])
def test_a_picture_is_written(pictures, tmp_path, kind):
    main(pictures, format=kind, n=20, out=str(tmp_path / "new" / "x.png"))
    with Image.open(tmp_path / "new" / "x.png") as image:
        assert image.size[0] > 16 * 8
        assert np.asarray(image).std() > 1


@pytest.mark.parametrize(("scale", "side"), [("auto", 64), (1, 16), (5, 80)])
def test_small_images_are_enlarged_in_pictures_alone(pictures, tmp_path, scale, side):
    for kind, columns in (("grid", 8), ("interpolation", 10)):
        main(pictures, format=kind, n=20, scale=scale, out=str(tmp_path / "x.png"))
        with Image.open(tmp_path / "x.png") as image:
            assert image.size[0] == columns * (side + GAP) + GAP
    main(pictures, format="npz", n=2, scale=scale, out=str(tmp_path / "x.npz"))
    assert np.load(tmp_path / "x.npz")["samples"].shape == (2, 3, 16, 16)
    with Image.open(pictures / "samples" / "step_00000002.png") as image:  # of the callback, whose scale is auto
        assert image.size[0] == 4 * (64 + GAP) + GAP


def test_points_are_drawn_by_the_thousand_and_walks_between_them_as_curves(points, tmp_path):
    main(points, format="npz", n=None, out=str(tmp_path / "x.npz"))
    assert np.load(tmp_path / "x.npz")["samples"].shape == (2000, 2)
    run = gan_runner.load(points)
    main(points, format="interpolation", n=None, out=str(tmp_path / "x.png"))
    walks = interpolation(run.generator, 20, 100, seed=0)
    title = f"round {run.step:,}"
    with Image.open(tmp_path / "x.png") as image:
        assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1), run.dataset.picture(walks, 100, title=title, joined=True))


def test_one_file_a_sample(pictures, tmp_path):
    main(pictures, format="png", n=3, out=str(tmp_path / "out"))
    x = gan_runner.load(pictures).sample(3)
    for i in range(3):
        with Image.open(tmp_path / "out" / f"{i:06d}.png") as image:
            expected = ((x[i] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            assert (np.asarray(image) == expected).all()


def test_arrays_hold_pixels_or_points_and_labels(pictures, points, tmp_path):
    main(pictures, format="npz", n=3, out=str(tmp_path / "a.npz"))
    main(points, format="npz", n=3, out=str(tmp_path / "b.npz"), **{"class": 7})
    assert np.load(tmp_path / "a.npz")["samples"].dtype == np.uint8
    b = np.load(tmp_path / "b.npz")
    assert b["samples"].shape == (3, 2)
    assert b["labels"].tolist() == [7, 7, 7]


def test_without_a_place_samples_go_beside_the_run_s_own(points):
    main(points, n=9)
    assert (points / "samples" / "last_grid_seed0.png").is_file()


def test_a_class_is_made_as_asked(points):
    run = gan_runner.load(points)
    assert torch.equal(run.sample(4, y=3), run.sample(4, y=torch.full((4,), 3)))
    assert not torch.equal(run.sample(4, y=3), run.sample(4, y=4))


@pytest.mark.slow
def test_the_exported_generator_is_the_same_map(points, tmp_path):
    main(points, export=str(tmp_path / "model.safetensors"))
    run, made = gan_runner.load(points), gan_runner.load_generator(tmp_path / "model.safetensors")
    a, b = (torch.cat(list(samples(net, 20, seed=1))) for net in (run.generator, made))
    assert torch.allclose(a, b, atol=1e-6)
    assert not any("parametrizations" in name for name in made.state_dict())
    (tmp_path / "wrong.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="is not a generator that gan-sample exported"):
        gan_runner.load_generator(tmp_path / "wrong.safetensors")


@pytest.mark.parametrize("architecture", ["msg_gan", "dcgan", "resnet_sngan"])
def test_every_kind_of_generator_is_exported_with_its_tricks_folded_in(pictures, tmp_path, architecture):
    """Also one that has parametrisations of its own (the equalised rates of MSG-GAN) below spectral norm, and batch norm."""
    spec = gan_runner.load(pictures).spec
    words = [f"architecture={architecture}", "architecture.generator.width=8", "dataset=cifar10", "dataset.resolution=16"]
    settings = build.plain(composer.compose(words).config)
    made = parts.make(settings["architecture"]["generator"], (), Generator, "generator", spec=spec)
    wrapped = SpectralNorm(["generator"]).wrap(made, "generator")
    for _ in range(3):
        wrapped(torch.randn(4, wrapped.latent))
    run = SimpleNamespace(config=settings, spec=spec, step=1, generator=wrapped.eval())
    trained.export(run, tmp_path / "model.safetensors")
    loaded, z = gan_runner.load_generator(tmp_path / "model.safetensors"), torch.randn(5, wrapped.latent)
    assert torch.allclose(loaded.show(loaded(z)), wrapped.show(wrapped(z)), atol=1e-5)
    assert not any("_u" in name for name in loaded.state_dict())


def test_interpolation_ends_at_its_ends_and_keeps_its_length():
    a, b = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(slerp(a, b, torch.tensor(0.0)), a, atol=1e-5)
    assert torch.allclose(slerp(a, b, torch.tensor(1.0)), b, atol=1e-5)
    unit = [v / v.norm(dim=1, keepdim=True) for v in (a, b)]
    assert torch.allclose(slerp(*unit, torch.tensor(0.3)).norm(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(slerp(a, 2 * a, torch.tensor(0.5)), 1.5 * a, atol=1e-4)


class Latents(Generator):
    """Samples are the latents themselves."""

    latent = 8

    def __init__(self, prior=None, classes=None):
        super().__init__()
        self.classes, self.law = classes, prior

    def prior(self, draws):
        return self.law(draws) if self.law else super().prior(draws)

    def forward(self, z, y=None):
        return z if y is None else torch.cat([z, y[:, None]], 1)


def walks(generator, rows=5, columns=7, seed=0):
    return interpolation(generator, rows, columns, seed=seed).unflatten(0, (rows, columns))


def dcgan(spec):
    return DCGANGenerator(spec, latent=8, width=4, prior=Uniform(-1, 1)).prior


def mlp(spec):
    return MLPGenerator(spec, latent=8, prior=Uniform(-math.sqrt(3), math.sqrt(3))).prior


def kolmogorov_smirnov(u):
    """Distance of N numbers from the uniform distribution, times the root of N: 1.63 is the 1 % point (Kolmogorov 1933)."""
    u, n = u.flatten().double().sort().values, u.numel()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum(steps[1:] - u, u - steps[:-1]).max()) * math.sqrt(n)


SPEC = Spec((1, 8, 8))
PRIORS = {
    "dcgan": (dcgan(SPEC), -1, 1),
    "mlp": (mlp(SPEC), -math.sqrt(3), math.sqrt(3)),
    "a user's": (lambda draws: 5 + 2 * draws.uniform(2, 4).flatten(1), 5, 7),
    "truncated": (lambda draws: torch.special.ndtri(0.025 + 0.95 * draws.uniform(8)), -1.9600, 1.9600),
}


@pytest.mark.parametrize("name", PRIORS)
def test_an_interpolation_stays_within_the_support_of_the_prior(name):
    prior, low, high = PRIORS[name]
    z = walks(Latents(prior), rows=400, columns=11)
    assert low <= z.min() < z.max() <= high
    assert z.min() < low + 0.01 * (high - low)  # and reaches its ends
    assert z.max() > high - 0.01 * (high - low)


@pytest.mark.parametrize("name", ["dcgan", "mlp", "a user's"])
def test_a_uniform_prior_is_as_uniform_in_the_middle(name):
    """Of all 2000 x 8 coordinates; those of a straight walk would have a triangle for a density."""
    prior, low, high = PRIORS[name]
    middle = (walks(Latents(prior), rows=2000, columns=3)[:, 1] - low) / (high - low)
    assert kolmogorov_smirnov(middle) < 1.63
    ends = torch.cat(list(samples(Latents(prior), 4000)))
    straight = (ends[:2000] + ends[2000:]) / 2
    assert kolmogorov_smirnov((straight - low) / (high - low)) > 10


@pytest.mark.parametrize("name", [*PRIORS, "normal"])
def test_an_interpolation_begins_and_ends_at_samples(name):
    generator = Latents(PRIORS[name][0] if name in PRIORS else None, classes=3)
    x, ends = walks(generator), torch.cat(list(samples(generator, 10)))
    assert torch.allclose(x[:, 0], ends[:5], atol=1e-5)  # latents and label
    assert torch.allclose(x[:, -1, :-1], ends[5:, :-1], atol=1e-5)
    assert (x[..., -1] == x[:, :1, -1]).all()  # a row keeps its label


def test_a_normal_prior_is_walked_along_the_arc():
    ends = torch.cat(list(samples(Latents(), 10)))
    want = torch.stack([slerp(ends[:5], ends[5:], t) for t in torch.linspace(0, 1, 7)], 1)
    assert torch.equal(walks(Latents()), want)


def test_a_mixture_keeps_its_component_along_a_row():
    centres = torch.tensor([0.0, 100.0, 200.0, 300.0])
    x = walks(Latents(lambda draws: centres[draws.integers(4)][:, None] + draws.uniform(8)), rows=50)
    component = (x / 100).floor()
    assert (component == component[:, :1, :1]).all()
    assert len(component.unique()) == 4


def test_single_numbers_walk_as_well():
    """Draws of one number a sample have a straight line for an arc."""
    x = walks(Latents(lambda draws: torch.stack([draws.uniform(), draws.normal()], 1)), rows=300)
    assert x[..., 0].min() >= 0
    assert x[..., 0].max() < 1
    assert x.isfinite().all()


def test_an_interpolation_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    walks(Latents(PRIORS["dcgan"][0]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["grid", "png", "npz", "interpolation"])
def test_samples_that_are_not_finite_become_no_pixels(pictures, tmp_path, monkeypatch, value, kind):
    """In a file they would be black or white, and judged as any other image."""
    load = trained.TrainedRun.__init__

    def broken(self, *words):
        load(self, *words)
        forward = self.generator.forward
        monkeypatch.setattr(self.generator, "forward", lambda z, y=None: forward(z, y).index_fill(0, torch.tensor([1]), value))

    monkeypatch.setattr(trained.TrainedRun, "__init__", broken)
    with pytest.raises(UserError, match=r"1 of 20 samples of round 2 .* are not finite"):
        main(pictures, format=kind, n=20, out=str(tmp_path / "new" / "x"))
    assert not (tmp_path / "new").exists()


def test_mistakes_are_told(points, pictures, tmp_path):
    with pytest.raises(UserError, match="must be 0 to 24"):
        main(points, **{"class": 25})
    with pytest.raises(UserError, match="takes no labels"):
        main(pictures, **{"class": 0})
    with pytest.raises(UserError, match=r"best\.pt is written where"):
        main(pictures, checkpoint="best")
    with pytest.raises(UserError, match="not a run directory"):
        main(tmp_path)
    with pytest.raises(UserError, match="grey or RGB"):
        main(points, format="png")
    with pytest.raises(UserError, match=r"ema=50: .* keeps averages with half-lives of 17\.7 thousand images"):
        main(points, ema=50.0)
    with pytest.raises(UserError, match=r"ema=-1\.0: expected a number of thousand images, above 0, or null"):
        main(points, ema=-1.0)


def test_a_hostile_run_directory_executes_nothing(points, tmp_path):
    evil = tmp_path / "evil"
    shutil.copytree(points, evil)
    text = (evil / "config.yaml").read_text()
    (evil / "config.yaml").write_text(text.replace("gan_runner.architectures.MLPGenerator", "os.system"))
    with pytest.raises(UserError, match=r"os\.system is not allowed"):
        gan_runner.load(evil)

    hidden = tmp_path / "hidden.safetensors"
    marker = tmp_path / "executed"
    node = {"_target_": "gan_runner.architectures.MLPGenerator", "width": {"_target_": "os.system", "command": f"touch {marker}"}}
    safetensors.torch.save_file(
        {"x": torch.zeros(1)}, hidden, {"generator": json.dumps(node), "spec": json.dumps({"shape": [2], "classes": None})}
    )
    with pytest.raises(UserError, match=r"width\._target_=os\.system is not allowed"):
        gan_runner.load_generator(hidden)
    assert not marker.exists()

    class Payload:
        def __reduce__(self):
            return (json.dumps, ({},))

    (evil / "config.yaml").write_text(text)
    torch.save({"version": 1, "payload": Payload()}, evil / "checkpoints" / "last.pt")
    with pytest.raises(UserError, match="is damaged"):
        gan_runner.load(evil)


def test_snapshots_that_the_run_removes_meanwhile_are_left_out(points, tmp_path):
    folder = shutil.copytree(points, tmp_path / "run")
    path = folder / "checkpoints" / "step_00000004.pt"
    for step in (1, 2, 3):
        shutil.copy(path, path.with_name(f"step_0000000{step}.pt"))
    found = []
    for snapshot in gan_runner.load(folder).snapshots():
        path.with_name("step_00000002.pt").unlink(missing_ok=True)
        found.append(snapshot)
    assert len(found) == 3
