"""Runs of several processes: what they leave behind, that they go on exactly, and how they end."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from gan_runner import distributed
from gan_runner.config import composer
from gan_runner.errors import Failed, Interrupted, UserError
from gan_runner.lifecycle import runs
from gan_runner.training.signals import Signals
from processes import COMMAND, command, ended
from read_runs import curves, floats, furthest, lines, same, state_of, status_of

ROOT = Path(__file__).resolve().parents[2]
LINE = [
    "+experiment=gaussians25",
    *(
        word
        for side in ("generator", "discriminator")
        for word in (f"optimizer.{side}._target_=torch.optim.SGD", f"~optimizer.{side}.betas", f"optimizer.{side}.lr=0.01")
    ),
    "architecture.generator.width=32",
    "architecture.discriminator.width=32",
    "batch_size=32",
    "dataset.n=1000",
    "trainer.accelerator=cpu",
    "callback.log.every_steps=10",
    "callback.grid.n=16",
    "callback.evaluate.every_steps=50",
    "callback.evaluate.n=301",
]

FAULTY = """
import os
import signal
import time
import torch
from gan_runner import Callback, distributed


class Faulty(Callback):
    \"\"\"In one round, one of the processes does what it should not; each writes down which process it is.\"\"\"

    everywhere = True

    def __init__(self, act: str, rank: int = 1, step: int = 3):
        self.act, self.rank, self.step = act, rank, step

    def begin(self, run):
        (run.folder / f"pid.{distributed.rank()}").write_text(str(os.getpid()))

    def after_round(self, run, logs):
        if run.step == self.step and distributed.rank() == self.rank:
            (run.folder / "fault").write_text(str(time.time()))
            getattr(self, self.act)(run)

    def nothing(self, run):
        pass

    def error(self, run):
        raise ValueError("boom")

    def hang(self, run):
        time.sleep(1000)

    def kill(self, run):
        run.writer.wait()  # the state of round 2 is on the disk
        os.kill(os.getpid(), signal.SIGKILL)

    def perturb(self, run):
        with torch.no_grad():
            run.game.G.head.weight[0, 0] += 1e-6

    def interrupt(self, run):
        os.kill(os.getppid(), signal.SIGTERM)
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Words for a line with a callback of somebody's package that does `act`."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT / "src")]))

    def words(act, **more):
        settings = ", ".join(f"{key}: {value}" for key, value in {"_target_": "faulty.Faulty", "act": act, **more}.items())
        checks = ["callback.checkpoint.every_steps=2", "callback.checkpoint.keep=1000", "trainer.compare_every_steps=1"]
        return [*LINE, *checks, "trainer.steps=100000", f"+callback.faulty={{{settings}}}", "packages=[faulty]"]

    return words


def until(there, child=None, seconds=240):
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not there():
        assert child is None or child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers(folder):
    return [int(path.read_text()) for path in sorted(folder.glob("pid.*"))]


def train(folder, *words):
    composed = composer.compose([*words])
    return runs.train(composed.config, Path(folder), [], composed.packages)


# ---- the command ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_with_two_devices(tmp_path, capfd):
    """One directory and no line twice; the weights of one process; killed and resumed, the same bits; resumed by another number."""
    words = [*LINE, "trainer.devices=2", "trainer.steps=200", "callback.checkpoint.every_steps=20", "trainer.compare_every_steps=50"]
    straight, killed, one = tmp_path / "straight", tmp_path / "killed", tmp_path / "one"
    children = [command(*words, f"hydra.run.dir={folder}") for folder in (straight, killed)]
    until((killed / "checkpoints" / "step_00000020.pt").exists, children[1])
    children[1].kill()
    children[1].communicate()
    code, said = ended(children[0])
    assert code == 0, said
    assert sum("run directory" in line for line in said.splitlines()) == 1
    assert said.count("2 processes, 16 samples each") == 1

    # what it leaves behind
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "straight"]
    assert len(list(straight.glob("events*"))) == 1
    assert status_of(straight)["state"] == "finished"
    assert status_of(straight)["images"] == 200 * 32
    assert (straight / "train.log").read_text().count("run directory") == 1
    assert [line["step"] for line in lines(straight)] == [50, 100, 150, 200]
    curve = curves(straight)
    assert {"loss/d", "loss/g", "gradient_penalty/d", "grad_norm/g", "modes/covered"} <= curve.keys()
    assert [step for step, _ in curve["loss/d"]] == list(range(10, 201, 10))
    assert all(len({step for step, _ in points}) == len(points) for points in curve.values())

    # one process
    train(one, *words, "trainer.devices=1")
    difference, where = furthest(floats(state_of(one)["game"]), floats(state_of(straight)["game"]))
    print(f"after 200 rounds of one and of two processes: {difference:.2g} in {where}")
    assert difference < 1e-6
    alone = curves(one)
    assert alone.keys() == curve.keys()
    for tag in curve:
        assert [value for _, value in curve[tag]] == pytest.approx([value for _, value in alone[tag]], rel=1e-3, abs=1e-4), tag

    # gone on with, by as many
    until(lambda: not any(is_alive(pid) for pid in children_of(killed)))
    assert status_of(killed)["state"] in ("running", "interrupted")
    runs.resume(killed)
    assert same(state_of(straight), state_of(killed)) is None
    assert curves(killed) == curve
    assert lines(killed) == lines(straight)

    # and by another number
    capfd.readouterr()
    runs.resume(straight, ["trainer.devices=1", "trainer.steps=210"])
    said = " ".join(capfd.readouterr().err.split())
    assert "changed: trainer.devices from 2 to 1" in said
    assert "played by 2 processes until now and by 1 from here on: the same run up to rounding" in said
    runs.resume(killed, ["trainer.steps=210"])
    difference, where = furthest(floats(state_of(straight)["game"]), floats(state_of(killed)["game"]))
    assert difference < 1e-6, where


