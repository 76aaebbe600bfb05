"""Configurations of older versions: renamed keys, keys that they lack, and what tells two runs apart."""

import fcntl
import threading
import time

import pytest
from omegaconf import OmegaConf

from gan_runner.config.composer import compose
from gan_runner.errors import UserError
from gan_runner.storage import directory, older, records
from gan_runner.storage.directory import differences, line_of
from gan_runner.storage.older import translated
from write_runs import make

TRAINER = {"_target_": "gan_runner.trainer.Trainer", "steps": 5}


def changed(before, now):
    return [each.key for each in differences(before, now)]


@pytest.mark.parametrize(
    ("now", "keys"),
    [
        ({"check_every_steps": 50}, []),  # the default
        ({"check_every_steps": 51}, ["trainer.check_every_steps"]),
        ({"devices": 1, "threads": None, "precision": 32}, []),
        ({"no_such": 1}, ["trainer.no_such"]),
    ],
)
def test_a_key_that_one_lacks_counts_as_its_default(now, keys):
    assert changed({"trainer": TRAINER}, {"trainer": TRAINER | now}) == keys
    assert changed({"trainer": TRAINER | now}, {"trainer": TRAINER}) == keys


def test_only_classes_of_the_project_are_asked_for_their_defaults(monkeypatch):
    monkeypatch.setattr(directory.importlib, "import_module", lambda name: pytest.fail(name))
    assert changed({"loss": {"_target_": "os.system"}}, {"loss": {"_target_": "os.system", "command": 1}}) == ["loss.command"]


def test_renamed_keys_are_translated_wherever_an_older_version_wrote_them(monkeypatch, tmp_path):
    monkeypatch.setattr(older, "RENAMED", {"trainer.rounds": "trainer.steps", "rows": "batch_size", "old.deep": "new.deeper.key"})
    old = {"trainer": {"rounds": 5}, "rows": 8, "old": {"deep": {"x": 1}, "y": 2}, "seed": 0}
    new = {"trainer": {"steps": 5}, "batch_size": 8, "old": {"y": 2}, "new": {"deeper": {"key": {"x": 1}}}, "seed": 0}
    assert translated(old) == new
    assert translated(new) == new
    assert changed(old, new) == []
    assert line_of(["trainer.rounds=5", "rows=8", "+old.deep.x=1", "~rows"]) == [
        "trainer.steps=5", "batch_size=8", "+new.deeper.key.x=1", "~batch_size"
    ]  # fmt: skip
    folder = make(tmp_path / "run")
    config = OmegaConf.to_container(compose(["+experiment=ring8"]).config)
    config["rows"] = config.pop("batch_size")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    assert directory.read_config(folder).batch_size == compose(["+experiment=ring8"]).config.batch_size


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("callback.log.every_steps=2", None),
        ("~callback.progress", None),
        ("+callback=[progress]", None),
        ("+callback=[progress,grid]", "+callback=[grid]"),
        ("callback.grid.n=2", "callback.grid.n=2"),
        ("callback.logs.n=2", "callback.logs.n=2"),
        ("~trick.ema", "~trick.ema"),
        ("seed=1", "seed=1"),
    ],
)
def test_words_about_what_only_watches_tell_no_runs_apart(word, kept):
    assert line_of([word]) == ([kept] if kept else [])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a=64", "a=64.0", "a=6.4e1", "a=+64", "a=640E-1"], ["a=64"] * 5),
        (["+a.b=-2.0", "~a=1.0"], ["+a.b=-2", "~a=1"]),
        (["a=6.5", "a=1e400", "a=1e30", "a=nan", "a=1.0.0", "a=[64.0]", "a='64.0'", "a=64.0x", "a="], None),
    ],
)
def test_a_whole_number_is_the_same_word_however_it_is_typed(words, line):
    assert line_of(words) == (line or words)


def test_a_state_that_no_version_writes_is_none(tmp_path):
    for said, state in (("finished", "finished"), ("a\\nline", None), ("", None)):
        (tmp_path / "status.json").write_text(f'{{"state": "{said}"}}')
        assert directory.state_of(tmp_path) == state


def test_what_only_watches_tells_no_runs_apart():
    before = {"callback": {"log": {"every_steps": 1}, "grid": {"n": 4}}}
    assert changed(before, {"callback": {"progress": {}, "grid": {"n": 4}}}) == []
    assert changed(before, {"callback": {"log": {"every_steps": 1}, "grid": {"n": 5}}}) == ["callback.grid.n"]


def test_somebody_who_looks_at_a_lock_for_a_moment_does_not_keep_a_run_from_starting(tmp_path):
    """As gan-runs and gan-eval watch=true do."""
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.03, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with directory.locked(tmp_path):
            assert records.is_held(tmp_path)
        fcntl.flock(file, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(UserError, match="another process is writing the run in"), directory.locked(tmp_path):
            pass
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b'{"step": 1}\n{"step": 2}\n', [1, 2]),
        (b'{"step": 1}\n{"step": 2', [1]),
        (b'{"step": 1}\n{"step": 2}', [1]),
        (b'{"step": 1}\n' + bytes(9), [1]),
        (b'{"st\n{"step": 2}\n[3]\n\xff\n', [2]),
        (b"", []),
    ],
)
def test_lines_that_are_damaged_are_removed_and_the_others_stay(tmp_path, data, kept):
    path = tmp_path / "watch.jsonl"
    path.write_bytes(data)
    for _ in range(2):
        assert [line["step"] for line in directory.mended_lines(path, tmp_path)] == kept
        assert path.read_bytes() == b"".join(b'{"step": %d}\n' % step for step in kept)
    path.unlink()
    assert directory.mended_lines(path, tmp_path) == []
    assert not path.exists()
