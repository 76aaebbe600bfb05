"""All that is known about other processes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def parallel(module: nn.Module) -> tuple[Callable[..., Any], Callable[[], AbstractContextManager]]:
    """How to call `module` so that its gradients are averaged over the processes, and the context in which they are not.

    The wrapper itself is not registered anywhere, so a state_dict has the same keys for any number of processes.
    """
    if size() == 1 or not any(p.requires_grad for p in module.parameters()):
        return module.__call__, nullcontext
    wrapper = DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)
    return wrapper.__call__, wrapper.no_sync


def share(batch_size: int, accumulate: int) -> int:
    """Samples in a micro-batch of one process."""
    n, rest = divmod(batch_size, size() * accumulate)
    if rest:
        raise ValueError(f"batch_size={batch_size} cannot be cut into {size()} processes x accumulate={accumulate} equal parts")
    return n


class Gather(torch.autograd.Function):
    """Rows of every process, in rank order.

    All compute the same value of them, so no gradient has to travel: one's own rows, times the number of processes, because
    DistributedDataParallel divides by it.
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
    """Rows of all processes, in rank order, differentiable; the rows themselves where there is one process."""
    return rows if size() == 1 else Gather.apply(rows)
