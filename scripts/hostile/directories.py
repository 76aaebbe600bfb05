"""Run directories: files that are damaged, links, devices and pipes."""

import functools
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.stage import BREAK, Attack, Stage, clear, put

FILES = {  # of a run, by what is attacked
    "config.yaml": "config.yaml",
    "overrides.yaml": "overrides.yaml",
    "env.json": "env.json",
    "status.json": "status.json",
    "metrics.jsonl": "metrics.jsonl",
    "scalars.csv": "scalars.csv",
    "train.log": "train.log",
    ".lock": ".lock",
    "the events": "events.out.tfevents.*",
    "last.pt": "checkpoints/last.pt",
    "best.pt": "checkpoints/best.pt",
    "every checkpoint": "checkpoints/*.pt",
    "a picture": "samples/*.png",
}
TRACKED = {"wandb.json": '{"id": "x", "project": "y"}', "mlflow.json": '{"run_id": "x"}', "trackio.json": '{"project": "x", "name": "y"}'}
DEEP = "[" * 100_000


def found(stage: Stage, pattern: str) -> list[Path]:
    """The files of the run that a pattern means; the file itself where there is none yet."""
    return sorted(stage.run.glob(pattern)) or [stage.run / pattern.replace("*", "x")]


def spoiler(pattern: str, spoil: Callable[[Stage, Path], None]) -> Callable[[Stage], None]:
    """Spoils every file that a pattern means."""

    def apply(stage: Stage) -> None:
        for path in found(stage, pattern):
            path.parent.mkdir(parents=True, exist_ok=True)
            spoil(stage, path)

    return apply


# ---- damaged ----------------------------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda data, chance: data[: chance.randrange(max(len(data), 1))],
    "zeros": lambda data, chance: bytes(len(data)),
    "empty": lambda data, chance: b"",
    "noise": lambda data, chance: chance.randbytes(max(len(data), 100)),
    "a changed byte": lambda data, chance: changed(data, chance),
    "twice": lambda data, chance: data + data,
    "of another kind": lambda data, chance: chance.choice([b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"3", b"[]", b"null", b'"x"', b"{}"]),
    "UTF-16": lambda data, chance: data.decode("latin1").encode("utf-16"),
    "a deep document": lambda data, chance: DEEP.encode(),
}


