"""Where data are sent, and what is read from the environment: only what the line says, whatever the directory of a run says."""

import http.server
import shutil
import sys
import threading
from pathlib import Path

import pytest
import yaml

import gan_runner
from gan_runner import cli
from gan_runner.assembly import build, parts
from gan_runner.config import command_line, composer
from gan_runner.errors import UserError
from gan_runner.lifecycle import runs
from gan_runner.loggers import Logger, tracker
from gan_runner.storage import directory
from tiny_runs import NARROW, READING

TOKEN = "t0ken-of-the-user"
LINE = [*NARROW, "trainer.steps=4"]
COMMANDS = {"train": ["resume=run", "trainer.steps=5"], **READING}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    runs.train(composer.compose([*LINE, "logger=[]"]).config, folder)
    return folder


@pytest.fixture
def server():
    """A server of this machine: its address, and (request, its Authorization) of all that arrives."""
    arrived = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            arrived.append((self.path, self.headers.get("Authorization")))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(404)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *words): ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", arrived
        listening.shutdown()


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of a run that was interrupted, `run` in an empty working folder, as a stranger may have changed it: change(key, value)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", TOKEN)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    folder = Path(shutil.copytree(trained, "run"))

    def change(key, value):
        tree = yaml.safe_load((folder / "config.yaml").read_text())
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))

    return change


@pytest.fixture
def shell(monkeypatch, capfd):
    """(exit code, what was said) of a command."""

    def command(name, *words):
        monkeypatch.setattr(sys, "argv", [f"gan-{name}", *(words or COMMANDS[name])])
        capfd.readouterr()
        return getattr(cli, name)(), "".join(capfd.readouterr())

    return command


def mlflow(address):
    return {"_target_": "gan_runner.loggers.MLflow", "tracking_uri": address, "experiment": "x"}


@pytest.mark.slow
def test_the_directory_of_a_run_sends_nothing_anywhere(run, shell, server):
    address, arrived = server
    run("logger.mlflow", mlflow(address))
    for command in COMMANDS:
        code, said = shell(command)
        assert "Traceback" not in said
        assert TOKEN not in said
        if command == "train":
            assert code == 2
            word = f"logger.mlflow.tracking_uri={address}"
            assert word in said
            assert "read from the command line only" in said
            assert "or say logger.mlflow.tracking_uri=null" in said
        else:
            assert code == (2 if command == "rate" else 0), said  # points are nothing to look at
    gan_runner.load("run").sample(2)
    assert arrived == []


@pytest.mark.slow
def test_a_run_goes_on_sending_where_the_line_says_so(run, shell, server, monkeypatch):
    address, arrived = server
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run("logger.mlflow", mlflow("http://127.0.0.1:1"))
    code, said = shell("train", "resume=run", "trainer.steps=5", f"logger.mlflow.tracking_uri={address}", "accept=config")
    assert code == 0, said
    assert {token for _, token in arrived} == {f"Bearer {TOKEN}"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "node", "key", "value"),
    [
        ("mlflow", {"tracking_uri": "sqlite:////nowhere/x.db"}, "tracking_uri", "null"),
        ("trackio", {"space": "a/b"}, "space", "null"),
        ("wandb", {"mode": "online"}, "mode", "offline"),
        ("wandb", {"entity": "somebody"}, "entity", "null"),
    ],
)
def test_an_address_counts_only_on_the_line(run, shell, monkeypatch, name, node, key, value):
    pytest.importorskip(name)
    played = []
    monkeypatch.setattr(runs, "played", lambda folder, config, *rest: played.append(config.logger[name].get(key)))
    classes = {"mlflow": "MLflow", "trackio": "Trackio", "wandb": "WandB"}
    run(f"logger.{name}", {"_target_": f"gan_runner.loggers.{classes[name]}"} | node)
    code, said = shell("train")
    assert (code, played) == (2, [])
    assert f"say logger.{name}.{key}={value}" in said
    for chosen in (value, node[key]):
        code, said = shell("train", *COMMANDS["train"], f"logger.{name}.{key}={chosen}", "accept=config")  # the file was edited
        assert code == 0, said
    assert played == [None if value == "null" else value, node[key]]


