"""Run gan-eval: compute figures for checkpoints of a run, or for samples from any source."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf

from gan_runner.assembly import build, parts
from gan_runner.assembly.signatures import signature
from gan_runner.commands.printed import Printed
from gan_runner.commands.settings import Evaluate
from gan_runner.datasets import Dataset
from gan_runner.datasets.stored import Stored
from gan_runner.errors import UserError
from gan_runner.evaluation import seeds
from gan_runner.evaluation.findings import Findings, evaluate, settings_of, unmeasurable
from gan_runner.evaluation.metric import Metric
from gan_runner.evaluation.reference import Reference
from gan_runner.execution import hardware
from gan_runner.game.spec import Spec
from gan_runner.loggers import add_to_curves
from gan_runner.reporting import Countdown, Reporter
from gan_runner.sampling.subjects import Collected, Generated, Subject
from gan_runner.storage import contents, directory, records
from gan_runner.storage.checkpoint import numbered
from gan_runner.trained import TrainedRun


class Judged(NamedTuple):
    """What becomes one line of metrics.jsonl: one subject for each seed, and the step of its checkpoint."""

    name: str
    subjects: list[Subject]
    step: int
    images: int
    protocol: dict[str, Any]


def main(settings: Evaluate, root: str | None, samples: dict[str, Any] | None = None) -> None:
    """Run gan-eval: measure, print, and add the figures to the run.

    root: the folder of the data, where the line names it. samples: the data set that `settings.samples` names, where it names one.
    """
    if (settings.run is None) == (settings.samples is None):
        raise UserError("say what to judge: either run=RUN_DIR or samples=FOLDER_OR_FILE")
    runs = settings.run if isinstance(settings.run, tuple) else (settings.run,)
    if not runs:
        raise UserError("run=[]: there is no run")
    if len(runs) > 1 and settings.out is not None:
        raise UserError(f"out={settings.out}: the figures of several runs are added to each of them")
    hardware.use_threads(settings.threads)
    each = [replace(settings, run=run) for run in runs]
    configs = [config_of(one, root) for one in each]  # before the first of them is measured
    printed = Printed(settings.format, sys.stdout, together=len(runs) > 1)
    for one, config in zip(each, configs):
        judge(one, config, root, samples, printed)
    printed.end()


def config_of(settings: Evaluate, root: str | None) -> dict[str, Any]:
    """Return the parts with which a run, or samples, are judged. UserError where they cannot be."""
    for folder in filter(None, {settings.run, settings.out}):
        contents.refuse_foreign(Path(str(folder)))
    saved = build.plain(directory.read_config(Path(str(settings.run)))) if settings.run else {}
    if saved and root is not None and "root" in saved["dataset"]:
        saved["dataset"]["root"] = root
    return chosen(settings, root, saved)


def judge(settings: Evaluate, config: dict[str, Any], root: str | None, samples: dict[str, Any] | None, printed: Printed) -> None:
    """Measure the checkpoints of one run, or samples, with these parts, and print and add the figures."""
    device, packages = hardware.device_of(settings.accelerator), settings.packages
    place = settings.out or settings.run
    out = Path(str(place)) if place else None
    with Reporter() as reporter:
        countdown = Countdown(reporter)
        reference, metrics = None, None
        given = stored(settings, root, samples) if settings.samples is not None else None
        for judged in subjects(settings, given, device, reporter.say):
            if metrics is None:
                dataset, first = real(settings, config), judged.subjects[0]
                spec = known(dataset, first)
                metrics = build.make_metrics(config, packages, spec)
                if dataset is not None:
                    if found := dataset.summary():
                        reporter.say(f"real: {found}")
                    reference = Reference(
                        dataset, settings.split,
                        n=settings.n_real, device=device, batch_size=settings.batch_size, tick=countdown.at,
                        order=first.spec if first.labelled else None,
                    )  # fmt: skip
            if printed.together:
                judged = judged._replace(name=f"{settings.run}: {judged.name}")
            measure(judged, metrics, reference, replace(settings, metric=config["metric"]), out, reporter, printed)


def chosen(settings: Evaluate, root: str | None, saved: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of the command line, else those of the run. UserError for parts that cannot be built, or without a metric."""
    config = {"metric": settings.metric or saved.get("metric") or {}, "extractor": settings.extractor or saved.get("extractor") or {}}
    if "_target_" in settings.dataset:
        config["dataset"] = without_root(settings.dataset, root, settings.packages)
    elif saved:
        config["dataset"] = saved["dataset"]
    if not config["metric"]:
        raise UserError("no metric is chosen: say metric=[...]; gan-eval --help lists them")
    refuse_mistakes(config, settings.packages)
    made: Any = OmegaConf.to_container(parts.whole_numbers(OmegaConf.create(config), settings.packages))
    return made


def without_root(node: dict[str, Any], root: str | None, packages: Sequence[str]) -> dict[str, Any]:
    """Return a data set without `root`, which evaluate.yaml has for all of them, where it takes none and the line named none."""
    known = signature(parts.locate(node["_target_"], Dataset, "dataset", packages))
    unasked = {"root"} - known.keys() if root is None else set()
    return {key: value for key, value in node.items() if key not in unasked}


def refuse_mistakes(config: dict[str, Any], packages: Sequence[str]) -> None:
    """Raise UserError for all that is wrong with the parts that are there."""
    asked = [part for part in parts.parts_of(config) if part.path.split(".")[0] in config]
    mistakes = [line for part in asked for line in parts.mistakes_in(part, packages)]
    if mistakes:
        raise UserError("\n".join(mistakes))


