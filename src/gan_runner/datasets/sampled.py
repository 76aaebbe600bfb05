"""Samples of another run as a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from annotated_types import Ge

import gan_runner
from gan_runner.datasets.dataset import Dataset, Samples, Split
from gan_runner.game.spec import Spec
from gan_runner.storage import starts
from gan_runner.storage.untrusted import refuse_too_large


class Sampled(Dataset):
    """n samples of the run in the folder `run`, and as many others for testing; with their labels where it is conditional.

    checkpoint: last or best. seed: of the training samples; those for testing have the next one. UserError where there is no such run.
    """

    def __init__(
        self,
        run: str,
        n: Annotated[int, Ge(1)] = 50_000,
        checkpoint: Literal["last", "best"] = "last",
        seed: int = 0,
        own_packages: Sequence[str] = (),
    ):
        self.run, self.n, self.checkpoint, self.seed, self.own_packages = run, n, checkpoint, seed, own_packages
        self.load = cache(self._load)  # type: ignore[method-assign]

    @cached_property
    def there(self) -> Any:
        starts.refuse_missing(self.run, "these data are samples of")
        return gan_runner.load(self.run, self.checkpoint, self.own_packages)

    @property
    def spec(self) -> Spec:
        return self.there.spec if self.there.generator.classes is not None else self.there.spec._replace(classes=None, class_names=None)

    def prepare(self) -> None:
        refuse_too_large("dataset.n", self.n * math.prod(self.spec.shape) * (1 if self.spec.kind.bounded else 4))

    def _load(self, split: Split) -> Samples:
        x, y = self.there.draw(self.n, seed=self.seed + (split == "test"))
        return Samples(self.spec.kind.as_bytes(x), y)
