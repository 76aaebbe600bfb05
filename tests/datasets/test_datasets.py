"""Data sets: exact densities, files that are there, missing or damaged, folders of images, pictures."""

import gzip
import hashlib
import inspect
import io
import math
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
import torchvision.transforms.v2
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

import gan_runner.datasets
from gan_runner.datasets import (
    CIFAR10,
    LGQ,
    MNIST,
    Dataset,
    FashionMNIST,
    Gaussians25,
    ImageFolder,
    Points,
    Ring8,
    Samples,
    Spec,
    SwissRoll,
    to_float,
    to_uint8,
)
from gan_runner.datasets.archives import md5_is, verify
from gan_runner.datasets.cifar import FOLDER, MD5, arrays
from gan_runner.datasets.images import resize
from gan_runner.datasets.mnist import SHAPES, has_shape, idx
from gan_runner.datasets.pictures import scatter
from gan_runner.errors import Failed, UserError
from gan_runner.game.kind import GAP, grid

POINTS = [Gaussians25, Ring8, SwissRoll]
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "dataset").glob("*.yaml"))


def test_all_levels_survive_the_way_to_float_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_float(levels).aminmax() == (-1, 1)
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


# ---- points -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), [(Gaussians25, 0.012), (Ring8, 0.01), (SwissRoll, 0.03)])
def test_density_integrates_to_one(kind: type[Points], step: float) -> None:
    axis = torch.arange(-2.3, 2.3, step, dtype=torch.float64)
    assert kind().spec.exact.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * step**2 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("kind", "nats"), [(Gaussians25, 2.0139), (Ring8, 3.5996)])
def test_mean_log_density_is_the_negative_entropy(kind: type[Points], nats: float) -> None:
    """Modes are far apart: -H = -log M - log(2 pi e sigma^2)."""
    exact, points = kind().spec.exact, kind(n=200_000).load("test").x
    assert -math.log(len(exact.modes)) - math.log(2 * math.pi * math.e * exact.sigma**2) == pytest.approx(nats, abs=1e-4)
    assert exact.log_prob(points).mean() == pytest.approx(nats, abs=0.011)  # 5 standard errors


@pytest.mark.parametrize(("kind", "std"), [(Gaussians25, (1.0004, 1.0004)), (SwissRoll, (0.884, 0.927))])
def test_standard_deviations(kind: type[Points], std: tuple[float, float]) -> None:
    assert kind(n=300_000).load("train").x.std(0).tolist() == pytest.approx(std, abs=0.004)


def test_swiss_roll_is_known_exactly() -> None:
    """Against sums over a far finer curve, near it, far away, and beyond its ends."""
    exact, generator = SwissRoll().spec.exact, torch.Generator().manual_seed(0)
    x = torch.cat([4 * torch.rand(40, 2, generator=generator, dtype=torch.float64) - 2, torch.tensor([[9.0, -9.0], [0, 0]])])
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, 400_001, dtype=torch.float64)
    weight = torch.full_like(t, 1 / (len(t) - 1))
    weight[[0, -1]] /= 2
    curve = torch.stack([t * t.cos(), t * t.sin()], 1) / 7.5
    for point in x:
        distance = (curve - point).norm(dim=1)
        fine = torch.logsumexp(weight.log() - distance.square() / (2 * exact.sigma**2), 0) - math.log(2 * math.pi * exact.sigma**2)
        assert exact.log_prob(point[None]).item() == pytest.approx(fine.item(), abs=1e-3)
        assert exact.log_prob(point[None].float()).item() == pytest.approx(fine.item(), rel=1e-5, abs=1e-3)
        assert exact.support_distance(point[None]).item() == pytest.approx(distance.min().item(), abs=2e-5)


def test_swiss_roll_points_lie_about_the_curve() -> None:
    exact = SwissRoll().spec.exact
    distance = exact.support_distance(SwissRoll(n=20_000).load("train").x)
    assert distance.square().mean().sqrt() == pytest.approx(exact.sigma, rel=0.025)  # the noise across the curve has one dimension