SMALL = ["trainer.steps=20", "callback.checkpoint.every_steps=20", "callback.evaluate.every_steps=20", "trainer.compare_every_steps=5"]
KINDS = {
    "a lazy penalty, a head, EMA, coupled features": [
        "penalty=[r1,auxiliary_classifier,feature_matching]", "penalty.r1.every=4", "penalty.r1.weight=0.1",
        "architecture.conditional=true",
    ],
    "spectral norm, EMA": ["trick=[spectral_norm,ema]", "loss=hinge", "penalty=[]"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_with_two_devices_gives_the_weights_of_one(tmp_path, kind):
    words = [*LINE, *SMALL, *KINDS[kind]]
    children = [command(*words, f"trainer.devices={n}", f"hydra.run.dir={tmp_path}/{n}") for n in (1, 2)]
    for code, said in map(ended, children):
        assert code == 0, said
    difference, where = furthest(*(floats(state_of(tmp_path / n)["game"]) for n in "12"))
    assert difference < 1e-6, where


def children_of(folder):
    """Processes whose run directory this is, by their open files."""
    found = []
    for files in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(file).startswith(f"{folder}/") for file in files.iterdir()):
                found.append(int(files.parent.name))
        except OSError:  # somebody else's, or gone
            continue
    return found


@pytest.mark.slow
@pytest.mark.data
def test_two_processes_train_dcgan_on_cifar10(tmp_path, real_data):
    words = ["+experiment=dcgan_cifar10", f"dataset.root={real_data}", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=16"]
    words += ["architecture.generator.width=8", "architecture.discriminator.width=8", "trainer.steps=6", "trainer.compare_every_steps=1"]
    words += ["callback.evaluate.n=20", "callback.grid.n=16", "metric.classifier_score.splits=1", "extractor=cifar_resnet"]
    train(tmp_path, *words)
    assert status_of(tmp_path)["state"] == "finished"
    assert lines(tmp_path)[-1]["metrics"]["cs/resnet56"] > 1
    assert "batch norm sees those of its own process only, as synchronised statistics need GPUs" in (tmp_path / "train.log").read_text()
    assert all(value.isfinite().all() for value in state_of(tmp_path)["game"].values() if isinstance(value, torch.Tensor))


# ---- faults -----------------------------------------------------------------------------------------------------------------------------

FAULTS = {  # act, rank of who does it -> what is said
    ("error", 1): r"^process 1 of 2 failed: ValueError: boom; train\.log says where",
    ("kill", 1): r"^process 1 of 2 was killed by SIGKILL: out of memory\? the kernel's log \(dmesg\) says so; go on with resume=RUN_DIR$",
    ("kill", 0): r"^process 0 of 2 was killed by SIGKILL",
    ("hang", 1): r"^process 1 of 2 has not answered for 10 s \(\$GAN_RUNNER_TIMEOUT_S\); go on with resume=RUN_DIR$",
    ("perturb", 1): r"^the processes no longer agree on .*players\.generator\.objective\.net\.head\.weight",
}


@pytest.mark.slow
@pytest.mark.parametrize(("act", "rank"), FAULTS)
def test_a_fault_of_one_process_ends_all(tmp_path, monkeypatch, capfd, faulty, act, rank):
    """One clear message, within the patience of the others and 15 s; the last checkpoint stays, and nobody is left behind."""
    patience = 10 if act == "hang" else 600
    monkeypatch.setenv("GAN_RUNNER_TIMEOUT_S", str(patience))
    folder = tmp_path / "run"
    with pytest.raises(Failed, match=FAULTS[act, rank]) as caught:
        train(folder, *faulty(act, rank=rank), "trainer.devices=2")
    after = time.time() - float((folder / "fault").read_text())
    assert after < 15 + (10 if act == "hang" else 0)
    assert len(workers(folder)) == 2
    assert not any(is_alive(pid) for pid in workers(folder))
    status = status_of(folder)
    assert (status["state"], status["error"]) == ("failed", str(caught.value))
    assert status["step"] <= 4
    assert state_of(folder)["step"] == 2
    assert not list((folder / "checkpoints").glob(".*.part"))
    log = (folder / "train.log").read_text()
    assert str(caught.value) in log
    assert ('raise ValueError("boom")' in log) == (act == "error")
    assert "Traceback" not in capfd.readouterr().err  # that is for the log


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_saves_and_ends_all(tmp_path, faulty, number):
    folder = tmp_path / "run"
    child = command(*faulty("nothing"), "trainer.devices=2", f"hydra.run.dir={folder}", PYTHONPATH=os.environ["PYTHONPATH"])
    until((folder / "checkpoints" / "last.pt").exists, child)
    child.send_signal(number)
    code, said = ended(child)
    assert code == 128 + number, said
    assert said.splitlines()[-1] == f"gan-train: interrupted by signal {int(number)}"
    assert "Traceback" not in said
    assert said.count("stopping after this round") == 1
    assert not any(is_alive(pid) for pid in workers(folder))
    status = status_of(folder)
    assert status["state"] == "interrupted"
    assert state_of(folder)["step"] == status["step"]


@pytest.mark.slow
def test_a_signal_before_the_first_round_is_not_lost(tmp_path, faulty):
    """While the workers are still being started, it waits for them."""
    folder = tmp_path / "run"
    child = command(*faulty("nothing"), "trainer.devices=2", f"hydra.run.dir={folder}", PYTHONPATH=os.environ["PYTHONPATH"])
    until(lambda: Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[1:], child)  # a worker, or who tracks them
    child.send_signal(signal.SIGTERM)
    code, said = ended(child)
    assert code == 143, said
    assert "Traceback" not in said
    assert (status_of(folder)["state"], status_of(folder)["step"]) == ("interrupted", 0)
    assert state_of(folder)["step"] == 0


@pytest.mark.slow
def test_a_second_signal_kills_processes_that_hang(tmp_path, faulty):
    """The first waits for the end of a round that does not come; patience is ten minutes here."""
    folder = tmp_path / "run"
    child = command(*faulty("hang"), "trainer.devices=2", f"hydra.run.dir={folder}", PYTHONPATH=os.environ["PYTHONPATH"])
    until((folder / "fault").exists, child)
    child.send_signal(signal.SIGINT)
    time.sleep(1)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    code, said = ended(child)
    assert code == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "gan-train: interrupted by signal 2"
    assert not any(is_alive(pid) for pid in workers(folder))
    assert state_of(folder)["step"] == 2


HEARING = """
import os, signal, sys, time
from multiprocessing import get_context
from gan_runner.training.signals import Signals

def hear(path):
    with Signals() as signals:
        signals.playing = True
        for number in (2, 2):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        os.kill(os.getpid(), 15)
        time.sleep(0.01)
        assert signals.received == 2
        open(path, "w").close()
        os.kill(os.getpid(), 15)
        time.sleep(10)

if __name__ == "__main__":
    child = get_context("spawn").Process(target=hear, args=(sys.argv[1],))
    child.start()
    child.join()
    sys.exit(0 if child.exitcode == -15 else 1)
"""


@pytest.mark.slow
def test_a_worker_survives_that_its_parents_death_is_told_twice(tmp_path):
    """Linux sends SIGINT once for each thread of the parent. One signal of another kind is heard as well, as clusters warn by several; its
    second kills."""
    (tmp_path / "hearing.py").write_text(HEARING)
    subprocess.run(
        [sys.executable, tmp_path / "hearing.py", tmp_path / "heard"], check=True, env={"PYTHONPATH": str(ROOT / "src")} | os.environ
    )
    assert (tmp_path / "heard").exists()


@pytest.mark.slow
def test_a_signal_while_the_workers_are_being_started_is_passed_on(tmp_path, monkeypatch, faulty):
    """To a thread that the store has started, which does not hold it back: it is heard before the workers are known."""
    start = mp.start_processes

    def interrupted(*args, **kw):
        started = start(*args, **kw)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        return started

    monkeypatch.setattr(mp, "start_processes", interrupted)
    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "run", *faulty("nothing"), "trainer.devices=2", "trainer.steps=3000")
    assert caught.value.signal == signal.SIGTERM
    assert status_of(tmp_path / "run")["state"] == "interrupted"


@pytest.mark.slow
def test_workers_do_not_outlive_the_command(tmp_path, faulty):
    folder = tmp_path / "run"
    child = command(*faulty("nothing"), "trainer.devices=2", f"hydra.run.dir={folder}", PYTHONPATH=os.environ["PYTHONPATH"])
    until((folder / "checkpoints" / "last.pt").exists, child)
    child.kill()
    child.communicate()
    assert len(workers(folder)) == 2
    until(lambda: not any(is_alive(pid) for pid in workers(folder)), seconds=20)
    status = status_of(folder)
    assert status["state"] == "interrupted"  # they saved first
    assert state_of(folder)["step"] == status["step"]


@pytest.mark.slow
def test_a_resume_that_is_refused_leaves_the_run_as_it_was(tmp_path):
    """By each of two processes, after they were started: the first to look into the checkpoint."""
    words = [*LINE, "trainer.steps=2", "trainer.devices=1"]
    train(tmp_path, *words)
    before = (tmp_path / "status.json").read_bytes()
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("width: 32", "width: 16"))
    with pytest.raises(UserError, match="the checkpoint does not fit the run's configuration"):
        runs.resume(tmp_path, ["trainer.devices=2", "trainer.steps=4", "accept=config"])
    assert (tmp_path / "status.json").read_bytes() == before


