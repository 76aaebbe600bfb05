"""Jobs of a sweep in other processes: at once, put back into the queue and gone on with, to the bits of a job that nobody disturbed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gan_runner.config.composer import compose
from gan_runner.errors import UserError
from gan_runner.jobs import submitit_launcher
from gan_runner.storage import checkpoint, contents
from gan_runner.training.signals import Signals

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from gan_runner import cli; sys.exit(cli.train())"
STEPS = 40
LINE = [
    "-m",
    "+experiment=gaussians25",
    "architecture.generator.width=16",
    "architecture.discriminator.width=16",
    "batch_size=16",
    "dataset.n=1000",
    "trainer.accelerator=cpu",
    f"trainer.steps={STEPS}",
    "callback.grid.n=16",
    "callback.evaluate.n=200",
    "callback.evaluate.every_steps=10",
    "+callback.disturbing={_target_: disturbing.Disturbing, act: nothing, jobs: 1}",
    "packages=[disturbing]",
]

DISTURBING = """
import os
import signal
import time
from gan_runner import Callback


class Disturbing(Callback):
    \"\"\"Waits for the other jobs before the first round. In round 7 of its first attempt it does what it is told.\"\"\"

    def __init__(self, act: str, jobs: int):
        self.act, self.jobs = act, jobs

    def begin(self, run):
        self.first = not (run.folder / "begun").exists()
        (run.folder / "begun").touch()
        deadline = time.monotonic() + 600
        while len(list(run.folder.parent.glob("*/begun"))) < self.jobs:
            assert time.monotonic() < deadline, "the other jobs do not begin"
            time.sleep(0.05)

    def after_round(self, run, logs):
        if run.step == 7 and self.first:
            (run.folder / "reached").touch()
            assert os.getcwd() == os.environ["PWD"]
            if self.act.startswith("SIG"):
                os.kill(os.getpid(), signal.Signals[self.act])
            elif self.act == "end the even ones" and int(run.folder.name) % 2 == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            elif self.act == "fail":
                raise ValueError("boom")
        if self.act == "slow" and self.first:
            time.sleep(0.3)
"""


@pytest.fixture(autouse=True)
def submitit():
    return pytest.importorskip("submitit")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of the package `disturbing`."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "disturbing.py").write_text(DISTURBING)
    return folder


def command(package, folder, *words, programs=""):
    """gan-train -m, as the user starts it, into a folder."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(package), str(ROOT / "src")])}
    env |= {"PWD": os.getcwd(), "PATH": os.pathsep.join([*filter(None, [str(programs)]), env["PATH"]])}
    line = [sys.executable, "-c", COMMAND, *LINE, *words, f"hydra.sweep.dir='{folder}'"]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(child):
    """(exit code, stdout, stderr)"""
    try:
        out, said = child.communicate(timeout=900)
    finally:
        child.kill()
    return child.returncode, out, said


def state_of(folder):
    return checkpoint.load(folder / "checkpoints" / "last.pt")


