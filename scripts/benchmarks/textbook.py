"""The loops that a user would write, with the habits of the published code, on the same networks and never slowed down.

dcgan: the DCGAN tutorial of PyTorch. Resnets: mimicry's trainers of SNGAN and WGAN-GP. Points: the toy script of the public PyTorch port of
WGAN-GP (caogang/wgan-gp). In all of them float32, torch's default Adam, separate passes of D over real and fake, G's graph built in D's
step and thrown away, gradients of D's weights computed in G's step, `.item()` in every step, no average of G.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rounds import Recipe, gradient_penalty, networks
from gan_runner.game.spec import Spec

WORKERS, PREFETCH = 2, 8
AHEAD = WORKERS * PREFETCH  # batches that lie ready


def images(root: str, batch_size: int, device: torch.device, side: int | None = None) -> Iterator[Tensor]:
    """torchvision's CIFAR10 through ToTensor and Normalize, two workers, without end; the workers live on between epochs."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import CIFAR10

    resize = [transforms.Resize(side)] if side else []
    steps = transforms.Compose([*resize, transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    loader = DataLoader(
        CIFAR10(root, train=True, transform=steps),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        prefetch_factor=PREFETCH,
        pin_memory=device.type == "cuda",
    )
    while True:
        for x, _ in loader:
            yield x.to(device, non_blocking=True)


def points(x: Tensor, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Slices of an array that is shuffled once, as the toy script has it."""
    array = x[torch.randperm(len(x))].numpy()
    while True:
        for i in range(len(array) // batch_size):
            yield torch.from_numpy(array[i * batch_size : (i + 1) * batch_size]).to(device)


class Textbook:
    """What the loops share: networks, optimisers, and who moves how often."""

    def __init__(self, config: dict[str, Any], spec: Spec, batches: Iterator[Tensor], device: torch.device):
        self.recipe, self.batches, self.device = Recipe.of(config), batches, device
        self.G, self.D = (net.to(device) for net in networks(config, spec))
        self.of_g, self.of_d = self.adam(config, "generator", self.G), self.adam(config, "discriminator", self.D)
        steps = config["trainer"]["steps"]
        decays = isinstance(config["optimizer"]["generator"]["lr"], dict)
        self.decays = (
            [torch.optim.lr_scheduler.LambdaLR(each, lambda step: max(1 - step / steps, 0.0)) for each in (self.of_g, self.of_d)]
            if decays
            else []
        )
        self.log: dict[str, float] = {}

    def adam(self, config: dict[str, Any], side: str, net: nn.Module) -> torch.optim.Optimizer:
        node = config["optimizer"][side]
        rate = node["lr"]["start"] if isinstance(node["lr"], dict) else node["lr"]
        return torch.optim.Adam(net.parameters(), lr=rate, betas=tuple(node["betas"]))

    def latents(self) -> Tensor:
        return torch.randn(self.recipe.batch_size, self.recipe.latent, device=self.device)

    def round(self) -> None:
        raise NotImplementedError

    def decay(self) -> None:
        for each in self.decays:
            each.step()


class Tutorial(Textbook):
    """DCGAN: one batch of fakes for both moves; two backward passes of D."""

    def round(self) -> None:
        real = next(self.batches)
        ones, zeros = (torch.full((len(real),), value, device=self.device) for value in (1.0, 0.0))
        self.D.zero_grad()
        said = self.D(real).logits.view(-1)
        on_real = F.binary_cross_entropy_with_logits(said, ones)
        on_real.backward()
        self.log["D(x)"] = said.mean().item()
        fake = self.G(self.latents())
        said = self.D(fake.detach()).logits.view(-1)
        on_fake = F.binary_cross_entropy_with_logits(said, zeros)
        on_fake.backward()
        self.log["D(G(z)) before"] = said.mean().item()
        self.log["loss D"] = (on_real + on_fake).item()
        self.of_d.step()
        self.G.zero_grad()
        said = self.D(fake).logits.view(-1)
        value = F.binary_cross_entropy_with_logits(said, ones)
        value.backward()
        self.log["D(G(z)) after"], self.log["loss G"] = said.mean().item(), value.item()
        self.of_g.step()


class Mimicry(Textbook):
    """SNGAN and WGAN-GP with residual networks: several steps of D, each on new data and new fakes."""

    def round(self) -> None:
        for i in range(self.recipe.d_steps):
            real = next(self.batches)
            if i == 0:
                self.move_g()
            self.move_d(real)
        self.decay()

    def move_g(self) -> None:
        self.G.zero_grad()
        value = self.recipe.losses.g(self.D(self.G(self.latents())).logits.view(-1))
        value.backward()
        self.of_g.step()
        self.log["loss G"] = value.item()

    def move_d(self, real: Tensor) -> None:
        self.D.zero_grad()
        on_real = self.D(real).logits.view(-1)
        fake = self.G(self.latents()).detach()
        on_fake = self.D(fake).logits.view(-1)
        value = self.recipe.losses.d(on_real, on_fake)
        if self.recipe.penalty:
            mix = torch.rand(len(real), device=self.device)
            penalty = gradient_penalty(self.D, real, fake, mix)
            value = value + self.recipe.penalty * penalty
            self.log["penalty"] = penalty.item()
        value.backward()
        self.of_d.step()
        self.log["loss D"] = value.item()
        self.log["D(x)"], self.log["D(G(z))"] = on_real.mean().item(), on_fake.mean().item()


class Toy(Textbook):
    """WGAN-GP on points: three backward passes of D, whose weights stand still in G's step."""

    def round(self) -> None:
        self.D.requires_grad_(True)
        for _ in range(self.recipe.d_steps):
            real = next(self.batches)
            self.D.zero_grad()
            on_real = self.D(real).logits.mean()
            (-on_real).backward()
            with torch.no_grad():
                fake = self.G(self.latents())
            on_fake = self.D(fake).logits.mean()
            on_fake.backward()
            mix = torch.rand(len(real), device=self.device)
            penalty = self.recipe.penalty * gradient_penalty(self.D, real, fake, mix)
            penalty.backward()
            self.log["loss D"], self.log["W"] = (on_fake - on_real + penalty).item(), (on_real - on_fake).item()
            self.of_d.step()
        self.D.requires_grad_(False)
        self.G.zero_grad()
        value = -self.D(self.G(self.latents())).logits.mean()
        value.backward()
        self.log["loss G"] = value.item()
        self.of_g.step()


def loop_of(config: dict[str, Any]) -> type[Textbook]:
    """The published loop nearest to an experiment."""
    if config["loss"]["_target_"].endswith(".NonSaturating"):
        return Tutorial
    return Toy if config["architecture"]["generator"]["_target_"].endswith(".MLPGenerator") else Mimicry
