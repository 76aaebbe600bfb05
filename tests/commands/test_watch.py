"""gan-eval watch=true: the checkpoints of a run are evaluated while another process trains it."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from gan_runner import cli
from gan_runner.commands import watch
from gan_runner.config import composer
from gan_runner.inventory import prune
from gan_runner.lifecycle import runs
from gan_runner.storage import checkpoint, contents, directory, records
from read_runs import curves, lines, same, state_of
from tiny_runs import gan_train

NARROW = [
    "+experiment=ring8", "batch_size=16", "callback.grid.n=4", "callback.evaluate.n=50", "dataset.n=400", "callback.checkpoint.keep=99",
    "architecture.generator.width=8", "architecture.discriminator.width=8", "trainer.accelerator=cpu",
]  # fmt: skip
LOOKS = ["n=60", "accelerator=cpu", "format=json", "metric=[frechet_distance,mode_coverage]", "extractor=identity"]
EVALUATE = "import sys; from gan_runner import cli; sys.exit(cli.evaluate())"
FIGURE = "fd/identity"


def watched(folder):
    return [json.loads(line) for line in (Path(folder) / contents.WATCHED).read_text().splitlines()]


def points(folder):
    return curves(Path(folder) / "evaluations")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with step_2.pt, step_4.pt and step_6.pt."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    runs.train(composer.compose([*NARROW, "trainer.steps=6", "callback.checkpoint.every_steps=2"]).config, folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def gan_eval(monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["gan-eval", *map(str, words)])
        code = cli.evaluate()
        said = capsys.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines()], said.err

    return command


@contextmanager
def training(run):
    """Another process trains the run: it says so, and its lock is held."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "running"}))
    with (run / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    (run / "status.json").write_text(json.dumps(status))


@pytest.fixture
def meanwhile(monkeypatch, run):
    """Gives what happens at each pause of the watcher; the run has ended after the last."""

    def play(*acts):
        going = training(run)
        going.__enter__()
        left = list(acts)

        def pause(seconds):
            if left:
                left.pop(0)()
            else:
                going.__exit__(None, None, None)

        monkeypatch.setattr(watch.time, "sleep", pause)

    return play


# ------------------------------------------------------------------------------------------------------------- while a run is going on


@pytest.fixture
def started():
    """Processes; those that a failed test leaves behind are killed."""
    children = []
    yield lambda child: children.append(child) or child
    for child in children:
        child.kill()
        child.communicate()


def gan_eval_process(folder, *words):
    env = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", EVALUATE, *words], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(ready, *children, seconds=120):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        assert all(child.poll() is None for child in children), [child.communicate() for child in children]
        time.sleep(0.01)


@pytest.mark.slow
def test_a_running_run_is_watched_by_a_process_that_is_killed_again_and_again(tmp_path, gan_eval, monkeypatch, started):
    """Each checkpoint is there once, as gan-eval checkpoint=all measures it, and the run is what it is unwatched.

    The run is held up while watchers start and die, so that it outlives them on any machine.
    """
    words = [
        *NARROW,
        "trainer.steps=2400",
        "callback.checkpoint.every_steps=200",
        "callback.evaluate.every_steps=1200",
        "trainer.threads=1",
    ]
    line = ["run=run", "watch=true", *LOOKS]
    steps = list(range(200, 2401, 200))
    train = started(gan_train(tmp_path, *words, "hydra.run.dir=run"))
    file = tmp_path / "run" / contents.WATCHED

    def made():
        return len(checkpoint.numbered(tmp_path / "run" / "checkpoints"))

    def there():
        return file.read_bytes().count(b"\n") if file.exists() else 0

    for number, signum in enumerate([signal.SIGKILL, signal.SIGINT, signal.SIGKILL]):
        wait_for(lambda number=number: made() > max(there(), 2 * number), train)
        train.send_signal(signal.SIGSTOP)
        child, before = started(gan_eval_process(tmp_path, *line)), there()
        wait_for(lambda before=before: there() > before, child)
        if number == 0:
            other = started(gan_eval_process(tmp_path, *line))
            said = other.communicate(timeout=120)
            assert (other.returncode, said[0]) == (2, "")
            assert said[1] == "gan-eval: another process is watching the run in run\n"
        time.sleep(0.1 * number)
        child.send_signal(signum)
        _, said = child.communicate(timeout=60)
        assert child.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[signum]
        assert ("this line goes on: gan-eval run=run watch=true n=60" in said) == (signum == signal.SIGINT)
        train.send_signal(signal.SIGCONT)
    wait_for(lambda: made() > there(), train)
    train.send_signal(signal.SIGSTOP)
    child = started(gan_eval_process(tmp_path, *line))
    wait_for(lambda: there() == made(), child)
    assert there() < len(steps)
    train.send_signal(signal.SIGCONT)
    assert train.wait(timeout=240) == 0
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said
    assert "run: it has finished; 12 checkpoints evaluated" in said

    found = watched(tmp_path / "run")
    assert [each["step"] for each in found] == steps
    monkeypatch.chdir(tmp_path)
    _, after, _ = gan_eval("run=run", "checkpoint=all", "out=after", *LOOKS)
    marks = {"weights_sha256", "settings_sha256"}
    assert [{key: value for key, value in each.items() if key not in marks} for each in found] == after

    once = started(gan_train(tmp_path, *words, "hydra.run.dir=unwatched"))
    assert once.wait(timeout=240) == 0
    assert same(state_of("run"), state_of("unwatched")) is None
    assert curves("run") == curves("unwatched")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "unwatched" / "metrics.jsonl").read_bytes()

    figures = [(each["step"], pytest.approx(each["metrics"][FIGURE])) for each in found]
    assert points("run")[FIGURE] == figures
    assert [step for step, _ in points("run")["modes/high_quality (n=60)"]] == steps
    assert records.read(tmp_path / "run", tmp_path).curve(FIGURE) == [(16 * step, value) for step, value in figures]


