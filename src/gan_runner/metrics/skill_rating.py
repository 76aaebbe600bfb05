"""A tournament among the generators and discriminators of one run. Olsson et al. 2018, "Skill Rating for Generative Models"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner import tree
from gan_runner.datasets.pictures import pixels
from gan_runner.draws import NumberedDraws, seeded
from gan_runner.errors import UserError
from gan_runner.evaluation.metric import COUPLED, Metric, Need
from gan_runner.game.network import Generator
from gan_runner.metrics.glicko import Rating, Result, rated
from gan_runner.sampling.subjects import Snapshot, Subject, evaluating
from gan_runner.tree import Sample

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

Game = Literal["half", "pair"]

LEAST = 3  # snapshots
ROUNDS = 20  # of a tournament, each with its share of the fakes
ROWS = 500  # samples that are made or judged at once


class Shown(NamedTuple):
    """Input for a discriminator: samples and their labels."""

    sample: Sample
    y: Tensor | None


def points(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """Score a generator in each of N games, from D's logits of its fakes and, for game "pair", of the real samples beside them.

    half: 1 if D(x) > 1/2, that is a logit above 0. pair: 1 if the fake has the higher logit. In both, 1/2 for a tie.
    """
    against = torch.zeros_like(fake) if real is None else real
    return ((fake > against).double() + (fake >= against).double()) / 2


def tournament(scores: Tensor, met: Tensor, tau: float = 0.5) -> tuple[list[Rating], list[Rating]]:
    """Rate I generators and J discriminators, from the generators' scores in P rounds (P I J, 0 ... 1) and the pairs that met (I J, bool).

    In a round every generator meets every discriminator allowed by `met`. All ratings are updated after the round.
    """
    generators, discriminators = [Rating()] * met.shape[0], [Rating()] * met.shape[1]
    for score in scores.tolist():
        after = [
            rated(player, [Result(d, s) for d, s, there in zip(discriminators, row, who) if there], tau)
            for player, row, who in zip(generators, score, met.tolist())
        ]
        discriminators = [
            rated(player, [Result(g, 1 - s) for g, s, there in zip(generators, column, who) if there], tau)
            for player, column, who in zip(discriminators, zip(*score), met.T.tolist())
        ]
        generators = after
    return generators, discriminators


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Compute the rank correlation of N pairs of numbers, -1 ... 1; ties share their mean rank. NaN if one is constant. Spearman 1904."""
    ranks = [(x[:, None] > x).double().sum(1) + (x[:, None] == x).double().sum(1) / 2 for x in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1]


