"""Addresses of runs: what each kind of text leads to, and what it is refused for."""

import json
import os
from pathlib import Path

import pytest

from gan_runner import cli
from gan_runner.config.addresses import located
from gan_runner.config.composer import Composer
from gan_runner.errors import UserError
from gan_runner.inventory.overview import named
from gan_runner.storage.addresses import Address, address

EARLY, LATE = "2026-01-31T10:00:00+0000", "2026-01-31T11:00:00+0000"


def a_run(folder: Path, started: str | None = EARLY, written: int = 0) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "status.json").write_text(json.dumps({"state": "finished"} | ({"started": started} if started else {})))
    os.utime(folder / "status.json", (written, written))
    for name in ("last.pt", "best.pt", "step_00000005.pt"):
        (folder / "checkpoints" / name).touch()
    return folder


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two experiments with two runs each, a sweep of eleven, an empty folder and links."""
    monkeypatch.chdir(tmp_path)
    a_run(Path("outputs/toy/b"), EARLY)
    a_run(Path("outputs/toy/a"), LATE)
    a_run(Path("outputs/mnist/z"), EARLY)
    for number in range(11):
        a_run(Path(f"outputs/multirun/one/{number}"), EARLY)
    Path("outputs/multirun/one/sweep.yaml").touch()
    Path("outputs/empty").mkdir()
    Path("link").symlink_to("outputs/toy/b")
    Path("folder").symlink_to("outputs/toy")
    Path("outputs/mnist/latest").symlink_to(tmp_path / "outputs/toy/a")
    Path("dangling").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "folder", "checkpoint"),
    [
        ("outputs/toy/b", "outputs/toy/b", None),
        ("outputs/toy/b/", "outputs/toy/b", None),
        ("./outputs/../outputs/toy/b", "outputs/../outputs/toy/b", None),
        ("latest", "outputs/toy/a", None),
        ("latest:best", "outputs/toy/a", "best"),
        ("outputs/toy", "outputs/toy/a", None),
        ("outputs/toy:best", "outputs/toy/a", "best"),
        ("outputs", "outputs/toy/a", None),
        ("outputs/mnist", "outputs/mnist/z", None),  # the link in it is not followed
        ("link", "link", None),
        ("folder", "folder/a", None),
        ("outputs/toy/b/checkpoints/last.pt", "outputs/toy/b", "last"),
        ("outputs/toy/b/checkpoints/best.pt", "outputs/toy/b", "best"),
        ("outputs/toy/b/checkpoints/step_00000005.pt", "outputs/toy/b", "outputs/toy/b/checkpoints/step_00000005.pt"),
        ("outputs/toy/b/checkpoints", "outputs/toy/b", None),
        ("outputs/toy/b/config.yaml", "outputs/toy/b", None),
        ("outputs/multirun/one/3", "outputs/multirun/one/3", None),
    ],
)
def test_an_address_leads_to_a_run(outputs: Path, said: str, folder: str, checkpoint: str | None) -> None:
    assert address(said, Path("outputs")) == Address(Path(folder), checkpoint)
    found = address(str(outputs / said) if not said.startswith("latest") else said, outputs / "outputs")
    assert found.folder.samefile(folder)


@pytest.mark.parametrize(
    ("said", "root", "message"),
    [
        ("nowhere", "outputs", "there is no run"),
        ("dangling", "outputs", "there is no run"),
        ("outputs/empty", "outputs", "there is no run in outputs/empty"),
        ("latest", "outputs/empty", "there is no run in outputs/empty"),
        ("latest", "nowhere", "there is no run in nowhere"),
        ("outputs/multirun/one", "outputs", "outputs/multirun/one is a sweep; name one of its 11 runs: outputs/multirun/one/0, "),
        (
            "outputs/toy/b/checkpoints/step_9.pt",
            "outputs",
            "there is no checkpoint .*; outputs/toy/b has best.pt, last.pt, step_00000005.pt",
        ),
    ],
)
def test_an_address_that_leads_to_no_run_is_refused(outputs: Path, said: str, root: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        address(said, Path(root))


def test_the_runs_of_a_sweep_are_listed_by_number(outputs: Path) -> None:
    with pytest.raises(UserError, match=r"one/9, outputs/multirun/one/10$"):
        address("outputs/multirun/one", Path("outputs"))


def test_of_runs_that_started_in_one_second_the_last_written_is_the_newest(tmp_path: Path) -> None:
    a_run(tmp_path / "b", EARLY, written=1)
    a_run(tmp_path / "a", EARLY, written=2)
    assert address("latest", tmp_path).folder.name == "a"
    a_run(tmp_path / "c", EARLY, written=2)
    assert address("latest", tmp_path).folder.name == "c"
    a_run(tmp_path / "d", None, written=9)  # nobody knows when
    assert address("latest", tmp_path).folder.name == "c"


# ------------------------------------------------------------------------------------------------------------------------- on a line


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("run=latest", ["run=outputs/toy/a"]),
        ("run=latest:best", ["run=outputs/toy/a", "checkpoint=best"]),
        ("run=[latest,outputs/mnist]", ["run=[outputs/toy/a,outputs/mnist/z]"]),
        ("run=[[latest],[outputs/mnist,outputs/toy]]", ["run=[[outputs/toy/a],[outputs/mnist/z,outputs/toy/a]]"]),
        ("dataset.run=outputs/toy/b/checkpoints/best.pt", ["dataset.run=outputs/toy/b", "dataset.checkpoint=best"]),
        ("init_from=latest", ["init_from=outputs/toy/a"]),
        ("+init_from.run=outputs/mnist:best", ["+init_from.run=outputs/mnist/z:best"]),
        ("init_from=outputs/toy/b/checkpoints/step_00000005.pt", ["init_from=outputs/toy/b/checkpoints/step_00000005.pt"]),
        ("run=outputs/toy/b", ["run=outputs/toy/b"]),
        ("run=not_there", ["run=not_there"]),  # left to who reads it
        ("run=3", ["run=3"]),
        ("run=null", ["run=null"]),
        ("hydra.run.dir=outputs", ["hydra.run.dir=outputs"]),
        ("seed=0", ["seed=0"]),
    ],
)
def test_a_line_is_recorded_with_run_directories(outputs: Path, word: str, meant: list[str]) -> None:
    found, notes = located([word], lambda: Path("outputs"))
    assert found == meant
    assert notes == ([] if meant == [word] else [f"{word} is {' '.join(meant)}"])


def test_a_folder_with_a_name_that_needs_quotes(outputs: Path) -> None:
    a_run(Path("my runs/it's"))
    (word,), _ = located(["run='my runs'"], lambda: Path("outputs"))
    assert located([word], lambda: Path("outputs"))[1] == []
    assert Composer().compose([word], "sample").config.run == "my runs/it's"


def test_several_runs_with_a_checkpoint_of_one_are_refused(outputs: Path) -> None:
    with pytest.raises(UserError, match="checkpoint of all of them"):
        located(["run=[outputs/toy/a,latest:best]"], lambda: Path("outputs"))


@pytest.mark.parametrize(
    ("words", "root"),
    [
        ([], "outputs"),
        (["hydra.run.dir=/data/runs/${now:%Y}"], "/data/runs"),
        (["hydra.run.dir=/data/runs/x_${now:%Y}"], "/data/runs"),
        (["hydra.run.dir=/data/one"], "/data/one"),
    ],
)
def test_latest_is_looked_for_where_runs_are_made(words: list[str], root: str) -> None:
    assert Composer().output_root("train", [*words, "seed=1"]) == Path(root)
    assert Composer().output_root("sample", []) == Path("outputs")


def test_gan_runs_compares_addresses(outputs: Path) -> None:
    assert named("latest", Path("outputs")).folder == Path("outputs/toy/a")
    assert named("toy/b", Path("outputs")).name == "toy/b"
    with pytest.raises(UserError, match="outputs/multirun/one: outputs/multirun/one is a sweep"):
        named("outputs/multirun/one", Path("outputs"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("outputs/toy/b/checkpoints/best.pt", "a run goes on from its newest state, resume=outputs/toy/b"),
        ("outputs/empty", "resume=outputs/empty: there is no run in outputs/empty"),
        ("outputs/multirun/one", "is a sweep"),
    ],
)
def test_a_resume_that_is_of_no_one_run_is_refused(outputs: Path, said: str, message: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["gan-train", f"resume={said}"])
    assert cli.train() == 2
    assert message in capsys.readouterr().err
