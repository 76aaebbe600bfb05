"""The commands: what they print, how they end, and that nothing is created before everything is known to be right."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from gan_runner import cli
from gan_runner.commands.settings import Sample
from gan_runner.config.composed import plain
from gan_runner.errors import Diverged, Failed, Interrupted, UserError

SOURCE = Path(cli.__file__).parents[1]

# A finder that fails whoever asks for torch, and a command by its name.
NO_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "matplotlib"):
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, NoTorch())
from gan_runner import cli
sys.argv[0] = sys.argv.pop(1)
commands = {"gan-train": cli.train, "gan-sample": cli.sample, "gan-eval": cli.evaluate, "gan-rate": cli.rate}
sys.exit(commands[sys.argv[0]]())
"""


def without_torch(*line: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process that cannot import torch."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **env}
    return subprocess.run([sys.executable, "-c", NO_TORCH, *line], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


class Bench:
    """The commands in an empty folder, with stand-ins for what builds and trains."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.checked: list[dict[str, Any]] = []
        self.trained: list[tuple[dict[str, Any], Path, list[str], list[str]]] = []
        self.resumed: list[tuple[Path, list[str], list[str]]] = []
        self.sampled: list[Sample] = []
        self.refuse: Callable[[dict[str, Any]], str | None] = lambda config: None
        self.play: Callable[[dict[str, Any]], float | None] = lambda config: None
        self._stand_in("assembly.build", check=self._check, wrong_values=lambda *said: [])
        self._stand_in("training.disk_room", refuse_shortage=lambda assembly, folder: None)
        self._stand_in(
            "lifecycle.runs",
            train=self._train,
            complete=self._train,
            start_or_resume=self._train,
            resume=lambda *said: self.resumed.append(said),
        )
        self._stand_in("commands.sample", main=self.sampled.append)
        monkeypatch.chdir(folder)

    def _stand_in(self, name: str, **functions: Any) -> None:
        module = ModuleType(f"gan_runner.{name}")
        vars(module).update(functions)
        self.monkeypatch.setitem(sys.modules, f"gan_runner.{name}", module)

    def _check(self, config: Any, packages: list[str], line: list[str], initial: Any) -> None:
        checked = plain(config)
        self.checked.append(checked)
        if mistake := self.refuse(checked):
            raise UserError(mistake)

    def _train(self, config: Any, folder: Path, overrides: list[str], packages: list[str]) -> float | None:
        given = OmegaConf.to_container(config, resolve=True)
        self.trained.append((given, folder, overrides, packages))
        return self.play(given)

    def __call__(self, *line: str, command: str = "train") -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        self.monkeypatch.setattr(sys, "argv", [f"gan-{command}", *line])
        try:
            code = getattr(cli, command)()
        except SystemExit as leaving:
            code = leaving.code
        out, err = self.capsys.readouterr()
        return code, out, err

    @property
    def left_behind(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, monkeypatch, capsys)


@pytest.fixture
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A --config-dir with two experiments, a loss and a study."""
    files = {
        "experiment/one.yaml": "# @package _global_\n# My first\ndefaults:\n  - override /penalty: [r1]\npenalty: {r1: {weight: 3}}\n",
        "experiment/two.yaml": "# @package _global_\n# My second\ndefaults:\n  - override /loss: own\nbatch_size: 32\n",
        "experiment/sweeping.yaml": "# @package _global_\n# Both losses\nhydra: {mode: MULTIRUN, sweeper: {params: {loss: 'own,hinge'}}}\n",
        "loss/own.yaml": "# My loss\n_target_: mypkg.Own\n",
        "study/seeds.yaml": "# @package _global_\n# Seeds\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n",
        "study/greedy.yaml": "# @package _global_\n# Packages\nhydra: {mode: MULTIRUN, sweeper: {params: {packages: '[os]'}}}\n",
    }
    root = tmp_path_factory.mktemp("mine")
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


# ------------------------------------------------------------------------------------------------------------------------ first contact


@pytest.mark.parametrize(("command", "said"), [("train", "gan-train +experiment=gaussians25"), ("sample", "gan-sample run=outputs/")])
def test_a_bare_command_says_what_to_type(bench: Bench, command: str, said: str):
    code, out, err = bench(command=command)
    assert (code, out) == (2, "")
    assert said in err
    assert bench.left_behind == []


@pytest.mark.parametrize("command", ["train", "sample"])
def test_version_is_plain(bench: Bench, command: str):
    code, out, _ = bench("--version", command=command)
    name, number = out.split()
    assert (code, name) == (0, f"gan-{command}")
    assert number[0].isdigit()


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_experiments_and_parts_with_their_first_comment_line(bench: Bench, mine: Path, flag: str):
    code, out, _ = bench(flag, "--config-dir", str(mine))
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert {"one My first", "own My loss"} <= set(rows)
    assert any(row.startswith("gaussians25 ") for row in rows)
    assert any(row.startswith("seed=0 ") for row in rows)
    assert any(row.startswith("trainer.steps=") for row in rows)
    assert "outputs/NAME/DATE_TIME/" in out


def test_sample_help_lists_its_keys(bench: Bench):
    code, out, _ = bench("--help", command="sample")
    assert code == 0
    assert all(f"  {key}=" in out for key in ("run", "checkpoint", "n", "seed", "class", "format", "out", "export", "columns"))


@pytest.mark.parametrize(
    "line",
    [
        ["gan-train", "--help"],
        ["gan-train", "--version"],
        ["gan-train", "+experiment=gaussians25", "--cfg", "job"],
        ["gan-train", "--cfg", "all"],
        ["gan-train", "--info", "defaults"],
        ["gan-train", "--hydra-help"],
        ["gan-train", "-sc", "install=bash"],
        ["gan-sample", "--help"],
        ["gan-sample", "run=x", "--cfg", "job"],
    ],
)
def test_what_only_shows_something_imports_no_torch_and_creates_nothing(tmp_path: Path, line: list[str]):
    done = without_torch(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ["gan-train", "trainer.stpes=5"],
        ["gan-train", "+experiment=nope"],
        ["gan-sample", "run=x", "n=0"],
        ["gan-eval", "run=x", "n=1"],
        ["gan-rate", "run=x", "epsilon=2"],
    ],
)
def test_a_wrong_line_is_refused_before_torch(tmp_path: Path, line: list[str]):
    done = without_torch(*line, cwd=tmp_path)
    assert done.returncode == 2
    assert "was imported" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("gan-train +experiment=gauss", {"+experiment=gaussians25"}),
        ("gan-train +exper", {"+experiment="}),
        ("gan-train loss=hi", {"loss=hinge"}),
        ("gan-train loss=hinge trainer.st", {"trainer.steps="}),
        ("gan-train -m loss=hinge,wasserstein trainer.st", {"trainer.steps="}),
        ("gan-train loss=hinge,wasserstein -m seed=0,1 loss=wass", {"loss=wasserstein"}),
        ("gan-train nonsense=1 +experiment=gauss", {"+experiment=gaussians25"}),
        ("gan-train --config-dir {mine} +experiment=on", {"+experiment=one"}),
        ("gan-train +experiment=one --config-dir {mine} penalty.r1.wei", {"penalty.r1.weight="}),
    ],
)
def test_tab_completes(bench: Bench, mine: Path, typed: str, offered: set[str]):
    bench.monkeypatch.setenv("COMP_LINE", typed.format(mine=mine))
    code, out, err = bench("-sc", "query=bash")
    assert (code, err) == (0, "")
    assert set(out.split()) == offered


