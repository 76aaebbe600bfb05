"""Images packed in one file: the same as in a folder, and nothing of a stranger's file is believed."""

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from gan_runner import cli
from gan_runner.config import composer
from gan_runner.datasets import ImageFolder, Packed, Stored, stream, tables, zips
from gan_runner.errors import UserError
from gan_runner.lifecycle import runs

SMALL = ["dataset.resolution=16", "trainer.steps=2", "batch_size=6", "architecture.generator.width=4", "callback.grid.n=4"]
SMALL += ["architecture.discriminator.width=4", "trainer.accelerator=cpu", "~callback.evaluate", "dataset.workers=0"]
RNG = np.random.default_rng(0)
SIZES = [(5, 4), (9, 12), (8, 8), (20, 11), (7, 16), (8, 9)]
IMAGES = [RNG.integers(256, size=(*SIZES[i % 6], 3), dtype=np.uint8) for i in range(24)]
CLASSES = ("cat", "dog", "owl")
NAMES = [f"{CLASSES[i // 8]}/{i:02d}.png" for i in range(24)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


BYTES = dict(zip(NAMES, map(encoded, IMAGES)))


def as_folder(path, files=BYTES):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def as_zip(path, files=BYTES, below="", **more):
    with zipfile.ZipFile(path, "w", **more) as archive:
        for name, data in files.items():
            archive.writestr(below + name, data)
    return path


def table(files=BYTES, labels="text", paths=True, names=CLASSES):
    pa = pytest.importorskip("pyarrow")
    images = [{"bytes": data, "path": name if paths else None} for name, data in files.items()]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {"image": pa.array(images, kind)}
    of = [name.split("/")[0] for name in files]
    if labels == "text":
        columns["label"] = pa.array(of)
    elif labels:
        columns["label"] = pa.array([CLASSES.index(each) for each in of])
    made = pa.table(columns)
    if labels == "named":
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return made


def as_parquet(path, made=None, rows=5, **more):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(table() if made is None else made, path, row_group_size=rows, **more)
    return path


def as_arrow(path, made=None, kind="file", rows=5):
    pa = pytest.importorskip("pyarrow")
    made = table() if made is None else made
    with getattr(pa.ipc, f"new_{kind}")(path, made.schema) as writer:
        writer.write_table(made, max_chunksize=rows)
    return path


MAKERS = {
    "zip": lambda path: as_zip(path / "x.zip"),
    "zip of a folder": lambda path: as_zip(path / "x.zip", below="photos/"),
    "deflated zip": lambda path: as_zip(path / "x.zip", compression=zipfile.ZIP_DEFLATED),
    "parquet": lambda path: as_parquet(path / "x.parquet", table()),
    "parquet of one group": lambda path: as_parquet(path / "x.parquet", table(), rows=100, compression="zstd"),
    "parquet with names": lambda path: as_parquet(path / "x.parquet", table(labels="named")),
    "arrow": lambda path: as_arrow(path / "x.arrow", table()),
    "arrow stream": lambda path: as_arrow(path / "x.arrow", table(labels="named"), "stream"),
}


# ---- the same as a folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("fraction", [0.0, 0.4])
def test_packed_images_are_those_of_a_folder_bit_for_bit(tmp_path, maker, fraction):
    folder = ImageFolder(str(as_folder(tmp_path / "folder")), 8, test_fraction=fraction)
    packed = Packed(str(MAKERS[maker](tmp_path)), 8, test_fraction=fraction)
    assert packed.spec == folder.spec
    assert packed.class_names == CLASSES
    for split in ("train", "test") if fraction else ("train",):
        one, other = folder.load(split), packed.load(split)
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
        assert folder.checksum(split) == packed.checksum(split)
        assert torch.equal(packed.at_hand(split).take(torch.arange(len(other)))[0], one.x)
        assert packed.fingerprint(split, packed.open(split)) == packed.fingerprint(split, packed.open(split))
    if fraction:
        assert len(packed.open("test")) > 2


def test_the_fingerprint_of_a_zip_is_that_of_its_folder(tmp_path):
    folder, packed = ImageFolder(str(as_folder(tmp_path / "folder")), 8), Packed(str(as_zip(tmp_path / "x.zip", below="a/")), 8)
    assert folder.fingerprint("train", None) == packed.fingerprint("train", None)


def test_other_labels_of_a_table_are_other_data(tmp_path):
    mine = [Packed(str(as_parquet(tmp_path / f"{i}.parquet", table(labels="named", names=n))), 8) for i, n in enumerate([CLASSES, "abc"])]
    marks = [data.fingerprint("train", data.open("train")) for data in mine]
    assert marks[0] != marks[1]


def test_splits_of_a_zip_are_its_folders(tmp_path):
    files = {f"{split}/{name}": data for split in ("train", "val") for name, data in BYTES.items()}
    for below in ("", "photos/"):
        data = Packed(str(as_zip(tmp_path / "x.zip", files, below)), 8)
        assert [len(data.open(split)) for split in ("train", "test")] == [24, 24]
        assert data.class_names == CLASSES
    assert "24 for training (train/) and 24 for testing (val/)" in data.summary()


def test_what_is_left_out_of_a_zip_is_said(tmp_path):
    path = as_zip(tmp_path / "x.zip", BYTES | {"__MACOSX/cat/._00.png": b"x", "cat/.hidden.png": b"x", "cat/notes.txt": b"x"})
    assert Packed(str(path), 8).summary().endswith("left out: 2 hidden, 1 .txt")


def test_numbers_without_names_stay_numbers(tmp_path):
    path = as_parquet(tmp_path / "x.parquet", table(labels="numbers"))
    for data in (Packed(str(path), 8), Stored(str(path), 8)):
        assert data.spec.classes == 3
        assert data.spec.class_names is None
        y = data.load("train").y
        assert set(y.tolist()) == {0, 1, 2}
    assert data.load("train").y.tolist() == [i // 8 for i in range(24)]


def test_labels_are_left_out_where_nobody_wants_them(tmp_path):
    path = str(as_parquet(tmp_path / "x.parquet"))
    assert Packed(path, 8, label=None).load("train").y is None
    assert Packed(path, 8, label=None).spec.classes is None


def test_rows_without_paths_are_split_by_their_numbers(tmp_path):
    data = Packed(str(as_parquet(tmp_path / "x.parquet", table(paths=False))), 8, test_fraction=0.4)
    assert "chosen by a hash of their row numbers" in data.summary()
    assert len(data.open("train")) + len(data.open("test")) == 24


@pytest.mark.parametrize("maker", ["zip", "parquet", "arrow"])
def test_workers_open_the_file_themselves(tmp_path, maker):
    """Both are the same batches: from the memory, and from two processes that read the file at once."""
    path = str(MAKERS[maker](tmp_path))
    seen = []
    for more in ({}, {"resident_mb": 0, "workers": 2}):
        data = Packed(path, 8, test_fraction=0, keep_decoded=False, **more)
        data.prepare()  # opened here before the workers are forked
        data.load("train")
        batches = stream(data, "train", 7, 0, "cpu")
        batches.prepare()
        seen.append([torch.cat([next(batches).x for _ in range(9)])])
        batches.close()
    assert torch.equal(seen[0][0], seen[1][0])


@pytest.mark.parametrize("kind", [Packed, Stored])
def test_rows_that_are_stored_together_are_unpacked_once_a_batch(tmp_path, kind, monkeypatch):
    items = kind(str(as_parquet(tmp_path / "x.parquet", table(dict.fromkeys(NAMES, BYTES[NAMES[2]])))), *[8][: kind is Packed])
    items = items.open("train")
    read, before = [], tables.Table.read_group
    monkeypatch.setattr(tables.Table, "read_group", lambda self, number: read.append(number) or before(self, number))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
    y = items.take(order)[1]
    assert len(read) <= 5
    assert torch.equal(y, items.labels[order])


def test_a_file_that_changes_in_use_is_told(tmp_path):
    import pickle

    path = as_zip(tmp_path / "x.zip")
    items = pickle.loads(pickle.dumps(Packed(str(path), 8).open("train")))
    assert torch.equal(items[0][0], Packed(str(path), 8).open("train")[0][0])
    items = pickle.loads(pickle.dumps(items))
    as_zip(path, dict(list(BYTES.items())[:20]))
    with pytest.raises(UserError, match="has changed while it was in use"):
        items[0]


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["zip", "parquet"])
def test_training_resumes_bit_for_bit(tmp_path, maker, monkeypatch):
    words = ["+experiment=dcgan_image_folder", "dataset=packed", f"dataset.path={MAKERS[maker](tmp_path)}", "dataset.resolution=16"]
    words += ["dataset.flip=true", "batch_size=6", "architecture.generator.width=4", "architecture.discriminator.width=4"]
    words += ["callback.grid.n=4", "trainer.accelerator=cpu", "dataset.resident_mb=0", "dataset.workers=1", "~callback.evaluate"]
    words += ["optimizer.generator.lr=1e-3", "optimizer.discriminator.lr=1e-3"]
    runs.train(composer.compose([*words, "trainer.steps=6"]).config, tmp_path / "long")
    runs.train(composer.compose([*words, "trainer.steps=3"]).config, tmp_path / "short")
    runs.resume(tmp_path / "short", ["trainer.steps=6"])
    states = [torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["game"] for name in ("long", "short")]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]) if isinstance(value, torch.Tensor) else True, key