def heat_map(rates: Tensor, steps: Sequence[int], generators: Sequence[Rating], discriminators: Sequence[Rating]) -> Tensor:
    """Plot win rates (I I, nan where they did not meet) of generators (rows) against discriminators, with the ratings along the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a fifth of a second that not every command needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, middle = figure.subplots(2, 2, width_ratios=(4, 1), height_ratios=(1, 4))
    above[1].set_axis_off()
    image = middle[0].imshow(rates.numpy(), cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower")
    figure.colorbar(image, ax=above[1], label="G's win rate", fraction=0.6)
    at = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 8)).round().astype(int))
    middle[0].set_xticks(at, [f"{steps[i]:,}" for i in at], rotation=90)
    middle[0].set_yticks(at, [f"{steps[i]:,}" for i in at])
    middle[0].set_xlabel("D after round")
    middle[0].set_ylabel("G after round")
    place = np.arange(len(steps))
    look = {"fmt": "o", "markersize": 3, "elinewidth": 0.8, "color": "tab:blue"}
    above[0].errorbar(place, [d.rating for d in discriminators], yerr=[2 * d.deviation for d in discriminators], **look)
    above[0].set_ylabel("rating")
    middle[1].errorbar([g.rating for g in generators], place, xerr=[2 * g.deviation for g in generators], **look)
    middle[1].set_xlabel("rating")
    above[0].set(xlim=middle[0].get_xlim(), xticks=[])
    middle[1].set(ylim=middle[0].get_ylim(), yticks=[])
    for axes in (above[0], *middle):
        axes.tick_params(colors="0.45", labelsize=8)
    return pixels(canvas)


class SkillRating(Metric):
    """Glicko-2 ratings of a run's snapshots: every generator plays against every discriminator except that of its own round.

    skill/g/<step>, skill/d/<step>: their ratings; all start at 1500, and 400 points more are odds of 10 to 1. skill/last: rating of the
    last generator. skill/spearman_with_step: rank correlation of the generators' ratings with their rounds, 1 if each beats all earlier
    ones. Compare ratings within one tournament only. The picture shows the win rates, and the ratings with two deviations.

    A game is one fake. "pair": D gets it beside a real sample, and G wins if the fake has the higher logit; this needs only an order, so
    every loss is suitable. "half": G wins if D(x) > 1/2, a logit above 0. A logit of 0 does not mean this for a hinge or Wasserstein
    critic, or a D with batch norm in evaluation mode. All generators play with the same latents. A match is n_games / 20 games, and its
    score the share that G wins: with single games, one improbable win could make a rating diverge.

    Networks are in evaluation mode. Every snapshot is loaded twice, one at a time. Memory: n_games samples for each snapshot, on the CPU.
    """

    better = {"spearman_with_step": "max"}  # ratings compare within one tournament only

    def __init__(self, n_games: Annotated[int, Ge(ROUNDS)] = 500, game: Game = "pair"):
        super().__init__()
        self.n_games, self.game = n_games, game
        self.needs: frozenset[Need] = frozenset({"snapshots", "reference"} if game == "pair" else {"snapshots"})

    def prefix(self, extractor: Extractor | None) -> str:
        return "skill"

    def examine(self, subject: Subject) -> None:
        assert subject.snapshots is not None
        self.couples = False
        fakes: dict[int, Shown] = {}
        for step, generator, discriminator in subject.snapshots():
            if discriminator is None:
                raise UserError("skill_rating needs a discriminator beside every generator, and this run has none: ~metric.skill_rating")
            fakes[step] = self._fakes(generator, subject)
            self.couples |= discriminator.couples_in_evaluation
        if len(fakes) < LEAST:
            raise UserError(
                f"skill_rating needs at least {LEAST} snapshots of a run, and there are {len(fakes)}; train with a smaller "
                "callback.checkpoint.every_steps and a larger callback.checkpoint.keep, or take it out: ~metric.skill_rating"
            )
        self.steps = list(fakes)
        met = ~torch.eye(len(self.steps), dtype=torch.bool)
        won = torch.zeros(self.n_games, *met.shape, dtype=torch.float64)
        for j, snapshot in enumerate(subject.snapshots()):
            real = self._real_logits(snapshot, subject) if self.game == "pair" else None
            for i, step in enumerate(self.steps):
                if met[i, j]:
                    won[:, i, j] = points(_logits(snapshot, fakes[step], subject), real)
            self.tick(j + 1, len(self.steps))
        self.rates = won.mean(0).where(met, torch.nan)
        scores = torch.stack([part.mean(0) for part in won.tensor_split(ROUNDS)])
        self.generators, self.discriminators = tournament(scores, met)

    def compute(self) -> dict[str, Tensor]:
        ratings = {
            side: torch.tensor([player.rating for player in players], dtype=torch.float64)
            for side, players in (("g", self.generators), ("d", self.discriminators))
        }
        return {
            "last": ratings["g"][-1],
            "spearman_with_step": spearman(ratings["g"], torch.tensor(self.steps)),
            **{f"{side}/{step}": rating for side in ratings for step, rating in zip(self.steps, ratings[side])},
        }

    def notes(self) -> list[str]:
        return [COUPLED] if self.couples else []

    def pictures(self, subject: Subject) -> dict[str, Tensor]:
        return {"": heat_map(self.rates, self.steps, self.generators, self.discriminators)}

    def sentence(self, figures: Mapping[str, float | None]) -> str:
        best = max(range(len(self.steps)), key=lambda i: self.generators[i].rating)
        first, last = self.generators[0].rating, self.generators[-1].rating
        return f"G's rating {first:.0f} -> {last:.0f} over {len(self.steps)} snapshots, highest after round {self.steps[best]}"

    @torch.no_grad()
    def _fakes(self, generator: Generator, subject: Subject) -> Shown:
        """Generate samples from latents that are the same for every snapshot."""
        made: list[Sample] = []
        labels: list[Tensor] = []
        for indices in torch.arange(self.n_games).split(ROWS):
            draws = NumberedDraws("skill", subject.seed, indices=indices, device=subject.device)
            with evaluating(generator):
                z, y = generator.prior(draws), generator.labels(draws)
                made.append(tree.map(Tensor.cpu, generator(z, y)))
            labels += [] if y is None else [y]
        sample = tree.map(lambda *parts: torch.cat(parts), made[0], *made[1:])
        return Shown(sample, torch.cat(labels) if labels else None)

    def _real_logits(self, snapshot: Snapshot, subject: Subject) -> Tensor:
        """Compute D's logits of real samples, one for each game; the samples are the same for all snapshots."""
        of = seeded("skill", "real", subject.seed)
        indices = torch.randint(self.reference.n, (self.n_games,), generator=of)
        draws = NumberedDraws("skill", "view", subject.seed, indices=torch.arange(self.n_games), device=subject.device)
        real = snapshot.generator.view(self.reference.at(indices).to(subject.device), draws)
        assert snapshot.discriminator is not None
        if snapshot.discriminator.classes is None:
            return _logits(snapshot, Shown(real, None), subject)
        if (labels := self.reference.labels) is None:
            raise UserError("skill_rating shows a conditional discriminator real samples with their labels, and these have none")
        return _logits(snapshot, Shown(real, labels[indices]), subject)


@torch.no_grad()
def _logits(snapshot: Snapshot, shown: Shown, subject: Subject) -> Tensor:
    """Compute D's logits, N, on the CPU."""
    assert snapshot.discriminator is not None
    n, said = len(tree.leaves(shown.sample)[0]), []
    with evaluating(snapshot.discriminator):
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            x = tree.map(lambda leaf, rows=rows: leaf[rows].to(subject.device), shown.sample)
            y = None if shown.y is None else shown.y[rows].to(subject.device)
            said.append(snapshot.discriminator(x, y).per_sample.cpu())
    logits = torch.cat(said)
    if not logits.isfinite().all():
        raise UserError(f"skill_rating: the discriminator's logits are not finite after round {snapshot.step}")
    return logits
