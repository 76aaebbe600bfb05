"""Loggers: nothing missing and nothing twice after a resume, the same weights, and trackers that may fail."""

import csv
import importlib
import importlib.util
import json
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from gan_runner.config import composer
from gan_runner.errors import UserError
from gan_runner.inventory.prune import LEFT_BEHIND, files_of
from gan_runner.inventory.prune import fnmatch as matches
from gan_runner.lifecycle import runs
from gan_runner.loggers import CSV, MLflow, TensorBoard, Tracker, Trackio, WandB, add_to_curves, tracker
from gan_runner.loggers.tensorboard import APART, layout, place
from gan_runner.storage import checkpoint

WORDS = [
    "+experiment=gaussians25",
    "architecture.generator.width=16",
    "architecture.discriminator.width=16",
    "batch_size=16",
    "dataset.n=1000",
    "trainer.accelerator=cpu",
    "callback.grid.n=16",
    "callback.grid.every_steps=4",
    "callback.evaluate.n=200",
    "callback.evaluate.every_steps=4",
    "callback.log.every_steps=2",
    "callback.checkpoint.every_steps=4",
]
WALL = ("time/", "memory/")


def train(folder, *words):
    composed = composer.compose([*WORDS, *words])
    runs.train(composed.config, Path(folder), [*WORDS, *words])
    return Path(folder)


def resume_from(folder, step, *words):
    """Go on as if the process had been killed at the end, and its last checkpoint were this."""
    for path in (folder / "checkpoints").glob("*.pt"):
        if path.name != f"step_{step:08d}.pt":
            path.unlink()
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running"}))
    runs.resume(folder, words)


def weights(folder):
    state = checkpoint.load(folder / "checkpoints" / "last.pt")["game"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def same_weights(a, b):
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and len(first) > 10 and all(torch.equal(first[name], second[name]) for name in first)


# ---- reading back: ([(step, name, value)], [(step, name of a picture)]) ------------------------------------------------------------------


def read_tensorboard(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    scalars = [(e.step, tag, e.value) for tag in tags["scalars"] for e in events.Scalars(tag)]
    return scalars, [(e.step, tag) for tag in tags["images"] for e in events.Images(tag)]


def read_csv(folder):
    with (folder / "scalars.csv").open(newline="") as file:
        return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)], None


