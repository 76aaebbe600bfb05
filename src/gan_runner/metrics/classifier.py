"""The Inception score, and the same formula with another classifier. Salimans et al. 2016."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from gan_runner.errors import UserError
from gan_runner.evaluation.metric import Metric

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

SEED = 2020  # of the shuffle, with NumPy's old generator: the choice of torch-fidelity, so that figures agree digit by digit


def classifier_score(logits: Tensor, splits: int) -> Tensor:
    """Return exp E KL(p(y|x) || p(y)) of every split, float64, from logits N K; split i holds rows i N // splits ... (i + 1) N // splits.

    From 1 (all predictions equal) to K (every prediction certain, classes equally frequent). A class of probability 0 adds nothing, and a
    logit may be -inf. ValueError for fewer rows than splits, and for logits that are not log-probabilities: nan, inf, or a row of -inf.
    """
    n = len(logits)
    if n < splits:
        raise ValueError(f"a classifier score over {splits} splits needs at least as many samples, and there are {n}")
    scores = []
    for i in range(splits):
        part = logits[i * n // splits : (i + 1) * n // splits].double().log_softmax(1)
        if part.isnan().any():
            raise ValueError("logits that are nan or infinite have no classifier score")
        log_mean = part.logsumexp(0) - torch.tensor(float(len(part)), dtype=torch.float64, device=part.device).log()
        scores.append(torch.where(part == -torch.inf, 0, part.exp() * (part - log_mean)).sum(1).mean().exp())
    return torch.stack(scores)


class ClassifierScore(Metric):
    """Mean and standard deviation (over splits, ddof 0) of the score, under is/<extractor> or cs/<extractor>, and /std.

    shuffle: put the samples into a fixed random order first, as torch-fidelity does. Without it, splits follow the order of the samples,
    and samples sorted by class score low. Memory: the logits, N K float32.
    """

    reads = ("logits",)
    better = {"": "max"}
    logits: list[Tensor]

    def __init__(self, splits: Annotated[int, Gt(0)] = 10, shuffle: bool = True):
        super().__init__()
        self.splits, self.shuffle = splits, shuffle
        self.add_state("logits", [], dist_reduce_fx="cat")

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return extractor.named("cs", "is")

    def update(self, *values: Tensor) -> None:
        (logits,) = values
        self.logits.append(logits.detach().float())

    def compute(self) -> dict[str, Tensor]:
        logits = torch.cat(self.logits)
        self.shape = tuple(logits.shape)
        if self.shuffle:
            logits = logits[torch.from_numpy(np.random.RandomState(SEED).permutation(len(logits))).to(logits.device)]
        try:
            scores = classifier_score(logits, self.splits)
        except ValueError as error:
            raise UserError(f"{error} (metric.classifier_score.splits={self.splits})") from error
        return {"": scores.mean(), "std": scores.std(correction=0)}

    def notes(self) -> list[str]:
        (n, classes), splits = self.shape, self.splits
        few = n // splits < classes
        return [f"{n // splits} samples a split for {classes} classes: the score cannot exceed the number of samples in a split"] * few
