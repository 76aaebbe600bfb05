"""Process groups: joining, collectives, DistributedDataParallel, and a clear error when a rank is lost."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gan_runner.errors import Failed, UserError

# what srun calls what torchrun calls RANK, WORLD_SIZE and LOCAL_RANK
SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}

_control: Any = None  # a process group for what the hosts tell each other, without waiting for a device


def size() -> int:
    """Return the world size, the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_first() -> bool:
    """Return True on rank 0, which writes and prints."""
    return rank() == 0


def local_rank() -> int:
    """Return the local rank of this process, from 0: the number of its device."""
    return int(os.environ.get("LOCAL_RANK", 0)) if size() > 1 else 0


def local_size() -> int:
    """Return number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size())) if size() > 1 else 1


# ---- joining and leaving -----------------------------------------------------------------------------------------------------------------


def join(rank: int, size: int, local: int, store: Any = None) -> None:
    """Join a process group of `size` processes. store: its rendezvous store; None: as in the environment (torchrun).

    GPUs use NCCL, CPUs gloo. The timeout of a collective is $GAN_RUNNER_TIMEOUT_S (600 s).
    """
    global _control
    os.environ["LOCAL_RANK"] = str(local)
    if store is not None:
        os.environ["LOCAL_WORLD_SIZE"] = str(size)
    timeout = timedelta(seconds=patience())
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    if on_gpu:
        torch.cuda.set_device(local % torch.cuda.device_count())
    meeting = {} if store is None else {"store": store, "rank": rank, "world_size": size}
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timeout, **meeting)
    _control = dist.new_group(backend="gloo", timeout=timeout) if on_gpu else None


def join_others() -> None:
    """Join the process group of torchrun or srun."""
    for name, word in SLURM.items():
        if word in os.environ:
            os.environ.setdefault(name, os.environ[word])
    os.environ.setdefault("MASTER_PORT", "29500")
    join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", 0)))


def leave() -> None:
    """Wait at a barrier, so that no rank misses one that left early, and destroy the process group."""
    global _control
    if dist.is_initialized():
        dist.barrier(_control)
        gc.collect()  # what holds a group keeps its threads, and these may abort the process while Python ends
        dist.destroy_process_group()
    _control = None


def patience() -> float:
    """Timeout of a collective, in seconds. UserError if $GAN_RUNNER_TIMEOUT_S is not a number."""
    said = os.environ.get("GAN_RUNNER_TIMEOUT_S", "600")
    try:
        return float(said)
    except ValueError:
        raise UserError(f"GAN_RUNNER_TIMEOUT_S={said} is not a number of seconds") from None


class Lost(Failed):
    """Another rank has ended, or does not answer."""


@contextmanager
def translate_lost_peers() -> Iterator[None]:
    """Translate what a process group raises when another rank is gone into Lost."""
    try:
        yield
    except RuntimeError as error:
        said = f"{type(error).__name__}: {error}"
        if not re.search(r"Connection (reset|closed)|Broken pipe|[Tt]imed out|Dist(Backend|Network|Store)Error", said):
            raise
        raise Lost(f"another process is gone, or has not answered for {patience():g} s; go on with resume=RUN_DIR") from error


# ---- what the hosts tell each other ------------------------------------------------------------------------------------------------------


def agree(number: int) -> int:
    """All-reduce: the maximum over processes."""
    if size() == 1:
        return number
    greatest = torch.tensor([number])
    dist.all_reduce(greatest, dist.ReduceOp.MAX, group=_control)
    return int(greatest)


def shared(value: Any) -> Any:
    """Broadcast a Python object from rank 0."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, 0, group=_control)
    return box[0]


def everyones(value: Any) -> list[Any]:
    """All-gather a Python object, in rank order."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value, group=_control)
    return values


@torch.no_grad()
def everyones_tensors(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """All-gather tensors: those of rank 0, then of rank 1, ... Each rank may have any number, of any shapes and types, on `device`."""
    if size() == 1:
        return list(tensors)
    kinds = everyones([(tensor.shape, tensor.dtype) for tensor in tensors])
    lengths = [[shape.numel() * dtype.itemsize for shape, dtype in theirs] for theirs in kinds]
    mine = torch.zeros(max(map(sum, lengths)), dtype=torch.uint8, device=device)
    if tensors:
        torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in tensors], out=mine[: sum(lengths[rank()])])
    buffers = [torch.empty_like(mine) for _ in kinds]
    if len(mine):
        dist.all_gather(buffers, mine)
    return [
        part.clone().view(dtype).view(shape)
        for buffer, theirs, sizes in zip(buffers, kinds, lengths, strict=True)
        for part, (shape, dtype) in zip(buffer[: sum(sizes)].split(sizes), theirs, strict=True)
    ]


def mean(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All-reduce: the mean of scalars over processes, which all have the same names."""
    if size() == 1 or not values:
        return dict(values)
    total = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(total)
    return dict(zip(values, total / size(), strict=True))


