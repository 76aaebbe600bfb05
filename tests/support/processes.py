"""Functions of a test file, and the command, in processes of their own."""

import gc
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from gan_runner import cli; sys.exit(cli.train())"


def call(rank: int, size: int, file: str, name: str, folder: str, arguments: tuple[Any, ...]) -> None:
    """As one of `size` processes that can talk to each other: the function `name` of the test file, called with (rank, folder, ...).

    The file is loaded by its path: `tests` may be the name of somebody else's package.
    """
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("called", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous_{name}", rank=rank, world_size=size)
    getattr(module, name)(rank, folder, *arguments)
    torch.distributed.barrier()
    gc.collect()  # as in distributed.leave
    torch.distributed.destroy_process_group()


def spawn(size: int, file: str, name: str, folder: Any, *arguments: Any) -> None:
    """Run it in `size` processes and wait for them."""
    mp.spawn(call, (size, file, name, str(folder), arguments), nprocs=size)


def command(*words: Any, **environment: Any) -> subprocess.Popen:
    """gan-train, as the user starts it."""
    env = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"} | os.environ | {key: str(value) for key, value in environment.items()}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(child: subprocess.Popen) -> tuple[int, str]:
    """(exit code, what it said on stderr)"""
    try:
        _, said = child.communicate(timeout=240)
    finally:
        child.kill()
    return child.returncode, said
