"""The formula of the Inception score on another classifier. Salimans et al. 2016."""

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from gan_runner.metrics.metric import Metric


def classifier_score(logits: Tensor, splits: int) -> Tensor:
    """exp E KL(p(y|x) || p(y)) of every split, float64, from logits N K; split i holds rows i N // splits ... (i + 1) N // splits.

    From 1 (all alike, or undecided) to K (sure of each, and all classes alike). A class of probability 0 adds nothing.
    """
    n = len(logits)
    if n < splits:
        raise ValueError(f"a classifier score over {splits} splits needs at least as many samples, and there are {n}")
    log_p = logits.double().log_softmax(1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        log_mean = part.logsumexp(0) - torch.tensor(float(len(part)), dtype=torch.float64, device=part.device).log()
        scores.append(torch.where(part == -torch.inf, 0, part.exp() * (part - log_mean)).sum(1).mean().exp())
    return torch.stack(scores)


class ClassifierScore(Metric):
    """Mean and standard deviation (over splits, ddof 0) of the classifier score, under cs/<extractor> and cs/<extractor>/std.

    Not comparable with an Inception score, whose name is kept for Inception's weights. Splits are made in order, without shuffling, so
    samples sorted by class score low. Memory: the logits, N K float32.
    """

    reads = "logits"
    logits: list[Tensor]

    def __init__(self, splits: Annotated[int, Gt(0)] = 10):
        super().__init__()
        self.splits = splits
        self.add_state("logits", [], dist_reduce_fx="cat")

    def prefix(self, extractor: str | None) -> str:
        return f"cs/{extractor}"

    def update(self, values: Tensor) -> None:
        self.logits.append(values.detach().float())

    def compute(self) -> dict[str, Tensor]:
        scores = classifier_score(dim_zero_cat(self.logits), self.splits)
        return {"": scores.mean(), "std": scores.std(correction=0)}
