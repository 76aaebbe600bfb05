"""Files inside a directory of somebody else: the one place that opens, makes and removes them follows nothing out of it."""

import ast
import os
import socket
from pathlib import Path

import pytest

import gan_runner
from gan_runner.errors import Failed, UserError
from gan_runner.storage import checkpoint, contents, files

SOURCE = Path(gan_runner.__file__).parent
WRITING = {"write_text", "write_bytes", "unlink", "rename", "touch", "symlink_to", "hardlink_to", "rmtree", "copyfile"}
ELSEWHERE = {  # what writes, and where: a cache, a temporary folder, or a folder that has been looked at
    "storage/files.py": "the place itself",
    "evaluation/reference.py": "the cache of features",
    "datasets/archives.py": "the folder of data sets",
    "datasets/decoded.py": "the cache of decoded images",
    "extractors/downloads.py": "the cache of weights",
    "lifecycle/launch.py": "a temporary folder of its own",
    "storage/directory.py": "rename of a whole run directory, which follows nothing",
    "inventory/prune.py": "shutil.rmtree, which follows no link",
}


@pytest.fixture
def place(tmp_path):
    """(a directory, a folder beside it that nobody may touch): `samples` is a link to it, `file` one to the file in it."""
    root, other = tmp_path / "run", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    (other / "precious").write_text("precious")
    (root / "samples").symlink_to(other)
    (root / "file").symlink_to(other / "precious")
    yield root, other
    assert [(path.name, path.read_text()) for path in other.iterdir()] == [("precious", "precious")]


ACTS = {
    "open": lambda root: os.close(files.opened(root / "file", root)),
    "open below": lambda root: os.close(files.opened(root / "samples" / "precious", root)),
    "lock": lambda root: os.close(files.opened(root / "file", root, os.O_RDWR | os.O_CREAT)),
    "make": lambda root: os.close(files.opened(root / "samples" / "new", root, os.O_RDWR | os.O_CREAT)),
    "append": lambda root: os.close(files.appended(root / "file", root)),
    "append below": lambda root: os.close(files.appended(root / "samples" / "precious", root)),
    "write below": lambda root: files.write_bytes(root / "samples" / "precious", b"x", root),
    "save below": lambda root: checkpoint.save(root / "samples" / "precious", {}, root),
    "folder": lambda root: files.make_folder(root / "samples", root),
    "folder below": lambda root: files.make_folder(root / "samples" / "x", root),
    "link below": lambda root: files.link(root / "samples" / "precious", root / "samples" / "last.pt", root),
    "line": lambda root: files.append(root / "file", b"x\n"),
    "through ..": lambda root: files.write_bytes(root / ".." / "other" / "precious", b"x", root),
}


@pytest.mark.parametrize("name", ACTS)
def test_nothing_is_reached_through_a_link_in_a_directory(place, name):
    with pytest.raises((OSError, Failed, ValueError)):
        ACTS[name](place[0])


def test_a_link_in_the_place_of_a_file_is_replaced_itself(place):
    root, _ = place
    files.write_bytes(root / "file", b"new", root)
    assert not (root / "file").is_symlink()
    assert (root / "file").read_bytes() == b"new"


def test_a_part_that_was_put_there_before_is_not_written_through(place):
    root, other = place
    for name in ("a", "b"):
        (root / f".{name}.{os.getpid()}.part").symlink_to(other / "precious")
    files.write_bytes(root / "a", b"new", root)
    checkpoint.save(root / "b", {"x": 1}, root)
    assert sorted(path.name for path in root.iterdir()) == ["a", "b", "file", "samples"]


def test_removing_through_a_link_does_nothing(place):
    root, other = place
    files.unlink(root / "samples" / "precious", root)
    assert (other / "precious").exists()
    files.unlink(root / "file", root)
    assert not (root / "file").is_symlink()


def test_a_directory_may_itself_be_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "typed").symlink_to("real")
    root = tmp_path / "typed"
    contents.refuse_foreign(root)
    files.make_folder(root / "samples", root)
    files.write_bytes(root / "samples" / "x", b"x", root)
    assert (tmp_path / "real" / "samples" / "x").read_bytes() == b"x"


