"""How a round is executed: on which device, how precisely, and whether bit for bit the same every time."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch

from gan_runner import distributed
from gan_runner.draws import seeded
from gan_runner.errors import UserError

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal[32, 16, "bf16"]


def device_of(accelerator: Accelerator) -> torch.device:
    """The device to train on; auto takes CUDA, else MPS, else the CPU. UserError where it is not there."""
    there: dict[Accelerator, bool] = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = next(name for name, is_there in there.items() if is_there)
    if not there[accelerator]:
        raise UserError(f"trainer.accelerator={accelerator}: there is no such device here; use trainer.accelerator=auto")
    return torch.device(accelerator, distributed.local_rank()) if accelerator == "cuda" else torch.device(accelerator)


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager]:
    """The context in which objectives are computed."""
    if precision == 32:
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """What keeps small gradients alive in float16; does nothing at other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == 16)


THREADS = torch.get_num_threads()  # as many as torch takes


def use_threads(threads: int | None) -> None:
    """Compute on so many threads of the CPU; None: a share of what torch takes. Runs of a sweep share a process, so each says."""
    torch.set_num_threads(threads or max(THREADS // distributed.local_size(), 1))


def draw_apart(seed: int) -> None:
    """Give every process but the first random numbers of its own, for networks that draw inside forward (dropout)."""
    if distributed.rank():
        torch.manual_seed(seeded("process", distributed.rank(), seed).initial_seed())


def determine(deterministic: bool) -> None:
    """Ask for algorithms that give the same bits every time, or for the fastest."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """torch's own generators, which networks that draw inside forward use."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put torch's own generators where rng_state found them."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
