"""Calibrate logits of a discriminator on held-out samples, and diagnose what they say about the density ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["none", "logistic", "isotonic"]
Calibration = Callable[[Tensor], Tensor]  # logits N -> log ratios N, differentiable

SHARES = 1e-3  # least distance of a share from 0 and 1, whose log odds are infinite
RIDGE = 1e-6  # keeps the slope finite where logits separate the classes


def fitted(kind: Kind, real: Tensor, fake: Tensor) -> Calibration:
    """Fit a calibration to logits of held-out real samples (R) and of fresh fakes (M)."""
    if kind == "none":
        return unchanged
    return Logistic(real, fake) if kind == "logistic" else Isotonic(real, fake)


def unchanged(logits: Tensor) -> Tensor:
    """Take the logit as the log ratio."""
    return logits


class Labelled(NamedTuple):
    """Logits of N samples, targets (1: real) and weights, with which real samples and fakes count the same however many there are."""

    d: Tensor
    target: Tensor
    weight: Tensor

    @classmethod
    def of(cls, real: Tensor, fake: Tensor) -> Labelled:
        d = torch.cat([real, fake]).double()
        target = torch.cat([torch.ones_like(real), torch.zeros_like(fake)]).double()
        return cls(d, target, torch.where(target == 1, len(d) / (2 * len(real)), len(d) / (2 * len(fake))))


class Logistic:
    """Scale a logit: slope * d + offset of the greatest likelihood (Platt 1999)."""

    def __init__(self, real: Tensor, fake: Tensor):
        d, target, weight = Labelled.of(real, fake)
        centre = d.median()
        width = (d - centre).abs().median().clamp_min(1e-12)  # not the deviation, which a few logits far out determine
        slope, offset = regression((d - centre) / width, target, weight)
        self.slope, self.offset = slope / width, offset - slope * centre / width

    def __call__(self, logits: Tensor) -> Tensor:
        return logits * self.slope.to(logits) + self.offset.to(logits)


def regression(x: Tensor, target: Tensor, weight: Tensor, steps: int = 100) -> tuple[Tensor, Tensor]:
    """Fit (slope, offset) of the logistic regression of target on x (N) by Newton's method, each sample with its weight.

    A step is halved until the loss falls: where a few logits are far out, the slope is large in units of their deviation.
    """
    design, sign = torch.stack([x, torch.ones_like(x)], 1), 1 - 2 * target

    def loss(weights: Tensor) -> Tensor:
        return (weight * F.softplus(sign * (design @ weights))).mean() + RIDGE * weights.square().sum() / 2

    weights = x.new_zeros(2)
    for _ in range(steps):
        p = torch.sigmoid(design @ weights)
        gradient = design.T @ (weight * (p - target)) / len(x) + RIDGE * weights
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design / len(x) + RIDGE * torch.eye(2).to(x)
        step, now = torch.linalg.solve(hessian, gradient), loss(weights)
        while loss(weights - step) > now and step.norm() > 1e-12:
            step = step / 2
        weights = weights - step
        if step.norm() < 1e-10 * (1 + weights.norm()):
            break
    return weights[0], weights[1]


class Isotonic:
    """Map a logit by the rising function of the greatest likelihood, joined by straight lines (Zadrozny & Elkan 2002).

    It is constant beyond its ends, where a sample has no slope.
    """

    def __init__(self, real: Tensor, fake: Tensor):
        d, target, weight = Labelled.of(real, fake)
        order = d.argsort()
        blocks: list[tuple[float, float, float]] = []  # sums of targets, of weights and of logits: pool adjacent violators
        for y, w, logit in zip(target[order].tolist(), weight[order].tolist(), d[order].tolist()):
            block = (w * y, w, w * logit)
            while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
                block = (blocks[-1][0] + block[0], blocks[-1][1] + block[1], blocks[-1][2] + block[2])
                blocks.pop()
            blocks.append(block)
        sums, numbers, logits = torch.tensor(blocks, dtype=torch.float64).T
        self.knots, self.values = logits / numbers, torch.logit((sums / numbers).clamp(SHARES, 1 - SHARES))

    def __call__(self, logits: Tensor) -> Tensor:
        knots, values = self.knots.to(logits), self.values.to(logits)
        if len(knots) == 1:
            return logits * 0 + values
        right = torch.searchsorted(knots, logits.detach().contiguous()).clamp(1, len(knots) - 1)
        x0, x1, y0, y1 = knots[right - 1], knots[right], values[right - 1], values[right]
        return y0 + (y1 - y0) * ((logits - x0) / (x1 - x0).clamp_min(1e-12)).clamp(0, 1)


class Diagnosis(NamedTuple):
    """What logits of held-out samples say about a discriminator."""

    steepness: float
    """Platt slope: 1 where the logit is a log ratio, less where it is too steep, more where it is too flat."""

    cross_entropy: float
    """Nats a sample of telling real from fake by the logit as it is: log 2 = .693 says nothing, more is worse than nothing."""

    Z: float
    """sum (y - p) / sqrt(sum p (1 - p)), p = sigmoid(logit): within 2 of 0 where it is calibrated (Turner et al. 2019)."""

    calibrated: float
    """The cross-entropy after logistic calibration, nats."""

    @classmethod
    def of(cls, real: Tensor, fake: Tensor) -> Diagnosis:
        d, y, weight = Labelled.of(real, fake)
        p = torch.sigmoid(d)
        z = (weight * (y - p)).sum() / (weight.square() * p * (1 - p)).sum().sqrt()
        platt = Logistic(real, fake)
        calibrated = cross_entropy(platt(real.double()), platt(fake.double()))
        return cls(float(platt.slope), cross_entropy(real.double(), fake.double()), float(z), calibrated)

    @property
    def said(self) -> str:
        """The figures in words."""
        return (
            f"steepness {self.steepness:.3g}, cross-entropy {self.cross_entropy:.3g} nats, {self.calibrated:.3g} when calibrated, "
            f"Z {self.Z:.3g}"
        )


def cross_entropy(real: Tensor, fake: Tensor) -> float:
    """Return the mean cross-entropy of telling real from fake by these logits, both equally probable, nats."""
    return float((F.softplus(-real).mean() + F.softplus(fake).mean()) / 2)
