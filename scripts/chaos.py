#!/usr/bin/env python3
"""Kill and disturb runs at random moments, go on with them, and hold what they leave behind against a run that was left alone.

    python scripts/chaos.py --kills 100 --out chaos

Each victim, a run, a sweep or a search, is killed by SIGKILL, SIGTERM, SIGINT or SIGHUP, or disturbed: it is stopped for a moment (SIGSTOP,
SIGCONT), or nobody reads its messages any more (a broken pipe), after which it has to go on. What was killed is resumed, killed again, and
at last allowed to finish. Some kills are aimed at a phase (the start, an evaluation, the write of a checkpoint), the others fall at any
time; SIGKILL and SIGSTOP also hit single workers. Then the victim's weights, optimisers and random states, its curves in TensorBoard and
its metrics.jsonl must be those of the run that was left alone, bit for bit; no process and no half-written file may be left, and every exit
code must be the one that is promised. Exit code 1 at the first difference. What happened is printed as Markdown tables.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HERE = Path(__file__).resolve().parent
EVALUATE, CHECKPOINT = 25, 10  # every so many rounds
IMAGES = "images"  # a folder in --out
COMMON = [
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "callback.log.every_steps=5",
    "callback.grid.n=16",
    "callback.grid.every_steps=50",
    f"callback.checkpoint.every_steps={CHECKPOINT}",
    f"callback.evaluate.every_steps={EVALUATE}",
    *(
        f"+callback.phase_{word}={{_target_: chaos_phases.Phase, word: {word}, order: {order}, every_steps: {every}, ends: {ends}}}"
        for word, order, every, ends in (
            ("evaluation", -1, EVALUATE, "true"),  # before what evaluates; the picture and the curves of the round are in it
            ("checkpoint", 0.5, CHECKPOINT, "false"),
            ("rounds", 2, 1, "false"),
        )
    ),
]
RECIPES = {
    "gaussians25": ["+experiment=gaussians25", "batch_size=64", "trainer.steps=400", "callback.evaluate.n=500"],
    "dcgan": [
        "dataset=triangles", "dataset.n_train=500", "dataset.n_test=100", "architecture=dcgan", "architecture.generator.width=8",
        "architecture.discriminator.width=8", "trick=[ema]", "penalty=[r1]", "batch_size=16", "trainer.steps=200",
        "metric=[frechet_distance]", "extractor=random_conv", "callback.evaluate.n=100",
    ],
    "a folder of images": [
        "dataset=image_folder", f"dataset.path={IMAGES}", "dataset.resolution=8", "dataset.workers=0", "architecture=dcgan",
        "architecture.generator.width=4", "architecture.discriminator.width=4", "trick=[ema]", "batch_size=8", "trainer.steps=200",
        "metric=[frechet_distance]", "extractor=random_conv", "callback.evaluate.n=40",
    ],
    "a part of the user": [
        "+experiment=gaussians25", "batch_size=64", "trainer.steps=400", "callback.evaluate.n=500",
        "+trick.nudge={_target_: chaos_phases.Nudge}",
    ],
    "a sweep": ["-m", "+experiment=gaussians25", "batch_size=64", "trainer.steps=200", "callback.evaluate.n=500", "seed=0,1,2"],
    "a search": [
        "-m", "+experiment=gaussians25", "batch_size=64", "trainer.steps=200", "callback.evaluate.n=500", "hydra/sweeper=gan_optuna",
        "hydra.sweeper.n_trials=3", "rule.d_steps=range(1,3)", "loss=choice(hinge,wasserstein)",
    ],
}  # fmt: skip
JOBS = ("0", "1", "2")  # folders in that of a sweep or a search
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PAUSE, UNREAD = "SIGSTOP, SIGCONT", "a broken pipe"
ACTS = (*SIGNALS, PAUSE, UNREAD)
AIMS = ("any", "any", "start", "checkpoint", "evaluation")
BEGUN = ("rounds", "evaluation", "checkpoint", "end")  # phases
WATCHED = ("time/", "memory/")  # curves that tell of the machine and not of the training


class Wrong(Exception):
    """Something is not as promised."""


class Case:
    """A recipe played by so many processes, and what became of its victims."""

    def __init__(self, name: str, n: int, out: Path):
        self.name, self.n, self.reference = name, n, out / f"{name.replace(' ', '_')}_{n}"
        words = [word.replace(f"dataset.path={IMAGES}", f"dataset.path={out / IMAGES}") for word in RECIPES[name]]
        self.words = [*words, *COMMON, f"trainer.devices={n}"]
        self.jobs = JOBS if "-m" in words else ("",)
        self.starting = self.playing = 0.0  # seconds that it takes when left alone
        self.kills = 0

    def __str__(self) -> str:
        return f"{self.name}, {self.n} process{'es' * (self.n > 1)}"

    def line(self, folder: Path) -> list[str]:
        """The words that begin it in a folder, or go on with it."""
        if self.jobs == JOBS:
            return [*self.words, f"hydra.sweep.dir={folder}"]
        if (folder / "checkpoints" / "last.pt").exists():
            return [f"resume={folder}"]
        shutil.rmtree(folder, ignore_errors=True)  # killed before its first checkpoint: there is nothing to go on from
        return [*self.words, f"hydra.run.dir={folder}"]

    def finished(self, folder: Path) -> bool:
        return all(state(folder / job) == "finished" for job in self.jobs)

    def differences(self, folder: Path) -> list[str]:
        """What a victim has otherwise than the one that was left alone."""
        found = [what for job in self.jobs for what in differences(folder / job, self.reference / job)]
        if self.jobs == JOBS and (folder / "table.txt").read_text() != (self.reference / "table.txt").read_text():
            found.append("table.txt")
        return found


class Command:
    """gan-train on a folder, in a process group of its own; what it says is added to the log beside the folder."""

    def __init__(self, folder: Path, words: list[str]):
        self.folder, self.log, self.phase_file = folder, folder.parent / f"{folder.name}.log", folder.parent / f"{folder.name}.phase"
        self.phase_file.unlink(missing_ok=True)
        self.said_before = self.log.stat().st_size if self.log.exists() else 0
        env = os.environ | {"CHAOS_FOLDER": str(folder), "CHAOS_PHASE": str(self.phase_file)}
        env["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        line = [sys.executable, "-c", "import sys; from gan_runner.cli import train; sys.exit(train())", *words, "packages=[chaos_phases]"]
        self.messages, written = os.pipe()
        self.process = subprocess.Popen(line, env=env, stdout=written, stderr=written, start_new_session=True)
        os.close(written)
        self.reads = True
        self.reader = Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Copy what it says to the log, until it has ended or nobody is to read it any more."""
        with self.log.open("ab") as log:
            while self.reads:
                if select.select([self.messages], [], [], 0.02)[0]:
                    if not (said := os.read(self.messages, 2**16)):
                        break
                    log.write(said)
                    log.flush()
        os.close(self.messages)

    def break_pipe(self) -> None:
        self.reads = False
        self.reader.join()

    @property
    def phase(self) -> str:
        """What it is doing, as far as it has said so."""
        try:
            return self.phase_file.read_text().strip() or "start"
        except OSError:
            return "start"

    def until(self, phases: tuple[str, ...], seconds: float = float("inf")) -> bool:
        """Wait until it is in one of them, or so long; False where it has ended before."""
        deadline = time.monotonic() + seconds
        while self.phase not in phases and time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            time.sleep(0.001)
        return True

    def lasts(self, seconds: float) -> bool:
        """Whether it is still there after so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def said(self) -> str:
        self.reader.join(60)
        return self.log.read_bytes()[self.said_before :].decode(errors="replace")

    def workers(self) -> list[int]:
        """Processes that it has started to train together: those that know the folder and are not itself."""
        return [pid for pid in knowing(self.folder) if pid != self.process.pid and b"spawn_main" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def knowing(folder: Path) -> list[int]:
    """Processes with the folder in their environment."""
    found, sought = [], f"CHAOS_FOLDER={folder}\0".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if sought in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_gone(folder: Path, seconds: float = 60) -> list[int]:
    """The processes of a run that have not ended after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := knowing(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All that a run has drawn, but for what tells of the machine."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"] if not tag.startswith(WATCHED)}


