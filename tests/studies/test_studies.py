"""The shipped studies: what each is for and what it costs, and that each plays to its end in seconds."""

import os
import sys
import time
from pathlib import Path

import pytest
from hydra.types import RunMode

from gan_runner import cli
from gan_runner.config.composer import Composer
from gan_runner.config.groups import config_dir
from gan_runner.inventory import summary
from gan_runner.storage.contents import SUMMARY
from gan_runner.storage.untrusted import parsed_yaml

FOLDER = config_dir() / "study"
STUDIES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_every_study_has_a_small_form():
    assert STUDIES
    assert sorted(path.stem for path in (FOLDER / "smoke").glob("*.yaml")) == STUDIES


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STUDIES, *(f"smoke/{name}" for name in STUDIES)])
def test_a_study_states_its_question_and_its_budget(name):
    loaded = Composer().load_configuration("train", [f"study={name}"], RunMode.MULTIRUN)
    made = summary.made(Composer().composed(loaded, []).summary(), [])
    assert made.question.endswith("?")
    assert made.question in (FOLDER / f"{Path(name).name}.yaml").read_text().partition("hydra:")[0]
    assert made.budget


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_played_in_seconds_and_ends_in_its_summary(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-train", f"study=smoke/{name}", "hydra.sweep.dir=all", "trainer.accelerator=cpu"])
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(cores)])
    began = time.process_time()  # what others compute meanwhile does not count
    try:
        assert cli.train() == 0
    finally:
        os.sched_setaffinity(0, cores)
    assert time.process_time() - began < 20
    assert all(Path("all", each).is_file() for each in SUMMARY)
    page = Path("all/page.md").read_text()
    assert f"gan-train study=smoke/{name} hydra.sweep.dir=all" in page
    assert "n=0" not in page
    asked = parsed_yaml(Path("all/sweep.yaml").read_bytes())
    assert f"{len(asked['jobs'])} runs: {len(asked['jobs'])} finished." in page
    before = {each: Path("all", each).read_bytes() for each in SUMMARY}
    monkeypatch.setattr(sys, "argv", ["gan-runs", "all", "--summary"])
    assert cli.runs() == 0
    assert {each: Path("all", each).read_bytes() for each in SUMMARY} == before
