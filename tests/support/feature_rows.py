"""Rows of features for metrics that compare sets of them: a reference of two splits, and the figures of a metric."""

from types import SimpleNamespace

import torch

from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments

EXTRACTOR = SimpleNamespace(name="net", named=lambda own, published: f"{own}/net")


def normal(n, f=4, seed=0, dtype=torch.float32):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Real:
    """A reference; test None: data without a test split."""

    def __init__(self, train, test=None, split="train"):
        self.splits, self.split = {"train": train, "test": test}, split
        self.n = 0 if self.splits[split] is None else len(self.splits[split])

    def of(self, split):
        return Real(*self.splits.values(), split=split)

    def features(self):
        if self.splits[self.split] is None:
            raise UserError(f"there is no {self.split} split")
        return self.splits[self.split]

    def moments(self):
        return Moments.of(self.features())


def measured(metric, real, *batches):
    """Return the figures of fakes that come in batches, by the rest of the key after the extractor."""
    metric.reset()
    metric.reference = real
    for batch in batches:
        metric.update(batch)
    return {key.partition("/net")[2].strip("/"): value.item() for key, value in metric.figures(EXTRACTOR).items()}
