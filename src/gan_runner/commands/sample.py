"""Run gan-sample: write samples, or export the generator."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from gan_runner.commands.settings import Sample
from gan_runner.datasets.stored import NAMES
from gan_runner.errors import UserError
from gan_runner.execution import hardware
from gan_runner.reporting import Reporter
from gan_runner.sampling import subjects, walks
from gan_runner.storage import directory, files
from gan_runner.trained import TrainedRun, export, finite


def main(settings: Sample) -> None:
    """Run gan-sample: write samples, or export the generator."""
    run = TrainedRun(Path(settings.run), settings.checkpoint, settings.packages, hardware.device_of(settings.accelerator))
    with Reporter() as reporter:
        if settings.export:
            path = Path(settings.export)
            export(run, path, settings.packages)
            reporter.say(f"generator of round {run.step}: {path}")
            return
        path = write_samples(run, settings)
        reporter.say(f"samples of round {run.step} ({run.path.name}): {path}")


def write_samples(run: TrainedRun, settings: Sample) -> Path:
    """Write samples in the requested format, into `out` or the run's samples/. Returns the path."""
    n, seed, said, kind = settings.n or run.spec.kind.pictured, settings.seed, settings.class_, settings.format
    out = Path(settings.out) if settings.out else None
    try:
        y = None if said is None else run.label_of(said)
    except ValueError as error:
        raise UserError(f"class={said}: {error}") from error
    stem = run.folder / "samples" / f"{run.path.stem}_{kind}_seed{seed}{'' if y is None else f'_class{y}'}"
    columns = settings.columns or (run.spec.kind.walked if kind == "interpolation" else 8)
    if kind == "interpolation":
        x = walks.interpolation(run.generator, max(n // columns, 1), columns, seed=seed, y=y, device=run.device).cpu()
    elif kind == "grid":
        x, width = subjects.gallery(run.generator, n, seed=seed, y=y, device=run.device, source=run.source)
        columns = settings.columns or width
    else:
        x, labels = run.draw(n, y, seed)
    stored = run.spec.kind.as_bytes(finite(run, x))
    if kind == "png":
        if run.spec.kind.suffix != "png":
            known = "grey or RGB, with opacity or without"
            raise UserError(f"format=png writes one picture a sample, {known}; these samples are neither: use format=grid or format=npz")
        path = out or stem
        path.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(stored):
            directory.write_picture(path / f"{i:06d}.png", image)
        return path
    whole = out or stem
    path = ending_in("npz" if kind == "npz" else "png", whole)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "files":
        found = run.dataset.files(x)
        if not found:
            raise UserError(f"format=files: {run.dataset.name} has no files for its samples: use format=grid or format=npz")
        for suffix, content in found.items():
            files.write_bytes(ending_in(suffix, whole), content)
        return ending_in(next(iter(found)), whole)
    if kind == "npz":
        arrays = {"samples": stored.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
        if labels is not None and run.spec.class_names is not None:
            arrays[NAMES] = np.array(run.spec.class_names)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        files.write_bytes(path, buffer.getvalue())
    else:
        look = {"scale": settings.scale, "title": f"round {run.step:,}", "joined": kind == "interpolation"}
        directory.write_picture(path, run.dataset.drawn(x, columns, **look))
    return path


def ending_in(suffix: str, path: Path) -> Path:
    """Return a path with the suffix of its format, which is added to any other name: model_v1.5 becomes model_v1.5.npz."""
    return path if path.suffix.lower() == f".{suffix}" else path.with_name(f"{path.name}.{suffix}")
