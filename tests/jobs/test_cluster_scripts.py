"""The scripts for sbatch: which words of the line reach gan-train, at the first start and when a job was put back into the queue."""

import os
import subprocess
from pathlib import Path

import pytest

from gan_runner.lifecycle.runs import RESUMABLE

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "scripts" / "cluster").glob("*.sbatch"))
STANDS_IN = {  # for programs of SLURM
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; printf \'%s\\n\' "$@"; exit ${CODE:-0}',
    "scontrol": 'case $1 in requeue) printf \'%s\\n\' "$2" >>"$REQUEUED" ;; *) echo node1 ;; esac',
}
FIRST = ["+experiment=mine", "seed=3", "penalty=[r1]", "~callback.progress", "+logger=wandb", "title=a b"]
LASTING = ["packages=[mygan,other]", "accept=[data,config]", "logger.wandb.project=a b", "dataset.root=/local/my data"]
LASTING += [f"{key}{'' if '.' in key else '.x'}=1" for key in RESUMABLE]


@pytest.fixture
def start(tmp_path: Path):
    """Calls a script as SLURM does; returns the words of gan-train, the exit code and the jobs that were put back."""
    (tmp_path / "bin").mkdir()
    for name, body in STANDS_IN.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def call(script: Path, *words: str, code: int = 0) -> tuple[list[str], int, str]:
        slurm = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[1-2]", "CODE": str(code), "REQUEUED": str(tmp_path / "requeued")}
        environment = os.environ | slurm | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        requeued = tmp_path / "requeued"
        return done.stdout.splitlines(), done.returncode, requeued.read_text() if requeued.exists() else ""

    return call


def test_both_scripts_are_here():
    assert [path.name for path in SCRIPTS] == ["train.sbatch", "two_nodes.sbatch"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_first_start_has_all_words_and_a_requeued_one_those_of_a_resume(start, tmp_path: Path, script: Path):
    run = tmp_path / "my runs" / "first"
    line = [word for pair in zip(LASTING, FIRST * 2) for word in pair]
    words, code, requeued = start(script, str(run), *line, code=138)
    assert words[:2] == ["gan-train", f"hydra.run.dir={run}"]
    assert words[-len(line) :] == line
    assert (code, requeued) == (138, "42\n")
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.pt").touch()
    words, code, requeued = start(script, str(run), *line)
    assert words == ["gan-train", f"resume={run}", *LASTING]
    assert (code, requeued) == (0, "42\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_run_without_a_checkpoint_is_moved_aside(start, tmp_path: Path, script: Path):
    run = tmp_path / "first"
    run.mkdir()
    (run / "status.json").touch()
    words, _, _ = start(script, str(run), *FIRST)
    assert f"hydra.run.dir={run}" in words
    assert [path.name for path in tmp_path.glob("first*")] == ["first.attempt_42.0"]
