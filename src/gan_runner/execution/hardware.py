"""On what a round is executed: device, precision, layout in memory, threads, and whether it is bit for bit the same every time."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from gan_runner import distributed
from gan_runner.draws import seeded
from gan_runner.errors import UserError

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", 32, 16, "bf16"]


def device_of(accelerator: Accelerator) -> torch.device:
    """Return the device to train on; auto takes CUDA, else MPS, else the CPU. UserError where it is not there."""
    there: dict[Accelerator, bool] = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = next(name for name, is_there in there.items() if is_there)
    if not there[accelerator]:
        raise UserError(f"trainer.accelerator={accelerator}: there is no such device here; use trainer.accelerator=auto")
    return torch.device(accelerator, distributed.local_rank()) if accelerator == "cuda" else torch.device(accelerator)


def precision_of(precision: Precision, device: torch.device, images: bool) -> Precision:
    """Return the precision to compute in; auto: bf16 for images where the processor multiplies it in hardware, else 32."""
    if precision != "auto":
        return precision
    return "bf16" if images and multiplies_bf16(device) else 32


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions for products of bf16: tensor cores; AVX512-BF16 or AMX on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    features = torch.backends.cpu.get_cpu_capability(), torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()
    return features[0].startswith("AVX512") and any(features[1:])


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager]:
    """Return the context in which objectives are computed. Casts of weights are not kept: a CUDA graph would hold on to those of its
    recording."""
    if precision == 32:
        return nullcontext
    number = torch.bfloat16 if precision == "bf16" else torch.float16
    return partial(torch.autocast, device.type, number, cache_enabled=device.type != "cuda")


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Build the gradient scaler, which keeps small gradients alive in float16; disabled at other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == 16)


def lay_out(net: nn.Module, device: torch.device) -> nn.Module:
    """Lay weights out channels last, as convolutions of CPUs and tensor cores read them; else each of them reorders first."""
    return net.to(memory_format=torch.channels_last) if device.type in ("cpu", "cuda") else net  # type: ignore[call-overload]


THREADS = torch.get_num_threads()  # as many as torch takes


def use_threads(threads: int | None) -> None:
    """Compute on so many threads of the CPU; None: a share of what torch takes. Runs of a sweep share a process, so each says."""
    torch.set_num_threads(threads or max(THREADS // distributed.local_size(), 1))


MALLOC_SETTINGS = {-1: (-1, 128 * 1024), -4: (0, 65536)}  # M_TRIM_THRESHOLD, M_MMAP_MAX: (to keep memory, glibc's own)


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Let the C library keep the memory that a round frees for the next one, on a CPU under glibc; elsewhere nothing changes.

    It gives large blocks back to the system at once, which then clears every page again when the next round touches it: a quarter of the
    time of rounds on tensors of more than 32 MiB.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if libc is None or device.type != "cpu" or not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    libc.malloc_trim(0)  # what was freed on the way here, in reading data above all, is not a round's
    for name, (kept, _) in MALLOC_SETTINGS.items():
        libc.mallopt(name, kept)
    try:
        yield
    finally:
        for name, (_, usual) in MALLOC_SETTINGS.items():
            libc.mallopt(name, usual)
        libc.malloc_trim(0)


def facts(device: torch.device, precision: Precision) -> dict[str, Any]:
    """Return the facts of the machine on which the bits of a run depend, besides its configuration and its data."""
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "instructions of the CPU": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def seed_weights(seed: int) -> None:
    """Seed torch's own generators, from which initial weights are drawn; any whole number.

    The CPU's reads the low 32 bits of a seed: one that has more, or is negative, is hashed.
    """
    torch.manual_seed(seed if 0 <= seed < 2**32 else seeded("weights", seed).initial_seed())


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
    torch.set_float32_matmul_precision("highest" if deterministic else "high")  # convolutions of GPUs have TF32 by default; products, too


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of torch's own generators, which networks that draw inside forward use."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put torch's own generators where rng_state found them."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def devices_of(devices: int | Literal["auto"], accelerator: Accelerator) -> int:
    """Return how many processes train together. UserError where there are not so many devices; CPU processes share the cores."""
    kind = device_of(accelerator).type
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if devices == "auto":
        return there
    if devices > there and kind == "cuda":
        raise UserError(f"trainer.devices={devices}: there are {there} GPUs; say trainer.devices={there}, or trainer.accelerator=cpu")
    if devices > 1 and kind == "mps":
        raise UserError(f"trainer.devices={devices}: there is one MPS device; say trainer.devices=1, or trainer.accelerator=cpu")
    return devices
