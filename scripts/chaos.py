#!/usr/bin/env python3
"""Kill runs at random moments, go on with them, and hold what they leave behind against a run that was left alone.

    python scripts/chaos.py --kills 100 --out chaos

Each victim is killed by SIGKILL, SIGTERM or SIGINT at a random moment, resumed, killed again, and at last allowed to finish. Then its
weights, optimisers and random states, its curves in TensorBoard and its metrics.jsonl must be those of the run that was left alone, bit for
bit; no process and no half-written file may be left. Exit code 1 at the first difference. What happened is printed as Markdown tables.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COMMON = [
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "callback.log.every_steps=5",
    "callback.checkpoint.every_steps=10",
    "callback.grid.n=16",
    "callback.grid.every_steps=50",
]
RECIPES = {
    "gaussians25": [
        "+experiment=gaussians25", "batch_size=64", "trainer.steps=400", "callback.evaluate.every_steps=25", "callback.evaluate.n=500",
    ],
    "dcgan": [
        "dataset=triangles", "dataset.n_train=500", "dataset.n_test=100", "architecture=dcgan", "architecture.generator.width=8",
        "architecture.discriminator.width=8", "trick=[ema]", "penalty=[r1]", "batch_size=16", "trainer.steps=200",
        "metric=[frechet_distance]", "extractor=random_conv", "callback.evaluate.every_steps=25", "callback.evaluate.n=100",
    ],
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WATCHED = ("time/", "memory/")  # curves that tell of the machine and not of the training


def start(folder: Path, words: list[str]) -> subprocess.Popen:
    """The command, in a process group of its own."""
    command = [sys.executable, "-c", "import sys; from gan_runner.cli import train; sys.exit(train())", *words]
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def orphans(folder: Path) -> list[int]:
    """Processes that still know the folder, besides this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_gone(folder: Path, seconds: float = 60) -> list[int]:
    """The processes of a run that have not ended after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := orphans(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
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
    if json.loads((victim / "status.json").read_text())["state"] != "finished":
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


def torment(folder: Path, words: list[str], kills: int, seconds: float, chance: random.Random, counts: Counter) -> int:
    """Kill a run so many times, or until it is finished, and let it finish; how often it was killed."""
    done = 0
    while True:
        begun = (folder / "checkpoints" / "last.pt").exists()
        if not begun and folder.exists():
            shutil.rmtree(folder)  # killed before its first checkpoint: there is nothing to go on from
        os.environ["CHAOS_FOLDER"] = str(folder)
        process = start(folder, [f"resume={folder}"] if begun else [*words, f"hydra.run.dir={folder}"])
        how = chance.choice(SIGNALS) if done < kills else None
        if how is not None:
            wait_until_playing(process, folder, begun)
            try:
                process.wait(chance.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, how)
                done += 1
                counts[how.name] += 1
                code = process.wait(120)
                counts[f"exit {code}"] += 1
        if process.wait(600) == 0 or state(folder) == "finished":  # or killed once all was done
            return done
        if left := wait_gone(folder):
            sys.exit(f"{folder}: processes {left} are left")


def wait_until_playing(process: subprocess.Popen, folder: Path, begun: bool) -> None:
    """Until the run has begun its rounds, sometimes a little before: kills at the start are kills, too."""
    log, before = folder.parent / f"{folder.name}.log", 0
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and not (log.stat().st_size > before and (begun or folder.exists())):
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("chaos"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=10, help="kills of one victim, at most")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    out, chance = arguments.out.resolve(), random.Random(arguments.seed)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    os.environ["GAN_RUNNER_CACHE"] = str(out / "cache")
    cases = [(name, n) for n in arguments.processes for name in RECIPES]
    took: dict[tuple[str, int], float] = {}
    for name, n in cases:
        os.environ["CHAOS_FOLDER"] = str(out / f"{name}_{n}")
        begun = time.monotonic()
        process = start(out / f"{name}_{n}", [*RECIPES[name], *COMMON, f"trainer.devices={n}", f"hydra.run.dir={out / f'{name}_{n}'}"])
        if process.wait(900):
            sys.exit(f"{name} with {n} processes does not even run alone; see {out}/{name}_{n}.log")
        took[name, n] = time.monotonic() - begun
        print(f"{name}, {n} processes: {took[name, n]:.0f} s when left alone", flush=True)
    killed: Counter = Counter()
    counts: Counter = Counter()
    victims = 0
    while sum(killed.values()) < arguments.kills:
        name, n = cases[victims % len(cases)]
        folder = out / f"victim_{victims}"
        kills = min(arguments.each, arguments.kills - sum(killed.values()))
        words = [*RECIPES[name], *COMMON, f"trainer.devices={n}"]
        killed[name, n] += torment(folder, words, kills, took[name, n] / 5, chance, counts)
        if wrong := [*differences(folder, out / f"{name}_{n}"), *(f"process {pid}" for pid in wait_gone(folder))]:
            sys.exit(f"{folder} ({name}, {n} processes) differs from the run that was left alone: {', '.join(wrong)}")
        shutil.rmtree(folder)
        victims += 1
        print(f"victim {victims}: {name}, {n} processes: equal; {sum(killed.values())} kills so far", flush=True)
    times = sum(killed.values())
    print(f"\n{times} kills of {victims} runs, seed {arguments.seed}: each equals the run that was left alone, bit for bit\n")
    print("| recipe | processes | kills |\n|---|---|---|")
    for (name, n), k in sorted(killed.items()):
        print(f"| {name} | {n} | {k} |")
    print("\n| | times |\n|---|---|")
    for what, k in sorted(counts.items()):
        print(f"| {what} | {k} |")


if __name__ == "__main__":
    main()
