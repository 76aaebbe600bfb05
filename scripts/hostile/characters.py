"""Run directories: names and values with characters that move the cursor; figures that are none."""

import json
from collections.abc import Callable, Iterator

from hostile.stage import BREAK, COLOURS, ESCAPE, TURNED, WITNESS, Attack, Stage, put


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
    for some in (names, characters, oddities):
        yield from some()
