"""A --config-dir of somebody else: nothing of it is executed, reads the environment, writes elsewhere or takes forever.

Each case is witnessed: a folder that code would make, a file outside that must stay as it is, a secret in the environment, a time limit.
"""

import os
import signal
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gan_runner import cli, trained
from gan_runner.assembly import parts
from gan_runner.commands.usage import catalogue
from gan_runner.config.composer import Composer
from gan_runner.errors import UserError
from gan_runner.lifecycle import runs
from gan_runner.storage import documents

SECRET = "s3cr3t-of-the-user"
CODE = "{_target_: os.mkdir, path: OWNED}"  # Hydra's own list of forbidden names does not have it
SMALL = ["architecture.generator.width=8", "architecture.discriminator.width=8", "batch_size=16", "trainer.steps=2", "dataset.n=200"]
SMALL += ["trainer.accelerator=cpu", "callback.grid.n=16", "callback.evaluate.n=200"]
SECONDS = 20  # of this process; six times as many on a clock, where it may wait


@pytest.fixture
def shell(tmp_path, monkeypatch, capfd):
    """(exit code, what was said) of a command in an empty folder `here`, beside the folder `conf`; only the training is a stand-in."""
    trained = []
    monkeypatch.setattr(runs, "train", lambda config, folder, *rest: trained.append((config, folder)))
    monkeypatch.setattr(runs, "complete", lambda config, folder, *rest: trained.append((config, folder)))
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.delenv("GAN_RUNNER_DATA", raising=False)
    (tmp_path / "here").mkdir()
    (tmp_path / "precious").write_text("mine\n")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")

    def late(number, frame):
        raise AssertionError(f"no answer within {SECONDS} s")

    def command(name, *words):
        monkeypatch.setattr(sys, "argv", [f"gan-{name}", *words, "--config-dir", str(tmp_path / "conf")])
        capfd.readouterr()
        before = {number: signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)}
        signal.alarm(6 * SECONDS)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            code = getattr(cli, name)()
        except SystemExit as leaving:
            code = leaving.code
        finally:
            signal.alarm(0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
        return code, "".join(capfd.readouterr())

    command.trained = trained
    command.folder = tmp_path
    return command


def write(root, files):
    for name, text in files.items():
        path = root / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def untouched(shell):
    """Whether nothing was executed, created or changed."""
    assert sorted(path.name for path in shell.folder.iterdir()) == ["conf", "here", "precious"]
    assert (shell.folder / "precious").read_text() == "mine\n"
    assert not list(shell.folder.rglob("OWNED"))
    assert not [path for path in (shell.folder / "here").rglob("*") if path.is_file()]
    assert "NEW" not in os.environ
    return True


def one_message(said):
    assert "Traceback" not in said
    assert "GAN_RUNNER_DEBUG" not in said, said  # that is for what nobody foresaw
    assert "SECRET" not in said or SECRET not in said
    return True


GLOBAL = "# @package _global_\n"
WITH = "defaults:\n  - gaussians25\n"


def experiment(body, **files):
    """The files of a --config-dir with an experiment `e` of this body, and others."""
    return {"experiment/e.yaml": f"{GLOBAL}{WITH}{body}\n", **{name.replace("__", "/") + ".yaml": text for name, text in files.items()}}


# ---- what acts ---------------------------------------------------------------------------------------------------------------------------

ACTS = {
    # code in what Hydra makes objects of, as it is or by an interpolation that becomes it
    "callback": experiment(f"hydra: {{callbacks: {{a: {CODE}}}}}"),
    "callback by create": experiment('hydra: {callbacks: {a: "${oc.create:{_target_:os.mkdir,path:OWNED}}"}}'),
    "callback by decode": experiment("hydra: {callbacks: {a: \"${oc.decode:'{_target_:os.mkdir,path:OWNED}'}\"}}"),
    "callback by a reference": experiment(f'hydra: {{callbacks: {{a: "${{trainer.x}}"}}}}\ntrainer: {{x: {CODE}}}'),
    "callback by a group of no folder": experiment(f'hydra: {{callbacks: {{a: "${{refiner.x}}"}}}}\nrefiner: {{x: {CODE}}}'),
    "all callbacks by a reference": experiment(f'hydra: {{callbacks: "${{penalty}}"}}\npenalty: {{x: {CODE}}}'),
    "a name by a reference": experiment('hydra: {callbacks: {a: {_target_: "${.b}", b: os.mkdir, path: OWNED}}}'),
    "a list of values": experiment(f"hydra: {{callbacks: {{a: {{_target_: hydra.utils.instantiate, config: [{CODE}]}}}}}}"),
    "all settings by a reference": experiment(f'hydra: "${{trainer.x}}"\ntrainer: {{x: {{callbacks: {{a: {CODE}}}}}}}'),
    "callback of a file with another package": experiment("", loss__own=f"# @package hydra.callbacks\na: {CODE}\n")
    | {"experiment/e.yaml": f"{GLOBAL}defaults:\n  - gaussians25\n  - /loss@hydra.callbacks: own\n", "loss/own.yaml": f"a: {CODE}\n"},
    "launcher": experiment(f"hydra: {{launcher: {CODE}}}"),
    "launcher's file": experiment("", hydra__launcher__basic=f"{CODE}\n"),
    "sweeper's file": experiment("", hydra__sweeper__basic=f"{CODE}\n"),
    "callbacks' file": {"hydra/callbacks/x.yaml": f"a: {CODE}\n"}
    | {"experiment/e.yaml": f"{GLOBAL}{WITH}  - override /hydra/callbacks: x\n"},
    # what logging imports, creates and empties
    "log handler": experiment("hydra: {job_logging: {root: {handlers: [x]}, handlers: {x: {class: os.mkdir, path: OWNED}}}}"),
    "log file": experiment("hydra: {job_logging: {root: {handlers: [x]}, handlers: {x: "
                           "{class: logging.FileHandler, filename: ../precious, mode: w}}}}"),
    "log of a name": {"experiment/e.yaml": f"{GLOBAL}{WITH}  - override /hydra/job_logging: default\n"
                      "hydra: {job: {name: ../../../../precious}}\n"},
    "log import": experiment("hydra: {job_logging: {root: {handlers: [x]}, handlers: "
                             "{x: {class: logging.StreamHandler, stream: ext://antigravity.x}}}}"),
    # the environment, folders, other files
    "environment set": experiment("hydra: {job: {env_set: {NEW: '1'}}}"),
    "environment copied": experiment("hydra: {job: {env_copy: [SECRET]}}"),
    "folder changed": experiment("hydra: {job: {chdir: true}}"),
    "second configuration": experiment("hydra: {output_subdir: ../../..}"),
    "run elsewhere": experiment("hydra: {run: {dir: ../elsewhere}}"),
    "run at an absolute path": experiment("hydra: {run: {dir: /nowhere/gan-runner-owned}}"),
    "run in the working folder": experiment("hydra: {run: {dir: .}}"),
    "run by a way out": experiment("hydra: {run: {dir: outputs/../../elsewhere}}"),
    "run by a reference": experiment('hydra: {run: {dir: "outputs/${extractor}"}}\nextractor: ../../elsewhere'),
    "sweep elsewhere": experiment("hydra: {mode: MULTIRUN, sweep: {dir: ../elsewhere}, sweeper: {params: {seed: '0,1'}}}"),
    "job elsewhere": experiment("hydra: {mode: MULTIRUN, sweep: {subdir: ../../../../elsewhere}, sweeper: {params: {seed: '0,1'}}}"),
    "job elsewhere by a value": experiment("hydra: {mode: MULTIRUN, sweep: {subdir: '${hydra.job.override_dirname}'}, "
                                           "sweeper: {params: {trainer.precision: 'a/../../../../../elsewhere'}}}"),
    "storage": experiment("hydra: {sweeper: {storage: 'postgresql://127.0.0.1/x'}}"),
    "search path": {"train.yaml": "defaults: [_self_]\nhydra: {searchpath: ['pkg://antigravity']}\n"} | experiment("seed: x"),
    "search path of an experiment": experiment("hydra: {searchpath: ['pkg://antigravity']}"),
    # words on the line of each job
    **{
        f"a job's {key}": experiment(f"hydra: {{mode: MULTIRUN, sweeper: {{params: {{'{key}': '{value}'}}}}}}")
        for key, value in {
            "+hydra.callbacks.a": CODE, "hydra.run.dir": "../elsewhere", "hydra/job_logging": "default", "packages": "[os]",
            "++hydra.job.env_set.NEW": "1", "resume": "../x", "logger": "[mlflow]", "+logger.mlflow.tracking_uri": "http://127.0.0.1:1",
        }.items()
    },
    # the environment in a value
    **{
        f"secret in {key}": experiment(body)
        for key, body in {
            "a run's place": "hydra: {run: {dir: 'outputs/${oc.env:SECRET}'}}",
            "a value": "seed: ${oc.env:SECRET}",
            "a part": "trainer: {precision: '${oc.env:SECRET}'}",
            "a name that is put together": "batch_size: ${${loss.x}:SECRET}\nloss: {x: oc.env}",
            "a default": "seed: ${oc.select:nothing,${oc.env:SECRET}}",
            "a text that is decoded": "seed: ${oc.decode:'$\\{oc.env:SECRET}'}",
            "a text behind a backslash": "trainer: {precision: '\\${oc.env:SECRET}'}",
            "a value of a mapping": "seed: ${oc.dict.values:trainer}",
            "the place of the data": "defaults:\n  - override /dataset: mnist\ndataset: {root: '${oc.env:SECRET}'}".replace(
                "defaults:\n", "# "),
        }.items()
    },
    "secret in the defaults": {"experiment/e.yaml": f"{GLOBAL}{WITH}  - override /loss: ${{oc.env:SECRET}}\n"},
    "code behind a backslash": experiment("trainer: {precision: '\\${oc.create:{_target_:os.mkdir,path:OWNED}}'}"),
    "code in a part": experiment(f"trainer: {{precision: {CODE}}}"),
    "code in a list of a part": experiment(f"optimizer: {{generator: {{betas: [{CODE}]}}}}"),
    "code as arguments": experiment(f"trainer: {{_args_: [{CODE}]}}"),
    # other folders
    "defaults above": {"experiment/e.yaml": f"{GLOBAL}defaults:\n  - ../../x\n", "../x.yaml": f"{GLOBAL}seed: 1\n"},
    "defaults at an absolute path": {"experiment/e.yaml": f"{GLOBAL}defaults:\n  - //etc/x\n"},
    # where data are sent
    "address of MLflow": {"experiment/e.yaml": f"{GLOBAL}{WITH}  - override /logger: [mlflow]\n"
                          "logger: {mlflow: {tracking_uri: 'http://127.0.0.1:1'}}\n"},
    "address in a shadowed file": {"experiment/e.yaml": f"{GLOBAL}{WITH}  - override /logger: [mlflow]\n",
                                   "logger/mlflow.yaml": "mlflow: {_target_: gan_runner.loggers.MLflow, tracking_uri: 'http://127.0.0.1:1'}\n"},
    "Space of Trackio": {"experiment/e.yaml": f"{GLOBAL}{WITH}  - override /logger: [trackio]\nlogger: {{trackio: {{space: a/b}}}}\n"},
    "Weights & Biases online": {"experiment/e.yaml": f"{GLOBAL}{WITH}  - override /logger: [wandb]\nlogger: {{wandb: {{mode: online}}}}\n"},
}  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_an_experiment_of_a_stranger_does_not_act(shell, name):
    write(shell.folder, ACTS[name])
    (shell.folder / "x.yaml").unlink(missing_ok=True)
    many = ["-m", "seed=0,1"] if "callback" in name else []  # the frame of a sweep has its own
    code, said = shell("train", *many, "+experiment=e", *SMALL)
    assert one_message(said)
    assert code == 2, said
    assert untouched(shell)
    assert shell.trained == []


def test_a_file_in_the_place_of_one_of_hydras_brings_no_warning(shell, recwarn):
    write(shell.folder, ACTS["launcher's file"])
    recwarn.clear()
    assert shell("train", "+experiment=e", *SMALL)[0] == 2
    assert not recwarn.list


def test_the_folder_of_a_job_is_not_made_of_values_that_a_file_gives(shell):
    """A value such as a/../../../x is a path that leads out, and only some keys refuse it."""
    write(shell.folder, ACTS["job elsewhere by a value"])
    code, said = shell("train", "+experiment=e", *SMALL)
    assert code == 2
    assert "hydra.sweep.subdir=${hydra.job.override_dirname} is refused" in said


@pytest.mark.parametrize("key", ["out", "export"])
def test_the_files_of_the_other_commands_are_not_replaced_and_say_nowhere_to_write(shell, key):
    text = f"defaults: [_self_]\nrun: nowhere\n{key}: ../precious\n"
    write(shell.folder, dict.fromkeys(("sample.yaml", "evaluate.yaml", "rate.yaml"), text))
    write(shell.folder, {"metric/m.yaml": f"{GLOBAL}{key}: ../precious\n"})
    for command in ("sample", "evaluate", "rate"):
        _, said = shell(command, "--cfg", "job")
        assert one_message(said)
        assert "precious" not in said
    code, said = shell("evaluate", "run=nowhere", "metric=[m]")
    assert (code, f"metric/m.yaml sets {key}, which is read from the command line only" in said) == (2, True), said
    assert untouched(shell)


@pytest.mark.parametrize("name", ["callback by create", "secret in a value"])
def test_what_only_shows_something_does_not_act_either(shell, name):
    write(shell.folder, ACTS[name])
    (shell.folder / "x.yaml").unlink(missing_ok=True)
    for flags in (["--cfg", "all"], ["--info", "all"]):
        code, said = shell("train", "+experiment=e", *flags)
        assert code == 2, said
        assert one_message(said)
    assert shell("train", "--help")[0] == 0
    assert untouched(shell)


# ---- what a user's files may go on saying ------------------------------------------------------------------------------------------------

FINE = {
    "anchors": "optimizer: {generator: &o {lr: {start: 1.0e-4}}, discriminator: *o}",
    "merged keys": "optimizer: {generator: &o {eps: 1.0e-7}, discriminator: {<<: *o}}",
    "references": "architecture: {generator: {width: 8}, discriminator: {width: '${..generator.width}'}}\nseed: '${batch_size}'",
    "the place of runs": "hydra: {run: {dir: 'outputs/mine/${seed}_${now:%H}'}}",
    "a setting of Hydra's": "hydra: {verbose: false, job: {name: mine}, output_subdir: null}",
    "a sweep": "hydra: {mode: MULTIRUN, sweep: {dir: 'outputs/${now:%H}', subdir: 'j${hydra.job.num}'}, sweeper: {params: {seed: '0,1'}}}",
    "latin letters": "# caf\u00e9\nseed: 3",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FINE)
def test_what_a_users_files_say_holds(shell, name):
    write(shell.folder, experiment(FINE[name]))
    code, said = shell("train", "+experiment=e", *[word for word in SMALL if "steps" not in word])
    assert code == 0, said
    assert len(shell.trained) == (2 if name == "a sweep" else 1)
    config, folder = shell.trained[0]
    assert folder.relative_to(shell.folder / "here").parts[0] == "outputs"
    if name == "anchors":
        assert config.optimizer.generator == config.optimizer.discriminator
        assert config.optimizer.generator.lr.start == 1e-4


@pytest.mark.slow
def test_the_line_may_say_what_a_file_may_not(shell):
    write(shell.folder, experiment("seed: 1"))
    mlflow = ["logger=[mlflow]", "logger.mlflow.tracking_uri=http://127.0.0.1:1"]
    for words in (
        ["hydra.run.dir=../elsewhere"], ["+hydra.job.env_set.NEW=1"], ["hydra/job_logging=default"],
        ["hydra.run.dir=outputs/${oc.env:SECRET}"],
        ["batch_size=${oc.decode:'16'}"], ["hydra.job_logging.disable_existing_loggers=true"], mlflow,
    ):  # fmt: skip
        code, said = shell("train", "+experiment=e", *[word for word in SMALL if "batch" not in word], *words)
        assert code == 0, (words, said)
    assert shell.trained[0][1] == shell.folder / "elsewhere"
    assert shell.trained[4][0].batch_size == 16
    for words, said in (
        (["+hydra.callbacks.a={_target_:os.mkdir,path:OWNED}"], "is refused: only code of hydra"),
        (["+hydra.callbacks.a='${oc.create:{_target_:os.mkdir,path:OWNED}}'"], "write the value itself"),
        (["hydra.searchpath=[pkg://antigravity]"], "is refused: name a folder, or add 'packages=[antigravity]'"),
    ):
        code, told = shell("train", "+experiment=e", *SMALL, *words)
        assert (code, said in told) == (2, True), told
    assert not list(shell.folder.rglob("OWNED"))


# ---- what takes forever ------------------------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
DOUBLES = "".join(f"  x{i}: '${{trainer.x{i + 1}}}${{trainer.x{i + 1}}}'\n" for i in range(40)) + "  x40: x\n"
MAPPINGS = "".join(f"  x{i}: {{a: '${{trainer.x{i + 1}}}', b: '${{trainer.x{i + 1}}}'}}\n" for i in range(40)) + "  x40: x\n"
ENDLESS = {
    "aliases": LAUGHS,
    "merged keys": MERGES,
    "aliases in a text": "a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 5000 + "*a]\n",
    "an alias of itself": "seed: &a [*a]\n",
    "a merged alias of itself": "trainer: &a {<<: *a}\n",
    "levels in a flow": "seed: " + "[" * 10_000 + "]" * 10_000 + "\n",
    "levels of lists": "seed:\n- " + "- " * 10_000 + "1\n",
    "levels of mappings": "seed:\n" + "".join(" " * i + "a:\n" for i in range(1, 600)),
    "levels by aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 5000)),
    "a large file": "# x\n" * 2**20,
    "many values": "seed: [" + "1, " * 80_000 + "1]\n",
    "a long number": "seed: " + "9" * 100_000 + "\n",
    "a number of parts": "seed: 1" + ":59" * 50_000 + "\n",
    "a long fraction": "seed: 1." + "9" * 100_000 + "\n",
    "texts that double": f"trainer:\n{DOUBLES}  precision: '${{trainer.x0}}'\n",
    "mappings that double": f"trainer:\n{MAPPINGS}  precision: '${{trainer.x0}}'\n",
    "a reference to itself": "seed: ${seed}\n",
    "a reference in a circle": "seed: ${batch_size}\nbatch_size: ${seed}\n",
    "a reference to what it is in": "trainer: {precision: '${trainer}'}\n",
    "a long chain": "trainer:\n" + "".join(f"  x{i}: ${{trainer.x{i + 1}}}\n" for i in range(300)) + "  x300: 1\n",
    "many interpolations": "trainer:\n" + "".join(f"  x{i}: ${{seed}}\n" for i in range(9000)),
    "a long interpolation": "seed: '" + "${" * 30_000 + "a" + "}" * 30_000 + "'\n",
    "nested interpolations": "seed: '" + "${" * 300 + "a" + "}" * 300 + "'\n",
    "zeros": b"\0" * 1000,
    "binary": bytes(range(256)) * 100,
    "latin-1": b"seed: 1 # caf\xe9\n",
    "UTF-16": "seed: 1\n".encode("utf-16"),
    "a scalar": "'seed: 1'\n",
    "a list": "[1, 2]\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a tag": "seed: !!python/object/apply:os.mkdir [OWNED]\n",
    "a key of a mapping": "? {a: 1}\n: 2\n",
    "an empty key": "? \n: 2\n",
    "a header of three words": b"# @package a b\nseed: 1\n",
}  # fmt: skip
HEAD = GLOBAL + WITH


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_a_file_that_grows_is_refused_within_seconds(shell, name):
    body = ENDLESS[name]
    raw = isinstance(body, bytes)
    write(shell.folder, {"experiment/e.yaml": body if raw else (HEAD + body).encode()})
    code, said = shell("train", "+experiment=e", *(["--cfg", "job", "--resolve"] if "a" in name else SMALL))
    assert code == 2, said[:2000]
    assert one_message(said)
    assert len(said) < 3000
    assert "e.yaml" in said or "configuration" in said, said
    assert untouched(shell)


