"""Statistics of batch norm that belong to the weights that are judged."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge
from torch import nn

from gan_runner import distributed
from gan_runner.draws import Draws, seeded
from gan_runner.game.trick import Trick

if TYPE_CHECKING:
    from gan_runner.game.game import Game
    from gan_runner.game.network import Generator

BatchNorm = nn.modules.batchnorm._BatchNorm


class StandingStatistics(Trick):
    """Samples are made with statistics of batch norm that belong to the weights that are judged. Brock et al. 2019.

    They are the means over `batches` batches of fresh samples, of the size of training, computed when G or its average is evaluated for
    the first time after a round. They replace running averages, which lag behind the weights and belong to G, not to its average.
    """

    def __init__(self, batches: Annotated[int, Ge(1)] = 16):
        super().__init__()
        self.batches, self.current = batches, True  # nothing to compute yet

    def build(self, game: Game) -> None:
        if game.sampler is not self.made[0]:
            raise ValueError("standing_statistics belongs to the generator that is judged: let it be the last in the list of tricks")
        self.batch_size, self.seed, self.current = game.batch_size, game.seed, False

    def prepare(self, game: Game) -> None:
        self.current = False

    def sampler(self, generator: Generator) -> Generator:
        """Return a generator with the same weights and statistics of its own. ValueError where it has no batch norm, or needs data."""
        if generator.overrides("asked"):
            raise ValueError("standing_statistics makes samples from latents alone, and this generator works on data: drop the trick")
        if not any(isinstance(module, BatchNorm) for module in generator.modules()):
            raise ValueError(
                f"standing_statistics computes statistics of batch norm, and {type(generator).__name__} has none: drop the trick"
            )
        if distributed.size() > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in generator.modules()):
            raise ValueError(
                "standing_statistics is computed by one process, and synchronised batch norm needs all: use trainer.sync_batch_norm=false"
            )
        net = copy.deepcopy(generator, {id(p): p for p in generator.parameters()})
        net.train = partial(self.set_mode, net)  # type: ignore[method-assign]
        net.stands_for = (generator,)  # type: ignore[assignment]
        self.made = (net,)  # tuples: they are registered elsewhere, or are no state
        return net

    def set_mode(self, net: Any, mode: bool = True) -> Any:
        """Set training or evaluation mode; before the latter, compute the statistics if weights have moved."""
        type(net).train(net, mode)
        if not mode and not self.current:
            self.compute(net)
            self.current = True
        return net

    @torch.no_grad()
    def compute(self, net: Any) -> None:
        """Compute the statistics of all batch norms of a generator in evaluation mode."""
        for mine, its in zip(net.buffers(), net.stands_for[0].buffers(), strict=True):
            mine.copy_(its)
        norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # the mean over batches
        device = next(net.parameters()).device
        generator = seeded("standing statistics", self.seed, device=device)
        for _ in range(self.batches):
            draws = Draws(generator, self.batch_size)
            net(net.prior(draws), net.labels(draws))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False
