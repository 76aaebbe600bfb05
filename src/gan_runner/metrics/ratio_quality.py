"""How good the logit of D is as the log density ratio of data and model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gan_runner.draws import NumberedDraws, chosen
from gan_runner.evaluation.metric import COUPLED, Metric
from gan_runner.refinement.calibration import Diagnosis
from gan_runner.refinement.ratio import Ratio
from gan_runner.sampling.subjects import Subject, evaluating

if TYPE_CHECKING:
    from gan_runner.evaluation.extractor import Extractor

ROWS = 500  # judged at once


class RatioQuality(Metric):
    """Diagnose the logit of D as log (data / model), on n held-out real samples (or all, if fewer) and as many fresh fakes.

    cross_entropy: nats a sample of telling real from fake by the logit as it is; log 2 = .693 where it says nothing, more where it is
    worse than nothing. It is lowest for the log ratio itself, so that it rises again where D overfits. steepness: the Platt slope, 1 for a
    log ratio. Z: within 2 of 0 where the logit is calibrated. Held out are the samples of the test split, as training saw the others; the
    fakes have draws of their own. Networks are in evaluation mode.
    """

    needs = frozenset({"reference", "generator", "discriminator"})
    better = {"cross_entropy": "min"}

    def __init__(self, n: Annotated[int, Ge(2)] = 5000):
        super().__init__()
        self.n = n

    def prefix(self, extractor: Extractor | None) -> str:
        return "ratio"

    @torch.no_grad()
    def examine(self, subject: Subject) -> None:
        G, D = subject.generator, subject.discriminator
        assert G is not None
        assert D is not None
        held_out, ratio = self.reference.of("test"), Ratio(G, D)
        indices = chosen(self.n, held_out.n, "ratio", "real")
        real, fake = list[Tensor](), list[Tensor]()
        with evaluating(G), evaluating(D):
            for logits in ratio.of_real(held_out, indices, "ratio", "real", subject.seed, device=subject.device, size=ROWS):
                real.append(logits.cpu())
                self.tick(sum(map(len, real)), 2 * len(indices))
            for rows in torch.arange(len(indices)).split(ROWS):
                draws = NumberedDraws("ratio", "fake", subject.seed, indices=rows, device=subject.device)
                z, y = G.prior(draws), G.labels(draws)
                fake.append(ratio.logits(G(z, y), y).cpu())
                self.tick(len(indices) + sum(map(len, fake)), 2 * len(indices))
        self.couples = D.couples_in_evaluation
        self.diagnosis = Diagnosis.of(torch.cat(real), torch.cat(fake))

    def notes(self) -> list[str]:
        return [COUPLED] if self.couples else []

    def compute(self) -> dict[str, Tensor]:
        said = self.diagnosis._asdict()
        return {key: torch.tensor(said[key], dtype=torch.float64) for key in ("cross_entropy", "steepness", "Z")}