def records(file):
    """The records of a .wandb file: blocks of 32 KiB as in LevelDB's log, a header of 7 bytes at the start of the file."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def read_wandb(folder):
    """Of two parts of a run, Weights & Biases keeps what the first says of a round."""
    scalars, pictures = {}, {}
    parts = sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    assert {path.stem.removeprefix("run-") for path in parts} == {json.loads((folder / "wandb.json").read_text())["id"]}
    for part in parts:
        for record in records(part):
            items = {tuple(item.nested_key) or (item.key,): json.loads(item.value_json) for item in record.history.item}
            step = items.pop(("_step",), None)
            for (name, *below), value in items.items():
                if below == ["path"]:
                    assert (part.parent / "files" / value).is_file()
                    pictures[step, name] = True
                elif not below and not name.startswith("_"):
                    scalars.setdefault((step, name), value)
    return [(step, name, float(value)) for (step, name), value in scalars.items()], list(pictures)


def read_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    run = client.get_run(json.loads((folder / "mlflow.json").read_text())["run_id"])
    scalars = [(p.step, name, p.value) for name in run.data.metrics for p in client.get_metric_history(run.info.run_id, name)]
    found = []
    for group in ("data", "samples"):
        for entry in client.list_artifacts(run.info.run_id, group):
            found += [(int(Path(one.path).stem[5:]), entry.path) for one in client.list_artifacts(run.info.run_id, entry.path)]
    assert run.info.status == "FINISHED"
    assert run.data.params["architecture.generator.width"] == "16"
    assert "seed=5" in run.data.tags["overrides"]
    return scalars, found


def read_trackio(folder):
    from trackio.sqlite_storage import SQLiteStorage

    known = json.loads((folder / "trackio.json").read_text())
    rows = SQLiteStorage.get_logs(known["project"], known["name"])
    assert SQLiteStorage.get_run_config(known["project"], known["name"])["seed"] == 5
    items = [(row["step"], name, value) for row in rows for name, value in row.items() if name not in ("step", "timestamp")]
    pictures = [(step, name) for step, name, value in items if isinstance(value, dict)]
    return [(step, name, float(value)) for step, name, value in items if not isinstance(value, dict)], pictures


READ = {"tensorboard": read_tensorboard, "csv": read_csv, "wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}
TRACKERS = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


@pytest.mark.parametrize(
    "names", [("tensorboard", "csv"), pytest.param(tuple(TRACKERS), marks=pytest.mark.slow)], ids=["files", "trackers"]
)
def test_a_resumed_run_leaves_no_gap_and_no_double_and_the_same_weights(tmp_path, monkeypatch, names):
    for name in set(names) & set(TRACKERS):
        pytest.importorskip(name)
    if "trackio" in names:  # it reads its folder when it is imported
        for module in ("utils", "sqlite_storage"):
            monkeypatch.setattr(importlib.import_module(f"trackio.{module}"), "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t" * 7)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr3t" * 7)
    monkeypatch.chdir(tmp_path)
    more = [f"logger=[{','.join(names)}]", "trainer.steps=8", "seed=5"]
    address = [f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/mlflow.db"] if "mlflow" in names else []
    more += address
    straight = train(tmp_path / "straight", *more)
    resumed = train(tmp_path / "resumed", *more)
    bare = train(tmp_path / "bare", "logger=[]", "trainer.steps=8", "seed=5")
    resume_from(resumed, 4, *address)

    for name in names:
        scalars, pictures = READ[name](straight)
        points = {(step, tag): value for step, tag, value in scalars if not tag.startswith(WALL)}
        assert {tag for _, tag in points} >= {"loss/d", "loss/g", "modes/covered", "grad_norm/g", "progress/images"}
        assert [step for step, tag in sorted(points) if tag == "loss/d"] == [2, 4, 6, 8]
        if pictures is not None:
            assert sorted(pictures) == [(0, "data/real"), (0, "samples/fixed_z"), (4, "samples/fixed_z"), (8, "samples/fixed_z")]
        again, repeated = READ[name](resumed)
        assert sorted((step, tag) for step, tag, _ in again) == sorted((step, tag) for step, tag, _ in scalars)
        assert {(step, tag): value for step, tag, value in again if not tag.startswith(WALL)} == points
        assert repeated is None or sorted(repeated) == sorted(pictures)

    assert same_weights(straight, bare)
    assert same_weights(resumed, bare)
    for path in (file for folder in (straight, resumed) for file in folder.rglob("*") if file.is_file()):
        assert b"s3cr3t" not in path.read_bytes(), path
    assert [path for path in files_of(resumed) if not any(matches(path, one) for one in LEFT_BEHIND)] == []


def test_the_table_keeps_every_digit_and_drops_half_a_line(tmp_path):
    def write(step, *rows):
        table = CSV()
        table.begin(SimpleNamespace(folder=tmp_path, step=step))
        for at, values in rows:
            table.scalars(at, values)
        table.flush()
        table.close("finished")

    values = {"a": 0.1, "b,c": 1e-300, 'd"': -math.inf, "e": 1 / 3}
    write(0, (2, values), (4, values), (6, values))
    with (tmp_path / "scalars.csv").open("a") as file:
        file.write("6,late,0.1\n8,lo")
    write(4, (6, {"f": math.nan}))
    points, _ = read_csv(tmp_path)
    assert points[:-1] == [(step, name, value) for step in (2, 4) for name, value in values.items()]
    assert points[-1][:2] == (6, "f")
    assert math.isnan(points[-1][2])


# ---- trackers that fail ----------------------------------------------------------------------------------------------------------------


class Frail(Tracker):
    """A tracker of the memory, which cannot be reached while `away`."""

    package = "json"
    kept: list = []
    away: set = set()
    asked: list = []

    def open(self, run, said, known):
        self.refuse("open")
        Frail.said = said
        return known or {"id": "1"}

    def send(self, entry):
        self.refuse("send")
        Frail.kept += [(entry.step, name) for name in (*entry.values, *entry.pictures)]

    def end(self, state):
        self.refuse("end")
        Frail.kept.append((-1, state))

    def refuse(self, act):
        Frail.asked.append(act)
        if act in self.away:
            raise ConnectionError("no route to host")


# ---- how TensorBoard names, colours and orders -----------------------------------------------------------------------------------------


def hyperparameters_first(folder):
    """The hyperparameters in the order of TensorBoard's table: those that differ by name, then the others."""
    content = EventAccumulator(str(folder)).Reload().SummaryMetadata("_hparams_/experiment").plugin_data.content
    infos = HParamsPluginData.FromString(content).experiment.hparam_infos
    return [each.name for each in sorted(infos, key=lambda each: (not each.differs, each.name))], [i.name for i in infos if i.differs]


