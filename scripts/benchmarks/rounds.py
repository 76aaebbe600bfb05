"""The bare round: the networks, losses and optimisers of an experiment in a loop written by hand, with nothing around it.

It is the floor of the framework, and no straw man: a test holds its weights against those of the project's own rounds.
"""

import copy
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gan_runner.game.spec import Spec


class Losses(NamedTuple):
    """Of D, from its logits on real and on fake; of G, from those on fake."""

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor], Tensor]


LOSSES = {
    "NonSaturating": Losses(lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(), lambda fake: F.softplus(-fake).mean()),
    "Hinge": Losses(lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(), lambda fake: -fake.mean()),
    "Wasserstein": Losses(lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()),
}


def made(node: Any, *given: Any) -> Any:
    """The object of a node of a configuration that was composed and checked already; anything else as it is."""
    if not isinstance(node, dict) or "_target_" not in node:
        return node
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)(*given, **{key: value for key, value in node.items() if key != "_target_"})


class Recipe(NamedTuple):
    """What the loops need to know of a configuration."""

    losses: Losses
    penalty: float
    d_steps: int
    batch_size: int
    latent: int
    dequantisation: float

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Recipe":
        generator, penalties = config["architecture"]["generator"], config["penalty"]
        if penalties.keys() - {"gradient_penalty"} or config["trick"].keys() - {"ema", "spectral_norm"}:
            raise NotImplementedError(f"no bare loop for penalty={list(penalties)} with trick={list(config['trick'])}")
        return cls(
            LOSSES[config["loss"]["_target_"].rpartition(".")[2]],
            penalties.get("gradient_penalty", {}).get("weight", 0.0),
            config["rule"]["d_steps"],
            config["batch_size"],
            generator["latent"],
            generator.get("dequantisation", 0.0),
        )


def networks(config: dict[str, Any], spec: Spec) -> tuple[nn.Module, nn.Module]:
    """G and D with the weights that a run begins with."""
    torch.manual_seed(config["seed"])
    D, G = (made(config["architecture"][side], spec) for side in ("discriminator", "generator"))
    if "spectral_norm" in config["trick"]:
        for layer in [module for module in D.modules() if isinstance(module, nn.Linear | nn.Conv2d)]:
            parametrizations.spectral_norm(layer)
    return G, D


def gradient_penalty(D: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E (|dD/dx| - 1)^2 between real and fake, in float32."""
    between = torch.lerp(real, fake, mix.view(-1, *[1] * (real.ndim - 1))).requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        slopes = torch.autograd.grad(D(between).logits.sum(), between, create_graph=True)[0]
    return (torch.linalg.vector_norm(slopes.flatten(1), dim=1) - 1).square().mean()


def resident(x: Tensor, batch_size: int, flip: bool, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of data that lie on the device."""
    while True:
        for rows in torch.randperm(len(x), generator=generator, device=x.device).split(batch_size):
            if len(rows) == batch_size:
                batch = x[rows]
                if flip:
                    mirrored = torch.rand(batch_size, generator=generator, device=x.device) < 0.5
                    batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(-1), batch)
                yield batch / 127.5 - 1 if batch.dtype == torch.uint8 else batch


class Bare:
    """Rounds as short as they can be written; batches and the generator of the latents are the caller's."""

    def __init__(
        self,
        config: dict[str, Any],
        spec: Spec,
        batches: Iterator[Tensor],
        generator: torch.Generator,
        precision: Callable[[], AbstractContextManager] = nullcontext,
        channels_last: bool = False,
    ):
        self.recipe, self.batches, self.generator, self.precision = Recipe.of(config), batches, generator, precision
        self.steps, self.step = config["trainer"]["steps"], 0
        self.G, self.D = (net.to(generator.device) for net in networks(config, spec))
        if channels_last:
            self.G, self.D = (net.to(memory_format=torch.channels_last) for net in (self.G, self.D))
        self.rates: list[tuple[Tensor, Any]] = []
        self.of_g, self.of_d = self.optimizer(config, "generator", self.G), self.optimizer(config, "discriminator", self.D)
        self.average = copy.deepcopy(self.G).requires_grad_(False)
        self.beta = 0.5 ** (self.recipe.batch_size / (1000 * config["trick"]["ema"]["halflife_kimg"]))
        self.averaged = (list(self.average.parameters()), list(self.G.parameters()))
        self.copied = (list(self.average.buffers()), list(self.G.buffers()))

    def optimizer(self, config: dict[str, Any], side: str, net: nn.Module) -> torch.optim.Optimizer:
        node = config["optimizer"][side]
        rate = node["lr"]
        if isinstance(rate, dict):
            self.rates.append((torch.zeros((), device=self.generator.device), made(rate)))
            rate = self.rates[-1][0]
        return made(node | {"lr": rate}, net.parameters())

    def latents(self) -> Tensor:
        return torch.randn(self.recipe.batch_size, self.recipe.latent, generator=self.generator, device=self.generator.device)

    def round(self) -> None:
        for value, schedule in self.rates:
            value.fill_(schedule.at(self.step, self.steps))
        for _ in range(self.recipe.d_steps):
            self.move_d(next(self.batches))
        self.move_g()
        with torch.no_grad():
            torch._foreach_lerp_(*self.averaged, 1 - self.beta)
            if self.copied[0]:
                torch._foreach_copy_(*self.copied)
        self.step += 1

    def move_d(self, real: Tensor) -> None:
        loss, penalty, n = self.recipe.losses.d, self.recipe.penalty, len(real)
        if self.recipe.dequantisation:
            real = real + self.recipe.dequantisation * torch.rand(real.shape, generator=self.generator, device=real.device)
        self.of_d.zero_grad()
        with self.precision():
            with torch.no_grad():
                fake = self.G(self.latents()).float()
            if self.D.couples_samples:
                on_real, on_fake = self.D(real).logits.float(), self.D(fake).logits.float()
            else:
                on_real, on_fake = self.D(torch.cat([real, fake])).logits.float().chunk(2)
            value = loss(on_real, on_fake)
            if penalty:
                mix = torch.rand(n, generator=self.generator, device=real.device)
                value = value + penalty * gradient_penalty(self.D, real, fake, mix)
        value.backward()
        self.of_d.step()

    def move_g(self) -> None:
        self.of_g.zero_grad()
        self.D.requires_grad_(False)
        with self.precision():
            value = self.recipe.losses.g(self.D(self.G(self.latents()).float()).logits.float())
        value.backward()
        self.D.requires_grad_(True)
        self.of_g.step()