class Sender(Logger):
    """A logger of a user's, that has an address."""

    addresses = ("to",)

    def __init__(self, to: str = "nobody"): ...


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ([], False),
        (["logger.s.to=x"], True),
        (["++logger.s.to=x"], True),
        (["logger.s.to=x,y"], True),
        (["+logger.s={_target_:x,to:x}"], True),
        (["+logger={s:{to:x}}"], True),
        (["+logger.s={_target_:x}"], False),
        (["~logger.s.to"], False),
        (["logger=[s]"], False),
        (["logger.s.tow=x"], False),
        (["logger.so.to=x"], False),
        (["seed=1"], False),
    ],
)
def test_which_words_name_an_address(monkeypatch, line, good):
    monkeypatch.setattr(build, "locate", lambda *said: Sender)
    part = parts.Part("logger.s", {"_target_": "x", "to": "x"}, Logger)
    assert (list(build.unnamed_addresses(part, [], command_line.parsed(line))) == []) is good
    assert list(build.unnamed_addresses(part._replace(node={"_target_": "x", "to": "nobody"}), [], [])) == []


# ---- the environment ---------------------------------------------------------------------------------------------------------------------

ASKED = {
    "a number": ("batch_size", "${oc.env:SECRET}"),
    "the name of a run": ("logger.csv", {"_target_": "gan_runner.loggers.CSV", "name": "${oc.env:SECRET}"}),
    "the place of the data": ("dataset.root", "${oc.env:SECRET}"),
    "a default": ("dataset.root", "${oc.env:GAN_RUNNER_DATA,${oc.env:SECRET}}"),
    "a key that nobody reads": ("x", "${oc.env:SECRET}"),
    "a text that is decoded": ("seed", "${oc.decode:${seed}}"),
    "code": ("loss.x", "${oc.create:{_target_:os.mkdir,path:OWNED}}"),
    "a backslash": ("loss.x", "\\${oc.create:{_target_:os.mkdir,path:OWNED}}"),
    "itself": ("seed", "${seed}"),
    "a time": ("batch_size", "${now:%M}"),
}
ASKED |= {"twice the next": ("loss", {f"x{i}": f"${{loss.x{i + 1}}}" * 2 for i in range(40)} | {"x40": "x"})}


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKED)
def test_the_directory_of_a_run_asks_for_nothing(run, shell, name):
    run(*ASKED[name])
    for command in COMMANDS if name == "a number" else ("train", "sample"):
        code, said = shell(command)
        assert "Traceback" not in said
        assert TOKEN not in said
        assert not list(Path().rglob("OWNED"))
        if command != "runs":
            assert code == 2, said
            assert "config.yaml" in said or name == "a time", said
    with pytest.raises(UserError):
        gan_runner.load("run")
    for path in Path().rglob("*"):
        assert TOKEN not in path.name
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


def test_a_run_finds_its_data_by_the_environment_as_ever(run, monkeypatch, tmp_path):
    for text in ("${oc.env:GAN_RUNNER_DATA,data}", "${oc.env:GAN_RUNNER_DATA}"):
        run("dataset.root", text)
        run("extractor", {"weights": "${dataset.root}/classifiers/${seed}.pth"})
        monkeypatch.setenv("GAN_RUNNER_DATA", "there")
        found = build.plain(directory.read_config(Path("run")))
        assert (found["dataset"]["root"], found["extractor"]["weights"]) == ("there", "there/classifiers/0.pth")
        kept = directory.portable(directory.read_config(Path("run")))
        assert kept["dataset"]["root"] == text


def test_what_the_line_asks_of_the_environment_is_written_down_as_what_it_was(run):
    composed = composer.compose(["dataset=mnist", "dataset.root=${oc.env:SECRET}/data"]).config
    assert directory.portable(composed)["dataset"]["root"] == f"{TOKEN}/data"


# ---- files of trackers -------------------------------------------------------------------------------------------------------------------


class Remembering(tracker.Tracker):
    package = "json"

    def __init__(self):
        self.said = []
        self.run = type("Run", (), {"reporter": type("Reporter", (), {"say": self.said.append})})

    def open(self, run, said, known): ...
    def send(self, entry): ...
    def end(self, state): ...


@pytest.mark.parametrize("text", ["[1]", "{", '{"run_id": 3}', '{"run_id": {"a": "b"}}', '{"run_id": "a\\u001b[31m"}', "9" * 10_000])
def test_the_name_of_a_run_that_is_none_begins_a_new_one(tmp_path, text):
    (tmp_path / "json.json").write_text(text)
    told = Remembering()
    assert told.remembered(tmp_path / "json.json") is None
    assert told.said == [f"{tmp_path / 'json.json'} cannot be read; json begins a new run"]
    (tmp_path / "json.json").write_text('{"run_id": "0123"}')
    assert told.remembered(tmp_path / "json.json") == {"run_id": "0123"}


@pytest.mark.parametrize(
    "text", ["a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 30)), "{", "[" * 9999]
)
def test_a_tracker_is_told_no_line_that_cannot_be_read(run, text):
    Path("run/overrides.yaml").write_text(text)
    assert tracker.said_of(Path("run")).overrides == []
