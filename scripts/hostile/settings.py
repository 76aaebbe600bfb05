"""Configurations that name code, addresses and the environment: those of run directories, and experiments of a --config-dir."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from hostile.characters import in_config, set_in
from hostile.stage import EXPERIMENT, Attack, Stage, put

PLACES = (  # of a part in a configuration
    "loss", "rule", "trainer", "dataset", "architecture.generator", "architecture.discriminator", "optimizer.generator", "penalty.x",
    "trick.x", "metric.x", "extractor", "callback.x", "logger.x", "optimizer.generator.lr", "penalty.gradient_penalty.weight", "refiner.x",
)  # fmt: skip
TAG = "!!python/object/apply:os.system ['touch {owned}']"


def codes(stage: Stage) -> list[dict[str, Any]]:
    """Parts that execute something when they are built by their name."""
    touch = f"touch '{stage.owned}'"
    return [
        {"_target_": "os.system", "command": touch},
        {"_target_": "os.system", "_args_": [touch], "_partial_": False},
        {"_target_": "subprocess.Popen", "args": ["touch", str(stage.owned)]},
        {"_target_": "builtins.exec", "_args_": [f"import os; os.system({touch!r})"]},
        {"_target_": "gan_runner.storage.directory.subprocess.run", "args": ["touch", str(stage.owned)]},
        {"_target_": "gan_runner.storage.directory.os.system", "command": touch},
        {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.system", "command": touch}},
        {"_target_": "torch.optim.lr_scheduler.types.os.system", "command": touch},
        {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": [str(stage.owned)]}]},
        {"_target_": "evil.Loss"},
    ]


def resolvers(stage: Stage) -> list[str]:
    """The same, made by what OmegaConf resolves."""
    code = f"{{_target_:pathlib.Path.touch,_args_:[{{_target_:pathlib.Path,_args_:['{stage.owned}']}}]}}"
    text = json.dumps({"_target_": "os.system", "command": f"touch {stage.owned}"}).replace("'", "\\'")
    return [f"${{oc.create:{code}}}", f"${{oc.decode:'{text}'}}", "${refiner.x}", "${oc.select:refiner.x}", "${oc.dict.values:refiner}"]


def evil_package(stage: Stage) -> None:
    """Code beside the run, in it, and in the folder of experiments."""
    for folder in (stage.here, stage.run if stage.run.name else stage.here / "run", stage.here / "conf"):
        folder.mkdir(parents=True, exist_ok=True)
        put(folder / "evil.py", f"open({str(stage.owned)!r}, 'w')\nclass Loss: pass\n")


# ---- of run directories -----------------------------------------------------------------------------------------------------------------


def part_in(place: str) -> Callable[[Stage], None]:
    def spoil(stage: Stage) -> None:
        evil_package(stage)
        stage.configure(set_in(place, stage.chance.choice(codes(stage))))

    return spoil


def resolved_in(place: str) -> Callable[[Stage], None]:
    def spoil(stage: Stage) -> None:
        stage.configure(set_in("refiner.x", stage.chance.choice(codes(stage))))
        stage.configure(set_in(place, stage.chance.choice(resolvers(stage))))

    return spoil


def hydra_in(run: Stage) -> None:
    code = run.chance.choice(codes(run))
    run.configure(set_in("hydra", {"callbacks": {"x": code}, "job_logging": code, "launcher": code, "searchpath": ["file:///tmp"]}))


def packages_in(stage: Stage) -> None:
    evil_package(stage)
    stage.configure(set_in("packages", ["evil"]))
    stage.configure(set_in("loss", {"_target_": "evil.Loss"}))


def tagged(name: str) -> Callable[[Stage], None]:
    return lambda stage: put(stage.run / name, f"seed: {TAG.format(owned=stage.owned)}\n")


def addressed(logger: str, **values: Any) -> Callable[[Stage], None]:
    """A logger that sends to where the run directory says."""
    target = {"mlflow": "MLflow", "wandb": "WandB", "trackio": "Trackio"}[logger]

    def spoil(stage: Stage) -> None:
        settings = {key: value.replace("ADDRESS", stage.address) for key, value in values.items()}
        stage.configure(set_in(f"logger.{logger}", {"_target_": f"gan_runner.loggers.{target}", **settings}))

    return spoil


def remembered(stage: Stage) -> None:
    """A run of MLflow at the stranger's address, which is to be gone on with."""
    addressed("mlflow", tracking_uri="ADDRESS")(stage)
    put(stage.run / "mlflow.json", '{"run_id": "0123456789abcdef0123456789abcdef"}')