@pytest.mark.parametrize("name", ["aliases", "levels in a flow", "texts that double", "a large file"])
@pytest.mark.parametrize("command", ["sample", "evaluate", "rate"])
def test_a_part_that_grows_is_refused_by_the_other_commands(shell, command, name):
    write(shell.folder, {"metric/m.yaml": f"{GLOBAL}{ENDLESS[name]}", "study/s.yaml": f"{GLOBAL}{ENDLESS[name]}"})
    code, said = shell(command, "+metric=[m]" if command != "evaluate" else "metric=[m]", "run=nowhere")
    assert (code, one_message(said), len(said) < 3000) == (2, True, True), said[:2000]
    assert shell("train", "study=s", *SMALL)[0] == 2
    assert untouched(shell)


def test_defaults_that_lead_back_or_fan_out_are_refused_within_seconds(shell):
    files = {f"experiment/f{i}.yaml": f"{GLOBAL}defaults: [f{i + 1}@x, f{i + 1}@y]\n" for i in range(30)}
    files |= {"experiment/f30.yaml": "seed: 1\n", "experiment/me.yaml": f"{GLOBAL}defaults: [me]\n"}
    files |= {"experiment/one.yaml": f"{GLOBAL}defaults: [two]\n", "experiment/two.yaml": f"{GLOBAL}defaults: [one]\n"}
    write(shell.folder, files)
    over = f"{GLOBAL}{WITH}trainer:\n{DOUBLES}optimizer: {{generator: {{eps: '${{trainer.x0}}'}}}}\n"
    files = {"experiment/p.yaml": over, "experiment/over.yaml": f"{GLOBAL}defaults: [p]\noptimizer: {{generator: {{eps: {{a: 1}}}}}}\n"}
    write(shell.folder, files)
    code, said = shell("train", "+experiment=over", *SMALL)
    assert (code, "sets keys below optimizer.generator.eps, which is an interpolation" in said) == (2, True), said
    for name in ("f0", "me", "one"):
        code, said = shell("train", f"+experiment={name}", *SMALL)
        assert (code, one_message(said)) == (2, True)
        assert "defaults" in said


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "loop", "nothing"])
def test_what_is_no_file_is_named_and_hangs_nothing(shell, what):
    path = shell.folder / "conf" / "experiment" / "e.yaml"
    {"pipe": os.mkfifo, "folder": os.mkdir}.get(what, lambda path: None)(path)
    if what in ("device", "loop", "nothing"):
        path.symlink_to({"device": "/dev/zero", "loop": path.name, "nothing": "nowhere"}[what])
    (shell.folder / "conf" / "experiment" / "round").symlink_to("..")
    for words in ([], ["-m", "seed=0,1"]):
        code, said = shell("train", "+experiment=e", *words)
        assert (code, one_message(said), "there is no experiment e" in said) == (2, True, True), said
    assert shell("train", "--help")[0] == 0


