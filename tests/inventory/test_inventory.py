"""Run directories from outside: what is read of them, what is shown, and which are deleted."""

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import write_runs
from gan_runner import cli
from gan_runner.errors import printable
from gan_runner.inventory import prune
from gan_runner.storage import contents, records
from gan_runner.storage.untrusted import flat, moment, number, parsed_yaml, read_bounded, whole
from write_runs import line, make

FIGURES = (line(10, cs__lenet=2.0), line(20, cs__lenet=5.0), line(30, cs__lenet=None), line(40, cs__lenet=4.0))


def objects(out: str) -> dict[str, dict]:
    return {one["name"]: one for one in map(json.loads, out.splitlines())}


def make_quiet(folder: Path) -> None:
    """Nothing was written into a run for an hour."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (0, path.lstat().st_mtime - 3600), follow_symlinks=False)


# ------------------------------------------------------------------------------------------------------------------------- what is read


def test_a_run_is_read_whole(tmp_path):
    run = records.read(make(tmp_path / "some" / "day", lines=FIGURES), tmp_path)
    assert (run.name, run.state, run.step, run.steps, run.images) == ("some/day", "finished", 40, 40, 400)
    assert run.overrides == ["seed=0"]
    assert run.seconds == 90
    assert run.followed() == ("cs/lenet", "max")
    assert run.curve("cs/lenet") == [(100, 2.0), (200, 5.0), (300, None), (400, 4.0)]
    assert run.best("cs/lenet", "max") == (200, 5.0)
    assert run.best("cs/lenet", "min") == (100, 2.0)
    assert run.last("cs/lenet") == 4.0


def test_runs_are_found_at_any_depth_but_not_through_links_or_within_runs(tmp_path):
    root = tmp_path / "root"
    for name in ("a", "multirun/day/0", "multirun/day/1", "a/checkpoints/inside", ".hidden/b"):
        make(root / name) if name != "a/checkpoints/inside" else None
    make(root / "a" / "checkpoints" / "inside")
    (root / "loop").symlink_to(root)
    (root / "else").symlink_to(make(tmp_path / "elsewhere"))
    (root / "config.yaml").touch()  # alone it makes no run
    assert [str(each.relative_to(root)) for each in records.find(root)] == ["a", "multirun/day/0", "multirun/day/1"]
    assert list(records.find(root / "a")) == [root / "a"]


def test_who_says_running_without_holding_the_lock_is_dead(tmp_path):
    folder = make(tmp_path / "run", "running", step=0, images=0, ended=None)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run = records.read(folder, tmp_path)
        assert run.state == "running"
        assert run.seconds > 0
    run = records.read(folder, tmp_path)
    assert run.state == "dead"
    assert (run.step, run.images) == (40, 400), "as far as its checkpoint"
    (folder / ".lock").unlink()
    assert records.read(folder, tmp_path).state == "dead"


def test_looking_at_a_run_writes_nothing_into_it(tmp_path):
    folder = make(tmp_path / "run", "running")
    (folder / ".lock").unlink()
    before = sorted((path, path.lstat().st_mtime_ns) for path in folder.rglob("*"))
    records.read(folder, tmp_path)
    assert sorted((path, path.lstat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_figures_of_gan_eval_do_not_mix_with_those_of_training(tmp_path):
    later = line(40, {"checkpoint": "best.pt", "n_fake": 50000}, cs__lenet=9.0, fid__x=3.0)
    run = records.read(make(tmp_path / "run", lines=(*FIGURES, later)), tmp_path)
    assert run.best("cs/lenet", "max") == (200, 5.0)
    assert run.protocol()["n_fake"] == 100
    assert run.last("fid/x") == 3.0, "of a metric that training did not measure"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, ("cs/lenet", "max")),
        ("fid/x", ("fid/x", "min")),
        ("own/figure", ("own/figure", None)),
        ("own/figure:min", ("own/figure", "min")),
        ("cs/lenet:min", ("cs/lenet", "min")),
    ],
)
def test_which_metric_and_which_way_is_better(tmp_path, asked, expected):
    assert records.read(make(tmp_path / "run"), tmp_path).followed(asked) == expected


def test_without_a_followed_metric_the_first_one_counts(tmp_path):
    run = records.read(make(tmp_path / "run", lines=(line(10, modes__kl=1.0, cs__lenet=2.0),), config={"callback": {}}), tmp_path)
    assert run.followed() == ("modes/kl", "min")


# ----------------------------------------------------------------------------------------------------------------------------- strangers


HOSTILE = {
    "config.yaml": [
        b"!!python/object/apply:os.system ['touch OWNED']",
        b"\x00\xff\xfe garbage",
        b"a: &a [*a]",
        b"a: &a {x: 1}\nb: {<<: *a}",
        b"[" * 100_000,
        b"- " * 100_000,
        b"x: 0x" + b"f" * 100_000,
        b"trainer: {steps: 1.e+400}\nseed: .nan",
        b"trainer: 3",
        b"? [1]\n: 2",
        b"x: !!binary //8=",
        b"a: 1\n---\nb: 2",
        b"#" * 2**19,
        b"",
    ],
    "status.json": [
        b"[]",
        b'{"state": "run',
        b'{"state": {"a": 1}, "step": "x", "images": -1}',
        b'{"state": "sleeping", "step": 1e999}',
        b'{"state": "failed", "step": ' + b"9" * 5000 + b"}",
        b'{"state": "finished", "step": NaN, "started": "yesterday", "error": [1]}',
        b'{"state": "finished", "started": "9999-12-31T23:59:59+0000", "ended": 3, "step": true}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
    "overrides.yaml": [b"{a: b}", b"[[1], {2: 3}, null]", b"!!python/name:os.system", b"\x80", b""],
    "metrics.jsonl": [
        b'{"step": 1, "images": 10, "metr',
        b"\n\n[]\n3\nnull\n",
        b"\xff\xff\n",
        b'{"step": 1, "images": 1, "metrics": {"cs/lenet": 1e999}}',
        b'{"step": -1, "images": 1, "metrics": {"cs/lenet": 1}}',
        b'{"step": 1, "images": 1, "metrics": {"cs/lenet": {"a": [1]}}, "protocol": 3}',
        b'{"step": 1, "images": 1, "metrics": {"cs/lenet": NaN, "x": ' + b"1" * 4000 + b"}}",
        b'{"a":' * 50_000,
    ],
}


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, all_of_them in HOSTILE.items() for data in all_of_them])
def test_damaged_and_hostile_files_are_shown_as_unknown(tmp_path, monkeypatch, shown, name, data):
    monkeypatch.chdir(tmp_path)
    (make(tmp_path / "runs" / "bad", lines=FIGURES) / name).write_bytes(data)
    make(tmp_path / "runs" / "good", lines=FIGURES)
    code, out, err = shown("runs", "--sort", "name")
    assert code == 0, err
    assert [row.split()[0] for row in out.splitlines()] == ["run", "bad", "good"]
    assert "?" in out or name == "metrics.jsonl"
    code, out, err = shown("runs", "--json", "--sort=-metric")
    assert code == 0, err
    assert objects(out)["good"]["best"] == 5.0
    assert "NaN" not in out
    assert "Infinity" not in out
    assert shown("runs", "--compare", "runs/bad", "runs/good")[0] == 0
    assert not (tmp_path / "OWNED").exists()


def test_files_that_are_no_files_count_as_missing(tmp_path, shown):
    secret = tmp_path / "secret.yaml"
    secret.write_text("seed: 77\n")
    folder = make(tmp_path / "runs" / "bad", "running", lines=FIGURES)
    for name in ("config.yaml", "overrides.yaml", "metrics.jsonl", ".lock"):
        (folder / name).unlink()
    (folder / "config.yaml").symlink_to(secret)
    os.mkfifo(folder / "metrics.jsonl")
    os.mkfifo(folder / ".lock")
    (folder / "overrides.yaml").mkdir()
    (folder / "checkpoints" / "step_00000001.pt").symlink_to("step_00000001.pt")
    run = records.read(folder, tmp_path)
    assert not run.config
    assert run.overrides is None
    assert run.evaluations == []
    assert shown(tmp_path / "runs")[0] == 0


def test_names_and_lines_cannot_move_the_cursor_of_a_terminal(tmp_path, shown):
    evil = "\x1b[2J\x07\r\n\u202eevil\u200b\udcff"
    folder = make(tmp_path / f"bad{evil}", state="failed", error=evil, lines=(line(10, **{evil[:5]: 1.0}),))
    (folder / "overrides.yaml").write_text(json.dumps([f"seed={evil}"]))
    for words in ((), ("--json",), ("--filter", "evil")):
        code, out, _ = shown(tmp_path, *words)
        assert code == 0
        assert len(out.splitlines()) == 2 - ("--json" in words)
        assert not set(out) & set("\x1b\x07\r\u202e\u200b\udcff")


def test_bombs_are_not_set_off():
    bomb = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
    assert parsed_yaml(bomb.encode()) is None
    deep: dict = {}
    for _ in range(500):
        deep = {"k": deep}
    assert len(list(flat(deep))) == 1
    assert len(list(flat({i: i for i in range(10**5)}))) == 5000


def test_what_a_number_and_a_moment_is():
    assert [whole(each) for each in (3, 0, -1, True, 1.0, "3", 2**60, None)] == [3, 0, *[None] * 6]
    assert [number(each) for each in (3, 0.5, True, float("nan"), float("inf"), 10**400, 1e200, "3")] == [3.0, 0.5, *[None] * 6]
    assert moment("1970-01-01T00:01:00+0000") == 60
    assert [moment(each) for each in ("soon", 3, None, "0001-01-01", "1960-01-01T00:00:00+0000")] == [None] * 5
    assert printable("a\tb\x1bc" + "d" * 1000) == "a b\N{REPLACEMENT CHARACTER}c" + "d" * 495 + "..."


def test_a_file_above_the_limit_is_not_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_bounded(path, 100) == b"x" * 100
    assert read_bounded(path, 99) is None
    assert read_bounded(path, 10, cut=True) == b"x" * 10


# -------------------------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def many(tmp_path):
    """Five runs, of which b is the best, d diverged and e is dead."""
    states = ("finished", "finished", "failed", "diverged", "running")
    for seed, (name, state, best) in enumerate(zip("abcde", states, (3, 9, 5, 1, 4))):
        config = {"seed": seed, "loss": {"_target_": f"gan_runner.losses.{'Hinge' if seed % 2 else 'NonSaturating'}"}}
        began = f"2026-01-{30 - seed}T10:00:00+0000"
        make(tmp_path / name, state, (line(10, cs__lenet=float(best)), line(20, cs__lenet=0.5)), config, started=began)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], "abcde"),
        (["--sort", "started"], "edcba"),
        (["--sort", "-started"], "abcde"),
        (["--sort=-name"], "edcba"),
        (["--sort", "-metric"], "bcead"),
        (["--sort", "metric", "--limit", "2"], "da"),
        (["--sort", "state"], "ecdab"),
        (["--state", "failed,diverged", "--sort", "name"], "cd"),
        (["--filter", "loss=hinge"], "bd"),
        (["--filter", "loss=non_saturating", "--filter", "seed=2.0"], "c"),
        (["--filter", "seed=1"], "b"),
        (["--filter", "callback.evaluate.best.metric=cs/lenet"], "abcde"),
        (["--filter", "nothing"], ""),
        (["--filter", "SEED=3"], "d"),  # no key: it is looked for in the line
    ],
)
def test_runs_are_chosen_and_ordered(many, shown, words, names):
    code, out, err = shown(many, *words)
    assert code == 0, err
    assert "".join(row[0] for row in out.splitlines()[1:]) == names


def test_the_table_names_what_counts(many, shown):
    code, out, err = shown(many)
    assert code == 0
    assert out.splitlines()[0].split() == ["run", "state", "step", "images", "best", "last", "took", "age", "changed"]
    row = next(row for row in out.splitlines() if row.startswith("c"))
    assert row.split()[:6] == ["c", "failed", "40/40", "400", "5", "0.5"]
    assert row.endswith("seed=2")
    assert "best and last: cs/lenet \N{UPWARDS ARROW}" in err
    assert "5 runs: 2 finished, 1 diverged, 1 failed, 1 dead" in err


def test_what_all_lines_said_is_said_once(many, shown):
    for folder in many.iterdir():
        words = json.loads((folder / "overrides.yaml").read_text())
        (folder / "overrides.yaml").write_text(json.dumps([*words, "trainer.threads=1"]))
    _, out, err = shown(many)
    assert "all of them: trainer.threads=1\n" in err
    assert "trainer.threads" not in out
    assert next(row for row in out.splitlines() if row.startswith("c")).endswith("seed=2")
    assert "trainer.threads=1" in shown(many, "--filter", "seed=2")[1]  # of one run it is what was changed


def test_figures_that_cannot_be_compared_are_named(many, shown):
    assert "alike" not in shown(many)[2]
    (many / "a" / "metrics.jsonl").write_text(line(10, {"n_fake": 500}, cs__lenet=1.0))
    assert "not all figures were measured alike; they differ in n_fake" in shown(many)[2]


def test_a_metric_whose_direction_nobody_knows_has_no_best(tmp_path, shown):
    make(tmp_path / "a", lines=(line(10, own=3.0), line(20, own=4.0)))
    _, out, err = shown(tmp_path, "--metric", "own")
    assert out.splitlines()[1].split()[4:6] == ["-", "4"]
    assert "--metric own:min or :max" in err
    assert shown(tmp_path, "--metric", "own:min")[1].splitlines()[1].split()[4:6] == ["3", "4"]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_on_a_terminal_names_stay_in_one_piece(tmp_path, shown, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    names = ["ring8/2026-01-31", "dcgan_fashion_mnist/2026-01-31_10-00-00-123456", "multirun/2026-01-31_10-00-00-123456/seed_1,lr_0.001"]
    for at, name in enumerate(names):
        make(tmp_path / name, lines=(line(10**at, own=1 / 3),))
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown(tmp_path)[1]).splitlines()
        for each in names[: at + 1]:
            assert [word for said in lines for word in said.split()].count(each) == 1
        assert max(map(len, lines)) <= width
        assert sum("finished" in said for said in lines) == at + 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_on_a_terminal_nothing_is_wider_than_it(many, shown, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    make(many / "some_experiment" / "2026-01-31_10-00-00-123456")
    code, out, _ = shown(many)
    assert code == 0
    out = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert max(map(len, out.splitlines())) <= width
    assert "seed=4" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["--state", "asleep"], "--state asleep: expected running, dead"),
        (["--sort", "size"], "--sort size: expected name"),
        (["--limit", "0"], "--limit 0"),
        (["--limit", "x"], "invalid int value"),
        (["--plot", "x.png"], "--plot belongs to --compare"),
        (["--yes"], "--yes belongs to --prune"),
        (["--compare", "a"], "two runs or more"),
        (["--compare", "a", "./a"], "two runs or more"),
        (["--compare", "a", "z"], "z: there is no run"),
        (["--compare", "a", "b", "--plot", "x.gif"], "expected a name that ends in .png"),
        (["--report", "x.pdf"], "expected a name that ends in .html or .md"),
        (["--report", "x.html", "--filter", "nothing"], "no run to report"),
        (["--report", "x.html", "--json"], "--json shows runs"),
        (["--report", "x.html", "--prune"], "not allowed with"),
        (["--wat"], "unrecognized arguments: --wat"),
    ],
)
def test_a_wrong_line_is_refused(many, shown, monkeypatch, words, said):
    monkeypatch.chdir(many)
    code, _, err = shown(*([] if words == ["nowhere"] else ["."] if words[0] != "--compare" else []), *words)
    assert code == 2
    assert said in err
    assert not list(many.glob("x.*"))


def test_an_empty_folder_is_no_error(tmp_path, shown):
    code, out, err = shown(tmp_path)
    assert (code, out) == (0, "")
    assert "there are no runs in" in err


def test_help_names_every_flag_and_the_command_needs_no_torch(tmp_path):
    code = "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None; from gan_runner.cli import runs; sys.exit(runs())"
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in (
        "--state",
        "--filter",
        "--sort",
        "--limit",
        "--metric",
        "--json",
        "--compare",
        "--plot",
        "--report",
        "--prune",
        "--yes",
        "dead",
    ):
        assert word in done.stdout
    make(tmp_path / "a")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code, "."], cwd=tmp_path, env=ascii_only, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "best and last: cs/lenet ?" in done.stderr


# ------------------------------------------------------------------------------------------------------------------------------ deleting


def test_prune_takes_what_failed_diverged_or_died_and_nothing_else(many, shown):
    make(many / "f", "interrupted")
    make_quiet(many / "e")
    code, out, err = shown(many, "--prune", "--yes")
    assert code == 0, err
    assert sorted(path.name for path in many.iterdir()) == ["a", "b", "f"]
    assert "deleted 3 runs, 0.0 MB are free" in err
    assert "failed" in out
    assert "there is nothing to delete" in shown(many, "--prune", "--yes")[2]
    assert shown(many, "--prune", "--yes", "--state", "interrupted")[0] == 0
    assert sorted(path.name for path in many.iterdir()) == ["a", "b"]


def test_without_a_terminal_prune_asks_for_yes(many, shown, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, err = shown(many, "--prune")
    assert code == 2
    assert "delete 2 runs" in err
    assert "say --yes" in err
    assert len(list(many.iterdir())) == 5


@pytest.mark.parametrize(("answer", "left"), [("y", 3), ("YES", 3), ("", 5), ("n", 5), ("yep", 5)])
def test_on_a_terminal_the_answer_decides(many, shown, monkeypatch, answer, left):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer if "delete 2 runs (0.0 MB)? [y/N]" in question else "")
    assert shown(many, "--prune")[0] == 0
    assert len(list(many.iterdir())) == left


def test_a_run_that_was_written_to_just_now_or_is_held_stays(many, shown):
    code, _, err = shown(many, "--prune", "--yes", "--filter", "seed=4")
    assert code == 0
    assert "e stays: it was written to" in err
    make_quiet(many / "e")
    with (many / "e" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "e stays: a process is writing it" in shown(many, "--prune", "--yes", "--state", "running,dead")[2]
    assert (many / "e").exists()


def test_a_run_that_begins_between_question_and_answer_stays(many):
    run = records.read(many / "c", many)
    with (many / "c" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(prune.UserError, match="a process is writing it"):
            prune.delete(run, many)
    (many / "c" / "status.json").write_text('{"state": "finished"}')
    with pytest.raises(prune.UserError, match="it has changed meanwhile"):
        prune.delete(run, many)
    assert (many / "c" / "config.yaml").exists()


@pytest.mark.parametrize("other", ["notes.txt", "src/main.py", "nested/config.yaml", "samples/cat.jpg", "model.safetensors"])
def test_a_folder_that_holds_anything_else_stays(many, shown, other):
    path = many / "c" / other
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    code, _, err = shown(many, "--prune", "--yes")
    assert code == 0
    assert f"c stays: it holds {other}, which no run leaves there" in err
    assert path.read_text() == "mine"
    assert not (many / "d").exists()


def test_all_that_a_run_leaves_may_be_deleted(many, shown):
    """changes.jsonl, too, which a resume with another trainer.steps writes."""
    for name in {*contents.RUN} - {*contents.FOLDERS}:
        (many / "c" / name.replace("*", "x")).touch()
    make_quiet(many / "c")
    assert shown(many, "--prune", "--yes")[0] == 0
    assert not (many / "c").exists()


def test_links_out_of_the_folder_are_not_followed(many, shown):
    outside = make(many.parent / "outside", "failed")
    (many / "link").symlink_to(outside)
    for name in ("checkpoints", "samples"):
        for path in (many / "c" / name).iterdir():
            path.unlink()
        (many / "c" / name).rmdir()
        (many / "c" / name).symlink_to(outside / name)
    (many / "d" / "checkpoints" / "last.pt").symlink_to(outside / "checkpoints" / "step_00000040.pt")
    code, _, err = shown(many, "--prune", "--yes")
    assert code == 0
    assert "c stays: it holds" in err
    assert not (many / "d").exists()
    assert (outside / "checkpoints" / "step_00000040.pt").exists()
    assert (outside / "samples" / "step_00000040.png").exists()


def test_a_lock_that_is_a_link_is_not_opened(many, shown):
    target = many.parent / "target"
    target.write_text("precious")
    (many / "c" / ".lock").unlink()
    (many / "c" / ".lock").symlink_to(target)
    code, _, err = shown(many, "--prune", "--yes", "--state", "failed")
    assert code == 1
    assert "its lock cannot be taken" in err
    assert target.read_text() == "precious"


def test_a_checkpoint_with_two_names_counts_once(tmp_path):
    folder = make(tmp_path / "run")
    before = prune.size(folder)
    os.link(folder / "checkpoints" / "step_00000040.pt", folder / "checkpoints" / "last.pt")
    assert prune.size(folder) == before
    assert before > 1000 + len(write_runs.png())


# --------------------------------------------------------------------------------------------------------------------------- a real run


@pytest.mark.slow
def test_a_run_of_gan_train_is_understood_in_every_part(tmp_path, shown, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["+experiment=gaussians25", "trainer.steps=4", "trainer.accelerator=cpu", "batch_size=16", "callback.grid.n=9"]
    words += ["callback.evaluate.n=100", "callback.evaluate.every_steps=2"]
    monkeypatch.setattr(sys, "argv", ["gan-train", *words])
    assert cli.train() == 0, capsys.readouterr().err
    capsys.readouterr()
    code, out, err = shown("--json")
    assert code == 0, err
    (run,) = objects(out).values()
    assert run["name"].startswith("gaussians25/")
    assert (run["state"], run["step"], run["steps"], run["images"]) == ("finished", 4, 4, 64)
    assert (run["metric"], run["mode"]) == ("modes/kl", "min")
    assert run["best"] is None or 0 <= run["best"] <= run["last"] <= 3.22
    assert run["overrides"] == words[1:]
    assert run["seconds"] >= 0
    assert records.numbered(Path(run["path"]))[0][0] == 4
    assert shown("--prune", "--yes", "--state", "finished")[0] == 0
    assert not Path(run["path"]).exists(), "it leaves nothing behind that pruning does not know"
