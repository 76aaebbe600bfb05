"""What every metric promises."""

from collections.abc import Mapping
from typing import Literal

import torchmetrics
from torch import Tensor


class Metric(torchmetrics.Metric):
    """A figure of merit, fed in batches; states are float64 and are joined over processes.

    A subclass says in `reads` what it is fed: samples N ... as data, or the features N F or logits N K that an extractor gives. One that
    needs to know the data takes `spec` first in its constructor.
    """

    reads: Literal["samples", "features", "logits"]
    full_state_update = False

    def prefix(self, extractor: str | None) -> str:
        """The key of its figures in metrics.jsonl, given the name of the extractor (None: it reads samples): "modes", "cs/lenet"."""
        raise NotImplementedError

    def update(self, values: Tensor) -> None:
        """Take in what N samples give."""
        raise NotImplementedError

    def compute(self) -> dict[str, Tensor]:
        """Figures, float64 scalars, by the rest of their key; "" is the one that has the prefix for its key."""
        raise NotImplementedError

    def figures(self, extractor: str | None) -> dict[str, Tensor]:
        """What compute says, under its whole keys: {"modes/covered": ...}, {"cs/lenet": ..., "cs/lenet/std": ...}."""
        prefix = self.prefix(extractor)
        return {f"{prefix}/{key}" if key else prefix: value for key, value in self.compute().items()}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        """The figures, under their whole keys, as a reader wants them; None is one that could not be computed."""
        return "  ".join(f"{key} {'null' if value is None else f'{value:.4g}'}" for key, value in figures.items())