def test_thousands_of_files_and_what_completes_them_answer_within_seconds(shell, monkeypatch):
    folder = shell.folder / "conf" / "experiment"
    (folder / "e.yaml").write_text(f"{GLOBAL}seed: 1\n")
    for number in range(3_000):
        os.link(folder / "e.yaml", folder / f"{number}.yaml")
    monkeypatch.setenv("COMP_LINE", f"gan-train --config-dir {shell.folder / 'conf'} +experiment=299")
    for words in (["--help"], ["+experiment=e", "--cfg", "job"], ["-sc", "query=bash"]):
        assert shell("train", *words)[0] == 0, words
    code, said = shell("train", "+experiment=nothing")
    assert (code, len(said) < 3000) == (2, True)


def test_completion_answers_beside_files_that_grow(shell, monkeypatch):
    write(shell.folder, {"experiment/bomb.yaml": GLOBAL + LAUGHS, "experiment/deep.yaml": GLOBAL + ENDLESS["levels in a flow"]})
    for typed in ("+experiment=", "+experiment=bomb seed=", "+experiment=deep trainer."):
        monkeypatch.setenv("COMP_LINE", f"gan-train --config-dir {shell.folder / 'conf'} {typed}")
        assert shell("train", "-sc", "query=bash")[0] == 0


