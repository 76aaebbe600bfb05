"""Streams of batches: which samples, in which order, from wherever they lie."""

import io
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import get_worker_info

from gan_runner import distributed
from gan_runner.datasets import Gaussians25, ImageFolder, Resident, Samples, Streamed, decoded, folder, stream, to_float
from gan_runner.datasets.batches import Order
from gan_runner.errors import Failed, UserError
from gan_runner.game import Batch
from gan_runner.storage import cache as cached

N = 23  # no multiple of any batch size below


def numbered(n: int = N) -> Samples:
    """Images whose left pixel says which sample they are, and whose right pixel is 255; so does the label."""
    x = torch.zeros(n, 1, 2, 2, dtype=torch.uint8)
    x[:, 0, :, 0] = torch.arange(n, dtype=torch.uint8)[:, None]
    x[:, 0, :, 1] = 255
    return Samples(x, torch.arange(n))


def read(batches: Any, count: int) -> list[Batch]:
    """So many batches, one a round."""
    made = []
    for _ in range(count):
        batches.prepare()
        made.append(Batch(*next(batches)))
    return made


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(s.x, t.x) and torch.equal(s.y, t.y) for s, t in zip(a, b))  # type: ignore[arg-type]


def labels(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.y for batch in batches])  # type: ignore[misc]


def paths(workers: int = 0, **settings: Any) -> tuple[Resident, Streamed]:
    settings = {"batch_size": 10, "seed": 3, "flip": True} | settings
    return Resident(numbered(), **settings), Streamed(numbered(), workers=workers, **settings)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 10, 60])  # 60 lies across four epochs
def test_both_paths_give_the_same_batches(workers: int, batch_size: int) -> None:
    resident, streamed = paths(workers, batch_size=batch_size)
    assert equal(read(resident, 12), read(streamed, 12))
    assert resident.state_dict() == streamed.state_dict() == {"position": 12 * batch_size, "samples": N}
    streamed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle_of_an_epoch_is_exact(workers: int) -> None:
    whole, _ = paths()
    expected = read(whole, 20)
    state = {"position": 70, "samples": N}
    for batches in paths(workers):
        read(batches, 2)  # whatever it has read and prefetched is forgotten
        batches.load_state_dict(state)
        assert equal(read(batches, 13), expected[7:])
        batches.load_state_dict({"position": 0, "samples": batches.order.n})
        assert equal(read(batches, 3), expected[:3])
        batches.close()


def test_every_sample_is_seen_once_an_epoch_and_epochs_differ() -> None:
    seen = labels(read(paths()[0], 23)).view(-1, N)  # 23 batches of 10 are 10 epochs
    assert all(torch.equal(epoch.sort().values, torch.arange(N)) for epoch in seen)
    assert len({tuple(epoch.tolist()) for epoch in seen}) == len(seen)


def test_seeds_give_different_orders() -> None:
    orders = {tuple(Order(N, seed, flip=False).epoch(0)[0].tolist()) for seed in range(20)}
    assert len(orders) == 20


