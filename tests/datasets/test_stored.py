"""Images from any source, as they are."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from gan_runner.datasets import stored
from gan_runner.datasets.stored import Stored
from gan_runner.errors import UserError

PIXELS = np.random.default_rng(0).integers(256, size=(6, 5, 4, 3), dtype=np.uint8)  # N H W C


def folder(path, pixels=PIXELS, suffix="png", names=None):
    for i, image in enumerate(pixels):
        file = path / (names[i] if names else ".") / f"{i}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return path


def everything(path, split="train"):
    return Stored(str(path)).load(split)


def test_a_folder_of_pictures_is_read_as_it_is(tmp_path):
    data = Stored(str(folder(tmp_path)))
    assert data.spec.shape == (3, 5, 4)
    assert data.spec.classes is None
    assert np.array_equal(data.load("train").x.permute(0, 2, 3, 1), PIXELS)
    assert not data.lossy


def test_class_folders_are_labels(tmp_path):
    samples = everything(folder(tmp_path, names=["a", "b", "a", "b", "b", "a"]))
    assert samples.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert Stored(str(tmp_path)).spec.classes == 2


def test_one_set_is_one_split(tmp_path):
    data = Stored(str(folder(tmp_path)))
    assert len(data.open("test")) == 6
    with pytest.raises(UserError, match="is one set of samples, and a train split is asked for too"):
        data.open("train")
    for split, n in (("train", 4), ("test", 2)):
        folder(tmp_path / "both" / split, PIXELS[:n])
    both = Stored(str(tmp_path / "both"))
    assert [len(both.open(split)) for split in ("train", "test")] == [4, 2]


def test_lossy_pictures_are_told(tmp_path):
    assert Stored(str(folder(tmp_path, suffix="jpg"))).lossy


@pytest.mark.parametrize("key", ["samples", "images", "arr_0"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_arrays_of_any_layout(tmp_path, key, layout):
    x = {"NHWC": PIXELS, "NCHW": PIXELS.transpose(0, 3, 1, 2), "NHW": PIXELS[..., 0]}[layout]
    np.savez(tmp_path / "x.npz", **{key: x, "labels": np.arange(6)})
    samples = everything(tmp_path / "x.npz")
    want = PIXELS[..., :1] if layout == "NHW" else PIXELS
    assert np.array_equal(samples.x.permute(0, 2, 3, 1), want)
    assert samples.y.tolist() == list(range(6))


def test_points(tmp_path):
    np.savez(tmp_path / "x.npz", samples=np.ones((3, 2)))
    assert torch.equal(everything(tmp_path / "x.npz").x, torch.ones(3, 2))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"samples": PIXELS / 255}, r"array float64 of shape \(6, 5, 4, 3\): expected images as uint8"),
        ({"samples": PIXELS.astype(np.int64) - 1}, "array int64 of -1 to"),
        ({"samples": PIXELS.astype(np.int64) * 2}, "expected images of whole numbers 0 ... 255"),
        ({"samples": PIXELS[:, :3, :3].repeat(2, 1)[:, :3]}, r"shape \(6, 3, 3, 3\): the second axis may be the channels"),
        ({"samples": PIXELS[0]}, r"shape \(5, 4, 3\): it may be 5 grey images of 3x4, or one of 4x5 and 3 channels"),
        ({"samples": PIXELS[..., :2].repeat(3, 3)}, "images of 6 channels"),
        ({"samples": PIXELS[:0]}, "has no sample"),
        ({"pictures": PIXELS}, "none of the arrays samples, images, arr_0"),
        ({"samples": PIXELS, "labels": np.arange(5)}, r"labels int64 of shape \(5,\) for 6 samples"),
        ({"samples": PIXELS, "labels": np.ones(6)}, "labels float64"),
        ({"samples": PIXELS, "labels": np.arange(6) - 1}, "labels from -1 to 4: expected 0, 1, 2 ..."),
        (
            {"samples": PIXELS, "labels": np.arange(6), "class_names": np.array(["a", "b"])},
            "labels from 0 to 5: expected 0, 1, 2 ..., fewer than 2",
        ),
        (
            {"samples": PIXELS, "labels": np.arange(6) % 2, "class_names": np.array(["a", "a"])},
            "expected the different names of its classes",
        ),
        ({"samples": PIXELS, "labels": np.arange(6) % 2, "class_names": np.array([0, 1])}, "expected the different names of its classes"),
        ({"samples": PIXELS, "labels": np.arange(6) % 2, "class_names": np.array([{}, "b"], dtype=object)}, "cannot be read as arrays"),
        ({"samples": np.array([[np.inf, 0.0]])}, "not finite"),
        ({"samples": np.array([[np.nan, 0.0]])}, "not finite"),
        ({"samples": np.array([{}], dtype=object)}, "cannot be read as arrays"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message):
        everything(tmp_path / "x.npz")


def member(name, data, **more):
    """A .npz file with one member of these bytes."""

    def make(path):
        with zipfile.ZipFile(path, "w", **more) as archive:
            archive.writestr(name, data)

    return make


def npy(array, header=None):
    """The bytes of an array; `header`: what stands in the place of the header that it has."""
    buffer = io.BytesIO()
    if header is None:
        np.lib.format.write_array(buffer, array)
    else:
        text = f"{header}\n".encode()
        buffer.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes())
    return buffer.getvalue()


def said(shape, descr="'|u1'"):
    return npy(PIXELS, f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


def encrypted(path):
    member("samples.npy", npy(PIXELS))(path)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def altered(path):
    member("samples.npy", npy(PIXELS))(path)
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


def bomb(path):
    """64 MiB of zeros in 64 KiB, said to be six small images."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("samples.npy", "w") as file:
        file.write(npy(PIXELS))
        for _ in range(64):
            file.write(bytes(2**20))


