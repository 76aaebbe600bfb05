"""Refiners against a bare loop with the same passes of the same networks on as many samples."""

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.clock import Summary, tell
from benchmarks.tables import table
from gan_runner.architectures import DCGANDiscriminator, DCGANGenerator
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.spec import Spec
from gan_runner.refinement import Ratio, Refinement, Refiner
from gan_runner.refinement.ratio import Space
from gan_runner.refiners import DDLS, DOT, OBRS, DGflow

STEPS, BATCH = 5, 500
SPEC = Spec((3, 32, 32), None)
REFINERS: dict[str, Callable[[], Refiner]] = {
    "dgflow": lambda: DGflow(steps=STEPS),
    "dgflow, data space": lambda: DGflow(space="data", steps=STEPS),
    "dot": lambda: DOT(steps=STEPS),
    "ddls, adjust": lambda: DDLS(steps=STEPS),
    "obrs": lambda: OBRS(steps=STEPS, calibration="none"),
}


class Pass(NamedTuple):
    """Samples that went through networks together, and whether slopes came back."""

    n: int
    space: Space
    slopes: bool


class Noted(Ratio):
    """A ratio that notes its passes."""

    def __init__(self, generator: Generator, discriminator: Discriminator):
        super().__init__(generator, discriminator)
        self.passes: list[Pass] = []

    def of(self, point: Any, y: Any, space: Space) -> Tensor:
        self.passes.append(Pass(len(point), space, torch.is_grad_enabled()))
        return super().of(point, y, space)


def networks(width: int) -> tuple[Generator, Discriminator]:
    """DCGAN for CIFAR-10 with random weights, in evaluation mode."""
    torch.manual_seed(0)
    G, D = DCGANGenerator(SPEC, width=width), DCGANDiscriminator(SPEC, width=width)
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


def bare(G: Generator, D: Discriminator, passes: Sequence[Pass], n: int) -> None:
    """Only these passes of D o G, or of D, forward and where there are slopes backward to the points; and G once for each sample."""
    for size, space, slopes in passes:
        point = torch.zeros(size, *([G.latent] if space == "latent" else SPEC.shape), requires_grad=slopes)
        with torch.set_grad_enabled(slopes):
            logits = D(G(point) if space == "latent" else point).logits
        if slopes:
            torch.autograd.grad(logits.sum(), point)
    with torch.no_grad():
        for rows in torch.arange(n).split(BATCH):
            G(torch.zeros(len(rows), G.latent))


def cpu_seconds_of(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def refinement(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """CPU seconds of refiners, and of a bare loop with their passes, in turns in one process, on the CPU; `prepare` is not counted."""
    threads, n = torch.get_num_threads(), 20 if arguments.quick else 1000
    torch.set_num_threads(arguments.threads)
    G, D = networks(8 if arguments.quick else 64)
    rows, record = [], {}
    for name, make in REFINERS.items():
        ratio = Noted(G, D)
        made = Refinement(make(), ratio)
        ratio.passes.clear()
        works = {"refiner": lambda: list(made.batches(n, [STEPS], BATCH))}  # noqa: B023
        works["refiner"]()  # this warms up, and notes the passes
        passes = tuple(ratio.passes)
        works["bare"] = lambda: bare(G, D, passes, n)  # type: ignore[assignment,return-value] # noqa: B023
        taken: dict[str, list[float]] = {key: [] for key in works}
        for turn in range(arguments.turns):
            for key in sorted(works, reverse=bool(turn % 2)):
                taken[key].append(cpu_seconds_of(works[key]))
        each = Summary.of([ours / theirs for ours, theirs in zip(taken["refiner"], taken["bare"], strict=True)])
        tell(f"{name}: {each.median:.3f}")
        medians = [f"{Summary.of(taken[key]).median:.3g}" for key in ("refiner", "bare")]
        rows.append([name, *medians, f"{each.median:.3f}", f"{each.low:.3f} ... {each.high:.3f}"])
        record[name] = taken
    torch.set_num_threads(threads)
    said = f"DCGAN for CIFAR-10, random weights, {n:,} samples, {STEPS} steps, {arguments.turns} turns, CPU seconds"
    return f"{said}:\n\n{table(['', 'refiner', 'bare passes', 'refiner / bare', 'spread'], rows)}", record
