"""Functions of a test file, in processes of their own."""

import importlib.util
from typing import Any

import torch
import torch.multiprocessing as mp


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
    torch.distributed.destroy_process_group()


def spawn(size: int, file: str, name: str, folder: Any, *arguments: Any) -> None:
    """Run it in `size` processes and wait for them."""
    mp.spawn(call, (size, file, name, str(folder), arguments), nprocs=size)
