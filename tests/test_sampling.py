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
from gan_runner import Generator, build, config, runs, sampling
from gan_runner.errors import UserError
from gan_runner.evaluation import samples, slerp
from gan_runner.tricks import SpectralNorm

DEFAULTS = {
    "checkpoint": "last",
    "n": 16,
    "seed": 0,
    "class": None,
    "format": "grid",
    "out": None,
    "export": None,
    "columns": None,
    "accelerator": "cpu",
}


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
    runs.train(config.compose([*words, "callback.evaluate.every_steps=2"]).config, folder)
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
    runs.train(config.compose(words).config, folder)
    shutil.rmtree(data)
    return folder


def main(folder, **words):
    sampling.main({**DEFAULTS, "run": str(folder), **words})


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


def test_samples_do_not_depend_on_the_batch_size(points):
    run = gan_runner.load(points)
    assert torch.allclose(run.sample(50, batch_size=50), run.sample(50, batch_size=7), atol=1e-6)


def test_the_average_is_what_is_sampled(points):
    run = gan_runner.load(points)
    state = torch.load(points / "checkpoints" / "last.pt", weights_only=True)["game"]
    own = {name.removeprefix("tricks.ema.net."): tensor for name, tensor in state.items() if name.startswith("tricks.ema.net.")}
    assert own
    assert all(torch.equal(tensor, own[name]) for name, tensor in run.generator.state_dict().items())


@pytest.mark.parametrize("kind", ["grid", "interpolation"])
def test_a_picture_is_written(pictures, tmp_path, kind):
    main(pictures, format=kind, n=20, out=str(tmp_path / "new" / "x.png"))
    with Image.open(tmp_path / "new" / "x.png") as image:
        assert image.size[0] > 16 * 8
        assert np.asarray(image).std() > 1


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
    settings = build.plain(config.compose(words).config)
    made = build.make(settings["architecture"]["generator"], (), Generator, "generator", spec=spec)
    wrapped = SpectralNorm(["generator"]).wrap(made, "generator")
    for _ in range(3):
        wrapped(torch.randn(4, wrapped.latent))
    run = SimpleNamespace(config=settings, spec=spec, step=1, generator=wrapped.eval())
    sampling.export(run, tmp_path / "model.safetensors")
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


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["grid", "png", "npz", "interpolation"])
def test_samples_that_are_not_finite_become_no_pixels(pictures, tmp_path, monkeypatch, value, kind):
    """In a file they would be black or white, and judged as any other image."""
    load = sampling.TrainedRun.__init__

    def broken(self, *words):
        load(self, *words)
        forward = self.generator.forward
        monkeypatch.setattr(self.generator, "forward", lambda z, y=None: forward(z, y).index_fill(0, torch.tensor([1]), value))

    monkeypatch.setattr(sampling.TrainedRun, "__init__", broken)
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