def test_completion_offers_every_experiment_after_a_space(bench: Bench):
    bench.monkeypatch.setenv("COMP_LINE", "gan-train ")
    code, out, _ = bench("-sc", "query=bash")
    assert code == 0
    assert {"batch_size=", "loss=", "seed="} <= set(out.split())


# -------------------------------------------------------------------------------------------------------------------------------- --cfg


def test_cfg_job_prints_the_repaired_configuration(bench: Bench, mine: Path):
    code, out, err = bench("+experiment=one", "penalty=[gradient_penalty]", "--cfg", "job", "--config-dir", str(mine))
    shown = OmegaConf.create(out)
    assert code == 0
    assert list(shown.penalty) == ["gradient_penalty"]
    assert err.splitlines() == [
        "gan-train: note: 'penalty=[gradient_penalty]' is chosen; what experiment/one says about r1 is dropped: penalty.r1.weight=3"
    ]
    assert "hydra" not in shown


def test_cfg_job_prints_one_part(bench: Bench):
    code, out, _ = bench("--cfg", "job", "-p", "rule", "rule.d_steps=5")
    assert code == 0
    assert OmegaConf.create(out).d_steps == 5


# --------------------------------------------------------------------------------------------------------------------------- single runs


def test_a_run_is_checked_and_trained_on_the_repaired_configuration(bench: Bench, mine: Path):
    line = ["+experiment=one", "optimizer=ttur", "penalty=[gradient_penalty]", "packages=[mypkg]"]
    code, _, err = bench(*line, "--config-dir", str(mine))
    assert code == 0
    (settings, folder, overrides, packages) = bench.trained[0]
    assert bench.checked == [settings]
    assert list(settings["penalty"]) == ["gradient_penalty"]
    assert not {"packages", "resume", "hydra"} & set(settings)
    assert (overrides, packages) == (line, ["mypkg"])
    assert folder.parent == bench.folder / "outputs" / "one"
    assert "note: 'penalty=[gradient_penalty]'" in err
    assert list(folder.iterdir()) == []  # what a run leaves behind is the run's own affair


