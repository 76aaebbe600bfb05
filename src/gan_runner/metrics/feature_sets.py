"""Base of metrics that compare the features of all samples with those of all real samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gan_runner.datasets.dataset import Split
from gan_runner.draws import chosen
from gan_runner.errors import UserError
from gan_runner.evaluation.metric import Metric


def choice(rows: Tensor, n: int | None) -> Tensor:
    """Choose at most n rows (None: all), in their order; a fixed random choice, since data may be sorted by class."""
    return rows if n is None or n >= len(rows) else rows[chosen(n, len(rows), "choice of rows").to(rows.device)]


def last_part(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the figures under the last part of their keys."""
    return {key.rpartition("/")[2]: value for key, value in figures.items()}


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows (N F) to length 1, in float64. UserError if a row is 0, as it has no direction."""
    rows = rows.double()
    length = rows.norm(dim=1, keepdim=True)
    if not bool((length > 0).all()):
        raise UserError("features that are all 0 cannot be scaled to unit length, and some samples have such; choose another extractor")
    return rows / length


class FeatureSets(Metric):
    """Collects the features of the samples. Memory: N F float32, shared by all such metrics during the update."""

    reads = ("features",)
    needs = frozenset({"reference"})
    features: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("features", [], dist_reduce_fx="cat")

    def update(self, *values: Tensor) -> None:
        (features,) = values
        self.features.append(features.detach())

    def fake(self, at_least: int) -> Tensor:
        """Return the features of the samples, N F; UserError if there are fewer than `at_least`, or some are not finite."""
        return self._usable(torch.cat(self.features), at_least, "samples")

    def real(self, at_least: int, n: int | None = None, split: Split | None = None) -> Tensor:
        """Return the features of at most n real samples (None: all) of a split (None: that of the reference), on the metric's device."""
        reference = self.reference if split is None else self.reference.of(split)
        return self._usable(choice(reference.features(), n).to(self.device), at_least, f"real samples ({reference.split})")

    def _usable(self, rows: Tensor, at_least: int, what: str) -> Tensor:
        if len(rows) < at_least:
            raise UserError(f"{type(self).__name__} needs at least {at_least} {what}, and there are {len(rows)}")
        if not all(bool(extreme.isfinite()) for extreme in rows.aminmax()):  # nan is both; without a copy of the rows
            raise UserError(f"{type(self).__name__} cannot compare features that are NaN or infinite, and some of the {what} have such")
        return rows