def state(folder: Path) -> str | None:
    """The state that a run says it is in."""
    file = folder / "status.json"
    return json.loads(file.read_text())["state"] if file.exists() else None


def differences(victim: Path, reference: Path) -> list[str]:
    """What a run that was killed has otherwise than one that was left alone."""
    found = []
    mine, its = (torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (victim, reference))
    if not same(mine, its):
        found.append("the state of the last round")
    a, b = curves(victim), curves(reference)
    found += [f"the curve {tag}" for tag in sorted(a.keys() | b.keys()) if a.get(tag) != b.get(tag)]
    if (victim / "metrics.jsonl").read_text() != (reference / "metrics.jsonl").read_text():
        found.append("metrics.jsonl")
    found += [f"a half file {path.name}" for path in victim.rglob(".*.part")]
    files = [[path.relative_to(folder) for path in folder.rglob("*") if "tfevents" not in path.name] for folder in (victim, reference)]
    states, others = ([[path for path in those if path.match("step_*.pt") == kind] for those in files] for kind in (True, False))
    found += [f"the file {name}" for name in sorted({*others[0]} ^ {*others[1]})]
    if len(states[0]) != len(states[1]):  # a signal saves where it falls, so that the last but one may be of another round
        found.append(f"{len(states[0])} checkpoints instead of {len(states[1])}")
    if state(victim) != "finished":
        found.append("status.json")
    return found


