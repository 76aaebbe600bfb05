"""Configurations of older versions: renamed keys, keys that they lack, and what tells two runs apart."""

import pytest
from omegaconf import OmegaConf

from gan_runner.config.composer import compose
from gan_runner.storage import directory, older
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


def test_a_state_that_no_version_writes_is_none(tmp_path):
    for said, state in (("finished", "finished"), ("a\\nline", None), ("", None)):
        (tmp_path / "status.json").write_text(f'{{"state": "{said}"}}')
        assert directory.state_of(tmp_path) == state


def test_what_only_watches_tells_no_runs_apart():
    before = {"callback": {"log": {"every_steps": 1}, "grid": {"n": 4}}}
    assert changed(before, {"callback": {"progress": {}, "grid": {"n": 4}}}) == []
    assert changed(before, {"callback": {"log": {"every_steps": 1}, "grid": {"n": 5}}}) == ["callback.grid.n"]