@torch.no_grad()
def copy_buffers(net: nn.Module) -> None:
    """Broadcast the buffers of rank 0, such as the running statistics of batch norm, which each rank keeps of its own rows."""
    for buffer in net.buffers() if size() > 1 else ():
        dist.broadcast(buffer, 0)


@torch.no_grad()
def compare(net: nn.Module) -> None:
    """Compare checksums of the weights of all ranks. Failed, with names of tensors, if they differ."""
    if size() == 1:
        return
    names, sums = zip(*((name, _checksum(p)) for name, p in net.named_parameters()))
    apart = [name for name, *theirs in zip(names, *everyones(torch.stack(sums).tolist()), strict=True) if len(set(theirs)) > 1]
    if apart:
        named = ", ".join(apart[:3]) + (f" and {len(apart) - 3} more" if apart[3:] else "")
        raise Failed(f"the processes no longer agree on {named}: a machine may have miscalculated; go on with resume=RUN_DIR")


def _checksum(tensor: Tensor) -> Tensor:
    """Return an int64 checksum of the bytes of a tensor, weighted by position."""
    bits = tensor.detach().contiguous().view(-1).view(torch.uint8).to(torch.int64)
    return (bits * torch.arange(1, len(bits) + 1, device=bits.device).remainder_(2**20 - 3)).sum().cpu()


# ---- training ----------------------------------------------------------------------------------------------------------------------------


def parallel(module: nn.Module) -> tuple[Callable[..., Any], Callable[[], AbstractContextManager]]:
    """Return a function that calls `module` with gradients averaged over processes, and a context in which they are not averaged.

    The wrapper is not registered as a module, so a state_dict has the same keys for any number of processes. It is created at the first
    call, since its creation is a collective: a process that only checks a configuration must not wait for the others.
    """
    if size() == 1 or not any(p.requires_grad for p in module.parameters()):
        return module.__call__, nullcontext

    @cache
    def wrapper() -> DistributedDataParallel:
        known = signature(DistributedDataParallel).parameters
        buffers: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
        return DistributedDataParallel(module, find_unused_parameters=True, **buffers)

    return lambda *given: wrapper()(*given), lambda: wrapper().no_sync()


def share(batch_size: int, accumulate: int, processes: int | None = None) -> int:
    """Return the number of samples in a micro-batch of one process. processes: default is the world size. ValueError if it is not whole."""
    processes = processes or size()
    n, rest = divmod(batch_size, processes * accumulate)
    if rest:
        raise ValueError(f"batch_size={batch_size} cannot be cut into {processes} processes x accumulate={accumulate} equal parts")
    return n


def rows(n: int) -> range:
    """Return this process's contiguous share of n samples; shares differ by at most one. ValueError for less than one each."""
    if n < size():
        raise ValueError(f"{n} samples cannot be shared by {size()} processes")
    return range(rank() * n // size(), (rank() + 1) * n // size())


class Gather(torch.autograd.Function):
    """All-gather rows, in rank order.

    All ranks compute the same value from the rows, so backward needs no communication: it returns the gradient of the rank's own rows,
    times the number of processes, because DistributedDataParallel divides by it.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.n, everyone = len(rows), [torch.empty_like(rows) for _ in range(size())]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0][rank() * ctx.n : (rank() + 1) * ctx.n] * size()


def gather(rows: Tensor) -> Tensor:
    """All-gather rows, in rank order, differentiably; with one process, return them unchanged."""
    return rows if size() == 1 else Gather.apply(rows)


class GatherApart(torch.autograd.Function):
    """All-gather rows, in rank order, where ranks compute different values from them: backward adds up the gradients of all ranks.

    It may be differentiated any number of times.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        everyone = [torch.empty_like(rows) for _ in range(size())]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _AddedUp.apply(grads[0])


class _AddedUp(torch.autograd.Function):
    """All-reduce the rows of everyone, and return those of this rank: the adjoint of GatherApart."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        total = rows.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[own(len(rows) // size())].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return GatherApart.apply(grads[0])


_rows_are_same = False  # whether each rank works on the rows of all


@contextmanager
def same_rows() -> Iterator[None]:
    """Let `gather_apart` return rows unchanged, since each rank works on the rows of all."""
    global _rows_are_same
    _rows_are_same = True
    try:
        yield
    finally:
        _rows_are_same = False


def gather_apart(rows: Tensor) -> Tensor:
    """All-gather rows, in rank order, where ranks compute different values from them; with one process, return them unchanged."""
    return rows if size() == 1 or _rows_are_same else GatherApart.apply(rows)


def own(n: int) -> slice:
    """Return the place of this rank's n rows among those of all ranks."""
    return slice(rank() * n, (rank() + 1) * n)
