"""Refine samples of a run, sample by sample: what a refiner may look at beforehand, its steps, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_runner import tree
from gan_runner.datasets.dataset import unheard
from gan_runner.draws import CountedDraws, NumberedDraws, chosen
from gan_runner.errors import Failed, UserError
from gan_runner.evaluation.reference import Reference
from gan_runner.refinement.calibration import Diagnosis, fitted
from gan_runner.refinement.ratio import Ratio
from gan_runner.refinement.refiner import Pool, Refiner, Start
from gan_runner.refinement.replayed import replayed
from gan_runner.reporting import Tick
from gan_runner.tree import Sample

POOL = 2000  # fakes, and held-out real samples at most, that are looked at beforehand
GROUP = 64  # samples of a discriminator that couples them are refined in groups of this size
FAR = 3.0  # mean |e|^2 / E from which latents have left the prior, where it is 1


class Cost(NamedTuple):
    """What one sample costs on average."""

    evaluations: float
    gradients: float
    seconds: float


class Logits(NamedTuple):
    """Logits of held-out real samples (R) with their labels, and of fresh fakes (M)."""

    real: Tensor
    fake: Tensor
    labels: Tensor | None


def needs_real(refiner: Refiner, centre: bool) -> bool:
    """Return whether held-out real samples have to be looked at. centre: whether the logit is that of a critic."""
    return refiner.wants_real or refiner.calibration != "none" or (centre and refiner.needs_zero)


class Refinement:
    """A refiner, fitted to networks in evaluation mode.

    reference: real samples; those of the split that it does not compare with are looked at beforehand, and D is diagnosed. None: nothing
    real is looked at. y: the class of all samples; None: drawn as without a refiner. centre: whether the logit is that of a critic, defined
    up to a constant, so that it is centred for a refiner to which its zero matters. logits: those of another refinement of the same
    networks, samples, seed and class. UserError where the refiner cannot work.
    """

    def __init__(
        self, refiner: Refiner, ratio: Ratio, *, reference: Reference | None = None, seed: int = 0, y: int | None = None,
        centre: bool = False, device: torch.device | str = "cpu", logits: Logits | None = None,
    ):  # fmt: skip
        self.ratio, self.seed, self.y, self.device = ratio, seed, y, torch.device(device)
        self.coupled = any(net.couples_in_evaluation for net in (ratio.discriminator, ratio.corrector) if net is not None)
        self.notes: list[str] = []
        self.diagnosis: Diagnosis | None = None
        if reference is None and needs_real(refiner, centre):
            raise UserError("this refiner is fitted to held-out real samples, and there are none: say where the data are, dataset.root=...")
        fakes = self.start(torch.arange(POOL), "calibration")
        self.logits = logits = self._held_out(reference, fakes) if logits is None and reference is not None else logits
        self.diagnosis = None if logits is None else Diagnosis.of(logits.real, logits.fake)
        self.refiner, why = refiner.chosen(self.diagnosis)
        self.notes += [why] if why else []
        real = None if logits is None else self._fitted(logits, centre)
        ratio.temperature = self.refiner.temperature
        self.refiner.prepare(ratio, Pool(fakes, real, None if logits is None else logits.labels))
        self.notes += [self.refiner.measured] if self.refiner.measured else []
        self.far = False
        ratio.evaluations = ratio.gradients = 0

    def start(self, indices: Tensor, purpose: str = "evaluation") -> Start:
        """Return the latents and labels from which the generator makes the samples with these indices without a refiner."""
        draws = NumberedDraws(purpose, self.seed, indices=indices, device=self.device)
        e, drawn = self.ratio.latents(draws), self.ratio.generator.labels(draws)
        return Start(e, drawn if self.y is None else torch.full_like(indices, self.y, device=self.device))

    # ---- beforehand -----------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _held_out(self, reference: Reference, fakes: Start) -> Logits:
        """Compute the logits of held-out real samples and of fakes."""
        held_out = reference.of("test" if reference.split == "train" else "train")
        indices = chosen(POOL, held_out.n, "refinement", self.seed)
        labels = held_out.labels
        real = torch.cat([*self.ratio.of_real(held_out, indices, "calibration", "real", self.seed, device=self.device)])
        made = torch.cat([self.ratio.logits(self.ratio.generated(part.e, part.y), part.y) for part in fakes.split()])
        return Logits(real, made, None if labels is None else labels[indices])

    def _fitted(self, logits: Logits, centre: bool) -> Tensor:
        """Centre and calibrate the ratio; returns log ratios of the real samples."""
        if centre and self.refiner.needs_zero and self.refiner.calibration == "none":
            self.ratio.centre = float((logits.real.mean() + logits.fake.mean()) / 2)
            self.notes.append(
                f"the logit is defined up to a constant: {self.ratio.centre:.4g}, its mean over held-out samples, is taken off"
            )
        self.ratio.calibration = fitted(self.refiner.calibration, logits.real, logits.fake)
        return self.ratio.calibration(logits.real - self.ratio.centre) / self.refiner.temperature

    # ---- samples --------------------------------------------------------------------------------------------------------------------

    def points(self, indices: Tensor) -> Iterator[tuple[int, Sample, Start]]:
        """Yield (step, points, start) of the samples with these indices, from step 0, without end. Failed where a point is not finite.

        Points may be overwritten by those of the next step.
        """
        start = self.start(indices)

        def begin() -> Iterator[Sample]:
            return self.refiner(self.ratio, start, CountedDraws("refinement", self.seed, indices=indices, device=self.device))

        on_gpu = self.device.type == "cuda"
        for step, point in enumerate(replayed(begin, self.ratio, self._note) if on_gpu else begin()):
            if step and not all(map(finite, tree.leaves(point))):
                raise Failed(
                    f"refinement diverged at step {step}: not all points are finite; take shorter steps (a smaller eta or epsilon)"
                )
            if isinstance(point, Tensor) and self.refiner.space == "latent" and not self.refiner.selects and not self.far:
                self._watch(point, step)
            yield step, point, start

    def _watch(self, e: Tensor, step: int) -> None:
        far = float(e.square().mean())
        self.far = far > FAR
        if self.far:
            self._note(f"latents have left the prior: mean |z|^2 / Z is {far:.2g} after {step} steps, where it should be 1")

    def _note(self, message: str) -> None:
        if message not in self.notes:
            self.notes.append(message)

    @torch.no_grad()
    def shown(self, point: Sample, start: Start) -> Tensor:
        """Return points as data, N ..., float32."""
        return self.ratio.generator.show(self.ratio.placed(point, start.y, self.refiner.space)).float()

    def batches(self, n: int, at: Sequence[int], batch_size: int = 500, tick: Tick = unheard) -> Iterator[Refined]:
        """Yield n samples as data after so many steps each (`at`, ascending), batch by batch; all from one pass."""
        size = batch_size if not self.coupled else max(batch_size // GROUP, 1) * GROUP
        for first in range(0, n, size):
            rows = torch.arange(first, first + GROUP * -(-min(size, n - first) // GROUP) if self.coupled else min(first + size, n))
            kept, spent, seconds = {}, {}, 0.0
            self.ratio.evaluations = self.ratio.gradients = 0
            points = self.points(rows)
            while True:
                began = time.perf_counter()
                step, point, start = next(points)
                seconds += time.perf_counter() - began
                if step in at:
                    kept[step] = self.shown(point, start)[: n - first].to("cpu", copy=True)
                    spent[step] = Cost(*(x / len(rows) for x in (self.ratio.evaluations, self.ratio.gradients, seconds)))
                tick("refining", first * at[-1] + step * len(kept.get(0, rows)), n * at[-1])
                if step >= at[-1]:
                    break
            yield Refined(kept, None if start.y is None else start.y[: n - first].cpu(), spent)


def finite(x: Tensor) -> bool:
    """Return whether all numbers are finite: the least and the largest are, which is faster to find out, and nan where one is."""
    return bool(torch.stack(x.aminmax()).isfinite().all())


class Refined(NamedTuple):
    """Some samples after several numbers of steps, their labels, and their costs up to each."""

    x: dict[int, Tensor]
    y: Any
    costs: dict[int, Cost]
