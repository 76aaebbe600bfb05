"""Dropout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from gan_runner import tree
from gan_runner.draws import Draws
from gan_runner.errors import UserError
from gan_runner.game.trick import Part, Trick
from gan_runner.tree import Sample
from gan_runner.tricks.spectral_norm import Side

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.play import Logs

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.Tanh)
BITS = 2**32


def mixed(h: Tensor) -> Tensor:
    """Hash whole numbers in 0 ... 2^32 - 1 (int64) to such numbers, every bit of which depends on all. C. Wellons, lowbias32."""
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & (BITS - 1)
    h = ((h ^ (h >> 15)) * 0x846CA68B) & (BITS - 1)
    return h ^ (h >> 16)


class Dropped(nn.Module):
    """An activation layer of which outputs are dropped in training."""

    def __init__(self, layer: nn.Module, number: int, trick: Dropout):
        super().__init__()
        self.layer, self.number = layer, number
        self.trick = (trick,)  # a tuple: registered elsewhere

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return self.trick[0].dropped(out, self.number) if self.training else out


class Dropout(Trick):
    """In training, each output of the activation layers of `players` is 0 with probability `rate`, else divided by 1 - rate.

    Srivastava et al. 2014; in D: Goodfellow et al. 2014. An activation behind the last weights (tanh of an image) is left alone. What is
    dropped is a hash of a number of the sample, so that it does not depend on processes and micro-batches: in D of one that is drawn with
    each augmentation, so that two passes under the same augmentation drop the same outputs; in G of its latent and the round.
    """

    rounds: Tensor

    def __init__(self, players: list[Side] = ["discriminator"], rate: Annotated[float, Ge(0), Lt(1)] = 0.5):  # noqa: B006
        super().__init__()
        self.players, self.rate = players, rate
        self.drawn: list[Tensor] = []  # for each sample that was augmented since D's last pass, a number; N
        self.seeds: dict[str, Tensor] = {}
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def wrap(self, part: Part, name: str) -> Part:
        if name not in self.players:
            return part
        paths = [
            path
            for path, layer in part.named_modules(remove_duplicate=False)
            if isinstance(layer, ACTIVATIONS) or list(layer.parameters(recurse=False))
        ]
        while paths and isinstance(part.get_submodule(paths[-1]), ACTIVATIONS):
            paths.pop()
        layers = [path for path in paths if isinstance(part.get_submodule(path), ACTIVATIONS)]
        if not layers:
            raise ValueError(f"dropout drops outputs of activation layers, and {type(part).__name__} has none as modules: drop the trick")
        for i, path in enumerate(layers):
            above, _, child = path.rpartition(".")
            number = i if name == "discriminator" else -1 - i
            setattr(part.get_submodule(above), child, Dropped(part.get_submodule(path), number, self))
        part.register_forward_pre_hook(self.seed_samples if name == "discriminator" else self.seed_latents)
        return part

    def augment(self, sample: Sample, draws: Draws) -> Sample:
        if "discriminator" in self.players:
            self.drawn.append(draws.integers(BITS))
        return sample

    def seed_samples(self, net: nn.Module, given: tuple[Any, ...]) -> None:
        """Find the numbers of the samples that D is given, which were augmented last. UserError where these are others."""
        rows, found = len(tree.leaves(given[0])[0]), list[Tensor]()
        while net.training and sum(map(len, found)) < rows and self.drawn:
            found.insert(0, self.drawn.pop())
        if net.training and sum(map(len, found)) != rows:
            raise UserError(f"dropout cannot tell which {rows} samples D is given: a penalty of a share of the batch needs share=1.0")
        self.drawn.clear()
        self.seeds["discriminator"] = torch.cat(found) if found else torch.empty(0, dtype=torch.int64)

    def seed_latents(self, net: nn.Module, given: tuple[Any, ...]) -> None:
        """Compute a number of each latent (N Z) and of the round."""
        if net.training:
            bits = given[0].detach().float().contiguous().view(torch.int32).long() & (BITS - 1)
            places = torch.arange(bits.shape[1], device=bits.device)
            self.seeds["generator"] = mixed((mixed(bits ^ mixed(places)).sum(1) + self.rounds) & (BITS - 1))

    def dropped(self, x: Tensor, number: int) -> Tensor:
        """Drop outputs x (N ...) of layer `number`: from 0 in D, from -1 downwards in G."""
        seeds = self.seeds["discriminator" if number >= 0 else "generator"]
        places = torch.arange(math.prod(x.shape[1:]), device=x.device)
        units = mixed((places + mixed(torch.full_like(places, number) & (BITS - 1))) & (BITS - 1))
        kept = mixed(seeds[:, None] ^ units).view(x.shape) >= int(self.rate * BITS)
        return torch.where(kept, x / (1 - self.rate), 0.0)

    def after_round(self, game: Game) -> Logs:
        self.rounds.add_(1)
        return {}