def test_a_run_without_an_experiment_and_in_a_named_directory(bench: Bench):
    assert bench("seed=1")[0] == 0
    assert bench("seed=2", "hydra.run.dir=here")[0] == 0
    assert [run[1].relative_to(bench.folder).parts[:2] for run in bench.trained] == [("outputs", "train"), ("here",)]


def test_two_runs_in_the_same_second_have_two_directories(bench: Bench):
    bench("seed=1")
    bench("seed=1")
    assert len({run[1] for run in bench.trained}) == 2


def raising(error: BaseException) -> Callable[[Any], None]:
    def play(config: Any) -> None:
        raise error

    return play


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("the folder holds a run already"), 2, "gan-train: the folder holds a run already\n"),
        (Diverged("loss/d is nan at round 3"), 3, "gan-train: loss/d is nan at round 3\n"),
        (Failed("the disk is full"), 1, "gan-train: the disk is full\n"),
        (Interrupted(signal.SIGINT), 130, "gan-train: interrupted by signal 2\n"),
        (Interrupted(signal.SIGTERM), 143, "gan-train: interrupted by signal 15\n"),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("division"), 1, "gan-train: ZeroDivisionError: division\n  set GAN_RUNNER_DEBUG=1 to see where\n"),
        (OSError("stale handle"), 1, "gan-train: OSError: stale handle\n  set GAN_RUNNER_DEBUG=1 to see where\n"),
    ],
)
def test_how_a_run_ends_is_the_exit_code(bench: Bench, error: BaseException, code: int, said: str):
    bench.monkeypatch.delenv("GAN_RUNNER_DEBUG", raising=False)
    bench.monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    bench.play = raising(error)
    assert bench("seed=1") == (code, "", said)


def test_a_traceback_is_there_for_who_asks(bench: Bench):
    bench.monkeypatch.setenv("GAN_RUNNER_DEBUG", "1")
    bench.play = raising(ZeroDivisionError("division"))
    code, _, err = bench("seed=1")
    assert code == 1
    assert "Traceback" in err
    assert "in play" in err


# ------------------------------------------------------------------------------------------------------- nothing is created when it is bad

BAD = [
    ("trainer.stpes=5", "did you mean trainer.steps?"),
    ("+foo=1", "unknown key foo"),
    ("penalty.r1.weight=5", "r1 is not chosen"),
    ("+experiment=nope", "there is no experiment nope"),
    ("seed=[1,2", "cannot read"),
    ("batch_size=13", "13 is unlucky"),
    ("--nonsense", "--nonsense"),
    ("batch_size=${nothing}", "Interpolation key 'nothing' not found"),
]