def test_a_signal_while_the_processes_agree_is_not_lost(monkeypatch):
    def agree(number):
        os.kill(os.getpid(), signal.SIGUSR1)
        return number

    with Signals() as signals:
        signals.playing = True
        with monkeypatch.context() as patch:
            patch.setattr(distributed, "agree", agree)
            assert not signals.agreed()  # the others have not heard of it
        assert signals.agreed()
        assert signals.received == signal.SIGUSR1


@pytest.mark.slow
def test_handlers_of_signals_are_put_back(tmp_path, faulty):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "run", *faulty("interrupt"), "trainer.devices=2")
    assert caught.value.signal == signal.SIGTERM
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


# ---- started by others ------------------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def torchrun(node, port, *words):
    """One of two nodes."""
    script = f"import sys; sys.argv[:1] = ['gan-train']; {COMMAND}"
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", "--local-addr=127.0.0.1"]
    place = ["--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1", *meeting, "--no-python"]
    env = {"PYTHONPATH": str(ROOT / "src")} | os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "torch.distributed.run", *place, sys.executable, "-c", script, *map(str, words)]
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_nodes_of_torchrun_train_one_run(tmp_path):
    words = [*LINE, "trainer.steps=20", "trainer.compare_every_steps=5"]
    port = free_port()
    nodes = [torchrun(node, port, *words, f"hydra.run.dir={tmp_path}/run") for node in range(2)]
    for code, said in map(ended, nodes):
        assert code == 0, said
        assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "train.log").read_text().count("2 processes, 16 samples each") == 1
    assert len(lines(tmp_path / "run")) == 1
    train(tmp_path / "one", *words)
    difference, where = furthest(*(floats(state_of(tmp_path / name)["game"]) for name in ("one", "run")))
    assert difference < 1e-6, where


def together(*words):
    """What two processes said that were started as torchrun starts them."""
    place = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [ended(child) for child in [command(*words, **place, RANK=rank, LOCAL_RANK=rank) for rank in range(2)]]


@pytest.mark.slow
def test_a_mistake_is_told_once_by_processes_that_others_started(tmp_path):
    (code, said), other = together(*LINE, "batch_size=33", f"hydra.run.dir={tmp_path}/run")
    assert code == 2
    assert said == "gan-train: batch_size=33 cannot be cut into 2 processes x accumulate=1 equal parts\n"
    assert other == (2, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sweep_is_refused_where_others_start_the_processes(tmp_path):
    (code, said), other = together("-m", *LINE, "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert code == 2
    assert said == "gan-train: a sweep is not for torchrun or srun: its jobs start their own processes with trainer.devices=N\n"
    assert other == (2, "")
    assert not list(tmp_path.iterdir())
