"""Set device, precision, memory format, threads and determinism of a run."""

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
    """Return the device to train on; auto: CUDA, else MPS, else the CPU. UserError if it is not available."""
    there: dict[Accelerator, bool] = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = next(name for name, is_there in there.items() if is_there)
    if not there[accelerator]:
        raise UserError(f"trainer.accelerator={accelerator}: there is no such device here; use trainer.accelerator=auto")
    return torch.device(accelerator, distributed.local_rank()) if accelerator == "cuda" else torch.device(accelerator)


def precision_of(precision: Precision, device: torch.device, images: bool) -> Precision:
    """Return the precision of computations; auto: bf16 for images if the device has instructions for it, else 32."""
    if precision != "auto":
        return precision
    return "bf16" if images and multiplies_bf16(device) else 32


def slower_than_float32(precision: Precision, device: torch.device) -> str | None:
    """Return a warning where products of bf16 are emulated; None where they are not."""
    if precision != "bf16" or device.type != "cpu" or multiplies_bf16(device):
        return None
    return (
        "trainer.precision=bf16: this processor has no instructions for bf16 (AVX512-BF16, AMX), so rounds take longer than in float32; "
        "trainer.precision=auto takes bf16 only where they are there"
    )


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions for products of bf16: tensor cores; AVX512-BF16 or AMX on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    features = torch.backends.cpu.get_cpu_capability(), torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()
    return features[0].startswith("AVX512") and any(features[1:])


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager]:
    """Return the autocast context of objectives. Casts of weights are not cached on CUDA: a graph would reuse those of its capture."""
    if precision == 32:
        return nullcontext
    number = torch.bfloat16 if precision == "bf16" else torch.float16
    return partial(torch.autocast, device.type, number, cache_enabled=device.type != "cuda")


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Create the gradient scaler for float16; disabled at other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == 16)


def lay_out(net: nn.Module, device: torch.device) -> nn.Module:
    """Convert weights to channels last, the format of convolutions on CPUs and tensor cores; otherwise each call would convert them."""
    return net.to(memory_format=torch.channels_last) if device.type in ("cpu", "cuda") else net  # type: ignore[call-overload]


THREADS = torch.get_num_threads()  # as many as torch takes
MOST_THREADS = 1024  # of a run: many more end the process in the library that starts them


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads; None: this process's share of torch's default. Every run sets it, as jobs may share a process."""
    torch.set_num_threads(threads or max(THREADS // distributed.local_size(), 1))


MALLOC_SETTINGS = {-1: (-1, 128 * 1024), -4: (0, 65536)}  # M_TRIM_THRESHOLD, M_MMAP_MAX: (to keep memory, glibc's own)


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Let glibc reuse the memory that a round frees for the next round, on a CPU; elsewhere do nothing.

    By default it returns large blocks to the kernel at once, which clears each page for the next round. This takes a quarter of the time
    of rounds with tensors of more than 32 MiB.
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
    """Return facts that the exact bits of a run depend on, besides configuration and data: hardware and versions."""
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "instructions of the CPU": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def seed_weights(seed: int) -> None:
    """Seed torch's global generators, which draw initial weights. seed: any whole number.

    The CPU generator reads only the low 32 bits of a seed, so a longer or negative one is hashed.
    """
    torch.manual_seed(seed if 0 <= seed < 2**32 else seeded("weights", seed).initial_seed())


def draw_apart(seed: int) -> None:
    """Seed torch's global generators differently on each rank but 0, for networks that draw inside forward (dropout)."""
    if distributed.rank():
        torch.manual_seed(seeded("process", distributed.rank(), seed).initial_seed())


def determine(deterministic: bool) -> None:
    """Choose deterministic algorithms, or the fastest ones."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_float32_matmul_precision("highest" if deterministic else "high")  # convolutions of GPUs have TF32 by default; products, too


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of torch's global generators, which networks use that draw inside forward."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore the states of torch's global generators from rng_state."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def devices_of(devices: int | Literal["auto"], accelerator: Accelerator) -> int:
    """Return the number of processes. UserError if there are fewer devices; CPU processes share the cores."""
    kind = device_of(accelerator).type
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if devices == "auto":
        return there
    if devices > there and kind == "cuda":
        raise UserError(f"trainer.devices={devices}: there are {there} GPUs; say trainer.devices={there}, or trainer.accelerator=cpu")
    if devices > 1 and kind == "mps":
        raise UserError(f"trainer.devices={devices}: there is one MPS device; say trainer.devices=1, or trainer.accelerator=cpu")
    return devices