def of_run() -> Iterator[Attack]:
    for place in PLACES:
        yield Attack("code in config.yaml", f"by name: {place}", "run", part_in(place))
    for place in ("loss", "callback.x", "dataset.n", "trainer.steps", "penalty.x", "seed"):
        yield Attack("code in config.yaml", f"by a resolver: {place}", "run", resolved_in(place))
    yield Attack("code in config.yaml", "Hydra's settings", "run", hydra_in)
    yield Attack("code in config.yaml", "packages", "run", packages_in)
    for name in ("config.yaml", "overrides.yaml", "metrics.jsonl", "status.json"):
        yield Attack("code in config.yaml", f"a tag of YAML in {name}", "run", tagged(name))
    yield Attack("address", "tracking_uri of MLflow", "run", addressed("mlflow", tracking_uri="ADDRESS"))
    yield Attack("address", "tracking_uri of MLflow with the environment in it", "run", secret_address)
    yield Attack("address", "tracking_uri of MLflow, a file outside", "run", addressed("mlflow", tracking_uri="sqlite:///../outside/x.db"))
    yield Attack("address", "a run of MLflow to go on with", "points", remembered)
    yield Attack("address", "W&B, online", "points", addressed("wandb", mode="online", entity="stranger"))
    yield Attack("address", "a space of Trackio", "points", addressed("trackio", space="stranger/space"))
    for place in (
        "dataset.root",
        "dataset.path",
        "loss._target_",
        "batch_size",
        "callback.evaluate.best.metric",
        "x",
        "logger.csv.x",
        "seed",
    ):
        yield Attack("environment", f"in {place}", "run", in_config(set_in(place, "${oc.env:SECRET}")))
    for text in (
        "${oc.env:SECRET,x}",
        "${oc.decode:${oc.env:SECRET}}",
        "${oc.select:y,${oc.env:SECRET}}",
        "a${oc.env:HOME}/${oc.env:SECRET}",
    ):
        yield Attack("environment", text, "run", in_config(set_in("callback.grid.name", text)))
    yield Attack(
        "environment", "in a key that the line of a resume copies", "points", in_config(set_in("trainer.accelerator", "${oc.env:SECRET}"))
    )
    yield Attack("environment", "in overrides.yaml", "run", lambda stage: put(stage.run / "overrides.yaml", '["a=${oc.env:SECRET}"]'))


def secret_address(stage: Stage) -> None:
    addressed("mlflow", tracking_uri="ADDRESS/${oc.env:SECRET}", experiment="${oc.env:SECRET}")(stage)


# ---- experiments ------------------------------------------------------------------------------------------------------------------------


def experiment(body: Callable[[Stage], Any]) -> Callable[[Stage], None]:
    """mine.yaml with this added to it."""

    def spoil(stage: Stage) -> None:
        evil_package(stage)
        said = body(stage)
        put(stage.here / "conf/experiment/mine.yaml", EXPERIMENT + (said if isinstance(said, str) else block(said)))

    return spoil


