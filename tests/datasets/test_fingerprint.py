"""Fingerprints of data: equal for equal data wherever they are, and what is said of others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from games import images
from gan_runner.datasets import Dataset, Gaussians25, ImageFolder, Samples, Spec
from gan_runner.datasets import fingerprint as fp
from gan_runner.datasets.batches import stream
from gan_runner.storage import checkpoint

ROOT = Path(__file__).resolve().parents[2]


def memory(x, y=None):
    return fp.of_items(Samples(x, y))


def pixels(n=1500):
    return images(n)[1].x


def folder(path, n=12, colour=None, classes=1):
    """n pictures in a folder, PNG files of one size where their colours are random."""
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        where = path / f"class{i % classes}" if classes > 1 else path
        where.mkdir(parents=True, exist_ok=True)
        content = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8) if colour is None else torch.full((8, 8, 3), colour)
        Image.fromarray(content.to(torch.uint8).numpy()).save(where / f"{i:02d}.bmp")
    return path


def of(path, **kw):
    data = ImageFolder(str(path), 8, test_fraction=0.0, **kw)
    return data.fingerprint("train", data.open("train"))


# ---- in memory --------------------------------------------------------------------------------------------------------------------------


def test_equal_samples_have_equal_fingerprints_that_a_state_can_hold():
    x, y = pixels(), torch.arange(1500) % 10
    mark = memory(x, y)
    assert fp.differences(mark, memory(x.clone(), y)) == []
    assert fp.digest(mark) == fp.digest(memory(x.clone(), y))
    assert len(mark["items"]) == fp.CHOSEN
    checkpoint.refuse_objects(mark)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (torch.zeros_like(x), y), "other contents in 1000 of 1000 that are compared"),
        (lambda x, y: (x, y.flip(0)), "other labels in "),
        (lambda x, y: (x, None), "other labels in 1000 of 1000"),
        (lambda x, y: (x[:1400], y[:1400]), "1500 samples then, 1400 samples now"),
        (lambda x, y: (x.repeat(1, 3, 1, 1), y), "uint8 of shape 1x8x8 then, uint8 of shape 3x8x8 now"),
        (lambda x, y: (x.roll(1, 0), y), "other contents in 1000 of 1000"),
    ],
)
def test_other_samples_are_told_by_what_differs(change, said):
    x, y = pixels(), torch.arange(1500) % 10
    assert any(said in line for line in fp.differences(memory(x, y), memory(*change(x, y))))


def test_one_image_among_few_is_enough():
    x = pixels(40)
    other = x.clone()
    other[17, 0, 3, 3] ^= 1
    assert fp.differences(memory(x), memory(other)) == ["other contents in 1 of 40 that are compared: 17"]


def test_samples_that_were_appended_are_new_and_the_others_are_known():
    """Although the CHOSEN of the larger set are not those of the smaller one."""
    x = pixels(3000)
    count, new = fp.differences(memory(x[:2000]), memory(x))
    assert count == "2000 samples then, 3000 samples now"
    assert new.startswith("new: ")
    back = fp.differences(memory(x), memory(x[:2000]))
    assert back[1].startswith("gone: ")
    assert all(int(name) >= 2000 for name in new.removeprefix("new: ").partition(" and")[0].split(", "))


def test_points_are_compared_up_to_rounding_and_one_that_moved_is_found():
    x = Gaussians25(n=300).load("train").x
    assert fp.differences(memory(x), memory(x * (1 + 1e-6))) == []
    moved = x.clone()
    moved[200, 1] += 0.01
    assert fp.differences(memory(x), memory(moved)) == ["other contents in 1 of 300 that are compared: 200"]
    assert fp.differences(memory(x), memory(moved * float("nan"))) != []


def test_long_samples_that_are_floats_stay_small():
    mark = memory(torch.randn(50, 20_000, generator=torch.Generator().manual_seed(0)))
    assert mark["values"].untyped_storage().nbytes() <= 4 * fp.VALUES


@pytest.mark.slow
def test_points_of_another_kind_of_processor_are_the_same_data(tmp_path):
    """A random normal number differs in its last bit with the instructions that the processor has."""
    program = "import torch; from gan_runner.datasets import Gaussians25; from gan_runner.datasets.fingerprint import of_items; "
    program += "torch.save(of_items(Gaussians25(n=2000).load('train')), __import__('sys').argv[1])"
    marks = []
    for capability in ("default", "avx2"):
        path = tmp_path / f"{capability}.pt"
        env = os.environ | {"ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(ROOT / "src")}
        subprocess.run([sys.executable, "-c", program, str(path)], env=env, check=True)
        marks.append(torch.load(path, weights_only=True))
    assert fp.differences(*marks) == []


class Distorted:
    """Images that differ each time they are read."""

    labels, nbytes = None, 0

    def __len__(self):
        return 50

    def take(self, indices):
        return torch.randint(256, (len(indices), 1, 8, 8), dtype=torch.uint8), None


def test_samples_that_are_drawn_when_they_are_read_are_known_by_their_number():
    assert fp.differences(fp.of_items(Distorted()), fp.of_items(Distorted())) == []
    kept = memory(*Distorted().take(torch.arange(50)))  # in memory, where they are drawn once
    assert fp.differences(kept, fp.of_items(Distorted())) == []
    assert fp.differences(kept, memory(*Distorted().take(torch.arange(50))))


# ---- files ------------------------------------------------------------------------------------------------------------------------------


def test_the_same_files_elsewhere_are_the_same_data(tmp_path):
    a, b = folder(tmp_path / "a", classes=3), folder(tmp_path / "elsewhere" / "b", classes=3)
    assert fp.differences(of(a), of(b)) == []
    assert fp.differences(of(a), of(f"{b}/")) == []


def black(path):
    folder(path, colour=0)


def one(path):
    Image.new("RGB", (8, 8)).save(path / "03.bmp")


def swapped(path):
    a, b = path / "01.bmp", path / "02.bmp"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def renamed(path):
    (path / "05.bmp").rename(path / "x\x1b[2J.bmp")


def added(path):
    Image.new("RGB", (8, 8)).save(path / "new.bmp")


def removed(path):
    (path / "07.bmp").unlink()


CHANGES = {
    black: ["other contents in 12 of 12 that are compared: 00.bmp, 01.bmp, 02.bmp and 9 more"],
    one: ["other contents in 1 of 12 that are compared: 03.bmp"],
    swapped: ["other contents in 2 of 12 that are compared: 01.bmp, 02.bmp"],
    renamed: ["gone: 05.bmp", "new: x\N{REPLACEMENT CHARACTER}[2J.bmp"],
    added: ["12 samples then, 13 samples now", "new: new.bmp"],
    removed: ["12 samples then, 11 samples now", "gone: 07.bmp"],
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_other_files_are_told_by_their_names(tmp_path, change):
    before = of(folder(tmp_path))
    change(tmp_path)
    assert fp.differences(before, of(tmp_path)) == CHANGES[change]


def test_pictures_that_swap_their_classes_are_other_data(tmp_path):
    before = of(folder(tmp_path, classes=2))
    (tmp_path / "class0").rename(tmp_path / "x")
    (tmp_path / "class1").rename(tmp_path / "class0")
    (tmp_path / "x").rename(tmp_path / "class1")
    assert fp.differences(before, of(tmp_path))


def test_of_many_files_only_the_chosen_are_read_and_the_size_of_all_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(fp, "CHOSEN", 10)
    before = of(folder(tmp_path, n=60))
    read: list[Path] = []
    with monkeypatch.context() as patch:
        kept = Path.read_bytes
        patch.setattr(Path, "read_bytes", lambda path: read.append(path) or kept(path))
        assert of(tmp_path) == before
    assert sorted(path.name for path in read) == sorted(before["items"])
    other = next(path for path in sorted(tmp_path.iterdir()) if path.name not in before["items"])
    Image.new("RGB", (9, 9)).save(other)
    (said,) = fp.differences(before, of(tmp_path))
    assert "other names or sizes of files" in said


def test_the_stream_of_a_folder_has_the_fingerprint_of_its_files(tmp_path):
    data = ImageFolder(str(folder(tmp_path)), 8, test_fraction=0.0, resident_mb=0, workers=0)
    for kept in (True, False):
        data.keep_decoded = kept
        assert stream(data, "train", 4, 0, "cpu").fingerprint == of(tmp_path)


def test_a_folder_that_opens_something_of_its_own_has_the_fingerprint_of_its_files(tmp_path):
    class Inverted(ImageFolder):
        def open(self, split):
            x, y = (files := super().open(split)).take(torch.arange(len(files)))
            return Samples(255 - x, y)

    data = Inverted(str(folder(tmp_path)), 8, test_fraction=0.0, keep_decoded=False)
    assert stream(data, "train", 4, 0, "cpu").fingerprint == of(tmp_path)


def test_a_data_set_of_somebody_else_has_one_by_what_it_opens():
    class Mine(Dataset):
        spec = Spec((1, 8, 8), 20)

        def open(self, split):
            return Samples(pixels(20), torch.arange(20))

    assert stream(Mine(), "train", 4, 0, "cpu").fingerprint["samples"] == 20
