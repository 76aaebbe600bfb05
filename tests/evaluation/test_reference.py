"""Real samples, their features, and what is kept of them."""

import io
import json

import numpy as np
import pytest
import torch
from torch import nn

from gan_runner.datasets import Dataset, Samples, Spec
from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.evaluation.reference import Reference
from gan_runner.extractors import Extracted, Extractor
from gan_runner.storage import cache as cached


class Noise(Dataset):
    """40 + 12 images of noise."""

    spec = Spec((1, 4, 4), 3)

    def __init__(self, seed=0, size=4):
        self.seed, self.size, self.opened = seed, size, 0

    def load(self, split):
        self.opened += 1
        generator = torch.Generator().manual_seed(self.seed + (split == "test"))
        n = 40 if split == "train" else 12
        x = torch.randint(256, (n, 1, self.size, self.size), generator=generator, dtype=torch.uint8)
        return Samples(x, torch.arange(n) % 3)


class Linear(Extractor):
    """Features are the pixels times a fixed matrix; counts its passes."""

    name, preprocessing = "linear", "none"

    def __init__(self, seed=0):
        super().__init__(weights="")
        self.matrix = nn.Parameter(torch.randn(16, 5, generator=torch.Generator().manual_seed(seed)), requires_grad=False)
        self.seed, self.images = seed, 0

    def load(self):
        pass

    @property
    def checksum(self):
        return f"seed {self.seed}"

    def embed(self, images):
        self.images += len(images)
        return Extracted(images.flatten(1).float() @ self.matrix, None)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def direct(dataset, extractor, split="train"):
    return extractor(dataset.load(split).x).features


@pytest.mark.parametrize("batch_size", [7, 500])
def test_features_and_moments_are_those_of_all_samples_in_order(batch_size):
    data, extractor = Noise(), Linear()
    real = Reference(data, "train", extractor, batch_size=batch_size)
    want = direct(data, extractor)
    assert torch.allclose(real.features(), want, atol=1e-3)
    assert torch.allclose(real.moments().mean, want.double().mean(0), rtol=1e-6)
    assert np.allclose(real.moments().covariance, np.cov(want.double().numpy().T), rtol=1e-6)
    assert real.n == 40
    assert torch.equal(real.labels, torch.arange(40) % 3)
    assert torch.equal(real.at(torch.tensor([3, 1])), data.load("train").x[[3, 1]] / 127.5 - 1)


def test_what_was_seen_once_is_not_looked_at_again():
    first = Linear()
    features = Reference(Noise(), "train", first).features()
    assert first.images == 40
    again = Linear()
    kept = Reference(Noise(), "train", again)
    assert torch.equal(kept.features(), features)
    assert torch.equal(kept.moments().mean, Moments.of(features).mean)
    assert again.images == 0


def test_one_pass_gives_moments_and_features():
    extractor = Linear()
    real = Reference(Noise(), "train", extractor)
    moments = real.moments()
    assert torch.allclose(real.features().double().mean(0), moments.mean)
    assert extractor.images == 40


@pytest.mark.parametrize(
    "other",
    [
        lambda: Reference(Noise(seed=1), "train", Linear()),
        lambda: Reference(Noise(), "test", Linear()),
        lambda: Reference(Noise(), "train", Linear(seed=1)),
        lambda: Reference(Noise(), "train", Linear(), n=39),
    ],
)
def test_other_data_splits_weights_or_numbers_are_kept_apart(other):
    Reference(Noise(), "train", Linear()).moments()
    real = other()
    real.moments()
    assert real.extractor.images == real.n


def test_another_preprocessing_is_kept_apart():
    Reference(Noise(), "train", Linear()).moments()
    changed = Linear()
    changed.preprocessing = "resize"
    Reference(Noise(), "train", changed).moments()
    assert changed.images == 40


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def other_array(path, array):
    """With a right checksum."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    cached.write(path, file.getvalue())


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "features.npy"),
        lambda folder: cut(folder / "moments.npz"),
        lambda folder: flipped(folder / "features.npy", 400),
        lambda folder: flipped(folder / "features.npy", -3),
        lambda folder: flipped(folder / "features.npy", 20),
        lambda folder: flipped(folder / "moments.npz", 300),
        lambda folder: flipped(folder / "about.json", 60),
        lambda folder: (folder / "features.npy").unlink(),
        lambda folder: (folder / "moments.npz").unlink(),
        lambda folder: np.save(folder / "features.npy", np.zeros((40, 5), np.float32)),  # no checksum
        lambda folder: other_array(folder / "features.npy", np.zeros((40, 4), np.float32)),
        lambda folder: other_array(folder / "features.npy", np.zeros((40, 5), np.int32)),
        lambda folder: other_array(folder / "features.npy", np.array([{}], dtype=object)),  # a pickle, which is not executed
        lambda folder: (folder / "about.json").write_text(json.dumps(json.loads((folder / "about.json").read_text()) | {"n": 3})),
    ],
)
def test_what_is_damaged_on_disk_is_made_again_and_named(cache, damage, caplog):
    want = Reference(Noise(), "train", Linear()).features().clone()
    moments = Reference(Noise(), "train", Linear()).moments()
    [folder] = cache.iterdir()
    damage(folder)
    extractor = Linear()
    real = Reference(Noise(), "train", extractor)
    assert torch.equal(real.features(), want)
    assert all(map(torch.equal, map(torch.as_tensor, real.moments()), map(torch.as_tensor, moments)))
    assert extractor.images == 40
    [said] = caplog.messages
    assert str(folder) in said
    assert "made again" in said
    caplog.clear()
    again = Linear()
    assert torch.equal(Reference(Noise(), "train", again).features(), want)
    assert again.images == 0
    assert not caplog.messages


def test_a_cache_that_cannot_be_written_costs_time_and_not_the_figure(cache):
    cache.write_text("a file where the folder should be")
    extractor = Linear()
    assert Reference(Noise(), "train", extractor).features().shape == (40, 5)
    assert Reference(Noise(), "train", extractor).moments().n == 40
    assert extractor.images == 80


def test_n_samples_are_chosen_by_chance_and_always_the_same():
    chosen = [Reference(Noise(), "train", Linear(), n=10).labels for _ in range(2)]
    assert torch.equal(*chosen)
    assert not torch.equal(chosen[0], torch.arange(10) % 3)  # not simply the first
    assert Reference(Noise(), "train", n=1000).n == 40


def test_the_other_split_is_a_reference_too():
    real = Reference(Noise(), "train", Linear(), n=11)
    test = real.of("test")
    assert test.n == 11
    assert test.of("train") is real
    assert test.extractor is real.extractor
    assert not torch.equal(test.features(), real.features())


def test_features_that_are_not_finite_are_refused():
    broken = Linear()
    broken.matrix[0, 0] = torch.nan
    with pytest.raises(UserError, match="extractor linear gives features of noise that are not finite"):
        Reference(Noise(), "train", broken).moments()


def test_the_checksum_is_of_content():
    assert Noise().checksum("train") == Noise().checksum("train")
    assert len({Noise(seed).checksum(split) for seed in (0, 5) for split in ("train", "test")}) == 4
