"""Base class of losses: the weight of the adversarial term in G's objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from gan_runner import distributed
from gan_runner.game.term import Term
from gan_runner.schedules import Schedule, schedule


class Balanced(nn.Module):
    """Weigh the loss of G by |gradient of `against`| / |gradient of the loss|, both at one layer of G. Esser et al. 2021, eq. 7.

    against: the name of a penalty that adds to G's objective, such as a reconstruction. layer: the name of a module of G; None: the last
    one that has weights. limit: the weight is at most this. Gradients are averaged over processes; nothing is differentiated through the
    weight. In a round in which `against` is not due the weight stays as it was.
    """

    value: Tensor

    def __init__(self, against: str, layer: str | None = None, limit: Annotated[float, Gt(0)] = 1e4):
        super().__init__()
        self.against, self.layer, self.limit = against, layer, limit
        self.register_buffer("value", torch.ones(()))

    def weights(self, net: nn.Module) -> list[nn.Parameter]:
        """Return the weights at which gradients are compared. ValueError where there are none."""
        own = [(name, list(module.parameters(recurse=False))) for name, module in net.named_modules()]
        inner = {name: [p for p in weights if p.requires_grad] for name, weights in own}
        names = [name for name, weights in inner.items() if weights]
        chosen = names[-1:] if self.layer is None else [name for name in names if f"{name}.".startswith(f"{self.layer}.")]
        if not chosen:
            raise ValueError(f"loss.generator_weight.layer={self.layer} is no layer of the generator with weights: {', '.join(names)}")
        return [p for name in chosen for p in inner[name]]

    def norm(self, value: Tensor, weights: list[nn.Parameter]) -> Tensor:
        """Compute the norm of the gradient of a summand, averaged over processes."""
        grads = torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True)
        return distributed.mean({"gradient": torch.cat([grad.flatten() for grad in grads])})["gradient"].norm()

    def update(self, loss: Tensor, summands: Mapping[str, Tensor], net: nn.Module) -> None:
        """Compute the weight of this play."""
        if self.against in summands:
            weights = self.weights(net)
            ratio = self.norm(summands[self.against], weights) / self.norm(loss, weights)
            self.value.copy_(ratio.detach().nan_to_num(0.0).clamp(max=self.limit))  # nan: both gradients are 0


class Loss(Term):
    """What a game is about. generator_weight: of its summand in G's objective, beside those of penalties."""

    def __init__(self, generator_weight: float | Schedule | Balanced = 1.0):
        super().__init__()
        self.generator_weight = generator_weight if isinstance(generator_weight, Balanced) else schedule(generator_weight)
        self.weighs = generator_weight != 1.0  # a product by 1 would cost an operation in every round

    @property
    def balanced(self) -> Balanced | None:
        return self.generator_weight if isinstance(self.generator_weight, Balanced) else None

    def weighed(self, side: str, value: Tensor, summands: Mapping[str, Tensor], net: nn.Module) -> Tensor:
        if side != "generator" or not self.weighs:
            return value
        if self.balanced is not None:
            self.balanced.update(value, summands, net)
        return self.generator_weight.value * value
