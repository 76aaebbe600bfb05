#!/usr/bin/env python3
"""Wrong lines by the hundred: each has to end in one clear message and exit code 2, within seconds, with nothing created.

    python scripts/faults.py --lines 500

Lines are made from good ones by chance: misspelt keys and options, values of a wrong type, out of range or beyond the limits of the system,
parts that do not fit, experiments in another encoding or that name themselves, images that cannot be read, nonsense. They are run in this
process, in an empty folder. A line that comes out right (a typo in a value that takes anything) does not count.

    python scripts/faults.py --hostile 200

plays damaged and hostile directories and experiments instead (hostile/), each through the five commands; --case K repeats one of them.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from gan_runner import cli
from gan_runner.commands.usage import catalogue
from gan_runner.config.composer import compose
from gan_runner.jobs import job

KEYS = {  # key -> values that it cannot take
    "batch_size": ["0", "-4", "many", "1.5", "null", "[64]", "true"],
    "seed": ["x", "1.5", "null", "{}"],
    "trainer.steps": ["0", "-1", "ten", "1e3", "null"],
    "trainer.accumulate": ["0", "7", "half"],
    "trainer.precision": ["8", "fp16", "'32'"],
    "trainer.accelerator": ["tpu", "1", "cuda:0"],
    "trainer.devices": ["0", "-1", "some", "3"],
    "optimizer.generator.lr": ["-1", "fast", "[1e-4]", "null"],
    "optimizer.discriminator.betas": ["[0.5]", "[2,3]", "x"],
    "architecture.generator.width": ["0", "-8", "wide", "1.5"],
    "architecture.generator.latent": ["0", "none"],
    "rule.d_steps": ["0", "-1", "two"],
    "callback.evaluate.n": ["0", "all"],
    "callback.evaluate.best.mode": ["up", "1"],
    "callback.checkpoint.keep": ["0", "-2", "x"],
    "callback.grid.every_steps": ["0", "often"],
    "dataset.n": ["0", "-3", "x"],
    "metric.mode_coverage.radius_sigmas": ["0", "-1", "x"],
    "trick.ema.halflife_kimg": ["-1", "x"],
}
MISMATCHES = [
    ["architecture=dcgan"], ["architecture=resnet"], ["trick=[label_smoothing]", "loss=hinge"], ["penalty=[auxiliary_classifier]"],
    ["dataset=image_folder"], ["dataset=image_folder", "dataset.path=nowhere", "dataset.resolution=32"], ["dataset=swiss_roll"],
    ["dataset=packed"], ["dataset=packed", "dataset.path=nowhere.zip", "dataset.resolution=32"],
    ["batch_size=10", "trainer.accumulate=3"], ["penalty=[feature_matching]", "trainer.accumulate=2"], ["resume=nowhere"],
    ["hydra.run.dir="], ["~loss"], ["+loss=hinge"], ["loss=[hinge,wasserstein]"], ["loss=hinge,wasserstein"], ["seed=1,2"],
    ["hydra.sweep.dir=x", "seed=1,2"], ["experiment=gaussians25"], ["loss._target_=os.system"], ["+penalty.x._target_=subprocess.Popen"],
    ["loss._target_=gan_runner.rules.Alternate"], ["packages=[os.path]", "loss._target_=os.path.join"],
    ["penalty=[r1]", "penalty.r1.weight={_target_: builtins.exec}"],
]  # fmt: skip


LONG, DIGITS = "x" * 300, "9" * 5000
LIMITS = [  # of the system
    [f"hydra.run.dir={LONG}"], [f"hydra.run.dir={'/'.join([LONG[:200]] * 30)}"], [f"init_from={LONG}"], [f"resume={LONG}"],
    ["-m", "seed=0,1", f"hydra.sweep.dir={LONG}"], ["--config-dir", LONG], ["dataset=packed", f"dataset.path={LONG}.zip"],
    ["dataset=image_folder", f"dataset.path={LONG}", "dataset.resolution=8", "architecture=dcgan"],
    [f"seed={DIGITS}"], [f"trainer.steps={DIGITS}"], [f"callback.grid.seed=-{DIGITS}"], [f"optimizer.generator.lr={DIGITS}"],
    ["trainer.threads=100000"], ["trainer.threads=1025"], [f"trainer.threads={2**70}"], ["-m", "trainer.threads=1,100000"],
    ["dataset=image_folder", "dataset.path=.", "dataset.resolution=8", "architecture=dcgan", "dataset.workers=100000"],
]  # fmt: skip
BODY = "# @package _global_\n# caf\u00e9\ndefaults:\n  - {name}\n"
FILES = {  # experiments that no editor of ours writes
    "utf16": BODY.format(name="gaussians25").encode("utf-16"),
    "utf16be": BODY.format(name="gaussians25").encode("utf-16-be"),
    "latin1": BODY.format(name="gaussians25").encode("latin-1"),
    "nul": BODY.format(name="gaussians25").encode() + b"\0",
    "itself": BODY.format(name="itself").encode(),
    "there": BODY.format(name="back").encode(),
    "back": BODY.format(name="there").encode(),
    "half": BODY.format(name="gaussians25").encode()[:-4] + b"\xc3",
}
IMAGES = ("a dangling link", "an empty file", "a cut file", "text", "another one in test")  # kinds of a folder with broken images


def make_bad_files(folder: Path) -> None:
    """The experiments of FILES, and a folder of images for each of IMAGES."""
    (folder / "experiment").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / "experiment" / f"{name}.yaml").write_bytes(content)
    for kind in IMAGES:
        split = "test" if "test" in kind else "train"
        for place in ("train", "test"):
            for i in range(3):
                path = folder / kind / place / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 9), (i, 50, 99)).save(path)
        bad = folder / kind / split / "1.png"
        whole = bad.read_bytes()
        bad.unlink()
        if "link" in kind:
            bad.symlink_to("/nowhere")
        else:
            bad.write_bytes({"an empty file": b"", "text": b"no image"}.get(kind, whole[:50]))


def misspelt(word: str, chance: random.Random) -> str:
    """A word with one letter lost, doubled, changed or swapped with its neighbour."""
    at = chance.randrange(len(word) - 1)
    kind = chance.randrange(4)
    letter = chance.choice(string.ascii_lowercase)
    return (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + letter + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    )[kind]


def nonsense(chance: random.Random) -> str:
    return "".join(chance.choice(string.ascii_letters + string.digits + "=[]{},.:+~'\"$!@#%/ ") for _ in range(chance.randrange(1, 25)))


def line(chance: random.Random, options: dict[str, list[str]], bad: Path) -> tuple[str, list[str]]:
    """(kind, a line with one mistake in it)."""
    good = ["+experiment=gaussians25", "trainer.steps=2"]
    key = chance.choice(list(KEYS))
    group = chance.choice([group for group in options if group not in ("experiment", "study")])
    kinds: dict[str, Callable[[], list[str]]] = {
        "misspelt key": lambda: [*good, f"{misspelt(key, chance)}=1"],
        "misspelt key, added": lambda: [*good, f"+{misspelt(key, chance)}=1"],
        "misspelt option": lambda: [*good, f"{group}={misspelt(chance.choice(options[group]) + 'x', chance)}"],
        "misspelt experiment": lambda: [f"+experiment={misspelt(chance.choice(options['experiment']) + 'x', chance)}"],
        "wrong value": lambda: [*good, f"{key}={chance.choice(KEYS[key])}"],
        "does not fit": lambda: [*good, *chance.choice(MISMATCHES)],
        "beyond a limit": lambda: [*good, *chance.choice(LIMITS)],
        "file of another editor": lambda: ["--config-dir", str(bad), f"+experiment={chance.choice(list(FILES))}"],
        "broken images": lambda: [
            "+experiment=dcgan_image_folder",
            f'dataset.path="{bad / chance.choice(IMAGES)}"',
            "dataset.resolution=8",
            f"dataset.keep_decoded={chance.choice(['true', 'false'])}",
        ],
        "nonsense": lambda: [*good, nonsense(chance)],
    }
    kind = chance.choice(list(kinds))
    return kind, kinds[kind]()


def is_right(words: list[str]) -> bool:
    """Whether a line composes and fits, so that there is nothing to refuse."""
    try:
        job.check(compose(words))
    except Exception:
        return False
    return True


def outcome(words: list[str]) -> tuple[int | str, str, float]:
    """(exit code, what was said, seconds) of `gan-train` with these words."""
    said, begun = io.StringIO(), time.monotonic()
    sys.argv = ["gan-train", *words]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code: int | str = cli.train()
        except BaseException as error:
            code = f"{type(error).__name__} escaped: {error}"
    return code, said.getvalue(), time.monotonic() - begun


def wrong(code: int | str, said: str, seconds: float, folder: Path) -> str | None:
    """What was not as promised."""
    if code != 2:
        return f"exit code {code}"
    if "Traceback" in said or not said.strip():
        return "a traceback, or nothing said"
    if seconds > 20:
        return f"{seconds:.0f} s"
    if left := [path.name for path in folder.iterdir()]:
        return f"it created {', '.join(left)}"
    return None


def main(lines: int, seed: int) -> int:
    chance, options = random.Random(seed), {group: list(names) for group, names in catalogue().items() if names}
    counts: Counter[str] = Counter()
    failures, slowest, right = [], 0.0, 0
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as other:
        folder, bad = Path(name), Path(other) / "bad"
        make_bad_files(bad)
        os.environ["GAN_RUNNER_CACHE"] = str(Path(other) / "cache")
        os.chdir(folder)
        while sum(counts.values()) < lines:
            kind, words = line(chance, options, bad)
            if is_right(words):
                right += 1
                continue
            code, said, seconds = outcome(words)
            counts[kind] += 1
            slowest = max(slowest, seconds)
            if reason := wrong(code, said, seconds, folder):
                failures.append((reason, words, said[-300:]))
                for path in folder.iterdir():
                    shutil.rmtree(path, ignore_errors=True)
        os.chdir("/")
    print(f"{lines} wrong lines, seed {seed}; {len(failures)} not refused as they should be; the slowest took {slowest:.1f} s")
    print(f"({right} that came out right by chance are not counted)\n\n| mistake | lines |\n|---|---|")
    for kind, n in sorted(counts.items()):
        print(f"| {kind} | {n} |")
    for reason, words, said in failures:
        print(f"\n{reason}: gan-train {' '.join(words)}\n{said}")
    return 1 if failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hostile", metavar="N", type=int, help="play N hostile or damaged directories and experiments instead")
    parser.add_argument("--case", metavar="K", type=int, help="with --hostile: only this one, with all that is said; its folder is kept")
    parser.add_argument("--only", metavar="TEXT", default="", help="with --hostile: only those with this in their kind or name")
    arguments = parser.parse_args()
    if arguments.hostile is not None:
        from hostile.play import main as play

        sys.exit(play(arguments.hostile, arguments.seed, arguments.case, kinds=arguments.only))
    sys.exit(main(arguments.lines, arguments.seed))
