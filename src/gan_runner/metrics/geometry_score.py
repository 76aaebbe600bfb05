"""Compare the holes of the samples with those of the data: the geometry score, Khrulkov and Oseledets 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from gan_runner.draws import seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.metric import Told, told_nobody
from gan_runner.metrics.feature_sets import FeatureSets, choice

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

HOLES = 100  # holes at once that are told apart


def living_times(intervals: Tensor, end: float) -> Tensor:
    """Compute relative living times: share of [0, end] during which 0, 1, ... 99 of the intervals (birth, death; K 2) are alive; float64.

    An interval that is alive at the end has death = infinity. Without intervals, 0 are alive all the time.
    """
    intervals = intervals.double().view(-1, 2).clamp(max=end)
    moments = torch.cat([intervals.flatten(), intervals.new_tensor([0.0, end])]).unique()
    middle = (moments[1:] + moments[:-1])[:, None] / 2
    alive = ((intervals[:, 0] <= middle) & (middle < intervals[:, 1])).sum(1)
    lengths = (moments[1:] - moments[:-1]) / end
    return lengths.new_zeros(max(HOLES, len(intervals) + 1)).index_add(0, alive, lengths)[:HOLES]


def loops(rows: Tensor, landmarks: Tensor, gamma: float) -> tuple[Tensor, float]:
    """Find the one-dimensional holes of the witness complex of rows N F on landmarks L F. Returns birth and death (K 2), and the end.

    The filtration ends at gamma times the greatest distance; distances are not squared, as in the authors' program. For each row, only
    landmarks up to the third nearest distance plus that end can be in a simplex of up to three corners. The holes depend on no others.
    """
    import gudhi  # an optional dependency

    distance, index = torch.cdist(rows, landmarks, compute_mode="donot_use_mm_for_euclid_dist").sort(1)
    end = gamma * distance.max().item()
    if end == 0:
        return torch.empty(0, 2), 1.0
    near = (distance <= distance[:, 2:3] + end).sum(1).tolist()
    table = [list(zip(i[:k], d[:k])) for i, d, k in zip(index.tolist(), distance.tolist(), near)]
    tree = gudhi.WitnessComplex(table).create_simplex_tree(max_alpha_square=end, limit_dimension=2)
    tree.compute_persistence(homology_coeff_field=2)
    return torch.as_tensor(tree.persistence_intervals_in_dimension(1)).view(-1, 2), end


def mean_living_times(
    rows: Tensor, *, draws: int = 1000, landmarks: int = 64, gamma: float | None = None, tick: Told = told_nobody
) -> Tensor:
    """Estimate the MRLT of rows N F (100, float64): probability of 0 ... 99 holes, over the filtration and draws of landmarks.

    gamma: by default N / (128 * 5000), as in the paper. Landmarks are drawn without replacement. ValueError for fewer rows than
    landmarks, or values that are not finite. Memory: N x landmarks distances in float64, and what gudhi needs; time: some 0.1 to 0.3 s for
    each draw at N = 5,000.
    """
    if len(rows) < landmarks or not rows.isfinite().all():
        raise ValueError(f"living times need finite features of at least {landmarks} samples, as many as landmarks; there are {len(rows)}")
    rows = rows.double().cpu()
    total = torch.zeros(HOLES, dtype=torch.float64)
    for draw in range(draws):
        chosen = torch.randperm(len(rows), generator=seeded("landmarks", draw))[:landmarks]
        total += living_times(*loops(rows, rows[chosen], len(rows) / (128 * 5000) if gamma is None else gamma))
        tick(draw + 1, draws)
    return total / draws


def geometry_score(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of squared differences of two MRLT: 0 ... 2, 0 for equal holes."""
    return (a - b).square().sum()


class GeometryScore(FeatureSets):
    """geometry/<extractor>: 0 where features of fakes and of real samples have the same holes, at most 2.

    Equally many samples of each kind are used, at most n, since the filtration depends on their number. Only one-dimensional holes count,
    so clusters have no effect. Memory and time: see `mean_living_times`, for each of two kinds.
    """

    better = "min"

    def __init__(self, draws: Annotated[int, Gt(0)] = 100, landmarks: Annotated[int, Ge(3)] = 64, n: Annotated[int, Ge(3)] = 5000):
        super().__init__()
        try:
            import gudhi  # noqa: F401
        except ImportError:
            raise UserError("geometry_score needs gudhi, which is not installed: pip install gudhi") from None
        if n < landmarks:
            raise ValueError(f"geometry_score draws {landmarks} landmarks out of at most n={n} samples: n must be at least as large")
        self.draws, self.landmarks, self.n = draws, landmarks, n

    def prefix(self, extractor: Extractor | None) -> str:
        assert extractor is not None
        return f"geometry/{extractor.name}"

    def compute(self) -> dict[str, Tensor]:
        fake, real = self.fake(self.landmarks), self.real(self.landmarks)
        n = min(len(fake), len(real), self.n)
        times = (mean_living_times(choice(rows, n), draws=self.draws, landmarks=self.landmarks, tick=self.tick) for rows in (fake, real))
        return {"": geometry_score(*times)}
