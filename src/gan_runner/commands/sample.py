"""Run gan-sample: write samples, or export the generator."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from gan_runner.commands import refining
from gan_runner.commands.settings import Sample
from gan_runner.datasets.stored import NAMES
from gan_runner.errors import UserError
from gan_runner.execution import hardware
from gan_runner.refinement import Refiner, needs_real
from gan_runner.refinement.comparison import made
from gan_runner.reporting import Countdown, Reporter
from gan_runner.sampling import subjects, walks
from gan_runner.storage import directory, files
from gan_runner.storage.untrusted import refuse_too_large
from gan_runner.trained import TrainedRun, export, finite

SHOWN = 8  # steps of a trajectory, and its rows of images
PANELS = 4  # panels of a trajectory side by side


def main(settings: Sample) -> None:
    """Run gan-sample: write samples, or export the generator."""
    refiners = refining.made(settings)
    refuse_misused(settings)
    run = TrainedRun(Path(settings.run), settings.checkpoint, settings.packages, hardware.device_of(settings.accelerator), settings.ema)
    with Reporter() as reporter:
        if settings.export:
            path = Path(settings.export)
            export(run, path, settings.packages)
            reporter.say(f"generator of round {run.step}: {path}")
            return
        path = write_samples(run, settings, refiners, reporter)
        reporter.say(f"samples of round {run.step} ({run.path.name}): {path}")


def refuse_misused(settings: Sample) -> None:
    """Raise UserError for keys of refiners that do not go together."""
    if len(settings.refiner) > 1:
        raise UserError(f"'refiner=[{','.join(settings.refiner)}]': gan-sample takes one; gan-eval compares several")
    if settings.trajectory and not (settings.refiner and settings.format == "grid"):
        raise UserError("trajectory=true draws the steps of a refiner: it needs refiner=NAME and format=grid")
    if settings.refiner and (settings.format == "interpolation" or settings.export):
        what = "export=..." if settings.export else "format=interpolation"
        raise UserError(f"{what} has nothing to refine: leave refiner=... out, or choose another format")
    if settings.dataset["root"] is not None and not settings.refiner:
        raise UserError(f"dataset.root={settings.dataset['root']}: only a refiner looks at data here, and none is chosen: refiner=NAME")


class Drawn(NamedTuple):
    """Samples as data, N ..., their labels, what is said of them, and how a picture of them is laid out."""

    x: Tensor
    labels: Tensor | None
    columns: int
    title: str
    panels: Sequence[str] = ()  # of a picture for each equal part of the samples, their titles


def write_samples(run: TrainedRun, settings: Sample, refiners: Mapping[str, Refiner], reporter: Reporter) -> Path:
    """Write samples in the requested format, into `out` or the run's samples/. Returns the path."""
    refuse_too_large("n", (settings.n or 1) * math.prod(run.spec.shape) * torch.float32.itemsize)
    seed, said, kind = settings.seed, settings.class_, settings.format
    out = Path(settings.out) if settings.out else None
    try:
        y = None if said is None else run.label_of(said)
    except ValueError as error:
        raise UserError(f"class={said}: {error}") from error
    words = [refining.label(*each, settings.packages) for each in settings.refiner.items()] + ["trajectory"] * settings.trajectory
    average = [] if settings.ema is None else [f"ema{settings.ema:g}"]
    stem = "_".join([run.path.stem, *average, kind, f"seed{seed}", *([] if y is None else [f"class{y}"]), *words])
    whole = out or run.folder / "samples" / stem
    drawn = unrefined(run, settings, y) if not refiners else refined(run, settings, *next(iter(refiners.items())), y, reporter)
    stored = run.spec.kind.as_bytes(finite(run, drawn.x))
    if kind == "png":
        if run.spec.kind.suffix != "png":
            known = "grey or RGB, with opacity or without"
            raise UserError(f"format=png writes one picture a sample, {known}; these samples are neither: use format=grid or format=npz")
        whole.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(stored):
            directory.write_picture(whole / f"{i:06d}.png", image)
        return whole
    path = ending_in("npz" if kind == "npz" else "png", whole)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "files":
        found = run.dataset.files(drawn.x)
        if not found:
            raise UserError(f"format=files: {run.dataset.name} has no files for its samples: use format=grid or format=npz")
        for suffix, content in found.items():
            files.write_bytes(ending_in(suffix, whole), content)
        return ending_in(next(iter(found)), whole)
    if kind == "npz":
        write_arrays(path, run, stored, drawn.labels)
    else:
        directory.write_picture(path, picture(run, drawn, settings))
    return path