def unlucky(config: dict[str, Any]) -> str | None:
    return "batch_size=13: 13 is unlucky" if config["batch_size"] == 13 else None


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "said"), BAD)
@pytest.mark.parametrize("others", [[], ["-m", "seed=0,1"]])
def test_a_bad_line_creates_nothing(bench: Bench, bad: str, said: str, others: list[str]):
    bench.refuse = unlucky
    code, _, err = bench(*others, bad)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert (bench.left_behind, bench.trained) == ([], [])


def test_the_check_names_the_file_that_made_the_mistake(bench: Bench, mine: Path):
    bench.refuse = lambda config: f"batch_size={config['batch_size']}: not a multiple of 5"
    _, _, err = bench("+experiment=two", "packages=[mypkg]", "--config-dir", str(mine))
    assert err == "gan-train: batch_size=32: not a multiple of 5\n  batch_size is set in experiment/two.yaml\n"


@pytest.mark.parametrize("line", [["hydra.run.dir=file/run"], ["-m", "seed=0,1", "hydra.sweep.dir=file/run"]])
def test_a_place_that_cannot_be_written_is_one_clear_message(bench: Bench, line: list[str]):
    (bench.folder / "file").write_text("a file where a folder is needed")
    code, _, err = bench(*line)
    assert code == 2
    assert err.count("\n") == 1
    assert "cannot create the" in err
    assert "hydra." in err
    assert (bench.left_behind, bench.trained) == (["file"], [])


# -------------------------------------------------------------------------------------------------------------------------------- sweeps


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ["-m", "rule.d_steps=2", "loss=hinge,wasserstein"],
        ["rule.d_steps=2", "-m", "loss=hinge,wasserstein"],
        ["rule.d_steps=2", "loss=hinge,wasserstein", "--multirun"],
        ["rule.d_steps=2", "loss=hinge,wasserstein", "hydra.mode=MULTIRUN"],
    ],
)
def test_a_sweep_is_the_same_wherever_its_flag_stands(bench: Bench, line: list[str]):
    assert bench(*line)[0] == 0
    runs = [(settings["loss"]["_target_"].rpartition(".")[2], settings["rule"]["d_steps"]) for settings, *_ in bench.trained]
    assert runs == [("Hinge", 2), ("Wasserstein", 2)]


@pytest.mark.slow
def test_a_sweep_runs_every_combination_side_by_side(bench: Bench):
    code, out, _ = bench("-m", "loss=hinge,wasserstein", "seed=0,1", "rule.d_steps=${seed}")
    assert code == 0
    runs = [(settings["loss"]["_target_"].rpartition(".")[2], settings["seed"]) for settings, *_ in bench.trained]
    assert runs == [("Hinge", 0), ("Hinge", 1), ("Wasserstein", 0), ("Wasserstein", 1)]
    sweep = bench.trained[0][1].parent
    assert sweep.parent == bench.folder / "outputs" / "multirun"
    assert [run[1] for run in bench.trained] == [sweep / str(job) for job in range(4)]
    assert [settings["rule"]["d_steps"] for settings, *_ in bench.trained] == [0, 1, 0, 1]  # each job resolves its own
    assert bench.trained[1][2][:2] == ["loss=hinge", "seed=1"]
    assert (sweep / "table.txt").read_text() in out


@pytest.mark.slow
def test_every_job_of_a_sweep_over_experiments_is_repaired_by_itself(bench: Bench, mine: Path):
    line = ["-m", "+experiment=one,two", "+penalty=feature_matching,gradient_penalty", "packages=[mypkg]", "--config-dir", str(mine)]
    code, _, err = bench(*line)
    assert code == 0, err
    penalties = [(settings["batch_size"], list(settings["penalty"])) for settings, *_ in bench.trained]
    assert penalties == [
        (64, ["r1", "feature_matching"]),
        (64, ["r1", "gradient_penalty"]),
        (32, ["feature_matching"]),
        (32, ["gradient_penalty"]),
    ]
    assert bench.trained[0][0]["penalty"]["r1"]["weight"] == 3
    assert {tuple(run[3]) for run in bench.trained} == {("mypkg",)}


