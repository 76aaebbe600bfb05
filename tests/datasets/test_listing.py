"""What counts as an image of a folder: once each, splits and classes told apart, and what is left out said."""

import os
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_runner.datasets import ImageFolder, Stored
from gan_runner.datasets.listing import Listing, listed
from gan_runner.errors import UserError


def put(root: Path, *names: str) -> Path:
    """Files that are no images yet, but have their names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode(errors="surrogateescape"))
    return root


def names_of(listing: Listing) -> list[str]:
    return [path.relative_to(listing.folder).as_posix() for files in listing.splits.values() for path, _ in files]


# ---- each file once ---------------------------------------------------------------------------------------------------------------------


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2.png", "b/3.png")
    for link, target in (("a/up", ".."), ("b/up", ".."), ("self", "."), ("a/deeper", "../a"), ("b/round", "round")):
        (tmp_path / link).symlink_to(target)
    listing = listed(tmp_path)
    assert names_of(listing) == ["a/1.png", "a/2.png", "b/3.png"]
    assert listing.class_names == ("a", "b")
    assert listing.left_out == {"linked to a folder that is counted already": 4, "linked to nothing": 1}


def test_a_file_counts_once_whatever_its_names(tmp_path: Path) -> None:
    """The name that is no link wins, though links come first in the alphabet; of two links or hard links, the first."""
    put(tmp_path / "data", "m/1.png", "m/2.png", "z/3.png")
    put(tmp_path / "outside", "4.png", "5.png")
    for link, target in (("a/1.png", "../m/1.png"), ("m/4.png", "../../outside/4.png"), ("z/4.png", "../../outside/4.png"), ("b", "m")):
        (tmp_path / "data" / link).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / link).symlink_to(target)
    os.link(tmp_path / "data" / "z" / "3.png", tmp_path / "data" / "m" / "3.png")
    listing = listed(tmp_path / "data")
    assert names_of(listing) == ["m/1.png", "m/2.png", "m/3.png", "m/4.png"]
    assert listing.left_out == {"second name of an image": 3, "linked to a folder that is counted already": 1}


def test_a_linked_folder_outside_is_followed_once_under_its_first_name(tmp_path: Path) -> None:
    put(tmp_path / "outside", "1.png", "deep/2.png")
    put(tmp_path / "data", "c/3.png")
    for link in ("b", "a"):
        (tmp_path / "data" / link).symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(tmp_path / "data")
    listing = listed(tmp_path / "data")
    assert names_of(listing) == ["a/1.png", "a/deep/2.png", "c/3.png"]
    assert listing.left_out == {"linked to a folder that is counted already": 2}


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_no_image_is_in_both_splits(tmp_path: Path, fraction: float) -> None:
    put(tmp_path, *(f"train/{i}.png" for i in range(40)), *(f"test/{i}.png" for i in range(40, 60)))
    for i in range(40):
        (tmp_path / "test" / f"copy{i}.png").symlink_to(f"../train/{i}.png")
    for root in (tmp_path, tmp_path / "test"):  # two splits by their folders; one by chance
        files = ImageFolder(str(root), 8, test_fraction=fraction or 0.1)._listing[1]
        inodes = [{path.stat().st_ino for path, _ in files[split]} for split in ("train", "test")]
        assert not inodes[0] & inodes[1]
        assert sum(map(len, inodes)) == sum(map(len, files.values())) == 60
    split = Stored(str(tmp_path))
    assert split._has_splits


def test_only_regular_files_are_images(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "link.png").symlink_to("pipe.png")
    with socket.socket(socket.AF_UNIX) as made:
        cwd = Path.cwd()
        os.chdir(tmp_path)  # its path may be too long for a socket
        try:
            made.bind("socket.png")
        finally:
            os.chdir(cwd)
    listing = listed(tmp_path)
    assert names_of(listing) == ["1.png"]
    assert listing.left_out == {"no regular file": 5}


def test_names_of_any_bytes_are_counted_and_shown(tmp_path: Path) -> None:
    put(tmp_path / "x\x1b[31m", "caf\udce9/1.png", "caf\udce9/2.png", "b\n/3.png")
    folder = ImageFolder(str(tmp_path / "x\x1b[31m"), 8, test_fraction=0.4)
    assert folder.class_names == ("b\n", "caf\udce9")
    assert len(folder.checksum("train")) == 64
    assert folder.summary().isprintable()
    folder.summary().encode()
    broken = put(tmp_path, "caf\udce9.png")
    for see in (lambda: ImageFolder(str(broken), 8, test_fraction=0.0).load("train"), lambda: Stored(str(broken)).load("train")):
        with pytest.raises(UserError) as error:
            see()
        assert str(error.value).isprintable()


def test_non_utf8_names_are_trained_on_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "data" / "x.png")
    (tmp_path / "data" / "x.png").rename(tmp_path / "data" / "caf\udce9.png")
    items = ImageFolder(str(tmp_path / "data"), 8, test_fraction=0.0).at_hand("train")
    assert type(items).__name__ == "Decoded"
    assert items[0][0].shape == (3, 8, 8)


# ---- what cannot be read ----------------------------------------------------------------------------------------------------------------


def test_images_that_cannot_be_read_are_named_before_anything_is_decoded(tmp_path: Path) -> None:
    put(tmp_path, "1.png", *(f"e{i}.png" for i in range(9)))
    for i in range(9):
        (tmp_path / f"e{i}.png").write_bytes(b"")
    (tmp_path / "d.png").symlink_to("/nowhere/at/all.png")
    for see in (ImageFolder(str(tmp_path), 8).prepare, Stored(str(tmp_path)).summary):
        with pytest.raises(UserError, match=r"d\.png \(a link to a file that is not there\), e0\.png .*, e8\.png \(empty\); replace"):
            see()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    with pytest.raises(UserError, match=r"cannot read the folder .*b: Permission denied"):
        listed(tmp_path)


def test_a_folder_that_vanishes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scandir("/nowhere" if str(path).endswith("b") else path))
    with pytest.raises(UserError, match=r"cannot read the folder .*b: No such file"):
        listed(tmp_path)


# ---- splits -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("test", ["test", "val", "valid", "Validation", "testing"])
def test_folders_of_splits_are_no_classes(tmp_path: Path, train: str, test: str) -> None:
    put(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{train}/b/3.png", f"{test}/a/4.png", f"{test}/b/5.png", "extra/6.png", "7.png")
    folder, stored = ImageFolder(str(tmp_path), 8), Stored(str(tmp_path))
    assert folder.class_names == stored.class_names == ("a", "b")
    assert {split: [path.name for path, _ in files] for split, files in folder._listing[1].items()} == {
        "train": ["1.png", "2.png", "3.png"],
        "test": ["4.png", "5.png"],
    }
    assert f"3 for training ({train}/) and 2 for testing ({test}/)" in folder.summary()
    assert "left out: 2 beside" in folder.summary()
    assert stored._has_splits


def test_test_comes_before_val(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "val/2.png", "test/3.png")
    assert names_of(listed(tmp_path)) == ["train/1.png", "test/3.png"]
    assert listed(tmp_path).left_out == {"beside test/ and train/": 1}


@pytest.mark.parametrize("names", [("train",), ("val",), ("test", "val"), ("Training",)])
def test_a_split_alone_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        put(tmp_path, f"{name}/cat/1.png", f"{name}/dog/2.png")
    lacking = "train" if "train" not in names[0].lower() else "test"
    for see in (ImageFolder(str(tmp_path), 8).prepare, Stored(str(tmp_path)).summary):
        with pytest.raises(UserError, match=f"and no folder {lacking}/: give {tmp_path}/{names[0]} itself"):
            see()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path, "bus/1.png", "train/2.png", "tram/3.png")
    assert ImageFolder(str(tmp_path), 8).class_names == ("bus", "train", "tram")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "test/readme.txt")
    with pytest.raises(UserError, match="no image for the test split; put some there"):
        ImageFolder(str(tmp_path), 8).load("test")
    with pytest.raises(UserError, match=f"no image in {tmp_path}/test"):
        Stored(str(tmp_path)).load("test")


def test_a_class_that_is_tested_and_not_trained_on_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png")
    with pytest.raises(UserError, match="classes with images in test/ and none in train/: c"):
        ImageFolder(str(tmp_path), 8).prepare()


def test_labels_of_both_splits_mean_the_same_class(tmp_path: Path) -> None:
    for i, name in enumerate(("train/a/1.png", "train/b/2.png", "train/c/3.png", "test/b/4.png", "test/c/5.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / name)
    for data in (ImageFolder(str(tmp_path), 8, 1), Stored(str(tmp_path))):
        assert data.load("test").y.tolist() == [1, 2]  # type: ignore[union-attr]
        assert data.class_names == ("a", "b", "c")
    assert "classes without a test image: a" in ImageFolder(str(tmp_path), 8).summary()


@pytest.mark.parametrize("seed", range(3))
def test_each_class_keeps_an_image_to_train_on(tmp_path: Path, seed: int) -> None:
    """128 classes of one to three images, half of them for testing."""
    put(tmp_path, *(f"{c:03d}/{i}.png" for c in range(128) for i in range(1 + c % 3)))
    files = ImageFolder(str(tmp_path), 8, test_fraction=0.5, split_seed=seed)._listing[1]
    assert {name for _, name in files["train"]} == {f"{c:03d}" for c in range(128)}
    assert 20 < len(files["test"]) < 128
    before = {path for path, _ in files["test"]}
    put(tmp_path, *(f"{c:03d}/{i}.png" for c in range(128) for i in range(10, 14)))
    after = {path for path, _ in ImageFolder(str(tmp_path), 8, test_fraction=0.5, split_seed=seed)._listing[1]["test"]}
    assert before <= after  # no image goes from the test split into the training split
    moved = Counter(path.parent for path, _ in files["train"] if path in after)
    assert max(moved.values()) == 1


# ---- classes ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".heic", ".avif", ".JPEG2000", ".jxl"])
@pytest.mark.parametrize("splits", [False, True])
def test_a_class_whose_images_are_of_an_unread_kind_is_refused(tmp_path: Path, suffix: str, splits: bool) -> None:
    put(tmp_path, *(f"{top}{name}" for top in (("train/", "test/") if splits else ("",)) for name in ("cat/1.png", f"dog/deep/2{suffix}")))
    for see in (ImageFolder(str(tmp_path), 8).prepare, Stored(str(tmp_path)).summary):
        with pytest.raises(UserError, match=rf"of a kind that is not read: .*dog/ \({suffix.lower()}\).*convert them"):
            see()


def test_a_folder_of_unread_images_alone_says_so(tmp_path: Path) -> None:
    put(tmp_path, "1.heic", "2.heic", "a/3.HEIC")
    with pytest.raises(UserError, match=r"there is no image in .* left out: 3 \.heic"):
        ImageFolder(str(tmp_path), 8).prepare()


def test_the_line_counts_what_was_left_out(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/2.jpg", "dog/3.PNG", "dog/4.heic", "dog/readme", ".thumbs/5.png", "dog/.6.png", "notes/a.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("cat")
    assert Stored(str(tmp_path)).summary() == (
        f"3 images in {tmp_path}, 2 classes (cat 2, dog 1); folders without an image: empty/, notes/; left out: 2 hidden, 1 .heic, 1 .txt, "
        "1 linked to a folder that is counted already, 1 without a suffix"
    )
    said = ImageFolder(str(tmp_path), 8, test_fraction=0.0).summary()
    assert "3 for training and 0 for testing, chosen by a hash of their paths" in said


def test_the_line_stays_short(tmp_path: Path) -> None:
    put(tmp_path, *(f"{c:03d}/{i}.png" for c in range(128) for i in range(1 + c % 3)), *(f"x/{i}.s{i}" for i in range(50)))
    said = ImageFolder(str(tmp_path), 8).summary()
    assert "255 images" in said
    assert "128 classes of 1 to 3 images" in said
    assert "and 42 more" in said
    assert len(said) < 600


def test_a_flat_folder_is_one_line_too(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "raw/1.cr2")
    assert Stored(str(tmp_path)).summary() == f"1 image in {tmp_path}; folders without an image: raw/; left out: 1 .cr2"


def test_a_file_that_is_larger_than_an_image_can_be_is_refused_by_name(tmp_path: Path) -> None:
    """It is sparse: reading its bytes for a checksum would take all memory."""
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"images that cannot be read: a\.png \(1024 GiB\); replace or remove them"):
        listed(tmp_path)