# ------------------------------------------------------------------------------------------------------------- where the watcher stops


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["curves", "pictures", "half a line", "line", "zeros"])
def test_whatever_it_was_doing_when_it_died_nothing_is_lost_or_there_twice(run, gan_eval, monkeypatch, capsys, moment):
    """It dies at the second checkpoint. half a line: of a power cut; zeros: what some file systems leave of it."""
    line = [f"run={run}", "watch=true", *LOOKS]
    add, append = directory.add_evaluation, watch.Curves.add

    def dying_line(folder, said, pictures, name):
        if said["step"] == 4 and moment == "pictures":
            raise SystemExit
        add(folder, said, pictures, name)
        if said["step"] == 4:
            data = (run / contents.WATCHED).read_bytes()
            cut = {"half a line": data[:-30], "zeros": data[:-30] + bytes(30), "line": data}[moment]
            (run / contents.WATCHED).write_bytes(cut)
            raise SystemExit

    def dying_curves(self, step, *points):
        if step == 4 and moment == "curves":
            raise SystemExit
        append(self, step, *points)

    with monkeypatch.context() as dying:
        dying.setattr(directory, "add_evaluation", dying_line)
        dying.setattr(watch.Curves, "add", dying_curves)
        with pytest.raises(SystemExit):
            gan_eval(*line)
    capsys.readouterr()
    code, printed, said = gan_eval(*line)
    assert code == 0
    assert f"{run}: it has finished; 3 checkpoints evaluated, {len(printed)} of them now" in said
    assert [each["step"] for each in printed] == ([6] if moment == "line" else [4, 6])
    assert [each["step"] for each in watched(run)] == [2, 4, 6]
    assert [step for step, _ in points(run)[FIGURE]] == [2, 4, 6]
    before = (run / contents.WATCHED).read_bytes(), (run / contents.WATCHED_CURVES).read_bytes()
    assert gan_eval(*line)[:2] == (0, [])
    assert ((run / contents.WATCHED).read_bytes(), (run / contents.WATCHED_CURVES).read_bytes()) == before


def test_ctrl_c_says_which_line_goes_on(run, gan_eval, meanwhile):
    def interrupt():
        raise KeyboardInterrupt

    meanwhile(interrupt)
    code, printed, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert (code, len(printed)) == (130, 3)
    assert f"stopped; 3 checkpoints evaluated; this line goes on: gan-eval run={run} watch=true n=60 accelerator=cpu" in said


# -------------------------------------------------------------------------------------------------------------------- which checkpoints


@pytest.mark.slow
def test_last_pt_alone_is_evaluated_when_its_weights_change(run, gan_eval, meanwhile):
    folder = run / "checkpoints"
    kept = {step: shutil.move(folder / f"step_0000000{step}.pt", run.parent / str(step)) for step in (2, 4, 6)}

    def become(step):
        def act():
            shutil.copy(kept[step], folder / "new")
            (folder / "new").replace(folder / "last.pt")

        return act

    become(2)()
    meanwhile(become(2), become(4), lambda: None, become(6))
    code, printed, _ = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert code == 0
    assert [(each["step"], each["protocol"]["checkpoint"]) for each in printed] == [(step, "last.pt") for step in (2, 4, 6)]