def test_help_lists_the_files_beside_one_that_cannot_be_read(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "old.yaml").write_bytes(b"# caf\xe9\n")
    (tmp_path / "experiment" / "fine.yaml").write_text("# another\n")
    (tmp_path / "experiment" / "red.yaml").write_text("# \x1b[31mred\n")
    os.mkfifo(tmp_path / "experiment" / "pipe.yaml")
    found = catalogue([tmp_path])["experiment"]
    assert found["fine"] == "another"
    assert found["pipe"] == ""
    assert "\x1b" not in found["red"]


# ---- the pieces --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("${seed}", True),
        ("${..conditional}", True),
        ("${dataset.root}/classifiers/${extractor.model}.pth", True),
        ("${oc.env:GAN_RUNNER_DATA,data}", True),
        ("${oc.env:GAN_RUNNER_DATA}", True),
        ("${oc.select:hydra.runtime.choices.experiment,train}", True),
        ("${now:%Y-%m-%d_%H-%M-%S-%f}", True),
        ("${oc.env:GAN_RUNNER_DATA2}", False),
        ("${oc.env:GAN_RUNNER_DATA,${oc.env:HOME}}", False),
        ("${oc.env:HOME}", False),
        ("${oc.env:${seed}}", False),
        ("${${seed}:HOME}", False),
        ("${a.${b}}", False),
        ("${oc.create:{a:1}}", False),
        ("${oc.decode:x}", False),
        ("${oc.deprecated:x}", False),
        ("${oc.dict.keys:trainer}", False),
        ("${hydra:runtime.cwd}", False),
        ("${python_version:}", False),
        ("\\${oc.env:HOME}", False),
        ("${", False),
    ],
)
def test_what_the_interpolations_of_a_file_may_ask_for(text, allowed):
    assert documents.is_allowed(text) is allowed


