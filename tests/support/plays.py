"""Plays of networks whose samples, logits and slopes are known."""

import torch

from gan_runner.architectures import Discriminator, Generator
from gan_runner.draws import Draws
from gan_runner.game import Batch, DiscriminatorOutput, Play

W = torch.tensor([3.0, 4.0])


class Linear2(Discriminator):
    features = 2

    def forward(self, sample, y=None):
        leaves = sample if isinstance(sample, tuple) else (sample,)
        return DiscriminatorOutput(sum(leaf @ W for leaf in leaves), leaves[0])


class Shift(Generator):
    latent, classes = 2, 5

    def forward(self, z, y=None):
        return z + 1


class Doubled(Shift):
    """Two equal leaves."""

    def forward(self, z, y=None):
        return z, z

    def view(self, x, draws):
        return x, x


def play_of(D=None, G=None, n=16, augment=lambda sample, draws: sample, rows=slice(None), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(n, 2, generator=generator).to(dtype)[rows], torch.arange(n)[rows] % 5)
    return Play(G or Shift(), D or Linear2(), batch, Draws(generator, n).of(rows), augment)


class Quadratic(Discriminator):
    """D(x) = |x|^2 / 2, whose slope is x itself."""

    features = 2

    def forward(self, sample, y=None):
        return DiscriminatorOutput(sample.square().sum(1) / 2, sample)
