"""Spectral normalisation."""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn
from torch.nn.utils import parametrizations

from gan_runner.game.trick import Part, Trick

Side = Literal["discriminator", "generator"]


class SpectralNorm(Trick):
    """Every weight of the named `players` is divided by its largest singular value. Miyato et al. 2018; on both: Zhang et al. 2019.

    `iterations` power iterations per forward in training, none in evaluation. On D that is every layer with a weight, the class embedding
    of a projection included; on G its linear and convolutional layers.
    """

    def __init__(self, players: list[Side] = ["discriminator"], iterations: Annotated[int, Ge(1)] = 1):  # noqa: B006
        super().__init__()
        self.players, self.iterations = players, iterations

    def wrap(self, part: Part, name: str) -> Part:
        if name in self.players:
            kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.modules.conv._ConvNd)
            if name == "discriminator":
                kinds = (*kinds, nn.Embedding)
            for layer in [module for module in part.modules() if isinstance(module, kinds)]:
                parametrizations.spectral_norm(layer, n_power_iterations=self.iterations)
        return part
