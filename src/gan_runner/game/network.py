"""What every generator and discriminator promises."""

import torch
from torch import Tensor, nn

from gan_runner.draws import Draws
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.tree import Sample


class Generator(nn.Module):
    """A map from a prior to samples.

    `classes` is the number of labels it is given, None where it takes none.
    """

    latent: int
    classes: int | None = None

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    def prior(self, draws: Draws) -> Tensor:
        """Latents, N Z; standard normal unless overridden."""
        return draws.normal(self.latent)

    def labels(self, draws: Draws) -> Tensor | None:
        """Labels of the samples to make, N, uniform over the classes; None where it takes none."""
        return draws.integers(self.classes) if self.classes else None

    def view(self, x: Tensor, draws: Draws) -> Sample:
        """Real data x (N ...) in the space that forward emits."""
        return x

    def show(self, sample: Sample) -> Tensor:
        """A sample as data, N ...: the inverse of view where there is one."""
        assert isinstance(sample, Tensor)
        return sample

    def forward(self, z: Tensor, y: Tensor | None = None) -> Sample:
        """Samples for the latents z (N Z) and labels y (N)."""
        raise NotImplementedError


class Discriminator(nn.Module):
    """A map from samples to logits (raw, high = real) and to the features that they are read from."""

    features: int
    classes: int | None = None
    couples_samples: bool = False
    """True where the logit of a sample depends on its batch: batch norm, minibatch standard deviation."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    def forward(self, sample: Sample, y: Tensor | None = None) -> DiscriminatorOutput:
        """Logits N and features N F of the samples, given their labels y (N)."""
        raise NotImplementedError


def one_hot(y: Tensor, classes: int) -> Tensor:
    """N K, float; static in shape, so that a captured round can hold it (torch's one_hot looks at the values)."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()