def test_a_long_run_stays_in_step_with_its_order() -> None:
    """The rows of the ring in which epochs lie are used again and again."""
    batches, order = paths()[0], Order(N, 3, flip=True)
    for step, batch in enumerate(read(batches, 200 * N // 10)):
        assert torch.equal(batch.y, order.read(10 * step, 10 * step + 10)[0])  # type: ignore[arg-type]
    assert batches.position > 2 * batches.indices.numel()


def test_a_round_may_read_more_than_lies_ahead() -> None:
    few, many = (Resident(numbered(), 10, seed=3, ahead=ahead) for ahead in (1, 64))
    assert equal([Batch(*next(few)) for _ in range(40)], [Batch(*next(many)) for _ in range(40)])


@pytest.mark.parametrize("kind", [Resident, Streamed])
def test_two_processes_share_the_batch_of_one(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(kind(numbered(), 10, seed=3, flip=True), 8)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(read(kind(numbered(), 10, seed=3, flip=True), 8))
    assert equal(whole, [Batch(*map(torch.cat, zip(*pair))) for pair in zip(*shares)])
    with pytest.raises(ValueError, match="batch_size=11"):
        kind(numbered(), 11)


def test_images_come_as_numbers_and_mirrored_half_of_the_times() -> None:
    samples = numbered()
    x, y = map(torch.cat, zip(*read(paths()[0], 400)))
    plain = to_float(samples.x)[y]
    mirrored = (x != plain).flatten(1).any(1)
    assert torch.equal(x, torch.where(mirrored[:, None, None, None], plain.flip(-1), plain))
    assert x.dtype == torch.float32
    assert 0.46 < mirrored.float().mean() < 0.54  # 5 standard deviations of 4,000 draws
    assert torch.equal(read(paths(flip=False)[0], 1)[0].x, to_float(samples.x)[read(paths(flip=False)[0], 1)[0].y])


def test_points_are_left_as_they_are() -> None:
    points = Gaussians25(n=50, seed=1)
    samples = points.load("train")
    for dataset_mb in (4096, 0):
        points.resident_mb = dataset_mb
        batch = read(stream(points, "train", 50, 0, "cpu"), 1)[0]
        assert torch.equal(batch.x[batch.y.argsort(stable=True)].sort(0).values, samples.x[samples.y.argsort(stable=True)].sort(0).values)  # type: ignore[union-attr]


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_own_generator_is_left_alone(workers: int) -> None:
    before = torch.get_rng_state()
    for batches in paths(workers):
        read(batches, 5)
        batches.close()
    assert torch.equal(before, torch.get_rng_state())


class NoHostRead(TorchDispatchMode):
    """Refuses what waits for the device or depends on values; keeps the list of operations."""

    forbidden = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "randperm", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.forbidden, f"{name} in a round"
        self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_a_resident_batch_asks_the_device_nothing_and_is_the_same_operations_every_time() -> None:
    batches, lists = paths()[0], []
    for _ in range(8):
        batches.prepare()
        with NoHostRead() as watch:
            _ = [batch.x for batch in (next(batches), next(batches))]
        lists.append(watch.seen)
    assert lists[0]
    assert all(seen == lists[0] for seen in lists)


def test_a_batch_that_nobody_looks_at_is_counted_and_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, batches = read(paths()[0], 4), paths()[0]
    gathered = []
    monkeypatch.setattr(Resident, "read", lambda self, offset, plain=Resident.read: gathered.append(offset) or plain(self, offset))
    batches.prepare()
    _, second, _, fourth = (next(batches) for _ in range(4))
    assert torch.equal(fourth.x, expected[3].x)
    assert torch.equal(second.x, expected[1].x)
    assert gathered == [30, 10]
    assert batches.position == 40


def test_a_batch_is_not_read_in_another_round() -> None:
    batches = paths()[0]
    batches.prepare()
    late, kept = next(batches), next(batches)
    x = kept.x
    batches.prepare()
    with pytest.raises(RuntimeError, match="in the round that gave it"):
        _ = late.x
    assert kept.x is x


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_resident_batch_goes_on_reading() -> None:
    expected, batches = read(paths(device="cuda")[0], 30), paths(device="cuda")[0]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    batches.prepare()
    with torch.cuda.graph(graph):
        batch = Batch(*next(batches))
    batches.position = 0
    for want in expected:
        batches.prepare()
        graph.replay()
        batches.position += 10
        assert torch.equal(batch.x, want.x)
        assert torch.equal(batch.y, want.y)  # type: ignore[arg-type]


def test_memory_for_the_order_is_bounded() -> None:
    large = Resident(Samples(torch.zeros(50_000, 1)), 64)
    assert large.epochs == 2
    tiny = Resident(Samples(torch.zeros(3, 1)), 64)
    assert tiny.indices.numel() <= 64 * 64 + 2 * 3


def picture_folder(folder: Path, n: int = 12) -> Path:
    noise = np.random.default_rng(0)
    for i in range(n):
        (folder / f"class{i % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (11, 9, 3), np.uint8)).save(folder / f"class{i % 3}" / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(made))
    return made


def test_neither_the_budget_nor_what_is_kept_changes_a_batch(tmp_path: Path) -> None:
    made = []
    picture_folder(tmp_path)
    for megabytes, kept, kind in ((1, False, Resident), (1, True, Resident), (0, False, Streamed), (0, True, Streamed)):
        settings = {"resident_mb": megabytes, "keep_decoded": kept, "workers": 1}
        batches = stream(ImageFolder(str(tmp_path), 8, flip=True, test_fraction=0.0, **settings), "train", 5, 7, "cpu")
        assert type(batches) is kind
        made.append(read(batches, 9))
        batches.close()
    assert all(equal(made[0], other) for other in made[1:])


def test_an_image_is_decoded_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three arrays of five, five and two images. A lost or damaged one is made again, and no other; a file that changes is seen."""
    monkeypatch.setattr(decoded, "SHARD", 5 * 3 * 8 * 8)
    asked: list[Path] = []
    decode = folder.decode
    monkeypatch.setattr(folder, "decode", lambda path, *rest: asked.append(path) or decode(path, *rest))
    dataset, told = ImageFolder(str(picture_folder(tmp_path)), 8, test_fraction=0.0), []

    def images() -> tuple[int, torch.Tensor]:
        asked.clear()
        items = dataset.at_hand("train", lambda *words: told.append(words))
        return len(asked), items.take(torch.arange(len(items)))[0]

    n, first = images()
    assert n == 12
    assert told == [("decoding images", done, 12) for done in (5, 10, 12)]
    n, again = images()
    assert n == 0
    assert torch.equal(first, again)
    one, _, three = sorted(cache.rglob("*.npy"))
    one.unlink()
    three.write_bytes(three.read_bytes()[:-1])
    n, again = images()
    assert n == 5 + 2
    assert torch.equal(first, again)
    changed = tmp_path / "class0" / "0.png"
    Image.fromarray(np.full((11, 9, 3), 7, np.uint8)).save(changed)
    n, again = images()
    assert n == 12
    assert (again[0] == 7).all()
    assert torch.equal(first[1:], again[1:])
    assert not list(cache.rglob("*.part"))


def test_where_the_cache_takes_nothing_images_are_decoded_anew(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    (cache / "decoded").write_text("a file where the folder should be")
    dataset = ImageFolder(str(picture_folder(tmp_path)), 8, test_fraction=0.0)
    items = dataset.at_hand("train")
    assert equal([Batch(*items.take(torch.arange(12)))], [Batch(*dataset.open("train").take(torch.arange(12)))])
    assert "not kept" in caplog.text


def test_test_images_are_not_mirrored(tmp_path: Path) -> None:
    dataset = ImageFolder(str(picture_folder(tmp_path)), 8, flip=True, test_fraction=0.5)
    assert not stream(dataset, "test", 2, 0, "cpu").order.flip
    assert stream(dataset, "train", 2, 0, "cpu").order.flip


@pytest.mark.parametrize(("workers", "kept"), [(0, False), (1, False), (0, True)])
def test_a_broken_file_is_named_without_the_workers_traceback(tmp_path: Path, workers: int, kept: bool) -> None:
    broken = picture_folder(tmp_path) / "class0" / "0.png"
    broken.write_bytes(broken.read_bytes()[:80])
    dataset = ImageFolder(str(tmp_path), 8, test_fraction=0.0, resident_mb=0, workers=workers, keep_decoded=kept)
    with pytest.raises(UserError) as error:
        read(stream(dataset, "train", 12, 0, "cpu"), 1)
    assert str(broken) in str(error.value)
    assert "Traceback" not in str(error.value)


def test_workers_outlive_a_ctrl_c_and_leave_when_closed() -> None:
    streamed = paths(workers=2)[1]
    read(streamed, 2)  # one from each, so that both have come up
    workers = streamed._batches._workers  # type: ignore[union-attr]
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert equal(read(streamed, 12), read(paths()[0], 14)[2:])
    streamed.close()
    assert not any(worker.is_alive() for worker in workers)


def test_without_shared_memory_batches_come_through_pipes_and_one_message_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(tensor: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(Tensor, "share_memory_", refuse)  # in the workers, too: they are forks of this process
    resident, streamed = paths(workers=2)
    with caplog.at_level("WARNING", "gan_runner.notice"):
        assert equal(read(streamed, 12), read(resident, 12))
    streamed.close()
    [said] = caplog.messages
    assert "/dev/shm has no room for 2 workers with 4 batches" in said
    assert "--shm-size=1g" in said
    assert "dataset.workers=0" in said


class Doing(Samples):
    """Samples whose reading does something else in a worker."""

    act: Any = staticmethod(lambda: time.sleep(1000))

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        if get_worker_info() is not None:
            self.act()
        return super().take(indices)


def test_a_worker_that_is_killed_ends_the_run_with_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doing, "act", lambda self: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(Failed, match="a worker that reads the data was killed: is the memory or /dev/shm full"):
        read(Streamed(Doing(numbered().x, numbered().y), 10, workers=1), 1)


@pytest.mark.slow
def test_who_waits_for_data_looks_up_and_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(Exception):
        pass

    def leave() -> None:
        raise Left

    streamed = Streamed(Doing(numbered().x, numbered().y), 10, workers=1)
    streamed.waiting = leave
    began = time.monotonic()
    with pytest.raises(Left):
        streamed.prepare()
    assert streamed.position == 0  # the round has not begun
    assert not multiprocessing.active_children()
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_time_out_of_the_disk_is_none_of_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise TimeoutError("the disk does not answer")

    monkeypatch.setattr(Doing, "act", refuse)
    with pytest.raises(TimeoutError, match="the disk does not answer"):
        read(Streamed(Doing(numbered().x, numbered().y), 10, workers=1), 1)


def test_a_state_of_other_data_is_refused():
    state = Resident(numbered(), 5).state_dict()
    with pytest.raises(UserError, match="23 training samples when the run began, 20 now"):
        Resident(numbered(20), 5).load_state_dict(state)


def flip(path: Path, place: int) -> None:
    """Change one bit of a file, which keeps its size."""
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def array_of(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    """Another array, with a right checksum."""
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype))
    cached.write(path, file.getvalue())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, 1234),
        lambda path: flip(path, 30),
        lambda path: flip(path, -3),
        lambda path: path.write_bytes(path.read_bytes()[:-16]),
        lambda path: path.write_bytes(path.read_bytes()[:5]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: array_of(path, np.int8, (12, 3, 8, 8)),
        lambda path: array_of(path, np.uint8, (12, 3, 4, 16)),
    ],
    ids=["pixel", "header", "checksum", "no checksum", "cut", "empty", "longer", "other type", "other shape"],
)
def test_damaged_decoded_images_are_found_and_decoded_again(
    tmp_path: Path, cache: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = ImageFolder(str(picture_folder(tmp_path)), 8, test_fraction=0.0)
    want = dataset.load("train").x
    assert torch.equal(dataset.at_hand("train").take(torch.arange(12))[0], want)
    [path] = cache.rglob("*.npy")
    damage(path)
    assert torch.equal(dataset.at_hand("train").take(torch.arange(12))[0], want)
    [said] = caplog.messages
    assert str(path) in said
    assert "decoded again" in said
    caplog.clear()
    dataset.at_hand("train")
    assert not caplog.messages


@pytest.mark.parametrize("workers", [0, 1])
def test_decoded_images_that_change_while_they_are_in_use_are_not_trained_on(tmp_path: Path, cache: Path, workers: int) -> None:
    dataset = ImageFolder(str(picture_folder(tmp_path)), 8, test_fraction=0.0, resident_mb=0, workers=workers)
    batches = stream(dataset, "train", 12, 0, "cpu")
    [path] = cache.rglob("*.npy")
    flip(path, 1234)
    with pytest.raises(UserError, match=f"{path} has changed while it was in use"):
        read(batches, 1)
    batches.close()


def test_two_processes_may_fill_the_cache_at_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second fills everything while the first decodes its first array."""
    monkeypatch.setattr(decoded, "SHARD", 5 * 3 * 8 * 8)
    picture_folder(tmp_path)
    want, decode, others = ImageFolder(str(tmp_path), 8, test_fraction=0.0).load("train").x, folder.decode, []

    def interrupted(*words: Any) -> Tensor:
        if not others:
            others.append(None)
            with monkeypatch.context() as patch:
                patch.setattr(folder, "decode", decode)
                patch.setattr(os, "getpid", lambda: 1)  # the name of a part has it
                others.append(ImageFolder(str(tmp_path), 8, test_fraction=0.0).at_hand("train"))
        return decode(*words)

    monkeypatch.setattr(folder, "decode", interrupted)
    items = [ImageFolder(str(tmp_path), 8, test_fraction=0.0).at_hand("train"), others[1]]
    assert all(torch.equal(each.take(torch.arange(12))[0], want) for each in items)
    assert not list(cache.rglob("*.part"))


def test_what_decoding_depends_on_is_part_of_the_key(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_folder(tmp_path)
    for settings in ({}, {"background": "black"}, {"channels": 1}):
        ImageFolder(str(tmp_path), 8, test_fraction=0.0, **settings).at_hand("train")
    monkeypatch.setattr(decoded, "VERSION", decoded.VERSION + 1)
    ImageFolder(str(tmp_path), 8, test_fraction=0.0).at_hand("train")
    assert len(list(cache.rglob("*.npy"))) == 4