@pytest.mark.slow
def test_a_choice_that_is_swept_drops_the_words_about_what_it_replaces(bench: Bench, mine: Path):
    code, _, err = bench("-m", "+experiment=one", "penalty=[r1],[gradient_penalty]", "--config-dir", str(mine))
    assert code == 0
    assert [{name: part["weight"] for name, part in run[0]["penalty"].items()} for run in bench.trained] == [
        {"r1": 3},
        {"gradient_penalty": 10.0},
    ]
    assert err.count("note: 'penalty=[gradient_penalty]' is chosen") == 1


@pytest.mark.slow
def test_several_additions_survive_the_sweeper(bench: Bench):
    bench("-m", "+penalty=r1", "+penalty=gradient_penalty", "seed=0,1")
    assert [list(run[0]["penalty"]) for run in bench.trained] == [["r1", "gradient_penalty"]] * 2


@pytest.mark.slow
def test_a_value_of_a_part_that_only_the_swept_experiment_chooses_is_legal(bench: Bench, mine: Path):
    code, _, err = bench("-m", "+experiment=one", "seed=0,1", "penalty.r1.weight=5", "--config-dir", str(mine))
    assert code == 0, err
    assert {run[0]["penalty"]["r1"]["weight"] for run in bench.trained} == {5}
    code, _, err = bench("-m", "+experiment=one,two", "penalty.r1.weight=5", "packages=[mypkg]", "--config-dir", str(mine))
    assert code == 2
    assert "job 1 (" in err
    assert "penalty.r1.weight: r1 is not chosen" in err


@pytest.mark.slow
def test_a_study_is_a_sweep(bench: Bench, mine: Path):
    code, _, _ = bench("study=seeds", "+experiment=one", "--config-dir", str(mine))
    assert code == 0
    assert [run[0]["seed"] for run in bench.trained] == [0, 1]


@pytest.mark.slow
def test_an_experiment_may_be_a_sweep(bench: Bench, mine: Path):
    code, _, _ = bench("+experiment=sweeping", "packages=[mypkg]", "--config-dir", str(mine))
    assert code == 0
    assert [run[0]["loss"]["_target_"] for run in bench.trained] == ["mypkg.Own", "gan_runner.losses.Hinge"]


@pytest.mark.slow
def test_the_shipped_study_sweeps_its_losses_against_the_experiment(bench: Bench):
    code, _, _ = bench("study=losses", "+experiment=gaussians25", "seed=5")
    assert code == 0
    assert len({run[0]["loss"]["_target_"] for run in bench.trained}) == len(bench.trained) == 4
    assert {run[0]["seed"] for run in bench.trained} == {5}


def test_a_study_cannot_name_packages(bench: Bench, mine: Path):
    code, _, err = bench("study=greedy", "--config-dir", str(mine))
    assert code == 2
    assert "command line only" in err
    assert bench.left_behind == []


def test_all_mistakes_of_a_sweep_are_told_with_their_jobs(bench: Bench):
    bench.refuse = unlucky
    code, _, err = bench("-m", "batch_size=12,13", "loss=hinge,hing")
    assert code == 2
    assert "jobs 1, 3 (first: batch_size=12 loss=hing): there is no loss hing" in err
    assert "job 2 (batch_size=13 loss=hinge): batch_size=13: 13 is unlucky" in err
    assert bench.left_behind == []


@pytest.mark.slow
def test_jobs_that_differ_in_the_seed_are_checked_once(bench: Bench):
    bench("-m", "seed=0,1,2", "loss=hinge,wasserstein")
    assert (len(bench.checked), len(bench.trained)) == (2, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "state"), [(Failed("no disk"), "failed"), (Diverged("nan"), "diverged")])
def test_a_failed_job_does_not_stop_the_others(bench: Bench, error: Exception, state: str):
    bench.play = lambda config: raising(error)(config) if config["seed"] == 1 else config["seed"] / 4
    ended, out, err = bench("-m", "seed=0,1,2", "rule.d_steps=2")
    assert ended == 1
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["job", "state", "best", "of", "what", "differs"],
        ["0", "finished", "0", "seed=0"],
        ["1", state, "seed=1"],
        ["2", "finished", "0.5", "seed=2"],
    ]
    assert f"gan-train: job 1: {error}" in err