def test_a_second_name_of_a_file_keeps_its_bytes(tmp_path):
    """What is added to a hard-linked file goes into a copy: a backup made of hard links stays what it was."""
    (tmp_path / "backup").write_text("one\n")
    os.link(tmp_path / "backup", tmp_path / "metrics.jsonl")
    files.append(tmp_path / "metrics.jsonl", b"two\n")
    assert (tmp_path / "backup").read_text() == "one\n"
    assert (tmp_path / "metrics.jsonl").read_text() == "one\ntwo\n"


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Failed, match="pipe could not be written: it is a named pipe, not a file"):
        files.write_bytes(tmp_path / "pipe", b"x")


def pipe(path):
    os.mkfifo(path)


def bound(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def large(path):
    path.touch()
    os.truncate(path, 2**40)


ODD = {
    ("changes.jsonl", "is a link"): lambda path: path.symlink_to("nowhere"),
    ("train.log", "is a link"): lambda path: path.symlink_to("/dev/null"),
    (".lock", "is a named pipe"): pipe,
    (".metrics.jsonl.7.part", "is a link"): lambda path: path.symlink_to("nowhere"),
    ("checkpoints/last.pt", "is a named pipe"): pipe,
    ("samples/last_png_seed0/000000.png", "is a link"): lambda path: path.symlink_to("/etc/hostname"),
    ("wandb/offline-run-1/x", "is a link"): lambda path: path.symlink_to("../../.."),
    ("wandb", "is a link"): lambda path: path.symlink_to("."),
    ("events.out.tfevents.1.host", "is a link"): lambda path: path.symlink_to("x"),
    ("status.json", "is a socket"): bound,
    ("metrics.jsonl", "1048576 MiB, more than a run writes"): large,
    ("checkpoints/a\n\x1b[31mb", r"a ..31mb is a named pipe"): pipe,
}


@pytest.mark.parametrize(("name", "said"), ODD)
def test_what_is_no_file_of_a_run_is_named(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)  # a socket has a short name
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    ODD[name, said](path)
    with pytest.raises(UserError, match=said) as caught:
        contents.refuse_foreign(Path())
    assert str(caught.value).isprintable()


def test_what_no_run_opens_may_be_anything(tmp_path):
    """Notes of the user's own, the links that wandb makes in its folder, and checkpoints with two names."""
    (tmp_path / "notes").symlink_to("/etc")
    (tmp_path / "wandb" / "offline-run-1" / "logs").mkdir(parents=True)
    (tmp_path / "wandb" / "latest-run").symlink_to("offline-run-1")
    (tmp_path / "wandb" / "offline-run-1" / "logs" / "debug-core.log").symlink_to("/var/cache/wandb/core-debug.log")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a.pt").touch()
    os.link(tmp_path / "checkpoints" / "a.pt", tmp_path / "checkpoints" / "last.pt")
    contents.refuse_foreign(tmp_path)


def test_a_line_break_in_the_name_of_a_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is a line break"):
        contents.refuse_foreign(tmp_path / "a\nb")


def test_bytes_that_are_no_text_in_the_name_of_a_directory_are_refused(tmp_path):
    with pytest.raises(UserError, match="bytes in the name of this directory that are no UTF-8"):
        contents.refuse_foreign(tmp_path / os.fsdecode(b"a\xff"))
    contents.refuse_foreign(tmp_path / "Läufe")


def test_nothing_else_in_the_package_opens_a_file_to_write_to_it():
    """By the text of every module: `open` with a mode that writes, and whatever else changes a file, is in
    storage/files.py or on the list."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
            words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            opens = name == "open" and any(set(word) & set("wax+") for word in words if len(word) < 4)
            given = any("appended(" in ast.unparse(each) for each in node.args)
            if (name in WRITING and owner != "files") or (opens and not given):
                found.add(path.relative_to(SOURCE).as_posix())
    assert found <= ELSEWHERE.keys(), found - ELSEWHERE.keys()
