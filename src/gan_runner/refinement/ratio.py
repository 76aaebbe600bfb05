"""The density ratio of data and model, as a trained discriminator knows it, its slopes, and what it costs to compute them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from gan_runner import tree
from gan_runner.draws import Draws, Noise, NumberedDraws, noise_behind
from gan_runner.errors import UserError
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.refinement.calibration import Calibration, unchanged
from gan_runner.tree import Sample

if TYPE_CHECKING:
    from gan_runner.evaluation.reference import Reference

Space = Literal["latent", "data"]


class Ratio:
    """log (data / model) at samples of G: the logit of D, plus that of a corrector, centred, calibrated, divided by a temperature.

    A point is a latent, which is the standard normal noise behind the prior (N E), or a sample in the space that G emits (a tree of
    tensors N ...). Networks are in evaluation mode. corrector: a discriminator between samples of the generator that D was trained with
    (real) and samples of G (fake); None where D was trained with G. `evaluations` and `gradients` count samples, not batches.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, corrector: Discriminator | None = None):
        self.generator, self.discriminator, self.corrector = generator, discriminator, corrector
        self.calibration: Calibration = unchanged
        self.centre, self.temperature = 0.0, 1.0
        self.evaluations = self.gradients = 0

    def logits(self, sample: Sample, y: Any) -> Tensor:
        """Return what the networks say, N, before it is centred and calibrated. UserError for a vector of critics."""
        total: Tensor | None = None
        for net in (self.discriminator, self.corrector):
            if net is None:
                continue
            logit = at_least_float32(net(sample, y).logits)
            if logit.ndim > 1:
                if (critics := logit[0].numel()) != 1:
                    raise UserError(f"{type(net).__name__} gives {critics} logits a sample: a density ratio is one number")
                logit = logit.flatten()
            total = logit if total is None else total + logit
        assert total is not None
        return total

    @torch.no_grad()
    def of_real(self, held_out: Reference, indices: Tensor, *key: Any, device: torch.device, size: int = 500) -> Iterator[Tensor]:
        """Yield the logits of these real samples, `size` at a time, in the form in which G views them. key: of what G draws for that."""
        conditional = any(net is not None and net.classes is not None for net in (self.generator, self.discriminator, self.corrector))
        labels = held_out.labels if conditional else None
        for rows in indices.split(size):
            view = self.generator.view(held_out.at(rows).to(device), NumberedDraws(*key, indices=rows, device=device))
            yield self.logits(view, None if labels is None else labels[rows].to(device))

    def latents(self, draws: Draws) -> Tensor:
        """Draw fresh latents: the noise behind the prior, N E. UserError for a prior that draws whole numbers."""
        return noise_behind(draws, self.generator.prior)

    def generated(self, e: Tensor, y: Any) -> Sample:
        """Return the samples of G (a tree of tensors N ...) for latents e (N E)."""
        return tree.map(at_least_float32, self.generator(self.generator.prior(Noise(e)), y))

    def placed(self, point: Sample, y: Any, space: Space) -> Sample:
        """Return the samples for points of a space."""
        if space == "data":
            return point
        assert isinstance(point, Tensor)
        return self.generated(point, y)

    def of(self, point: Sample, y: Any, space: Space) -> Tensor:
        """Return the log ratio at points, N, differentiable."""
        self.evaluations += len(tree.leaves(point)[0])
        return self.calibration(self.logits(self.placed(point, y, space), y) - self.centre) / self.temperature

    @torch.no_grad()
    def at(self, point: Sample, y: Any, space: Space) -> Tensor:
        """Return the log ratio at points, N, without a graph."""
        return self.of(point, y, space)

    @torch.enable_grad()
    def slopes(self, point: Sample, y: Any, space: Space) -> tuple[Tensor, Sample]:
        """Return the log ratio (N) and its gradient with respect to the points, without a graph."""
        moved = tree.map(lambda leaf: leaf.detach().requires_grad_(), point)
        log_ratio = self.of(moved, y, space)
        slopes = torch.autograd.grad(log_ratio.sum(), tree.leaves(moved))
        self.gradients += len(log_ratio)
        return log_ratio.detach(), slopes[0] if isinstance(point, Tensor) else slopes


class OnData(Discriminator):
    """Have a discriminator of another run judge what a generator shows: data, N ..., in whatever form the generator emits samples."""

    def __init__(self, net: Discriminator, generator: Generator):
        super().__init__()
        self.net, self.shown = net, generator.show
        self.features, self.classes, self.couples_in_evaluation = net.features, net.classes, net.couples_in_evaluation

    def forward(self, sample: Sample, y: Any = None) -> DiscriminatorOutput:
        return self.net(self.shown(sample), y)


def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