@pytest.mark.slow
def test_a_checkpoint_that_was_made_again_counts_by_its_weights(run, gan_eval, meanwhile):
    """As by a run that was resumed from an earlier one."""
    path = run / "checkpoints" / "step_00000004.pt"

    def same_again():
        checkpoint.save(path, checkpoint.load(path))

    def other():
        state = checkpoint.load(path)
        checkpoint.save(path, state | {"game": {key: 2 * value if "weight" in key else value for key, value in state["game"].items()}})

    meanwhile(same_again, other)
    _, printed, _ = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert [each["step"] for each in printed] == [2, 4, 6, 4]
    assert printed[1]["metrics"] != printed[3]["metrics"]
    assert records.read(run, run).curve(FIGURE)[1] == (64, printed[3]["metrics"][FIGURE])


def test_a_checkpoint_that_is_removed_before_it_is_read_is_left_out(run, gan_eval, monkeypatch):
    load = watch.TrainedRun

    def slow(folder, which, *rest):
        if "00000002" in which:
            Path(which).unlink()
        return load(folder, which, *rest)

    monkeypatch.setattr(watch, "TrainedRun", slow)
    code, printed, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert (code, [each["step"] for each in printed]) == (0, [4, 6])
    assert "step_00000002.pt is not evaluated: the run has removed it" in said


def test_a_damaged_checkpoint_is_left_out_and_named(run, gan_eval):
    path = run / "checkpoints" / "step_00000002.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    code, printed, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert (code, [each["step"] for each in printed]) == (0, [4, 6])
    assert "step_00000002.pt is not evaluated: " in said
    assert "step_00000002.pt is damaged" in said


@pytest.mark.slow
def test_samples_that_are_not_finite_are_null_with_the_reason_and_the_next_ones_are_measured(run, gan_eval):
    path = run / "checkpoints" / "step_00000004.pt"
    state = checkpoint.load(path)
    checkpoint.save(path, state | {"game": {key: value * torch.nan if "weight" in key else value for key, value in state["game"].items()}})
    code, printed, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert (code, [each["step"] for each in printed]) == (0, [2, 4, 6])
    assert printed[1]["metrics"] == {FIGURE: None, "modes": None}
    assert printed[1]["protocol"]["missing"] == dict.fromkeys(
        ["frechet_distance", "mode_coverage"], "not all samples are finite (nan or inf)"
    )
    assert "round 4: mode_coverage is null: not all samples are finite" in said
    assert gan_eval(f"run={run}", "watch=true", *LOOKS)[1] == []


@pytest.mark.slow
def test_another_measurement_evaluates_them_again_under_another_name(run, gan_eval):
    gan_eval(f"run={run}", "watch=true", *LOOKS)
    for words in (["n=61"], ["seed=1"], ["seeds=2"], ["metric.mode_coverage.radius_sigmas=5.0"]):
        assert len(gan_eval(f"run={run}", "watch=true", *LOOKS, *words)[1]) == 3
    for words in (["batch_size=7"], ["threads=1"], ["format=csv"]):  # which change no figure
        assert gan_eval(f"run={run}", "watch=true", *LOOKS[:2], *LOOKS[3:], *words)[1] == []
    names = {FIGURE, f"{FIGURE} (n=61)", f"{FIGURE} (seed=1)", f"{FIGURE} (seeds=[0, 1])"}
    assert {name for name in points(run) if name.startswith(FIGURE)} == names
    assert {name for name in records.read(run, run).curves if name.startswith(FIGURE)} == names


# ------------------------------------------------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize(("state", "said"), [("failed", "it failed"), ("diverged", "it diverged"), ("interrupted", "it was interrupted")])
def test_it_ends_with_a_run_that_did_not_finish(run, gan_eval, state, said):
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": state}))
    code, printed, told = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert (code, len(printed)) == (0, 3)
    assert f"{run}: {said}; 3 checkpoints evaluated" in told
    assert ("once it is resumed, this line goes on: gan-eval" in told) == (state == "interrupted")


