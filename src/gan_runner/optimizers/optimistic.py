"""Optimisers that expect the next gradient to differ from this one as this one does from the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

PREVIOUS = "previous_gradient"


class Optimistic(torch.optim.Optimizer):
    """Gives the optimiser that it is mixed into 2 g_t - g_(t-1) in the place of the gradient g_t; g_1 in the first step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step. The gradients of the weights are as before afterwards. closure: not supported, as gradients are needed before."""
        if closure is not None:
            raise ValueError(f"{type(self).__name__} takes no closure")
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        given = [p.grad for p in weights]
        for p in weights:
            if PREVIOUS in self.state.get(p, ()):
                p.grad = torch.sub(p.grad, self.state[p][PREVIOUS]).add_(p.grad)
        super().step()
        for p, gradient in zip(weights, given, strict=True):
            p.grad = gradient
            if PREVIOUS in self.state[p]:
                self.state[p][PREVIOUS].copy_(gradient)
            else:  # after the step: some optimisers take a state that is not empty for one of their own
                self.state[p][PREVIOUS] = gradient.clone()


class OptimisticSGD(Optimistic, torch.optim.SGD):
    """w - lr (2 g_t - g_(t-1)). Popov 1980; for GANs: Daskalakis et al. 2018.

    momentum: that of SGD, with 2 g_t - g_(t-1) as its gradients.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-2, momentum: Annotated[float, Ge(0)] = 0.0, fused: bool = True):
        super().__init__(params, lr, momentum, fused=fused)
        self._step_supports_amp_scaling = False  # in float16 a gradient that is not finite must not become the previous one


class OptimisticAdam(Optimistic, torch.optim.Adam):
    """Adam with 2 g_t - g_(t-1) in the place of the gradient g_t. Daskalakis et al. 2018, who apply it to the update instead.

    Both moments are those of 2 g_t - g_(t-1).
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        eps: Annotated[float, Ge(0)] = 1e-8,
        fused: bool = True,
    ):
        super().__init__(params, lr, betas, eps, fused=fused)
        self._step_supports_amp_scaling = False  # as above
