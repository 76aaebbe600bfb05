"""States on disk."""

import collections
import enum
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_runner.assembly import build
from gan_runner.errors import Failed
from gan_runner.storage import checkpoint, files
from tiny_runs import NARROW, composed


class Colour(enum.Enum):
    red = 1


def state(**more):
    """Of a run, as far as reading it looks."""
    return {"version": checkpoint.VERSION, "step": 1, "spec": {}, "game": {}, "batches": {}, "callbacks": {}, "rng": []} | more


@pytest.mark.parametrize("value", [np.float64(1.0), Colour.red, Path("x"), collections.deque([1]), {1, 2}, torch.Size([1]), object(), 1j])
def test_what_a_plain_load_would_refuse_is_named_when_saving(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a "):
        checkpoint.save(tmp_path / "c.pt", state(a=[0, value]))
    assert not list(tmp_path.iterdir())


def test_a_state_comes_back_as_it_was(tmp_path):
    saved = state(a=[torch.arange(3), (1, None, "x", 2.5)], b={"c": True, 0: float("inf")})
    checkpoint.save(tmp_path / "c.pt", saved)
    loaded = checkpoint.load(tmp_path / "c.pt")
    assert str(loaded) == str(saved)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_damaged(tmp_path, share):
    path = tmp_path / "c.pt"
    checkpoint.save(path, state(a=torch.zeros(1000)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(checkpoint.Damaged, match=r"c\.pt is damaged"):
        checkpoint.load(path)


OTHERS = {  # what a file holds -> what is said of it
    "a list": ([1], "not a checkpoint"),
    "nothing": ({}, "not a checkpoint"),
    "no version": (state(version=[]), "not a checkpoint"),
    "a newer version": (state(version=99), "version 99"),
    "no version that ever was": (state(version=0), "version 0"),
    "an older version of something else": ({"version": 1}, "it has no step, spec, game, batches, callbacks of the right kind"),
    "no step": (state(step="x"), "it has no step of the right kind"),
    "no random state": (state(rng={}), "it has no rng of the right kind"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused_with_the_reason(tmp_path, name):
    content, message = OTHERS[name]
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(checkpoint.Damaged, match=message):
        checkpoint.load(tmp_path / "c.pt")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoint.save(path, state(a=1))

    def full(content, part):
        part.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Failed, match="the disk is full"):
        checkpoint.save(path, state(a=2))
    monkeypatch.undo()
    assert checkpoint.load(path)["a"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["c.pt"]


def test_a_second_name_survives_the_first(tmp_path):
    checkpoint.save(tmp_path / "a.pt", state(a=1))
    files.link(tmp_path / "a.pt", tmp_path / "last.pt")
    checkpoint.save(tmp_path / "b.pt", state(a=2))
    files.link(tmp_path / "b.pt", tmp_path / "last.pt")
    (tmp_path / "a.pt").unlink()
    assert checkpoint.load(tmp_path / "last.pt")["a"] == 2


def test_candidates_are_newest_first(tmp_path):
    for name in ("step_00000010.pt", "step_00000002.pt", "last.pt", "best.pt", ".step_3.pt.1.part"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoint.candidates(tmp_path)] == ["last.pt", "step_00000010.pt", "step_00000002.pt"]


def test_no_damage_goes_unnoticed(tmp_path):
    """Cut at 20 places, and with each of 200 flipped bytes: refused, or read as it was (a byte that carries nothing)."""
    generator = torch.Generator().manual_seed(0)
    saved = state(a=torch.randn(500, generator=generator), b=[1, 2.5, "x"])
    whole, path = tmp_path / "whole.pt", tmp_path / "damaged.pt"
    checkpoint.save(whole, saved)
    content = whole.read_bytes()
    for cut in torch.randint(len(content), (20,), generator=generator).tolist():
        path.write_bytes(content[:cut])
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load(path)
    refused = 0
    for place in torch.randint(len(content), (200,), generator=generator).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            read = checkpoint.load(path)
        except checkpoint.Damaged:
            refused += 1
        else:
            assert read.keys() == saved.keys()
            assert torch.equal(read["a"], saved["a"])
            assert read["b"] == saved["b"]
    assert refused > 150


def test_a_snapshot_does_not_follow_what_it_was_taken_from():
    weights = torch.arange(6.0).view(1, 2, 3, 1).to(memory_format=torch.channels_last)
    taken = checkpoint.snapshot({"a": [weights, 3], "b": "x"})
    weights.zero_()
    assert taken["a"][0].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert taken["a"][0].stride() == weights.stride()
    assert (taken["a"][1], taken["b"]) == (3, "x")


def test_a_writer_works_in_order_and_tells_what_went_wrong():
    writer, done, gate = checkpoint.Writer(), [], threading.Event()

    def fail():
        raise Failed("the disk is full")

    writer.submit(lambda: done.append(gate.wait(10)))
    writer.look()  # not done yet: says nothing, waits for nothing
    assert not done
    gate.set()
    writer.submit(lambda: done.append(2))
    writer.wait()
    assert done == [True, 2]
    writer.submit(fail)
    with pytest.raises(Failed, match="full"):
        writer.wait()
    writer.wait()  # told once
    writer.submit(fail)
    with pytest.raises(Failed, match="full"):
        writer.close()


# ---- files that would take more memory than they have ------------------------------------------------------------------------------------


def archive(path, compression=zipfile.ZIP_STORED, **changes):
    """A state as torch writes it, with bytes replaced in its pickle."""
    checkpoint.save(path.with_name("good.pt"), state(a=torch.zeros(4)))
    with zipfile.ZipFile(path.with_name("good.pt")) as good, zipfile.ZipFile(path, "w", compression) as made:
        for name in good.namelist():
            data = good.read(name)
            made.writestr(name, changes["pickle"](data) if name.endswith("data.pkl") and "pickle" in changes else data)


def bombed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("archive/data.pkl", "w") as file:
        for _ in range(64):
            file.write(bytes(2**20))


def sparse(path):
    path.touch()
    os.truncate(path, 2**40)


def sparse_archive(path):
    """One that says it has a record of a terabyte: the hole in a file that takes no room on the disk."""
    sparse(path)
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("archive/data.pkl", b"x")


def names(words):
    """A state with a call in the place of one of its values."""
    return lambda path: archive(path, pickle=lambda data: data.replace(b"K\x02", words, 1))


def tensors(make):
    return lambda path: torch.save(state(a=make()), path)


def nothing():
    return torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.long), torch.zeros(0), (2**50,), check_invariants=True)


TERABYTE = b"c__builtin__\nbytearray\n(\x8a\x06\x00\x00\x00\x00\x00\x01tR"
GROWING = {
    "compressed": (lambda path: archive(path, zipfile.ZIP_DEFLATED), "it grows when it is unpacked"),
    "a bomb": (bombed, "it grows when it is unpacked"),
    "a terabyte of nothing": (sparse, "GiB, more than there is memory"),
    "a terabyte in an archive": (sparse_archive, "GiB, more than there is memory"),
    "a call that takes a terabyte": (names(TERABYTE), "it names __builtin__ bytearray"),
    "a petabyte by stride 0": (tensors(lambda: torch.zeros(1).expand(2**50)), "more than the file holds"),
    "a petabyte on no device": (tensors(lambda: torch.empty(2**50, device="meta")), "more than the file holds"),
    "a petabyte of zeros": (tensors(nothing), "more than the file"),
    "a pipe": (os.mkfifo, "it is a named pipe, not a file"),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWING)
def test_a_file_that_would_take_more_memory_than_it_has_is_refused(tmp_path, name):
    make, message = GROWING[name]
    path = tmp_path / "c.pt"
    make(path)
    with pytest.raises(checkpoint.Damaged, match=message):
        checkpoint.load(path)


def test_a_state_that_holds_itself_is_read(tmp_path):
    """What a pickle may do: nothing that looks through a state goes round in it for ever."""
    deep = held = []
    for _ in range(60):
        deep = [deep, deep]
    held.append(held)
    torch.save(state(a=deep, b=held), tmp_path / "c.pt")
    assert len(checkpoint.load(tmp_path / "c.pt")["a"]) == 2


@pytest.mark.parametrize("part", ["spec", "config", "data", "machine"])
def test_a_part_that_would_grow_when_it_is_shown_is_refused(tmp_path, monkeypatch, part):
    """A mapping that holds another one twice, which holds another one twice, and so on: small in the file, endless on the terminal."""
    monkeypatch.setattr(checkpoint, "MOST", 10_000)
    deep = held = {}
    for _ in range(40):
        deep = {"a": deep, "b": deep}
    held["c"] = held
    for tangled in (deep, held, {"a": ["x" * 1000] * 20}):
        torch.save(state(**{part: tangled}), tmp_path / "c.pt")
        with pytest.raises(checkpoint.Damaged, match=f"{part} would grow when it is shown"):
            checkpoint.load(tmp_path / "c.pt")


def test_a_sparse_tensor_is_read_without_a_warning(tmp_path, recwarn):
    torch.save(state(a=torch.eye(3).to_sparse()), tmp_path / "c.pt")
    recwarn.clear()
    assert torch.equal(checkpoint.load(tmp_path / "c.pt")["a"].to_dense(), torch.eye(3))
    assert not recwarn.list


def test_names_of_a_state_are_said_as_keys_of_the_configuration():
    config = composed(
        *NARROW, "trick=[ema,instance_noise]", "optimizer.generator.lr={_target_: gan_runner.schedules.Linear, start: 1, end: 0}"
    )
    game = build.assemble(config, []).game
    schedules = [f"players.{side}.schedules.{key}" for side, player in game.players.items() for key in player.hyperparameters.schedules]
    assert "players.generator.schedules.lr" in schedules
    for name in [*game.state_dict(), *schedules]:
        error = RuntimeError(f"Error(s) in loading state_dict for Game:\n\tsize mismatch for {name}: copying a param")
        said = checkpoint.misfit(error).removeprefix("size mismatch for ").removesuffix(": copying a param")
        first, second, *_ = [*said.split("."), ""]
        assert said == "_extra_state" or second in config[first], name