def changed(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(max(len(data), 1))
    return data[:at] + bytes([(data[at] ^ (1 << chance.randrange(8))) if data else 7]) + data[at + 1 :]


def damaged(stage: Stage, path: Path, names: tuple[str, ...]) -> None:
    data = path.read_bytes() if path.is_file() else b""
    put(path, DAMAGES[stage.chance.choice(names)](data, stage.chance))


def damages() -> Iterator[Attack]:
    hard = ("cut", "zeros", "noise", "of another kind")
    mild = tuple(name for name in DAMAGES if name not in hard)
    for name, pattern in FILES.items():
        for names in (hard, mild):
            yield Attack("damaged file", f"{name}: {' / '.join(names)}", "run", spoiler(pattern, functools.partial(damaged, names=names)))
    yield Attack("damaged file", "files that changed their names", "run", swapped)
    for name in TRACKED:
        text = "{" if name.startswith("w") else '{"run_id": ["x"], "id": {}, "project": 3, "name": null}'
        yield Attack("damaged file", name, "run", lambda stage, name=name, text=text: put(stage.run / name, text))


def swapped(stage: Stage) -> None:
    """Two files of the run in each other's place."""
    one, other = stage.chance.sample([path for path in sorted(stage.run.rglob("*")) if path.is_file()], 2)
    data = one.read_bytes(), other.read_bytes()
    put(one, data[1])
    put(other, data[0])


# ---- links ------------------------------------------------------------------------------------------------------------------------------


def linked(target: str) -> Callable[[Stage, Path], None]:
    def spoil(stage: Stage, path: Path) -> None:
        clear(path)
        path.symlink_to(path.name if target == "itself" else stage.outside / target)

    return spoil


def appended(stage: Stage, path: Path) -> None:
    """A second name of a file outside, as an archive can carry it."""
    clear(path)
    os.link(stage.outside / "bashrc", path)


def links() -> Iterator[Attack]:
    for name, pattern in FILES.items():
        for target in ("precious", "not/there", "itself"):
            yield Attack("link", f"{name} -> {target}", "run", spoiler(pattern, linked(target)))
    for name in TRACKED:
        yield Attack("link", f"{name} -> precious", "run", spoiler(name, linked("precious")))
    for name, target in (("samples", "photos"), ("checkpoints", "another/checkpoints"), ("evaluations", "photos"), ("wandb", "photos")):
        yield Attack("link", f"{name}/ -> {target}", "run", spoiler(name, linked(target)))
        yield Attack("link", f"{name}/ -> itself", "run", spoiler(name, linked("itself")))
    yield Attack("link", "table.txt -> precious", "sweep", lambda stage: linked("precious")(stage, stage.here / "sweep/table.txt"))
    yield Attack("link", "the lock of a sweep -> precious", "sweep", lambda stage: linked("precious")(stage, stage.here / "sweep/.lock"))
    yield Attack("link", "train.log is bashrc, and a checkpoint has a command for it", "run", command_in_the_log)
    yield Attack("link", "half files -> precious", "run", half_files)
    for name in ("train.log", ".lock", "metrics.jsonl", "scalars.csv"):
        yield Attack("hard link", f"{name} = bashrc", "run", spoiler(name, appended))
    yield Attack("link", "a run among runs that is a link", "run", lambda stage: (stage.here / "b").symlink_to(stage.outside / "another"))


def command_in_the_log(stage: Stage) -> None:
    linked("bashrc")(stage, stage.run / "train.log")
    put(stage.run / "checkpoints" / f"step_0000000{BREAK}.pt".replace("/", " "), b"x")
    put(stage.run / "checkpoints" / "last.pt", b"x")


def half_files(stage: Stage) -> None:
    """Links in the place of the files that are written beside their name first, whose names can be guessed."""
    for name in ("config.yaml", "status.json", "metrics.jsonl", "env.json", "checkpoints/last.pt", "checkpoints/step_00000005.pt"):
        path = stage.run / name
        for number in range(os.getpid() - 3, os.getpid() + 20):
            path.with_name(f".{path.name}.{number}.part").symlink_to(stage.outside / "precious")


# ---- devices and pipes ------------------------------------------------------------------------------------------------------------------


def fifo(stage: Stage, path: Path) -> None:
    clear(path)
    os.mkfifo(path)


def plug(stage: Stage, path: Path) -> None:
    clear(path)
    folder = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(folder)


def device(name: str) -> Callable[[Stage, Path], None]:
    def spoil(stage: Stage, path: Path) -> None:
        clear(path)
        path.symlink_to(f"/dev/{name}")

    return spoil


def directory(stage: Stage, path: Path) -> None:
    clear(path)
    path.mkdir()


def huge(stage: Stage, path: Path) -> None:
    """A terabyte of which nothing is on the disk."""
    data = path.read_bytes() if path.is_file() else b""
    put(path, data)
    os.truncate(path, 2**40)


THINGS: dict[str, Callable[[Stage, Path], None]] = {
    "a pipe": fifo,
    "/dev/zero": device("zero"),
    "/dev/full": device("full"),
    "/dev/stdin": device("stdin"),
    "a socket": plug,
    "a folder": directory,
    "1 TB": huge,
}


def devices() -> Iterator[Attack]:
    often = {"last.pt", "every checkpoint", ".lock", "train.log", "metrics.jsonl", "status.json", "config.yaml", "overrides.yaml"}
    for number, (name, pattern) in enumerate(FILES.items()):
        for at, (what, spoil) in enumerate(THINGS.items()):
            if (what in ("a pipe", "/dev/zero", "1 TB") and name in often) or (number + at) % 3 == 0:
                yield Attack("device or pipe", f"{name} is {what}", "run", spoiler(pattern, spoil))
    for name in TRACKED:
        yield Attack("device or pipe", f"{name} is a pipe", "run", spoiler(name, fifo))
    for name in ("checkpoints", "samples", "evaluations"):
        yield Attack("device or pipe", f"a pipe in the place of {name}/", "run", spoiler(name, fifo))
    yield Attack("device or pipe", "table.txt is a pipe", "sweep", lambda stage: fifo(stage, stage.here / "sweep/table.txt"))
    yield Attack("device or pipe", "study.db is a pipe", "sweep", lambda stage: study(stage, fifo))
    yield Attack("damaged file", "study.db is noise", "sweep", lambda stage: study(stage, lambda stage, path: put(path, b"x" * 5000)))
    yield Attack("link", "study.db -> precious", "sweep", lambda stage: study(stage, linked("precious")))


def study(stage: Stage, spoil: Callable[[Stage, Path], None]) -> None:
    """A search in the folder of the sweep, whose trials are in study.db."""
    spoil(stage, stage.here / "sweep/study.db")
    clear(stage.run)
    clear(stage.here / "sweep/0")
    more = ["hydra/sweeper=gan_optuna", "hydra.sweeper.n_trials=2", "optimizer.generator.lr=interval(1e-4,1e-3)"]
    stage.lines["train"] = [word for word in stage.lines["train"] if not word.startswith("seed=")] + more


def attacks() -> Iterator[Attack]:
    for some in (damages, links, devices):
        yield from some()