@pytest.fixture
def gan_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["gan-train", "+experiment=dcgan_image_folder", *words, *SMALL])
        return cli.train(), capsys.readouterr().err

    return command


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["zip", "parquet"])
def test_a_run_on_other_images_or_labels_is_not_resumed(tmp_path, maker, gan_train):
    path = MAKERS[maker](tmp_path)
    words = ["dataset=packed", f"dataset.path={path}", "dataset.test_fraction=0", "hydra.run.dir=run"]
    assert gan_train(*words)[0] == 0
    other = BYTES | {NAMES[2]: BYTES[NAMES[3]]}
    as_zip(path, other) if maker == "zip" else as_parquet(path, table(other))
    monkey = ["resume=run", "trainer.steps=3"]
    code, said = resumed(*monkey)
    assert code == 2
    assert "other contents in 1 of 24 that are compared: cat/02.png" in said
    other = {name.replace("cat/03", "dog/03"): data for name, data in BYTES.items()}
    as_zip(path, other) if maker == "zip" else as_parquet(path, table(other))
    code, said = resumed(*monkey)
    assert code == 2
    assert "gone: cat/03.png; new: dog/03.png" in said
    MAKERS[maker](tmp_path)
    assert resumed(*monkey)[0] == 0


def resumed(*words):
    """(exit code, stderr) of gan-train, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", "from gan_runner.cli import train; exit(train())", *words], capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=packed", "dataset.path=bad.zip"], "bad.zip is refused: ../x.png is a name that leads out of the zip"),
        (
            ["dataset=packed", "dataset.path=folder"],
            "(.zip, .arrow, .parquet); dataset=image_folder reads a folder",
        ),
        (["dataset=image_folder", "dataset.path=good.zip"], "dataset.path=good.zip is not a folder; dataset=packed reads such a file"),
        (["dataset=packed", "dataset.path=good.zip", "dataset.column=x"], "dataset.column=x: good.zip is a zip, which has no columns"),
        (["dataset=packed", "dataset.path=good.zip", "dataset.colum=x"], "unknown key dataset.colum"),
    ],
)
def test_gan_train_refuses_it_in_one_line_and_creates_nothing(tmp_path, gan_train, words, said):
    as_zip(tmp_path / "bad.zip", {"../x.png": b"x"})
    as_zip(tmp_path / "good.zip")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, err = gan_train(*words)
    assert code == 2
    assert said in err
    assert len([line for line in err.splitlines() if ": note: " not in line]) == 1
    assert sorted(tmp_path.rglob("*")) == before


# ---- what is refused ----------------------------------------------------------------------------------------------------------------


def link(path):
    info = zipfile.ZipInfo("cat/x.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")


def pipe(path):
    info = zipfile.ZipInfo("cat/x.png")
    info.external_attr = (stat.S_IFIFO | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, b"")


def twice(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", BYTES[NAMES[0]])
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", BYTES[NAMES[1]])


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.bmp", "w") as file:
        for _ in range(65):
            file.write(bytes(2**20))


def many_small_bombs(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i}.bmp", bytes(2**25))


def overlapping(path):
    """Two names for the same bytes of the file."""
    as_zip(path, {"aa.png": BYTES[NAMES[0]], "bb.png": BYTES[NAMES[1]]})
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)


def flagged(path):
    as_zip(path, {"a.png": BYTES[NAMES[0]]})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def crowded(path):
    """A directory that says it has the size of five million members; it is not read."""
    with path.open("wb") as file:
        file.truncate(2**28)
        file.seek(0, os.SEEK_END)
        file.write(b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + (46 * 5_000_000).to_bytes(4, "little") + bytes(4) + bytes(2))


def cut(path):
    as_zip(path)
    path.write_bytes(path.read_bytes()[:-30])


BAD_ZIPS = {
    "a link": (link, "cat/x.png is a link"),
    "a pipe": (pipe, "cat/x.png is no plain file"),
    "up": (lambda path: as_zip(path, {"cat/../../x.png": b"x"}), "is a name that leads out of the zip"),
    "up, of Windows": (lambda path: as_zip(path, {"..\\x.png": b"x"}), "is a name that leads out of the zip"),
    "absolute": (lambda path: as_zip(path, {"/etc/x.png": b"x"}), "/etc/x.png is an absolute path"),
    "a drive": (lambda path: as_zip(path, {"C:/x.png": b"x"}), "C:/x.png is an absolute path"),
    "no path": (lambda path: as_zip(path, {"a//x.png": b"x"}), "a//x.png is a name that is no path"),
    "nested": (lambda path: as_zip(path, BYTES | {"more.zip": b"x"}), "more.zip is packed itself"),
    "nested tar": (lambda path: as_zip(path, BYTES | {"cat/more.tar.gz": b"x"}), "cat/more.tar.gz is packed itself"),
    "two of a name": (twice, "a.png is a second member of its name"),
    "bomb": (bomb, "no image is packed so small"),
    "small bombs": (many_small_bombs, "images of 100,663,296 bytes in a zip of"),
    "another method": (
        lambda path: as_zip(path, BYTES, compression=zipfile.ZIP_BZIP2),
        "cat/00.png is packed by a method that is not read: only stored and deflated members are",
    ),
    "overlapping": (overlapping, "is stored within another member"),
    "encrypted": (flagged, "a.png is encrypted"),
    "crowded": (crowded, "has 5,000,000 members: at most 4,194,304 are read"),
    "cut": (cut, "cannot be read as a zip: File is not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a zip"),
    "no image": (lambda path: as_zip(path, {"a.txt": b"x"}), "there is no image in"),
    "empty image": (lambda path: as_zip(path, {"a.png": b""}), "has images that cannot be read: a.png (empty)"),
    "images and folders": (lambda path: as_zip(path, {"a.png": b"x", "b/c.png": b"x"}), "holds both images and folders of images"),
}


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_a_zip_that_is_unsafe_is_refused_in_one_line(tmp_path, name):
    maker, message = BAD_ZIPS[name]
    maker(tmp_path / "x.zip")
    before = sorted(tmp_path.rglob("*"))
    for see in (Packed(str(tmp_path / "x.zip"), 8).prepare, lambda: Stored(str(tmp_path / "x.zip")).open("train")):
        with pytest.raises(UserError) as caught:
            see()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_image_of_a_zip_that_cannot_be_read_is_named(tmp_path):
    path = as_zip(tmp_path / "x.zip", BYTES | {"cat/90.png": b"no image"})
    with pytest.raises(UserError, match=r"cannot decode the image .*x.zip/cat/90.png .*; replace or remove it"):
        Packed(str(path), 8, test_fraction=0).load("train")
    as_zip(path)
    data = bytearray(path.read_bytes())
    data[data.index(BYTES[NAMES[3]]) + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"cannot read .*x.zip/cat/03.png \(Bad CRC-32 .*; replace or remove it"):
        Packed(str(path), 8, test_fraction=0).load("train")


def test_no_more_is_unpacked_than_a_member_says(tmp_path):
    """16 MiB of zeros that are said to be 1,000 bytes: at most those are unpacked, and the sum of them is wrong."""
    path = as_zip(tmp_path / "x.zip", {"a.bmp": bytes(2**24)}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    for at in (22, data.index(b"PK\x01\x02") + 24):
        data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"cannot read .*x.zip/a.bmp \(Bad CRC-32"):
        Packed(str(path), 8, test_fraction=0).load("train")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def tables_that_are_refused():
    """Name -> (table, settings, message)."""
    pa = pytest.importorskip("pyarrow")
    good = table()
    n = len(good)
    two = good.append_column("mask", good["image"])
    nulls = pa.array([None if i == 17 else i % 3 for i in range(n)])
    return {
        "two columns": (two, {}, "has several columns of images: image, mask; choose one: dataset.column=image"),
        "no such column": (
            two,
            {"column": "imgae"},
            "dataset.column=imgae: .* has no such column (did you mean image?); it has image (struct",
        ),
        "no column of images": (two, {"column": "label"}, "dataset.column=label: no column of encoded images"),
        "no image": (
            good.select(["label"]),
            {},
            "has no column of images (encoded ones as binary, or structs of such bytes); it has label (string)",
        ),
        "no such label": (good, {"label": "lable"}, "dataset.label=lable: .* has no such column (did you mean label?)"),
        "no label": (good, {"label": "image"}, "dataset.label=image: expected text or whole numbers"),
        "a row without label": (
            good.set_column(1, "label", nulls),
            {},
            "row 17 of .* has no label; replace or remove it, or leave the labels out",
        ),
        "a negative label": (good.set_column(1, "label", pa.array([-1] * n)), {}, "row 0 of .* has the label -1: expected 0, 1, 2 ..."),
        "more labels than names": (table(labels="named", names="ab"), {}, "row 16 of .* has the label 2: expected 0 to 1, as 2 are named"),
        "no row": (good.slice(0, 0), {}, "it has no row"),
    }


@pytest.mark.parametrize("kind", [as_parquet, as_arrow])
@pytest.mark.parametrize(
    "name",
    ["two columns", "no such column", "no column of images", "no image", "no such label", "no label", "a row without label"]
    + ["a negative label", "more labels than names", "no row"],
)
def test_a_table_that_leaves_something_open_is_refused_in_one_line(tmp_path, kind, name):
    made, settings, message = tables_that_are_refused()[name]
    path = kind(tmp_path / f"x.{kind.__name__.removeprefix('as_')}", made)
    with pytest.raises(UserError) as caught:
        Packed(str(path), 8, **settings).prepare()
    for part in message.split(".*"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_column_is_chosen_by_its_name(tmp_path):
    made = table()
    path = as_parquet(tmp_path / "x.parquet", made.append_column("mask", made["image"].take(list(range(23, -1, -1)))))
    one, other = (Packed(str(path), 8, column=column, test_fraction=0).load("train").x for column in ("image", "mask"))
    assert torch.equal(one, other.flip(0))


@pytest.mark.parametrize("kind", [as_parquet, as_arrow])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "row 7 of {path} has no image; replace or remove it"),
        ({"bytes": None, "path": "cat/07.png"}, "row 7 of {path} has no image; replace or remove it"),
        ({"bytes": b"no image", "path": "cat/07.png"}, "cannot decode the image row 7 of {path}"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, kind, value, message):
    pa = pytest.importorskip("pyarrow")
    made = table()
    images = made["image"].to_pylist()
    images[7] = value
    path = kind(tmp_path / f"x.{kind.__name__.removeprefix('as_')}", made.set_column(0, "image", pa.array(images, made["image"].type)))
    with pytest.raises(UserError) as caught:
        Packed(str(path), 8, test_fraction=0).load("train")
    assert message.format(path=path) in str(caught.value)


@pytest.mark.parametrize("maker", ["parquet", "arrow", "arrow stream"])
def test_a_damaged_table_is_refused_or_read(tmp_path, maker):
    """Wherever it is damaged: one message, or the images."""
    pytest.importorskip("pyarrow")
    path = MAKERS[maker](tmp_path)
    whole = path.read_bytes()
    for at in np.random.default_rng(1).integers(len(whole), size=40).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(UserError):
            Packed(str(path), 8, test_fraction=0).load("train")
    for part in (b"", whole[:10], whole[:-20], b"PAR1" * 10, b"ARROW1" * 10):
        path.write_bytes(part)
        with pytest.raises(UserError):
            Packed(str(path), 8, test_fraction=0).load("train")


def test_without_pyarrow_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"needs pyarrow, which is not installed: pip install pyarrow"):
        Packed(str(tmp_path / "x.parquet"), 8).prepare()
    assert len(Packed(str(as_zip(tmp_path / "x.zip")), 8, test_fraction=0).load("train")) == 24


@pytest.mark.slow
def test_a_zip_is_read_without_importing_pyarrow(tmp_path):
    code = "import sys; from gan_runner.datasets import Packed; Packed(sys.argv[1], 8).load('train'); assert 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(as_zip(tmp_path / "x.zip"))], check=True)


def test_what_is_no_packed_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.zip", as_folder(tmp_path / "folder") / NAMES[0]):
        with pytest.raises(UserError, match="is not a file of packed images"):
            Packed(str(path), 8).prepare()


def test_an_archive_with_zip64_says_its_members(tmp_path):
    path = as_zip(tmp_path / "x.zip")
    with path.open("rb") as file:
        assert 24 <= zips.members_said(file, path.stat().st_size) < 60