def stored(settings: Evaluate, root: str | None, node: dict[str, Any] | None) -> Dataset:
    """Return the samples of the command line: those of the data set `node`, else of a folder or file. UserError as for the real ones."""
    if node is None:
        assert settings.samples is not None
        return Stored(settings.samples, settings.resize, settings.column, keys=True)
    config = {"dataset": without_root(node, root if "root" in node else None, settings.packages)}
    refuse_mistakes(config, settings.packages)
    return parts.make_one(config, settings.packages, "dataset")


def real(settings: Evaluate, config: dict[str, Any]) -> Dataset | None:
    """Return the real samples of the command line, else those of the run."""
    if settings.reference is not None and "_target_" not in settings.dataset:
        return Stored(settings.reference, settings.resize, settings.column, keys=True)
    return parts.make_one(config, settings.packages, "dataset") if "dataset" in config else None


def known(dataset: Dataset | None, subject: Subject) -> Spec:
    """Return the spec for metrics, with the classes of the samples. UserError if samples and real ones have different shapes."""
    spec = subject.spec
    if dataset is None:
        return spec
    there = dataset.spec
    if there.shape != spec.shape:
        way_out = "; resize=SIDE makes images of files one size" if len(spec.shape) == len(there.shape) == 3 else ""
        raise UserError(
            f"the samples have the shape {spec.shape} and those of {dataset.name} {there.shape}: they cannot be compared{way_out}"
        )
    return there._replace(classes=spec.classes, class_names=spec.class_names or there.class_names) if subject.labelled else there


def subjects(settings: Evaluate, given: Dataset | None, device: torch.device, say: Callable[[str], None]) -> Iterator[Judged]:
    """List what is evaluated: samples that are given, their training split where they have two, or one checkpoint after another."""
    seeds = range(settings.seed, settings.seed + settings.seeds)
    if given is not None:
        given.prepare()
        if found := given.summary():
            say(f"samples: {found}")
        items, spec = given.open("train"), given.spec
        if settings.seeds > 1 and settings.n >= len(items):
            raise UserError(f"seeds={settings.seeds}: all {len(items)} samples are taken each time; choose fewer with n, or seeds=1")
        protocol = (
            {"samples": given.name if isinstance(given, Stored) else f"{given.name}:train"}
            | ({"lossy": "some images were compressed with loss (JPEG)"} if isinstance(given, Stored) and given.lossy else {})
            | given.notes("train")
        )
        made = [Collected(items, spec, settings.n, device, seed, given.to_float) for seed in seeds]
        yield Judged(given.name, list[Subject](made), 0, 0, protocol)
        return
    folder, which = Path(str(settings.run)), settings.checkpoint
    paths = [str(path) for path in numbered(folder / "checkpoints")] if which == "all" else [which]
    if not paths:
        raise UserError(f"there is no step_N.pt in {folder / 'checkpoints'}")
    for path in paths:
        run = TrainedRun(folder, path, settings.packages, device)
        make = partial(
            Generated, run.generator, settings.n, run.spec,
            device=device, discriminator=run.discriminator, snapshots=run.snapshots, source=run.source, clock=time.perf_counter,
        )  # fmt: skip
        protocol = {"checkpoint": run.path.name, "generator": "average of G" if run.averaged else "G"}
        yield Judged(f"round {run.step}", [make(seed=seed) for seed in seeds], run.step, run.step * run.config["batch_size"], protocol)


def measure(
    judged: Judged,
    metrics: dict[str, Metric],
    reference: Reference | None,
    settings: Evaluate,
    out: Path | None,
    reporter: Reporter,
    printed: Printed,
) -> None:
    """Measure, print, and add a line, curves and pictures to the folder `out`. UserError if a metric cannot be computed."""
    findings: list[Findings] = []
    for subject in judged.subjects:
        refuse_missing(unmeasurable(metrics, subject, reference))
        tick = Countdown(reporter, f"judging {judged.name}: ").at
        findings.append(evaluate(subject, metrics, reference, batch_size=settings.batch_size, tick=tick))
        refuse_missing(findings[-1].protocol.get("missing", {}))
    found = findings[0]
    numbers, protocol = found.numbers, found.protocol | judged.protocol | {"metrics": settings_of(settings.metric or {})}
    if len(findings) > 1:
        numbers, intervals = seeds.over_seeds(findings)
        protocol |= {"seeds": [subject.seed for subject in judged.subjects], "intervals_95": intervals}
        sentences = [f"{key} {numbers[key]:.5g}  [{low:.5g}, {high:.5g}]" for key, (low, high) in intervals.items()]
    else:
        sentences = [metrics[name].sentence(figures) for name, figures in found.figures.items()]
    if printed.kind != "table":  # which says the same
        for sentence in sentences:
            reporter.say(f"{judged.name}: {sentence}")
    line = found.line(judged.step, judged.images, metrics=numbers, protocol=protocol)
    reporter.pause()
    printed.add(judged.name, line)
    for note in protocol.get("notes", []):
        reporter.say(f"note: {note}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        names = records.drawn(out, [*numbers, *found.pictures], protocol)
        pictures = {names[key]: picture for key, picture in found.pictures.items()}
        directory.add_evaluation(out, line, pictures)
        add_to_curves(out, judged.step, {names[key]: value for key, value in numbers.items() if value is not None}, pictures)


def refuse_missing(reasons: dict[str, str]) -> None:
    """Raise UserError if there is a reason why a metric cannot be computed; reasons: metric -> reason."""
    if reasons:
        raise UserError("\n".join(f"{name} cannot be computed: {reason}" for name, reason in reasons.items()))