def unrefined(run: TrainedRun, settings: Sample, y: int | None) -> Drawn:
    """Draw samples as the generator makes them."""
    n, kind, title = settings.n or run.spec.kind.pictured, settings.format, f"round {run.step:,}"
    if kind == "interpolation":
        columns = settings.columns or run.spec.kind.walked
        x = walks.interpolation(run.generator, max(n // columns, 1), columns, seed=settings.seed, y=y, device=run.device)
        return Drawn(x.cpu(), None, columns, title)
    if kind == "grid":
        x, width = subjects.gallery(run.generator, n, seed=settings.seed, y=y, device=run.device, source=run.source)
        return Drawn(x, None, settings.columns or width, title)
    return Drawn(*run.draw(n, y, settings.seed), 8, title)


def refined(run: TrainedRun, settings: Sample, name: str, refiner: Refiner, y: int | None, reporter: Reporter) -> Drawn:
    """Draw refined samples, and say what they cost."""
    networks, _ = refining.networks(run, settings)
    reference = refining.reference_of(run, settings.dataset["root"]) if needs_real(refiner, networks.centre) else None
    fitted = networks.fitted(refiner, settings.seed, y, reference)
    steps, by_rows = fitted.refiner.steps, run.spec.kind.drawable
    if steps == "auto":
        raise UserError(f"refiner.{name}.steps=auto: gan-eval chooses it, by figures; then say refiner.{name}.steps=NUMBER here")
    at = sorted({round(i * steps / (SHOWN - 1)) for i in range(SHOWN)}) if settings.trajectory else [steps]
    n = settings.n or (SHOWN if settings.trajectory and by_rows else run.spec.kind.pictured)
    samples = made(fitted, n, at, Countdown(reporter).at)
    for note in fitted.notes:
        reporter.say(f"note: {note}")
    cost = samples.costs[steps]
    reporter.say(
        f"{name}: {steps} steps, {cost.evaluations:.4g} evaluations and {cost.gradients:.4g} gradients of D a sample, "
        f"{1000 * cost.seconds:.3g} s for 1,000"
    )
    title = f"round {run.step:,}, {name}"
    if not settings.trajectory:
        return Drawn(samples.x[steps], samples.y, settings.columns or 8, title)
    if by_rows:
        return Drawn(torch.stack([samples.x[step] for step in at], 1).flatten(0, 1), None, len(at), title)
    return Drawn(torch.cat([samples.x[step] for step in at]), None, settings.columns or 8, title, [f"step {step}" for step in at])


def picture(run: TrainedRun, drawn: Drawn, settings: Sample) -> Tensor:
    """Draw samples, or a panel for each equal part of them, side by side; returns pixels, 3 H W."""
    look: dict[str, Any] = {"scale": settings.scale, "title": drawn.title, "joined": settings.format == "interpolation"}
    if not drawn.panels:
        return run.dataset.drawn(drawn.x, drawn.columns, **look)
    parts = drawn.x.chunk(len(drawn.panels))
    panels = [run.dataset.drawn(x, drawn.columns, **look | {"title": title}) for x, title in zip(parts, drawn.panels)]
    height, width = (max(panel.shape[side] for panel in panels) for side in (1, 2))
    panels += [torch.full_like(panels[0], 255)] * (-len(panels) % PANELS)
    padded = [pad(panel, (0, width - panel.shape[2], 0, height - panel.shape[1]), value=255) for panel in panels]
    return torch.cat([torch.cat(padded[i : i + PANELS], 2) for i in range(0, len(padded), PANELS)], 1)


def write_arrays(path: Path, run: TrainedRun, stored: Tensor, labels: Tensor | None) -> None:
    """Write samples, their labels and the names of classes as .npz."""
    arrays = {"samples": stored.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
    if labels is not None and run.spec.class_names is not None:
        arrays[NAMES] = np.array(run.spec.class_names)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    files.write_bytes(path, buffer.getvalue())


def ending_in(suffix: str, path: Path) -> Path:
    """Return a path with the suffix of its format, which is added to any other name: model_v1.5 becomes model_v1.5.npz."""
    return path if path.suffix.lower() == f".{suffix}" else path.with_name(f"{path.name}.{suffix}")
