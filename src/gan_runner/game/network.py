"""What every generator and discriminator promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

from gan_runner.draws import Draws
from gan_runner.game.play import BatchLike, DiscriminatorOutput
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
        """Draw latents, N Z; standard normal unless overridden."""
        return draws.normal(self.latent)

    def labels(self, draws: Draws) -> Tensor | None:
        """Draw labels of the samples to make, N, uniform over the classes; None where it takes none."""
        return draws.integers(self.classes) if self.classes else None

    def given(self, batch: BatchLike, draws: Draws) -> Any:
        """Return the condition of the real samples of a batch, which D gets beside them: a tree of tensors N ... or None. By default
        their labels."""
        return batch.y

    def asked(self, batch: BatchLike, draws: Draws) -> Any:
        """Return the condition of the samples to make, which G and D get as y: a tree of tensors N ... or None. By default labels that
        are drawn.

        A generator that works on data, as for inpainting or translation, overrides it and reads the batch: (masked images, masks). It is
        then given the items of a split wherever samples are made: sample i is made for item i.
        """
        return self.labels(draws)

    def view(self, x: Tensor, draws: Draws) -> Sample:
        """Map real data x (N ...) to the space that forward emits."""
        return x

    def show(self, sample: Sample) -> Tensor:
        """Map a sample to data, N ...: the inverse of view where there is one."""
        assert isinstance(sample, Tensor)
        return sample

    def forward(self, z: Tensor, y: Any = None) -> Sample:
        """Samples for the latents z (N Z) and the condition y, labels (N) or what `asked` returned."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, y: Any, draws: Draws) -> Tensor:
        """Nats, N, of data x (N ..., as the data set gives them) under the model: the mass of images of 256 levels and of symbols, the
        density of points. A model of continuous values dequantises images itself."""
        raise NotImplementedError

    bound: bool = False
    """True where log_prob is one draw of a lower bound, as of a variational autoencoder."""

    def encode(self, x: Tensor, y: Any, draws: Draws) -> Tensor:
        """Compute latents, N Z, of data x (N ...): exact for a flow, the mean for a variational autoencoder."""
        raise NotImplementedError

    passes: int = 1
    """Sequential passes of the network that a sample takes: the number of entries for an autoregressive model."""

    def initialise(self, x: Tensor, draws: Draws) -> None:
        """Initialise from data, once before the first round: x (N ...) is the first batch of all processes. Used by ActNorm."""

    def overrides(self, verb: str) -> bool:
        """Return whether a subclass has its own `verb`: log_prob, encode, asked, initialise."""
        return getattr(type(self), verb) is not getattr(Generator, verb)


class Discriminator(nn.Module):
    """A map from samples to logits (raw, high = real) and to the features that they are read from.

    Several critics in one D, as of patches, scales or domains, give a logit each: N P.
    """

    features: int
    classes: int | None = None
    couples_samples: bool = False
    """True where the logit of a sample depends on its batch in training: batch norm, minibatch standard deviation."""
    couples_in_evaluation: bool = False
    """True where it depends on its batch in evaluation mode as well: minibatch standard deviation."""

    capturable: bool
    """True where a subclass of yours executes the same operations in every round, so that they may be replayed (docs/extending.md). A class
    that overrides a method says so itself."""

    def forward(self, sample: Sample, y: Any = None) -> DiscriminatorOutput:
        """Logits N or N P and features N F of the samples, given their labels y (N), or what G's `given` or `asked` returned."""
        raise NotImplementedError

    def singular_vectors(self) -> list[tuple[Tensor, Tensor]]:
        """Copy the singular vectors of spectral norm, by which the last pass divided."""
        return [(norm._u.clone(), norm._v.clone()) for norm in self._norms()]

    @contextmanager
    def as_before(self, vectors: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
        """Let spectral norm divide by the singular values of these vectors: passes in here make no power iteration."""
        norms, now = self._norms(), self.singular_vectors()
        modes = [norm.training for norm in norms]
        try:
            _divide_by(norms, vectors)
            for norm in norms:
                norm.training = False
            yield
        finally:
            _divide_by(norms, now)
            for norm, mode in zip(norms, modes, strict=True):
                norm.training = mode

    def _norms(self) -> list[_SpectralNorm]:
        return [module for module in self.modules() if isinstance(module, _SpectralNorm) and hasattr(module, "_u")]  # not of vectors


@torch.no_grad()
def _divide_by(norms: Sequence[_SpectralNorm], vectors: Sequence[tuple[Tensor, Tensor]]) -> None:
    for norm, (u, v) in zip(norms, vectors, strict=True):
        norm._u.copy_(u)
        norm._v.copy_(v)


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Encode labels as N K, float; static in shape, so that a captured round can hold it (torch's one_hot looks at the values)."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()