@pytest.mark.slow
def test_curves_of_d_are_a_run_of_its_own_as_tensorboard_colours_runs(tmp_path):
    folder = train(tmp_path / "a", "trainer.steps=8", "optimizer.discriminator.lr=1e-3", "penalty=[r1]")
    resume_from(folder, 4)
    (whole, _), (own, _) = read_tensorboard(folder), read_tensorboard(folder / "D")
    assert sorted(own) == sorted((step, APART[name], value) for step, name, value in whole if name in APART)
    assert {name for _, name, _ in own} == set(APART.values())
    charts = EventAccumulator(str(folder)).Reload().Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    drawn = [list(chart.multiline.tag) for category in Layout.FromString(charts).category for chart in category.chart]
    names = {"a": {name for _, name, _ in whole}, "a/D": {name for _, name, _ in own}}
    for tags in drawn:  # each chart has a curve of both, and so two colours
        assert sorted(run for run, known in names.items() for tag in tags for name in known if re.search(tag, name)) == ["a", "a/D"]
    ordered, first = hyperparameters_first(folder)
    assert {"optimizer.discriminator.lr", "penalty.r1", "batch_size"} <= set(first)
    assert ordered[: len(first)] == sorted(first)
    assert "optimizer.generator.lr" not in first
    assert not [name for name in files_of(folder) if not any(matches(name, known) for known in LEFT_BEHIND)]


def test_charts_of_single_runs_and_of_sweeps_have_different_titles():
    """TensorBoard puts the charts of all runs below the same title, where each would be there twice."""
    single, sweep = layout(APART), layout({})
    assert not single.keys() & sweep.keys()
    assert [*single.values()] != [*sweep.values()]


@pytest.mark.slow
def test_a_job_of_a_sweep_is_named_by_what_differs(tmp_path):
    (tmp_path / "sweep.yaml").write_text("varied: [seed, penalty.gradient_penalty.weight]")
    folder = train(tmp_path / "0", "trainer.steps=4", "seed=5", "penalty.gradient_penalty.weight=0.2")
    named = folder / "seed=5,weight=0.2"
    assert {path.parent for path in folder.rglob("events.out.tfevents.*")} == {named}
    assert set(hyperparameters_first(named)[1]) == {"seed", "penalty.gradient_penalty.weight"}
    (tmp_path / "sweep.yaml").unlink()  # as where the job was copied to another place
    add_to_curves(folder, 4, {"after": 1.0}, {})
    assert (4, "after", 1.0) in read_tensorboard(named)[0]
    assert {path.parent for path in folder.rglob("events.out.tfevents.*")} == {named}
    assert not [name for name in files_of(folder) if not any(matches(name, known) for known in LEFT_BEHIND)]


def test_the_curves_of_an_older_version_are_continued_where_they_are(tmp_path):
    (tmp_path / "sweep.yaml").write_text("varied: [seed]")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "overrides.yaml").write_text("[seed=0/../\u00e9 x]")
    assert place(tmp_path / "0").parent == tmp_path / "0"
    assert place(tmp_path / "0").name == "seed=0_.._,x"
    (tmp_path / "0" / "events.out.tfevents.1").touch()
    assert place(tmp_path / "0") == tmp_path / "0"


@pytest.fixture
def frail(tmp_path, monkeypatch):
    """A run that is tracked by Frail: away(what) -> the run's folder."""
    monkeypatch.setattr(Frail, "kept", [])
    monkeypatch.setattr(Frail, "asked", [])
    monkeypatch.setattr(tracker, "EVERY_S", 0.0)
    make_list = runs.assemble.__globals__["make_list"]

    def made(settings, packages, group, **given):
        return {"frail": Frail()} if group == "logger" else make_list(settings, packages, group, **given)

    def run(*away):
        monkeypatch.setattr(Frail, "away", set(away))
        with monkeypatch.context() as patch:
            patch.setitem(runs.assemble.__globals__, "make_list", made)
            return train(tmp_path / "-".join(["frail", *away]), "trainer.steps=8")

    return run