def large(path):
    path.touch()
    os.truncate(path, 2**40)


MALFORMED = {
    "a terabyte that is not there": member("samples.npy", said((2**40, 1, 1, 1))),
    "more than there can be": member("samples.npy", said((2**70, 1, 1, 1))),
    "a negative shape": member("samples.npy", said((-6, -5, 4, 3))),
    "a shape that is no number": member("samples.npy", said("('a',)")),
    "a shape with nan": member("samples.npy", said("(float('nan'),)")),
    "objects": member("samples.npy", said((6,), "'|O'")),
    "a pickle": member("samples.npy", b"cos\nsystem\n(S'touch OWNED'\ntR."),
    "a header of code": member("samples.npy", npy(PIXELS, "__import__('os').system('touch OWNED')")),
    "another dtype": member("samples.npy", said((6, 5, 4, 3), "'<M8[s]'")),
    "fields": member("samples.npy", said((6,), "[('a', '|u1')]")),
    "nothing": member("samples.npy", b""),
    "version 9": member("samples.npy", b"\x93NUMPY\x09\x00" + bytes(99)),
    "cut": lambda path: path.write_bytes((np.savez(path, samples=PIXELS), path.read_bytes()[:200])[1]),
    "a number": lambda path: np.savez(path, samples=np.uint8(3)),
    "no pixel": lambda path: np.savez(path, samples=PIXELS[:, :0]),
    "too many dimensions": lambda path: np.savez(path, samples=PIXELS[None]),
    "labels below 0": lambda path: np.savez(path, samples=PIXELS, labels=np.arange(6) - 1),
    "labels without end": lambda path: np.savez(path, samples=PIXELS, labels=np.full(6, 2**63, dtype=np.uint64)),
    "one label for all": lambda path: np.savez(path, samples=PIXELS, labels=np.int64(3)),
    "too large for float32": lambda path: np.savez(path, samples=np.full((3, 2), 1e300)),
    "outside": member("../samples.npy", npy(PIXELS)),
    "a name that moves the cursor": member("samples\x1b[2J\r.npy", npy(PIXELS)),
    "another compression": member("samples.npy", npy(PIXELS)[:200], compression=zipfile.ZIP_LZMA),
    "no archive": lambda path: path.write_bytes(npy(PIXELS)),
    "an empty file": lambda path: path.touch(),
    "encrypted": encrypted,
    "altered": altered,
    "a bomb": bomb,
    "a terabyte of nothing": large,
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_of_arrays_is_refused_in_one_message(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    MALFORMED[name](tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"x\.npz (cannot be read|has) ") as caught:
        everything(tmp_path / "x.npz")
    assert str(caught.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_an_array_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", samples=np.zeros((100, 32, 32, 3), np.uint8))
    assert len(everything(tmp_path / "x.npz").x) == 100
    monkeypatch.setattr(stored, "memory", lambda: 2**18)
    with pytest.raises(UserError, match="more than fits into memory"):
        everything(tmp_path / "x.npz")


def test_files_that_are_no_samples_are_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be read as arrays"):
        everything(tmp_path / "x.npz")
    with pytest.raises(UserError, match="neither a folder of images nor a"):
        everything(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no image"):
        everything(tmp_path / "empty")
    (tmp_path / "empty" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot decode"):
        everything(tmp_path / "empty")


def test_pictures_of_several_sizes_are_refused(tmp_path):
    folder(tmp_path / "a", [PIXELS[0], PIXELS[1][:, :2]])
    with pytest.raises(UserError, match=r"1.png is 2x5 RGB, and .*0.png is 4x5 RGB: all images .* must have one size"):
        everything(tmp_path / "a")


def test_the_checksum_of_a_folder_is_of_its_content(tmp_path):
    a, b, c = (folder(tmp_path / name, pixels) for name, pixels in (("a", PIXELS), ("b", PIXELS), ("c", 255 - PIXELS)))
    sums = [Stored(str(path)).checksum("train") for path in (a, b, c)]
    assert sums[0] == sums[1] != sums[2]
