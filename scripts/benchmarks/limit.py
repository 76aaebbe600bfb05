"""The arithmetic limit: the operations of a round over the rate of a matrix product. A module of its own: what it imports is large."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.wire import Work, wait_for

SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # of the square matrices whose product is timed


def products(side: int, dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    """FLOP/s of the product of two square matrices."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = a @ b
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        torch.mm(a, b, out=out)
        wait_for(device)
        done += 1
    return done * 2 * side**3 / (time.perf_counter() - start)


class Flops(TorchDispatchMode):
    """Counts the operations of products and convolutions, by torch's own formulas; its FlopCounterMode refuses autograd.grad."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.count += formula(*args, **(kwargs or {}), out_val=out)
        return out


def flops(play: Callable[[], None]) -> int:
    """Of one round, double backward included."""
    with Flops() as counter:
        play()
    return counter.count


def limit(count: int, dtype: torch.dtype, device: torch.device) -> Work:
    """The seconds that so many rounds would take, were they matrix products."""

    def work(rounds: int) -> dict[str, float]:
        return {"seconds": rounds * count / max(products(side, dtype, device, 0.4) for side in SIDES[device.type])}

    return work