def test_a_reference_is_followed_as_omegaconf_does():
    tree = {"a": {"b": "${..c}", "d": "${.b}", "l": ["${a.b}", "${c}${a.l[0]}"]}, "c": "xy"}
    config = OmegaConf.create(tree)
    documents.refuse_growth(config, "it")
    assert OmegaConf.to_container(config, resolve=True) == {"a": {"b": "xy", "d": "xy", "l": ["xy", "xyxy"]}, "c": "xy"}
    for more in ({"c": "${a.d}"}, {"c": "${a}"}, {"c": "${a.l[1]}"}):
        with pytest.raises(UserError, match="leads back to itself"):
            documents.refuse_growth(OmegaConf.create(tree | more), "it")


@pytest.mark.parametrize(
    "text", ["${a}", "${ a }", "${\ta}", "${[a]}", "${b[a]}", "${b.l[0]}", "${oc.select:'a'}", '${oc.select: "a" ,x}', "${oc.select:.a}"]
)
def test_a_reference_counts_however_it_is_written(text):
    tree = {"a": "x" * 100_000, "b": {"a": "${a}", "l": ["${a}"]}, "c": text}
    assert OmegaConf.create(tree).c == tree["a"]
    with pytest.raises(UserError, match="becomes larger than a configuration can be"):
        documents.refuse_growth(OmegaConf.create(tree | {"c": text * 20}), "it")


@pytest.mark.parametrize("text", ["${oc.select:a b}", "${oc.select:'a b'}", "${oc.select:{a:1}}", "${oc.select:''}"])
def test_a_key_that_is_none_is_not_asked_for(text):
    assert not documents.is_allowed(text)


def test_a_value_that_would_be_resolved_a_second_time_is_refused(tmp_path):
    hidden = "${oc.create:{_target_:os.mkdir,path:OWNED}}"
    node = {"_target_": "gan_runner.losses.Hinge", "x": [hidden]}
    with pytest.raises(UserError, match="must not hold"):
        parts.make(node, [], parts.ONE["loss"], "loss")
    with pytest.raises(UserError, match="must not hold"):
        Composer().compose(["+trainer.x=\\${seed}"]).plain()
    import json

    import safetensors.torch
    import torch

    metadata = {
        "generator": json.dumps({"_target_": "gan_runner.architectures.MLPGenerator", "width": hidden}),
        "spec": '{"shape": [2], "classes": null}',
    }
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "g.safetensors", metadata)
    with pytest.raises(UserError, match="must not hold"):
        trained.load_generator(tmp_path / "g.safetensors")
    assert not Path("OWNED").exists()