def block(tree: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(tree, sort_keys=False)


def nested(place: str, value: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    set_in(place, value)(tree)
    return tree


def beside(name: str, body: Callable[[Stage], Any]) -> Callable[[Stage], None]:
    """Another file in the folder of experiments, which wins over one of ours."""

    def spoil(stage: Stage) -> None:
        evil_package(stage)
        said = body(stage)
        put(stage.here / "conf" / name, said if isinstance(said, str) else block(said))

    return spoil


def emptied(stage: Stage) -> dict[str, Any]:
    """A log file of Hydra's that is one outside."""
    handler = {"class": "logging.FileHandler", "filename": str(stage.outside / "precious"), "mode": "w"}
    return {"version": 1, "handlers": {"file": handler}, "root": {"handlers": ["file"]}, "disable_existing_loggers": False}


def handlers(stage: Stage) -> dict[str, Any]:
    """A log handler that is made by a call."""
    call = {"()": "os.system", "command": f"touch '{stage.owned}'"}
    return {"version": 1, "handlers": {"file": call}, "root": {"handlers": ["file"]}}


def of_hydra() -> dict[str, Callable[[Stage], dict[str, Any]]]:
    """What an experiment can say of Hydra's own settings."""
    code: Callable[[Stage], dict[str, Any]] = lambda stage: stage.chance.choice(codes(stage))  # noqa: E731
    through: Callable[[Stage], str] = lambda stage: resolvers(stage)[0]  # noqa: E731
    return {
        "callbacks": lambda stage: {"callbacks": {"x": code(stage)}},
        "callbacks by a resolver": lambda stage: {"callbacks": {"x": through(stage)}},
        "callbacks as a whole by a resolver": lambda stage: {"callbacks": f"${{oc.create:{{x:{through(stage)[12:-1]}}}}}"},
        "a name in the callbacks by a resolver": lambda stage: {
            "callbacks": {"x": {"_target_": "${oc.decode:os.system}", "command": f"touch '{stage.owned}'"}}
        },
        "launcher": lambda stage: {"launcher": code(stage)},
        "launcher by a resolver": lambda stage: {"launcher": through(stage)},
        "sweeper": lambda stage: {"sweeper": code(stage)},
        "sweeper's directory of parts": lambda stage: {"sweeper": {"_target_": "${refiner.x._target_}"}, "launcher": "${refiner.x}"},
        "job_logging empties a file": lambda stage: {"job_logging": emptied(stage)},
        "job_logging by a resolver": lambda stage: {"job_logging": f"${{oc.create:{json.dumps(emptied(stage))}}}".replace('"', "'")},
        "job_logging calls": lambda stage: {"job_logging": handlers(stage)},
        "hydra_logging empties a file": lambda stage: {"hydra_logging": emptied(stage)},
        "hydra_logging calls": lambda stage: {"hydra_logging": handlers(stage)},
        "searchpath of files": lambda stage: {"searchpath": [f"file://{stage.outside}"]},
        "searchpath of a package": lambda stage: {"searchpath": ["pkg://evil"]},
        "env_set": lambda stage: {"job": {"env_set": {"GAN_RUNNER_PACKAGES": "evil", "LD_PRELOAD": str(stage.here / "evil.so")}}},
        "env_set by a resolver": lambda stage: {"job": {"env_set": through(stage)}},
        "env_copy": lambda stage: {"job": {"env_copy": ["SECRET"]}},
        "a name of the job with the environment": lambda stage: {"job": {"name": "${oc.env:SECRET}"}},
        "mode": lambda stage: {"mode": "MULTIRUN", "sweeper": {"params": {"packages": "[evil]", "loss._target_": "evil.Loss"}}},
        "output_subdir outside": lambda stage: {"output_subdir": str(stage.outside / "subdir")},
    }


def of_experiments() -> Iterator[Attack]:
    for name, body in of_hydra().items():
        spoil = experiment(lambda stage, body=body: {"hydra": body(stage)})
        yield Attack("code in an experiment", f"hydra: {name}", "experiment", spoil)
    for place in PLACES:
        spoil = experiment(lambda stage, place=place: nested(place, stage.chance.choice(codes(stage))))
        yield Attack("code in an experiment", f"by name: {place}", "experiment", spoil)
    for place in ("loss", "callback.x", "dataset", "hydra.callbacks.x", "hydra.launcher", "hydra.job_logging"):
        spoil = experiment(
            lambda stage, place=place: {"refiner": {"x": codes(stage)[0]}} | nested(place, stage.chance.choice(resolvers(stage)[2:]))
        )
        yield Attack("code in an experiment", f"by the group refiner: {place}", "experiment", spoil)
    yield Attack(
        "code in an experiment", "packages", "experiment", experiment(lambda stage: {"packages": ["evil"], "loss": codes(stage)[-1]})
    )
    yield Attack("code in an experiment", "resume", "experiment", experiment(lambda stage: {"resume": "run"}))
    yield Attack(
        "code in an experiment", "a tag of YAML", "experiment", experiment(lambda stage: f"seed: {TAG.format(owned=stage.owned)}\n")
    )
    files: dict[str, Callable[[Stage], Any]] = {
        "train.yaml": lambda stage: {"defaults": ["_self_"], "hydra": {"callbacks": {"x": codes(stage)[0]}}, "packages": ["evil"]},
        "sample.yaml": lambda stage: {"defaults": ["_self_"], "run": "???", "packages": ["evil"], "hydra": {"job_logging": emptied(stage)}},
        "evaluate.yaml": lambda stage: {"defaults": ["_self_"], "hydra": {"callbacks": {"x": resolvers(stage)[0]}}, "packages": ["evil"]},
        "rate.yaml": lambda stage: "defaults: [_self_]\nout: ../outside/photos\npackages: [evil]\n",
        "loss/hinge.yaml": lambda stage: codes(stage)[0],
        "hydra/launcher/basic.yaml": lambda stage: codes(stage)[0],
        "hydra/sweeper/basic.yaml": lambda stage: codes(stage)[1],
        "hydra/job_logging/none.yaml": emptied,
        "hydra/hydra_logging/none.yaml": handlers,
        "hydra/callbacks/x.yaml": lambda stage: {"x": codes(stage)[0]},
        "logger/tensorboard.yaml": lambda stage: {"tensorboard": codes(stage)[3]},
        "trainer/default.yaml": lambda stage: {**codes(stage)[0], "steps": 2},
    }
    for name, body in files.items():
        yield Attack("code in an experiment", f"a file {name}", "experiment", beside(name, body))
    mlflow = {"_target_": "gan_runner.loggers.MLflow", "experiment": "x"}
    yield Attack(
        "address", "MLflow in an experiment", "experiment",
        experiment(lambda stage: {"logger": {"mlflow": mlflow | {"tracking_uri": stage.address}}}),
    )  # fmt: skip


# ---- documents that grow ----------------------------------------------------------------------------------------------------------------


def growing() -> dict[str, str]:
    """Documents of a few kilobytes that take for ever, or all memory, if they are believed."""
    aliases = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    merges = "m0: &m0 {k0: x}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}], k{i}: x}}\n" for i in range(1, 30))
    texts = "t0: xxxxxxxxxx\n" + "".join(f"t{i}: {f'${{t{i - 1}}}' * 9}\n" for i in range(1, 30))
    trees = "s0: {x: y}\n" + "".join(f"s{i}: {{a: '${{s{i - 1}}}', b: '${{s{i - 1}}}', c: '${{s{i - 1}}}'}}\n" for i in range(1, 40))
    return {
        "aliases": aliases,
        "merged mappings": merges,
        "interpolations of texts": texts,
        "interpolations of trees": trees,
        "a circle of interpolations": "u: ${v}\nv: ${u}\n",
        "an alias of itself": "w: &w [*w]\n",
        "10,000 levels": f"x: {'[' * 10_000}{']' * 10_000}\n",
        "10,000 levels of mappings": f"x: {'{a: ' * 10_000}1{'}' * 10_000}\n",
        "1,000 levels in lines": "x:\n" + "".join(f"{' ' * i}a:\n" for i in range(1, 1000)),
        "1,000 levels of interpolation": f"x: '{'${oc.select:' * 1000}a{'}' * 1000}'\n",
        "a number of 100,000 digits": f"x: {'9' * 100_000}\nseed: {'7' * 5000}\n",
        "a number in base 60": f"x: 1{':59' * 50_000}\n",
        "10,000 keys": "".join(f"k{i}: 1\n" for i in range(10_000)),
        "a key of 1 MB": f"? {'k' * 1_000_000}\n: 1\n",
        "a set of a document that never ends": "x: 'a" + "\n" * 50_000,
    }


def of_growth() -> Iterator[Attack]:
    for name, text in growing().items():
        yield Attack("YAML that grows", f"config.yaml: {name}", "run", lambda stage, text=text: appended_to(stage, text))
        yield Attack("YAML that grows", f"experiment: {name}", "experiment", experiment(lambda stage, text=text: text))
        where = "overrides.yaml" if len(text) % 2 else "conf/train.yaml"
        if where == "overrides.yaml":
            yield Attack("YAML that grows", f"{where}: {name}", "run", lambda stage, text=text: put(stage.run / "overrides.yaml", text))
        else:
            yield Attack("YAML that grows", f"{where}: {name}", "experiment", beside("train.yaml", lambda stage, text=text: text))


def appended_to(stage: Stage, text: str) -> None:
    put(stage.run / "config.yaml", (stage.run / "config.yaml").read_text() + text)


def attacks() -> Iterator[Attack]:
    yield from of_run()
    yield from of_experiments()
    yield from of_growth()