@pytest.mark.slow
def test_a_tracker_is_told_everything_once(frail):
    folder = frail()
    assert len(Frail.kept) == len(set(Frail.kept)) > 40
    assert {(0, "data/real"), (4, "samples/fixed_z"), (8, "loss/d"), (8, "modes/covered")} <= set(Frail.kept)
    assert Frail.kept[-1] == (-1, "finished")
    assert json.loads((folder / "json.json").read_text()) == {"id": "1"}
    assert Frail.said.overrides == [*WORDS, "trainer.steps=8"]
    assert Frail.said.config["architecture"]["generator"]["width"] == 16


@pytest.mark.slow
def test_a_tracker_that_fails_is_told_once_and_changes_nothing(tmp_path, frail, capfd):
    bare = train(tmp_path / "bare", "logger=[]", "trainer.steps=8")
    for away in (["open"], ["send", "end"]):
        capfd.readouterr()
        folder = frail(*away)
        said = " ".join(capfd.readouterr().err.split())
        assert said.count("json: ConnectionError: no route to host; training goes on") == 1, away
        assert json.loads((folder / "status.json").read_text())["state"] == "finished"
        assert same_weights(folder, bare)


@pytest.mark.slow
def test_what_could_not_be_sent_is_sent_later(frail, monkeypatch):
    frail()
    expected = list(Frail.kept)
    Frail.kept.clear()
    refuse, asked = Frail.refuse, iter(range(1000))

    def sometimes(self, act):
        if next(asked) in (0, 5, 6, 7):
            raise ConnectionError("no route to host")
        refuse(self, act)

    monkeypatch.setattr(Frail, "refuse", sometimes)
    frail("nothing")
    assert Frail.kept == expected


@pytest.mark.slow
def test_a_tracker_that_stays_away_is_asked_ever_more_seldom_and_does_not_fill_the_memory(frail, monkeypatch):
    monkeypatch.setattr(tracker, "EVERY_S", 1000.0)
    monkeypatch.setattr(tracker, "MOST", 7)
    frail("open", "send")
    assert Frail.asked == ["open", "open"]  # at the start and at the end
    monkeypatch.setattr(Frail, "away", set())
    assert Frail.kept == []


# ---- mistakes --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_refused_at_the_check(monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda package, *more: None if package == name else find(package, *more))
    with pytest.raises(UserError, match=rf"logger\.{name} needs {name}, .* pip install {name}"):
        runs.check(composer.compose([*WORDS, f"logger=[{name}]"]).config)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs mlflow")
def test_mlflow_is_given_names_that_it_takes():
    """It refuses a whole delivery for one bracket, and would be sent it again for ever."""
    logger = MLflow()
    logger.waiting, logger.due = [], math.inf
    logger.scalars(3, {"fd/lenet": 1.0, "fd/lenet (n=500, seeds=[0, 1])": 2.0})
    assert logger.waiting[0].values == {"fd/lenet": 1.0, "fd/lenet _n_500_ seeds__0_ 1__": 2.0}


def test_a_credential_in_an_address_is_refused(monkeypatch):
    monkeypatch.setattr(MLflow, "package", "json")
    for address in ("https://anna:geheim@host/mlflow", "https://host/?token=geheim"):
        with pytest.raises(UserError, match=r"tracking_uri holds a credential.*MLFLOW_TRACKING_USERNAME") as caught:
            MLflow(address)
        assert "geheim" not in str(caught.value)
    MLflow("https://host:5000/mlflow")


def test_every_logger_is_chosen_by_its_name():
    chosen = composer.compose(["logger=[tensorboard,csv,wandb,mlflow,trackio]"]).config.logger
    classes = {"tensorboard": TensorBoard, "csv": CSV, **TRACKERS}
    assert {name: node["_target_"].rpartition(".")[2] for name, node in chosen.items()} == {k: v.__name__ for k, v in classes.items()}


@pytest.mark.slow
def test_trackers_are_imported_only_where_they_are_chosen():
    code = "import sys, gan_runner.assembly.build; print([name for name in ('wandb', 'mlflow', 'trackio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "[]\n"