def same(a: object, b: object) -> bool:
    """Whether two states are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, type(a)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def disturb(command: Command, case: Case, chance: random.Random, counts: Counter) -> bool:
    """Kill or disturb it once, at a moment of chance, and see that it ends as promised, or goes on; False where it had ended before."""
    aim, how = chance.choice(AIMS), chance.choice(ACTS)
    if aim == "start":
        alive = command.until(BEGUN, chance.uniform(0, case.starting))
    elif aim == "any":
        alive = command.until(BEGUN) and command.lasts(chance.uniform(0, case.playing / 10))
    else:
        alive = command.until(("rounds",)) and command.lasts(chance.uniform(0, case.playing / 20))
        alive = alive and command.until((aim,)) and command.lasts(chance.uniform(0, 0.02))
    if not alive:
        return False
    workers = command.workers() if how in (signal.SIGKILL, PAUSE) and case.n > 1 else []
    whom = chance.choice([command.process.pid, *workers])
    phase = command.phase
    if isinstance(how, str):
        return pass_by(command, how, whom, phase, chance, counts)
    try:
        os.kill(whom, how)
    except ProcessLookupError:  # a worker that has just done its work
        return False
    code = command.process.wait(120)
    whose = "" if whom == command.process.pid else " to a worker"
    counts["kill", f"{how.name}{whose}"] += 1
    counts["phase", phase] += 1
    counts["exit", f"{how.name}{whose}: {code}"] += 1
    if left := wait_gone(command.folder):
        raise Wrong(f"processes {left} are left after {how.name}{whose} in phase {phase}")
    if any(command.folder.rglob(".*.part")):
        counts["found", "a half-written file beside the whole one"] += 1
    promised = {-how} if how == signal.SIGKILL and not whose else {0, 1} if whose else {0, 128 + how}
    if phase == "start":  # Python itself is still being started
        promised |= {-how, 1}
    elif phase == "end" and case.finished(command.folder):  # or ended
        promised.add(-how)
    if phase != "start" and "Traceback" in command.said():
        raise Wrong(f"a traceback after {how.name}{whose} in phase {phase}")
    if code not in promised:
        raise Wrong(f"exit code {code} after {how.name}{whose} in phase {phase}")
    return True


def pass_by(command: Command, how: str, whom: int, phase: str, chance: random.Random, counts: Counter) -> bool:
    """Disturb it without ending it; False where it had ended before."""
    if how == UNREAD:
        if not command.reads or command.process.poll() is not None:
            return False
        command.break_pipe()
    else:
        try:
            os.kill(whom, signal.SIGSTOP)
            time.sleep(chance.uniform(0, 2))
            os.kill(whom, signal.SIGCONT)
        except ProcessLookupError:
            return False
    whose = "" if whom == command.process.pid else " to a worker"
    counts["kill", f"{how}{whose if how == PAUSE else ''}"] += 1
    counts["phase", phase] += 1
    return True


def torment(number: int, case: Case, kills: int, seed: int, counts: Counter) -> str:
    """Kill a run so many times, or until it is finished, let it finish, and compare; a line that says so."""
    folder, chance, done = case.reference.parent / f"victim_{number}", random.Random(f"{seed}/{number}"), 0
    while True:
        command = Command(folder, case.line(folder))
        while done < kills and disturb(command, case, chance, counts):
            done += 1
            if (killed := command.process.poll()) is not None and killed != 0:
                break
        else:
            if code := command.process.wait(900):
                raise Wrong(f"victim {number} ({case}) ended with {code}; see {command.log}")
            break
        if case.finished(folder) and case.jobs != JOBS:
            break
    if wrong := [*case.differences(folder), *(f"process {pid}" for pid in wait_gone(folder))]:
        raise Wrong(f"victim {number} ({case}) differs from the run that was left alone: {', '.join(wrong)}")
    case.kills += done
    shutil.rmtree(folder)
    return f"victim {number}: {case}: {done} kills, equal"


def make_images(folder: Path) -> None:
    """A folder of images in two classes; a run on it keeps what tells that they are the same when it goes on."""
    drawn = torch.Generator().manual_seed(0)
    for i in range(60):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(256, (9, 10, 3), generator=drawn, dtype=torch.uint8).numpy()).save(path)


def left_alone(case: Case) -> str:
    """Play what the victims are compared with."""
    begun = time.monotonic()
    command = Command(case.reference, case.line(case.reference))
    command.until(("rounds",))
    case.starting = time.monotonic() - begun
    if command.process.wait(900):
        raise Wrong(f"{case} does not even run alone; see {command.log}")
    case.playing = time.monotonic() - begun - case.starting
    return f"{case}, left alone: starts in {case.starting:.1f} s, plays for {case.playing:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("chaos"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=13, help="kills and disturbances of one victim, at most")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 1, 2], help="of one victim after the other")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES), help="; sweeps and searches by one process")
    parser.add_argument("--beside", type=int, default=2, help="victims beside each other")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background commands, and all that they start, ignore it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    make_images(out / IMAGES)
    os.environ |= {"GAN_RUNNER_CACHE": str(out / "cache"), "OMP_NUM_THREADS": "1"}
    cases = [
        Case(name, n, out) for n in sorted(set(arguments.processes)) for name in arguments.recipes if n == 1 or "-m" not in RECIPES[name]
    ]
    turns = [case for n in arguments.processes for case in cases if case.n == n]
    counts: Counter = Counter()
    begun, number = time.monotonic(), 0
    with ThreadPoolExecutor(arguments.beside) as pool:
        try:
            for line in pool.map(left_alone, cases):
                print(line, flush=True)
            while (missing := arguments.kills - sum(case.kills for case in cases)) > 0:
                quotas = [min(arguments.each, missing - start) for start in range(0, missing, arguments.each)]
                jobs = [
                    pool.submit(torment, number + i, turns[(number + i) % len(turns)], quota, arguments.seed, counts)
                    for i, quota in enumerate(quotas)
                ]
                number += len(quotas)
                for job in jobs:
                    print(job.result(), flush=True)
        except Wrong as error:
            pool.shutdown(cancel_futures=True)
            sys.exit(f"{error}\nafter {sum(counts[key] for key in counts if key[0] == 'kill')} kills")
    minutes, total = (time.monotonic() - begun) / 60, sum(case.kills for case in cases)
    print(f"\n{total} kills of {number} runs, seed {arguments.seed}, in {minutes:.0f} min: each equals the run left alone, bit for bit")
    print("\n| recipe | kills |\n|---|---|")
    for case in cases:
        print(f"| {case} | {case.kills} |")
    for kind, title in (("kill", "signal"), ("phase", "what it was doing"), ("exit", "signal: exit code"), ("found", "found")):
        print(f"\n| {title} | times |\n|---|---|")
        for (_, what), times in sorted(item for item in counts.items() if item[0][0] == kind):
            print(f"| {what} | {times} |")


if __name__ == "__main__":
    main()