@pytest.mark.parametrize("kind", [Gaussians25, Ring8])
def test_labels_name_the_mode(kind: type[Points]) -> None:
    exact, (x, y) = kind().spec.exact, vars(kind(n=800).load("train")).values()
    assert torch.equal(torch.cdist(x, exact.modes).argmin(1), y)
    assert torch.bincount(y).unique().tolist() == [800 // kind().spec.classes]
    assert exact.support_distance(x).max() < 6 * exact.sigma


@pytest.mark.parametrize("kind", POINTS)
def test_splits_and_seeds_are_independent_and_repeatable(kind: type[Points]) -> None:
    draws = [kind(n=99, seed=seed).load(split).x for seed in (0, 1) for split in ("train", "test")]
    assert all(not torch.equal(draws[i], draws[j]) for i in range(4) for j in range(i))
    assert torch.equal(kind(n=99).load("test").x, draws[1])
    assert not torch.equal(torch.randn(99, 2, generator=torch.Generator().manual_seed(0)), (draws[0] - draws[0].mean()))
    assert draws[0].dtype == torch.float32


# ---- pictures ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", POINTS)
def test_scatter_shows_samples_over_the_real_distribution(kind: type[Points]) -> None:
    dataset = kind(n=2000)
    nothing, some = dataset.picture(torch.empty(0, 2)), dataset.picture(dataset.load("test").x[:500])
    assert nothing.dtype == torch.uint8
    assert nothing.shape == some.shape == (3, 600, 600)
    orange = (nothing[0].int() - nothing[2].int() > 20).float().mean()
    assert 0.001 < orange < 0.5
    assert (some != nothing).any()


def test_scatter_survives_samples_that_are_not_finite_and_knows_nothing_exact() -> None:
    points = torch.tensor([[math.nan, 0], [math.inf, 1], [99.0, 0], [0, 0]])
    assert scatter(points, torch.randn(50, 2)).shape == (3, 600, 600)


def test_numbers_are_a_histogram_beside_that_of_the_real_ones() -> None:
    """Blue where samples are, orange where only real ones are; what is outside or not finite is counted in the title."""
    dataset = LGQ([0.0], [1.0])  # at -1 and 1
    nothing, some = (dataset.picture(torch.tensor(numbers)[:, None]) for numbers in ([99.0], [-1.0, -1.0, math.nan, math.inf]))
    assert nothing.dtype == torch.uint8
    assert nothing.shape == some.shape == (3, 600, 600)
    left, right = (some[:, 60:500, half].int() for half in (slice(60, 300), slice(300, 590)))
    assert (left[2] - left[0] > 20).any()
    assert not (right[2] - right[0] > 20).any()
    assert (right[0] - right[2] > 20).any()
    assert dataset.picture(torch.empty(0, 1)).shape == (3, 600, 600)


def test_grid_lays_images_row_by_row() -> None:
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 3, 4) * 10
    made = grid(images, columns=2)
    assert made.shape == (3, 3 * (3 + GAP) + GAP, 2 * (4 + GAP) + GAP)
    for i in range(5):
        top, left = i // 2 * (3 + GAP) + GAP, i % 2 * (4 + GAP) + GAP
        assert (made[:, top : top + 3, left : left + 4] == 10 * i).all()
        made[:, top : top + 3, left : left + 4] = 255
    assert (made == 255).all()


def test_grid_lays_transparent_images_on_white() -> None:
    image = torch.zeros(1, 4, 1, 2, dtype=torch.uint8)
    image[0, 3, 0, 0] = 255
    assert grid(image)[0, GAP, GAP : GAP + 2].tolist() == [0, 255]
    with pytest.raises(ValueError, match="not 2"):
        grid(image[:, :2])


@pytest.mark.parametrize(("side", "scale", "times"), [(3, 4, 4), (28, "auto", 3), (32, "auto", 2), (64, "auto", 1), (65, "auto", 1)])
def test_a_grid_is_enlarged_by_repeating_pixels(side: int, scale: int | str, times: int) -> None:
    images = torch.randint(256, (3, 3, side, side), dtype=torch.uint8)
    made = grid(images, 2, scale)  # type: ignore[arg-type]
    large = times * side
    assert made.shape == (3, 2 * (large + GAP) + GAP, 2 * (large + GAP) + GAP)
    for number, image in enumerate(images):
        top, left = (GAP + place * (large + GAP) for place in divmod(number, 2))
        there = made[:, top : top + large, left : left + large]
        assert torch.equal(there, torch.kron(image, torch.ones(times, times, dtype=torch.uint8)))