def status_of(folder):
    return json.loads((folder / "status.json").read_text())["state"]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def check_is_undisturbed(folder, alone):
    """Weights, optimisers, random states and figures are those of the other job."""
    assert status_of(folder) == "finished"
    one, other = (state_of(each) | {"config": None} for each in (folder, alone))  # which says how a job is disturbed
    assert same(one, other)
    figures = [[json.loads(line)["metrics"] for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (folder, alone)]
    assert figures[0] == figures[1]
    assert len(figures[0]) == STEPS // 10


def table(out):
    """(number, state) of the jobs in the table of a sweep."""
    return [tuple(line.split()[:2]) for line in out.splitlines() if line[0].isdigit()]


@pytest.fixture(scope="module")
def alone(package, tmp_path_factory):
    """The folder of the job under Hydra's basic launcher."""
    folder = tmp_path_factory.mktemp("basic") / "sweep"
    code, out, said = ended(command(package, folder, "seed=0"))
    assert code == 0, said
    assert table(out) == [("0", "finished")]
    return folder / "0"


# ---- this machine ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_jobs_at_once_are_those_of_the_basic_launcher_and_a_warned_one_is_put_back_and_goes_on(package, tmp_path, alone):
    """Four jobs wait for each other; one is left alone, two are warned, one fails."""
    words = ["callback.disturbing.act=nothing,SIGUSR2,SIGUSR1,fail", "callback.disturbing.jobs=4"]
    code, out, said = ended(command(package, tmp_path / "sweep", *words, "hydra/launcher=gan_local", "hydra.launcher.n_jobs=4"))
    assert code == 1, said
    assert table(out) == [("0", "finished"), ("1", "finished"), ("2", "finished"), ("3", "failed")]
    assert (tmp_path / "sweep" / "table.txt").read_text().splitlines() == out.splitlines()[:-1]
    for number in "012":
        check_is_undisturbed(tmp_path / "sweep" / number, alone)
        going_on = (tmp_path / "sweep" / number / "train.log").read_text().count("going on after round 7")
        assert going_on == (number != "0")
    assert status_of(tmp_path / "sweep" / "3") == "failed"
    assert "Traceback" not in said
    left = {path.name for path in (tmp_path / "sweep").iterdir()}
    assert left == {".lock", ".submitit", "0", "1", "2", "3", "multirun.yaml", "table.txt", *contents.SUMMARY}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launching_process_saves_every_job_and_the_same_line_goes_on(package, tmp_path, alone, number):
    words = ["callback.disturbing.act=slow,nothing", "hydra/launcher=gan_local", "hydra.launcher.n_jobs=1"]
    child = command(package, tmp_path / "sweep", *words)
    while child.poll() is None and not (tmp_path / "sweep" / "0" / "reached").exists():
        time.sleep(0.05)
    child.send_signal(number)
    code, out, said = ended(child)
    assert code == 128 + number, said
    assert table(out) == [("0", "interrupted"), ("1", "waiting")]
    assert status_of(tmp_path / "sweep" / "0") == "interrupted"
    assert 7 <= state_of(tmp_path / "sweep" / "0")["step"] < STEPS
    assert not (tmp_path / "sweep" / "1").exists()
    code, out, said = ended(command(package, tmp_path / "sweep", *words))
    assert code == 0, said
    assert table(out) == [("0", "finished"), ("1", "finished")]
    for job in "01":
        check_is_undisturbed(tmp_path / "sweep" / job, alone)


@pytest.mark.slow
def test_trials_that_are_told_to_end_have_no_result_and_go_on_with_the_search(package, tmp_path):
    """Two of three that run at once, the first and the last."""
    optuna = pytest.importorskip("optuna")
    words = ["hydra/launcher=gan_local", "hydra.launcher.n_jobs=3", "hydra/sweeper=gan_optuna", "hydra.sweeper.n_trials=3"]
    words += ["hydra.sweeper.n_jobs=3", "callback.disturbing.act=end the even ones", "penalty.gradient_penalty.weight=interval(0.1,1)"]

    def trials():
        study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/sweep/study.db")
        return [(trial.state.name, trial.params) for trial in study.trials]

    code, out, said = ended(command(package, tmp_path / "sweep", *words))
    assert code == 1, said
    assert table(out) == [("0", "interrupted"), ("1", "finished"), ("2", "interrupted")]
    before = trials()
    assert [state for state, _ in before] == ["RUNNING", "COMPLETE", "RUNNING"]
    code, out, said = ended(command(package, tmp_path / "sweep", *words))
    assert code == 0, said
    assert table(out) == [("0", "finished"), ("1", "finished"), ("2", "finished")]
    assert trials() == [("COMPLETE", point) for _, point in before]
    for number in "02":
        assert "going on after round 7" in (tmp_path / "sweep" / number / "train.log").read_text()


def test_devices_are_shared_among_the_slots():
    from hydra_plugins.gan_runner_launchers import share

    assert [share(list("abcde"), slot, 2) for slot in range(2)] == [["a", "c", "e"], ["b", "d"]]
    assert [share(["a", "b"], slot, 3) for slot in range(3)] == [["a"], ["b"], ["a"]]
    assert share([], 1, 3) == []


def test_what_started_processes_find_is_put_back_and_a_user_s_word_counts(monkeypatch):
    from hydra_plugins.gan_runner_launchers import inherited

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = signal.getsignal(signal.SIGINT)
    with inherited(OMP_NUM_THREADS="3"):
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert "OMP_NUM_THREADS" not in os.environ
    assert signal.getsignal(signal.SIGINT) == before
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with inherited(OMP_NUM_THREADS="3"):
        assert os.environ["OMP_NUM_THREADS"] == "5"


def test_warnings_of_several_kinds_do_not_kill():
    """SLURM may send SIGTERM and SIGUSR2 one after the other; the second of a kind is left to kill."""
    with Signals() as signals:
        signals.playing = True
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert signals.received == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signals.agreed()


# ---- SLURM -----------------------------------------------------------------------------------------------------------------------------

FAKE = """#!{python}
import os, re, subprocess, sys, time
from pathlib import Path
home, program, words = Path({home!r}), Path(sys.argv[0]).name, sys.argv[1:]
if program == "sbatch":  # every element of the array is a process, which begins again when it was put back
    (home / "script.sh").write_text(Path(words[0]).read_text())
    found = re.search(r"--array=.?0-(\\d+)", (home / "script.sh").read_text())
    for at in range(int(found[1]) + 1):
        environment = os.environ | dict(SLURM_JOB_ID=f"{{4200 + at}}", SLURM_ARRAY_JOB_ID="4200", SLURM_ARRAY_TASK_ID=str(at))
        line = [sys.executable, __file__.replace("sbatch", "element"), f"4200_{{at}}"]
        subprocess.Popen(line, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("Submitted batch job 4200")
elif program == "element":
    while True:
        (home / "requeued" / words[0]).unlink(missing_ok=True)
        subprocess.run(["bash", str(home / "script.sh")])
        if not (home / "requeued" / words[0]).exists():
            break
    (home / "done" / words[0]).touch()
elif program == "srun":
    while words[0].startswith("--"):
        if words[0] in ("--output", "--error"):
            file = words[1]
            for sign, value in (("%A", "4200"), ("%a", os.environ["SLURM_ARRAY_TASK_ID"]), ("%t", "0")):
                file = file.replace(sign, value)
            while not Path(file).parent.exists():  # submitit makes it once it knows the number of the job
                time.sleep(0.05)
            os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 1 + (words[0] == "--error"))
        del words[: 1 if words[0] == "--unbuffered" else 2]
    os.execvp(words[0], words)
elif program == "scontrol":
    assert words[0] == "requeue"
    (home / "requeued" / words[1]).touch()
    with (home / "scontrol.log").open("a") as log:
        log.write(words[1] + "\\n")
elif program == "sacct":
    print("JobID|State|NodeList")
    for at in range(2):
        print(f"4200_{{at}}|{{'COMPLETED' if (home / 'done' / f'4200_{{at}}').exists() else 'RUNNING'}}|here")
"""


@pytest.fixture
def slurm(tmp_path):
    """A folder with programs that act as SLURM's."""
    home = tmp_path / "slurm"
    for name in ("requeued", "done", "bin"):
        (home / name).mkdir(parents=True)
    for program in ("sbatch", "element", "srun", "scontrol", "sacct", "scancel"):
        (home / "bin" / program).write_text(FAKE.format(python=sys.executable, home=str(home)))
        (home / "bin" / program).chmod(0o755)
    return home


@pytest.mark.slow
def test_jobs_of_a_cluster_are_those_of_the_basic_launcher_and_a_warned_one_is_put_back(package, tmp_path, alone, slurm):
    words = ["callback.disturbing.act=nothing,SIGUSR2", "callback.disturbing.jobs=2", "hydra/launcher=gan_slurm"]
    place = "a place; touch escaped"
    settings = {"partition": "'gpu; touch escaped'", "account": "me", "time_min": 90, "gpus": 4, "cpus": 8, "mem_gb": 64, "n_jobs": 7}
    words += [f"hydra.launcher.{key}={value}" for key, value in settings.items()]
    child = command(package, tmp_path / place, *words, programs=slurm / "bin")
    code, out, said = ended(child)
    assert code == 0, said
    assert table(out) == [("0", "finished"), ("1", "finished")]
    assert (slurm / "scontrol.log").read_text() == "4200_1\n"
    for number in "01":
        check_is_undisturbed(tmp_path / place / number, alone)
    assert not list(ROOT.glob("escaped")) + list(Path.cwd().glob("escaped"))

    header = [line for line in (slurm / "script.sh").read_text().splitlines() if line.startswith("#SBATCH")]
    assert {
        "#SBATCH --job-name=gan-train", "#SBATCH --partition='gpu; touch escaped'", "#SBATCH --account=me", "#SBATCH --time=90",
        "#SBATCH --gpus-per-node=4", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=64GB", "#SBATCH --array=0-1%2",
        "#SBATCH --signal=USR2@120", "#SBATCH --requeue", "#SBATCH --nodes=1", "#SBATCH --open-mode=append",
    } <= set(header)  # fmt: skip
    script = (slurm / "script.sh").read_text().splitlines()
    commands = [line for line in script if line and not line.startswith("#")]
    assert commands[0] == "export SUBMITIT_EXECUTOR=slurm"
    assert [line.split()[0] for line in commands[1:]] == ["srun"]


# ---- mistakes --------------------------------------------------------------------------------------------------------------------------


def launcher(*words):
    return compose(["hydra.mode=MULTIRUN", *words]).hydra.launcher


def test_settings_of_a_launcher_are_checked_before_anything_is_created(slurm, monkeypatch):
    with pytest.raises(UserError, match="gan_slurm needs sbatch, srun, sacct, scontrol: start it where jobs are submitted"):
        submitit_launcher.check(launcher("hydra/launcher=gan_slurm"))
    monkeypatch.setenv("PATH", str(slurm / "bin"))
    submitit_launcher.check(launcher("hydra/launcher=gan_slurm"))
    submitit_launcher.check(launcher("hydra/launcher=basic"))
    with pytest.raises(UserError, match=r"hydra\.launcher\.gpus=-1: .*\nhydra\.launcher\.cpus='two'"):
        submitit_launcher.check(launcher("hydra/launcher=gan_slurm", "hydra.launcher.gpus=-1", "hydra.launcher.cpus=two"))
    with pytest.raises(UserError, match=r"hydra\.launcher\.n_jobs=0"):
        submitit_launcher.check(launcher("hydra/launcher=gan_local", "hydra.launcher.n_jobs=0"))


@pytest.mark.parametrize("value", ["gpu\ntouch escaped", "gpu\r#", "50%j"])
@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint"])
def test_a_line_that_breaks_does_not_reach_a_script(slurm, monkeypatch, key, value):
    monkeypatch.setenv("PATH", str(slurm / "bin"))
    settings = launcher("hydra/launcher=gan_slurm")
    settings[key] = value
    with pytest.raises(UserError, match=rf"hydra\.launcher\.{key}=.*expected one line of text without %"):
        submitit_launcher.check(settings)


def test_without_submitit_a_launcher_is_refused_with_what_to_install(monkeypatch):
    settings, find = launcher("hydra/launcher=gan_local"), importlib.util.find_spec
    monkeypatch.setattr(
        submitit_launcher.importlib.util, "find_spec", lambda name, *more: None if name == "submitit" else find(name, *more)
    )
    with pytest.raises(UserError, match=r"needs submitit, .* pip install submitit"):
        submitit_launcher.check(settings)