def test_a_run_whose_process_is_gone_has_ended_once_it_is_quiet(run, gan_eval, monkeypatch):
    """Its process may be on another machine, whose lock is not seen here."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "running"}))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        for path in (run, *run.rglob("*")):
            os.utime(path, (0, path.lstat().st_mtime - 400))

    monkeypatch.setattr(watch.time, "sleep", pause)
    code, printed, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert (code, len(printed), len(pauses)) == (0, 3, 2)
    assert "its process was killed, or its machine went down; 3 checkpoints evaluated; once it is resumed, this line goes on" in said


def test_a_run_that_is_moved_is_no_longer_watched(run, gan_eval, meanwhile):
    meanwhile(lambda: run.rename(run.with_name("elsewhere")))
    code, _, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert code == 1
    assert f"{run} was moved or removed while it was watched" in said
    assert not run.exists()


# -------------------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run={run}", "checkpoint=best"], "checkpoint=best: watch=true evaluates each checkpoint as it is written; leave it out"),
        (["run={run}", "out=elsewhere"], "out=elsewhere: the figures of watch=true are kept in the run"),
        (["run=[{run},{run}]"], "watch=true follows one run: say run=RUN_DIR, and type a line for each run"),
        (["samples={run}"], "watch=true follows one run"),
        ([], "watch=true follows one run"),
        (["run=nowhere"], "nowhere is not a run directory"),
        (["run={run}", "watch=often"], "watch='often': expected true or false"),
        (["run={run}", "metric=[frechet_distance]", "extractor=lenet", "extractor.weights=nowhere.pth"], "there is no file nowhere.pth"),
        (["run={run}", "metric=[skill_rating]"], "it looks at the checkpoints of a whole run: use gan-eval run=RUN_DIR, without watch"),
    ],
)
def test_a_wrong_line_is_one_clear_message(run, gan_eval, words, said):
    code, printed, told = gan_eval("watch=true", *[word.format(run=run) for word in words])
    assert (code, printed) == (2, [])
    assert said in told
    assert "Traceback" not in told


def test_missing_weights_are_named_before_there_is_a_checkpoint(run, gan_eval):
    shutil.rmtree(run / "checkpoints")
    with training(run):
        code, _, said = gan_eval(
            f"run={run}", "watch=true", "metric=[frechet_distance]", "extractor=lenet", "extractor.weights=nowhere.pth"
        )
    assert code == 2
    assert "there is no file nowhere.pth" in said


def test_a_second_watcher_is_refused(run, gan_eval):
    (run / "evaluations").mkdir(exist_ok=True)
    with directory.locked(run, "watching the run", watch.LOCK):
        code, printed, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert (code, printed, said) == (2, [], f"gan-eval: another process is watching the run in {run}\n")


# ------------------------------------------------------------------------------------------------------------- the files of a run


def test_the_run_is_left_alone_and_may_be_deleted(run, gan_eval):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    gan_eval(f"run={run}", "watch=true", *LOOKS)
    new = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {p.relative_to(run).as_posix() for p in before}
    assert new == {contents.WATCHED, contents.WATCHED_CURVES, watch.LOCK}
    assert {path: path.read_bytes() for path in before} == before
    assert prune.why_not(records.read(run, run.parent), run.parent) is None


@pytest.mark.parametrize("name", [contents.WATCHED, contents.WATCHED_CURVES, watch.LOCK])
def test_a_link_among_them_is_refused_and_not_followed(run, gan_eval, tmp_path, name):
    (run / "evaluations").mkdir(exist_ok=True)
    (tmp_path / "mine").write_text("precious")
    (run / name).symlink_to(tmp_path / "mine")
    code, _, said = gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert code == 2
    assert f"{run / name} is a link" in said
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.slow
def test_figures_behind_a_link_are_not_read(run, gan_eval, tmp_path):
    gan_eval(f"run={run}", "watch=true", *LOOKS)
    assert len(records.read(run, run).curve(FIGURE)) == 3
    (run / "evaluations").rename(tmp_path / "elsewhere")
    (run / "evaluations").symlink_to(tmp_path / "elsewhere")
    assert records.read(run, run).curve(FIGURE) == []
    assert lines(run) != []


@pytest.mark.slow
def test_gan_eval_beside_a_running_run_leaves_its_curves_alone(run, gan_eval):
    """TensorBoard without its data server reads on in the newest file of a folder only."""
    before = {path.name for path in run.glob("events.out.tfevents.*")}
    with training(run):
        gan_eval(f"run={run}", *LOOKS)
    assert {path.name for path in run.glob("events.out.tfevents.*")} == before
    assert [step for step, _ in points(run)[FIGURE]] == [6]
    gan_eval(f"run={run}", *LOOKS)
    assert FIGURE in curves(run)