def test_an_interpolation_of_points_is_drawn_as_curves() -> None:
    ring = Ring8(n=2000)
    ends = torch.tensor([[-1.0, 0.5], [1.0, 0.5]])
    dots, curve = (ring.picture(ends, 2, joined=joined).int() for joined in (False, True))
    blue = (curve[2] - curve[0] > 100) & (dots[2] - dots[0] < 100)
    rows, across = blue[:500].nonzero().T  # above the legend
    assert across.max() - across.min() > 300
    assert rows.float().std() < 4  # one straight line
    once, twice = (
        ring.picture(ends.repeat(2, 1) * sign, 2, joined=True) for sign in (1, torch.tensor([[1.0, 1], [1, 1], [1, -1], [1, -1]]))
    )
    assert not torch.equal(once, twice)  # each row of columns is a curve of its own


def test_a_scatter_plot_says_its_round() -> None:
    ring = Ring8(n=2000)
    first, same, other = (ring.picture(torch.zeros(1, 2), title=f"round {n}") for n in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_data_set_is_drawn_by_a_picture_that_takes_fewer_keywords() -> None:
    class Own(Ring8):
        def picture(self, samples: Tensor, columns: int = 8) -> Tensor:  # type: ignore[override]
            return torch.full((3, 1, 1), columns, dtype=torch.uint8)

    class Titled(Ring8):
        def picture(self, samples: Tensor, columns: int = 8, *, title: str = "", **rest: object) -> Tensor:
            assert rest == {"scale": 2}
            return torch.full((3, 1, 1), len(title), dtype=torch.uint8)

    drawn = [dataset.drawn(torch.zeros(1, 2), 5, scale=2, title="abc") for dataset in (Own(), Titled())]
    assert [int(each.max()) for each in drawn] == [5, 3]


def test_a_users_data_set_needs_spec_and_load_only() -> None:
    class Square(Dataset):
        spec = Spec((2,))

        def load(self, split: str) -> Samples:
            return Samples(torch.rand(100, 2))

    square = Square()
    square.prepare()
    assert len(square.open("train")) == 100
    assert square.picture(torch.rand(10, 2)).shape == (3, 600, 600)


# ---- files ------------------------------------------------------------------------------------------------------------------------------


def published_cifar(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Six tiny batches take the place of the published ones; returns the archive that holds them."""
    content = io.BytesIO()
    checks = {}
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            batch = {"data": np.full((4, 3072), i, np.uint8), "labels": [0, 1, 2, i]}
            data = pickle.dumps(batch, protocol=3).replace(b"numpy._core", b"numpy.core")  # as the published ones say
            checks[f"cifar-10-batches-py/{name}"] = md5_is(hashlib.md5(data).hexdigest())
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(CIFAR10, "checks", checks)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(content.getvalue()).hexdigest())
    return content.getvalue()


def network(monkeypatch: pytest.MonkeyPatch, archive: bytes | Exception) -> list[str]:
    """The network gives this archive, or this error; returns the list of what is asked of it."""
    asked = []

    def download_and_extract_archive(url: str, download_root: str, filename: str, md5: str) -> None:
        asked.append(url)
        Path(download_root, filename).write_bytes(archive[:99] if isinstance(archive, bytes) else b"half a file")
        if not isinstance(archive, bytes):
            raise archive
        Path(download_root, filename).write_bytes(archive)
        torchvision.datasets.utils.extract_archive(str(Path(download_root, filename)), download_root)

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", download_and_extract_archive)
    return asked


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_missing_data_set_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = network(monkeypatch, published_cifar(monkeypatch))
    dataset = CIFAR10(str(tmp_path / "new"), resolution=16)
    for _ in range(2):
        dataset.prepare()
    assert len(asked) == 1
    assert files(tmp_path / "new") == ["cifar-10-batches-py", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    train, test = dataset.load("train"), dataset.load("test")
    assert train.x.shape == (20, *dataset.spec.shape) == (20, 3, 16, 16)
    assert train.x[:, 0, 0, 0].tolist() == [i for i in range(5) for _ in range(4)]
    assert test.y.tolist() == [0, 1, 2, 5]  # type: ignore[union-attr]


def test_only_what_is_missing_is_put_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(monkeypatch, published_cifar(monkeypatch))
    CIFAR10(str(tmp_path)).prepare()
    kept, lost = (tmp_path / "cifar-10-batches-py" / name for name in ("data_batch_1", "data_batch_2"))
    before = kept.stat()
    lost.unlink()
    CIFAR10(str(tmp_path)).prepare()
    assert kept.stat() == before
    assert lost.is_file()


def test_without_network_one_message_says_which_files_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(monkeypatch, URLError("no network"))
    with pytest.raises(UserError) as error:
        CIFAR10(str(tmp_path / "a" / "b")).prepare()
    for part in (
        str(tmp_path / "a" / "b"),
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "data_batch_5",
        "GAN_RUNNER_DATA",
    ):
        assert part in str(error.value)
    assert files(tmp_path) == []
    for kind in (MNIST, FashionMNIST):
        with pytest.raises(UserError) as error:
            kind(str(tmp_path)).prepare()
        for part in (str(tmp_path / kind.__name__ / "raw"), *SHAPES, *(f"{name}.gz" for name in SHAPES)):
            assert part in str(error.value)
    assert files(tmp_path) == []


def test_a_root_that_cannot_be_made_is_the_users_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="GAN_RUNNER_DATA"):
        MNIST(str(tmp_path / "file" / "data")).prepare()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConnectionResetError("gone"), OSError(28, "No space left on device")])
def test_an_interrupted_download_leaves_nothing_that_is_taken_for_the_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = published_cifar(monkeypatch)
    network(monkeypatch, error)  # type: ignore[arg-type]
    expected = {OSError: Failed, ConnectionResetError: UserError}.get(type(error), type(error))
    with pytest.raises(expected):
        CIFAR10(str(tmp_path)).prepare()
    assert files(tmp_path) == []
    network(monkeypatch, archive)
    assert len(CIFAR10(str(tmp_path)).load("train")) == 20


def test_an_archive_that_lies_there_is_unpacked_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = published_cifar(monkeypatch)
    asked = network(monkeypatch, URLError("no network"))
    place = tmp_path / "cifar-10-python.tar.gz"
    place.write_bytes(archive[:-50])
    with pytest.raises(UserError, match=f"{place} is damaged"):
        CIFAR10(str(tmp_path)).prepare()
    place.write_bytes(archive)
    assert len(CIFAR10(str(tmp_path)).load("test")) == 4
    assert asked == []


def test_a_damaged_file_is_named_with_both_checksums_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = network(monkeypatch, published_cifar(monkeypatch))
    CIFAR10(str(tmp_path)).prepare()
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    expected = hashlib.md5(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes() + b"x")
    found = hashlib.md5(path.read_bytes()).hexdigest()
    for call in (CIFAR10(str(tmp_path)).prepare, lambda: CIFAR10(str(tmp_path)).load("test")):
        with pytest.raises(UserError, match=f"{path} is damaged: expected md5 {expected}, found md5 {found}; delete it"):
            call()
    assert len(asked) == 1
    assert path.is_file()


def test_a_file_is_read_through_once_unless_it_changes(tmp_path: Path) -> None:
    path, reads = tmp_path / "file", []
    path.write_bytes(b"a")

    def check(path: Path) -> tuple[str, str]:
        reads.append(path)
        return md5_is(hashlib.md5(b"a").hexdigest())(path)

    verify(path, check)
    verify(path, check)
    assert len(reads) == 1
    path.write_bytes(b"bb")
    with pytest.raises(UserError, match="damaged"):
        verify(path, check)


def test_our_checksums_are_those_of_torchvision() -> None:
    published = torchvision.datasets.CIFAR10
    assert MD5.items() == {(name, md5) for name, md5 in published.train_list + published.test_list}
    assert published.base_folder == FOLDER
    for kind in (MNIST, FashionMNIST):
        names = {name for archive in kind("x").archives() for name in archive.members}
        assert names == kind.checks.keys() == SHAPES.keys()


def test_no_pickle_is_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (tmp_path / "exploded").write_text, ("",)

    for i, content in enumerate((Bomb(), {"data": Bomb()}, print, np.float64(1))):
        path = tmp_path / str(i)
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=str(path)):
            arrays(path)
    assert not (tmp_path / "exploded").exists()


def idx_file(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(header + array.tobytes())


def tiny_idx(folder: Path) -> dict[str, np.ndarray]:
    """The four files with 5 and 3 images, and what is in them."""
    made = {}
    for name, shape in SHAPES.items():
        made[name] = np.random.default_rng(0).integers(0, 9, (5 if "train" in name else 3, *shape[1:]), np.uint8)
        idx_file(folder / name, made[name])
    return made


def test_idx_files_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_idx(tmp_path / "FashionMNIST" / "raw")
    monkeypatch.setattr(FashionMNIST, "checks", {name: has_shape(array.shape) for name, array in made.items()})
    test = FashionMNIST(str(tmp_path)).load("test")
    assert torch.equal(test.x, torch.from_numpy(made["t10k-images-idx3-ubyte"])[:, None])
    assert test.y.tolist() == made["t10k-labels-idx1-ubyte"].tolist()  # type: ignore[union-attr]
    assert test.y.dtype == torch.int64  # type: ignore[union-attr]
    wide = FashionMNIST(str(tmp_path), resolution=32)
    assert wide.load("train").x.shape == (5, *wide.spec.shape) == (5, 1, 32, 32)


def test_compressed_files_that_lie_there_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    made = tiny_idx(folder)
    resources = []
    for name in made:
        packed = gzip.compress((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    monkeypatch.setattr(FashionMNIST, "checks", {name: has_shape(array.shape) for name, array in made.items()})
    assert len(FashionMNIST(str(tmp_path)).load("train")) == 5


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\x01" + b[1:], lambda b: b[:5], lambda b: b""])
def test_an_idx_file_of_the_wrong_shape_is_damaged(change: Any, tmp_path: Path) -> None:
    path, array = tmp_path / "file", np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx_file(path, array)
    verify(path, has_shape((2, 3, 4)))
    assert torch.equal(idx(path), torch.from_numpy(array))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=re.escape("expected the header (2051, 2, 3, 4) and 40 bytes, found the header")):
        verify(path, has_shape((2, 3, 4)))


def test_mnist_checks_the_published_checksums(tmp_path: Path) -> None:
    tiny_idx(tmp_path / "MNIST" / "raw")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is damaged: expected md5 6bbc9ace898e44ae57da46a324031adb"):
        MNIST(str(tmp_path)).prepare()


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("kind", "mean", "std", "sizes"),
    [
        (CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), [5000] * 10),
        (MNIST, (0.1307,), (0.3081,), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
    ],
)
def test_real_data_have_the_published_statistics(kind: Any, mean: Any, std: Any, sizes: list[int], real_data: Path) -> None:
    dataset = kind(str(real_data))
    dataset.prepare()
    train, test = dataset.load("train"), dataset.load("test")
    assert train.x.shape == (sum(sizes), *dataset.spec.shape)
    assert train.x.dtype == torch.uint8
    assert len(test) == 10_000
    level = torch.arange(256, dtype=torch.float64) / 255
    share = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in train.x.unbind(1)]).double()
    share /= share.sum(1, keepdim=True)
    assert (share @ level).tolist() == pytest.approx(mean, abs=1e-4)
    assert (share @ level**2 - (share @ level) ** 2).sqrt().tolist() == pytest.approx(std, abs=1e-4)
    assert torch.bincount(train.y).tolist() == sizes


# ---- folders of images ------------------------------------------------------------------------------------------------------------------


def save(path: Path, pixels: Any = None, size: tuple[int, int] = (10, 12), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.random.default_rng(abs(hash(path.name)) % 1000).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_class_folders_give_labels_and_a_flat_folder_none(tmp_path: Path) -> None:
    for i in range(9):
        save(tmp_path / "classes" / "cab"[i % 3] / "deeper" / f"{i}.png")
        save(tmp_path / "flat" / f"{i}.JPG")
        save(tmp_path / "alone" / "photos" / f"{i}.webp")
    (tmp_path / "classes" / ".thumbnails").mkdir()
    (tmp_path / "classes" / ".thumbnails" / "x.png").write_text("no image")
    (tmp_path / "flat" / "readme.txt").write_text("no image")
    classes = ImageFolder(str(tmp_path / "classes"), 8, test_fraction=0.0)
    assert classes.class_names == ("a", "b", "c")
    assert classes.spec == Spec((3, 8, 8), 3, class_names=("a", "b", "c"))
    assert classes.load("train").y.tolist() == [0] * 3 + [1] * 3 + [2] * 3  # type: ignore[union-attr]
    for name in ("flat", "alone"):
        folder = ImageFolder(str(tmp_path / name), 8, test_fraction=0.0)
        assert folder.spec.classes is None
        assert folder.load("train").y is None
        assert len(folder.load("train")) == 9


def test_splits_are_stable_when_files_are_added(tmp_path: Path) -> None:
    def split(seed: int = 0) -> dict[str, set[str]]:
        dataset = ImageFolder(str(tmp_path), 8, test_fraction=0.3, split_seed=seed)
        return {name: {path.name for path in dataset.open(name).paths} for name in ("train", "test")}  # type: ignore[arg-type,attr-defined]

    for i in range(300):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    before = split()
    assert not before["train"] & before["test"]
    assert 60 <= len(before["test"]) <= 120  # 90, 4 standard deviations
    assert split(1) != before
    for i in range(300, 400):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    after = split()
    assert before["train"] <= after["train"]
    assert before["test"] <= after["test"]
    assert len(after["train"] | after["test"]) == 400


def test_folders_train_and_test_are_the_splits(tmp_path: Path) -> None:
    for name, count in (("train", 4), ("test", 2)):
        for i in range(count):
            save(tmp_path / name / "xy"[i % 2] / f"{i}.png")
    dataset = ImageFolder(str(tmp_path), 8)
    assert (len(dataset.load("train")), len(dataset.load("test"))) == (4, 2)
    assert dataset.class_names == ("x", "y")
    assert dataset.load("test").y.tolist() == [0, 1]  # type: ignore[union-attr]


def test_the_middle_is_cut_out_whatever_the_size(tmp_path: Path) -> None:
    """A wide image and a tall one whose middle square is green and whose ends are red."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[..., 0] = 255
    wide[:, 20:40] = (0, 255, 0)
    save(tmp_path / "0_wide.png", wide)
    save(tmp_path / "1_tall.png", wide.transpose(1, 0, 2))
    save(tmp_path / "2_small.png", wide[:2, 18:42])
    save(tmp_path / "3_turned.jpg", wide, exif=turned(), quality=95)
    x = ImageFolder(str(tmp_path), 10, test_fraction=0.0).load("train").x
    assert x.shape == (4, 3, 10, 10)
    middle = x[:, :, 2:8, 2:8].int()
    assert (middle[:, 0] < 30).all()
    assert (middle[:, 1] > 220).all()
    assert x[0, 0].max() < 128  # only the blur of the cut


def turned() -> Any:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("size", [(7, 7), (20, 33), (50, 9)])
def test_resize_is_torchvisions(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = torchvision.transforms.v2.functional.resize(images, [12], antialias=True)
    made = resize(images, 12)
    assert made.shape == expected.shape
    assert (made.int() - expected.int()).abs().max() <= 1  # torchvision rounds another way where the CPU is old


def test_channels(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, 77
    save(tmp_path / "a.png", rgba)
    by_channels = {c: ImageFolder(str(tmp_path), 8, channels=c, test_fraction=0.0).load("train").x[0, :, 3, 3] for c in (1, 3, 4)}  # type: ignore[arg-type]
    assert by_channels[4].tolist() == [200, 0, 0, 77]
    assert by_channels[3].tolist() == [238, 178, 178]  # on white
    assert by_channels[1].tolist() == [196]  # ITU-R 601: 0.299 red
    (tmp_path / "a.png").unlink()
    save(tmp_path / "deep.png", np.full((8, 8), 0x8123, np.uint16))
    assert (ImageFolder(str(tmp_path), 8, channels=1, test_fraction=0.0).load("train").x == 0x81).all()  # 128.6, rounded


def test_loaded_and_opened_are_the_same(tmp_path: Path) -> None:
    for i in range(7):
        save(tmp_path / "ab"[i % 2] / f"{i}.jpg", size=(9 + i, 20 - i))
    dataset = ImageFolder(str(tmp_path), 8, test_fraction=0.0)
    loaded, opened = dataset.load("train"), dataset.open("train")
    assert loaded.nbytes == opened.nbytes
    for i in range(len(opened)):
        assert torch.equal(loaded[i][0], opened[i][0])
        assert loaded[i][1] == opened[i][1]
    for a, b in zip(loaded.take(torch.tensor([5, 0, 5])), opened.take(torch.tensor([5, 0, 5]))):
        assert isinstance(a, Tensor)
        assert torch.equal(a, b)  # type: ignore[arg-type]


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    def message(**settings: Any) -> str:
        dataset = ImageFolder(str(tmp_path / "x"), 8, **settings)
        with pytest.raises(UserError) as error:
            [dataset.load(split) for split in ("train", "test")]
        return str(error.value)

    assert "is not a folder" in message()
    (tmp_path / "x").mkdir()
    assert "no image" in message()
    broken = save(tmp_path / "x" / "broken.png")
    assert "test split" in message(test_fraction=0.0)
    broken.write_bytes(broken.read_bytes()[:60])
    assert str(broken) in message(test_fraction=0.0)
    save(tmp_path / "x" / "class" / "a.png")
    assert "both images and folders" in message()


# ---- configs ----------------------------------------------------------------------------------------------------------------------------


def test_a_constructor_touches_no_file() -> None:
    nowhere = "/nowhere/at/all"
    assert [kind(nowhere).spec[:3] for kind in (CIFAR10, MNIST, FashionMNIST)] == [
        Spec((3, 32, 32), 10)[:3],
        Spec((1, 28, 28), 10)[:3],
        Spec((1, 28, 28), 10)[:3],
    ]
    assert MNIST(nowhere).spec.class_names == tuple("0123456789")
    assert FashionMNIST(nowhere).spec.class_names == tuple(torchvision.datasets.FashionMNIST.classes)
    assert CIFAR10(nowhere).spec.class_names[::9] == ("airplane", "truck")
    folder = ImageFolder(nowhere, 8)
    assert folder.picture(torch.zeros(3, 3, 8, 8)).shape[0] == 3  # nor does a picture of images


@pytest.mark.slow
def test_torchvision_is_not_imported_where_it_is_not_needed(tmp_path: Path) -> None:
    """It takes seconds, in every process."""
    save(tmp_path / "a.png")
    code = f"""
import sys
from gan_runner.datasets import Gaussians25, ImageFolder
ImageFolder({str(tmp_path)!r}, 8, test_fraction=0.0).load("train")
Gaussians25().load("train")
print(sorted(sys.modules.keys() & {{"torchvision", "matplotlib", "scipy"}}))
"""
    source = Path(gan_runner.datasets.__file__).parents[2]
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(source)}
    )
    assert made.stdout.strip() == "[]"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_shows_every_key_of_its_class_and_says_what_it_means(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAN_RUNNER_DATA", "somewhere")
    config = OmegaConf.load(path)
    kind = getattr(gan_runner.datasets, config._target_.rpartition(".")[2])
    assert issubclass(kind, Dataset)
    assert set(config) == {"_target_", *inspect.signature(kind).parameters} - {"own_packages"}
    for line in path.read_text().splitlines():
        assert line.startswith(("#", "_target_")) or "  # " in line
    if "root" in config:
        assert config.root == "somewhere"
        monkeypatch.delenv("GAN_RUNNER_DATA")
        assert OmegaConf.load(path).root == "data"
    settings = {key: config[key] for key in map(str, config) if key not in ("_target_", "path", "root", "run")}
    for key, value in settings.items():
        default = inspect.signature(kind).parameters[key].default
        assert default in (value, inspect.Parameter.empty)


def test_there_is_a_config_for_every_data_set() -> None:
    assert len(CONFIGS) == 13