def test_a_sweep_with_a_failure_and_a_divergence_failed(bench: Bench):
    bench.play = lambda config: raising(Failed("no disk") if config["seed"] else Diverged("nan"))(config)
    assert bench("-m", "seed=0,1")[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("error", "code"), [(Interrupted(signal.SIGTERM), 143), (KeyboardInterrupt(), 130)])
def test_an_interruption_stops_the_sweep(bench: Bench, error: BaseException, code: int):
    bench.play = lambda config: raising(error)(config) if config["seed"] == 1 else None
    ended, out, _ = bench("-m", "seed=0,1,2")
    assert (ended, len(bench.trained)) == (code, 2)
    assert [line.split()[1] for line in out.splitlines()[1:3]] == ["finished", "interrupted"]


# -------------------------------------------------------------------------------------------------------------------------------- resume


def test_resume_hands_over_the_rest_of_the_line(bench: Bench):
    (bench.folder / "run").mkdir()
    (bench.folder / "run" / "config.yaml").write_text("seed: 0\n")
    assert bench("resume=run", "trainer.steps=9", "packages=[mypkg]")[0] == 0
    assert bench.resumed == [(Path("run"), ["trainer.steps=9"], ["mypkg"])]
    assert (bench.checked, bench.trained) == ([], [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["resume=nowhere"], "resume=nowhere: there is no run"),
        (["resume=run", "-m"], "cannot be swept"),
        (["resume=a,b"], "cannot be swept"),
    ],
)
def test_resume_is_refused_where_there_is_nothing_to_go_on_with(bench: Bench, line: list[str], said: str):
    code, _, err = bench(*line)
    assert code == 2
    assert said in err
    assert bench.left_behind == []


# ---------------------------------------------------------------------------------------------------------------------------- gan-sample


def test_sample_hands_over_its_keys(bench: Bench):
    assert bench("run=here", "n=9", "class=3", "packages=[mypkg]", command="sample")[0] == 0
    (settings,) = bench.sampled
    assert settings.run == "here"
    assert (settings.n, settings.class_, settings.seed, settings.format) == (9, 3, 0, "grid")
    assert settings.packages == ("mypkg",)
    assert bench.left_behind == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["n=9"], "run has no value"),
        (["run=x", "n=0"], "n=0: expected a number of samples, 1 or more"),
        (["run=x", "n=many"], "n='many': expected a number of samples, 1 or more"),
        (["run=x", "seed=-1"], "seed=-1: expected a whole number, 0 or more"),
        (["run=x", "class=-1"], "class=-1: expected the name or the number of a class or null"),
        (["run=x", "class=1.5"], "class=1.5: expected the name or the number of a class or null"),
        (["run=x", "format=gif"], "format='gif': expected grid, png, npz, files or interpolation"),
        (["run=x", "formt=png"], "unknown key formt (did you mean format?)"),
        (["run=x", "seed=0,1"], "several values"),
        (["run=x", "~n"], "~n: n is null already; leave it out"),
        (["run=x", "~seed"], "seed has no value: say seed=..."),
        (["run=x", "-m"], "does one thing at a time"),
    ],
)
def test_sample_refuses_what_it_cannot_do(bench: Bench, line: list[str], said: str):
    code, _, err = bench(*line, command="sample")
    assert code == 2
    assert said in err
    assert (bench.left_behind, bench.sampled) == ([], [])


# --------------------------------------------------------------------------------------------------------------------------- in earnest


@pytest.mark.slow
def test_two_rounds_in_earnest(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    line = ["+experiment=gaussians25", "trainer.steps=2", "callback.evaluate.n=500", "hydra.run.dir=run"]
    code = "import sys; from gan_runner.cli import train; sys.exit(train())"
    done = subprocess.run([sys.executable, "-c", code, *line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    again = subprocess.run([sys.executable, "-c", code, *line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "holds a run already" in again.stderr


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "rate", "runs"])
def test_windows_is_refused_in_one_line(bench: Bench, monkeypatch: pytest.MonkeyPatch, command: str):
    monkeypatch.setattr(sys, "platform", "win32")
    code, _, err = bench("--help", command=command)
    assert (code, err.count("\n")) == (2, 1)
    assert "does not run on Windows" in err
