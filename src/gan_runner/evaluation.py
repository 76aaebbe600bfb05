"""Samples of a generator, and what the metrics say of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gan_runner.architectures.network import Generator
from gan_runner.datasets import to_uint8
from gan_runner.draws import Draws, seeded
from gan_runner.errors import UserError

if TYPE_CHECKING:
    from gan_runner.datasets import Spec
    from gan_runner.extractors import Extractor
    from gan_runner.metrics import Metric


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, without touching what training sees."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def samples(
    generator: Generator, n: int, *, seed: int = 0, y: Tensor | int | None = None, batch_size: int = 500, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """n samples as data (N ..., float), a batch at a time; the same ones whatever the batch size.

    y: labels (N) or one label for all; None: uniform over the classes of a conditional generator. ValueError where it takes no labels.
    """
    if y is not None and generator.classes is None:
        raise ValueError("this generator takes no labels")
    draws = Draws(seeded("evaluation", seed, device=device), n)
    labels = torch.full((n,), y, device=device) if isinstance(y, int) else y
    with evaluating(generator):
        for start in range(0, n, batch_size):
            mine = draws.of(slice(start, start + batch_size))
            z, drawn = generator.prior(mine), generator.labels(mine)
            asked = drawn if labels is None else labels[start : start + batch_size].to(device)
            yield generator.show(generator(z, asked)).float()


def unmeasurable(metrics: dict[str, Metric], extractor: Extractor | None) -> str | None:
    """Why the metrics that read an extractor's output cannot be computed; None where they can."""
    if all(metric.reads == "samples" for metric in metrics.values()):
        return None
    return "no extractor is chosen (extractor=...)" if extractor is None else extractor.available()


def evaluate(
    generator: Generator,
    metrics: dict[str, Metric],
    extractor: Extractor | None,
    spec: Spec,
    *,
    n: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    tick: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, dict[str, float | None]], dict[str, Any]]:
    """(name of a metric -> its figures by key, None where one cannot be computed; the protocol).

    One pass of the extractor serves every metric.
    """
    reason = unmeasurable(metrics, extractor)
    home = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    measured = {name: metric for name, metric in metrics.items() if metric.reads == "samples" or reason is None}
    for metric in measured.values():
        metric.reset()
        metric.to(home)
    extracting = extractor is not None and any(metric.reads != "samples" for metric in measured.values())
    if extractor is not None and extracting:
        extractor.load()
        extractor.to(device)
    done = 0
    for batch in samples(generator, n, seed=seed, batch_size=batch_size, device=device):
        values = {"samples": batch}
        if extractor is not None and extracting:
            extracted = extractor(to_uint8(batch) if spec.is_image else batch)
            values |= {"features": extracted.features, "logits": extracted.logits}
        for metric in measured.values():
            metric.update(values[metric.reads].to(home))
        done += len(batch)
        tick(done)
    name = extractor.name if extractor is not None else None
    found: dict[str, dict[str, float | None]] = {}
    for key, metric in metrics.items():
        figures = metric.figures(name) if key in measured else {metric.prefix(name): float("nan")}
        found[key] = {figure: float(value) if math.isfinite(value) else None for figure, value in figures.items()}
    protocol: dict[str, Any] = {"n_fake": n, "seed": seed}
    if extracting and extractor is not None:
        protocol |= {"extractor": extractor.name, "extractor_sha256": extractor.checksum, "images": "uint8, rounded"}
    if reason is not None:
        protocol["missing"] = reason
    return found, protocol


def interpolation(generator: Generator, rows: int, columns: int, *, seed: int, device: torch.device | str) -> Tensor:
    """Walks between pairs of latents, rows x columns samples, row by row; a row keeps its label.

    Spherical for the normal prior, so that the latents keep a typical length (White 2016): z(t) = [sin((1-t)w) a + sin(tw) b] / sin(w).
    """
    if columns < 2:
        raise UserError(f"an interpolation needs at least 2 columns, not {columns}")
    with torch.no_grad(), evaluating(generator):
        draws = Draws(seeded("evaluation", seed, device=device), 2 * rows)
        a, b = generator.prior(draws).chunk(2)
        y = generator.labels(draws)
        t = torch.linspace(0, 1, columns, device=a.device)
        z = torch.stack([slerp(a, b, share) for share in t], 1).flatten(0, 1)
        labels = None if y is None else y[:rows].repeat_interleave(columns)
        return generator.show(generator(z, labels)).float()


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The point a share t of the way along the arc from a to b, N Z; a straight line where they are (anti)parallel."""
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)[:, None]
    angle = cosine.acos()
    sine = angle.sin()
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine.clamp_min(1e-6)
    return torch.where(sine < 1e-4, torch.lerp(a, b, t), arc)
