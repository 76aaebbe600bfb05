"""Run gan-eval: compute figures for checkpoints of a run, or for samples from any source."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor

from gan_runner.assembly import build, parts
from gan_runner.assembly.signatures import signature
from gan_runner.commands import refining
from gan_runner.commands.groups import Groups, Member
from gan_runner.commands.printed import Printed
from gan_runner.commands.refined import Keep, RefinersOfRun, with_coverage
from gan_runner.commands.settings import Evaluate
from gan_runner.datasets import Dataset
from gan_runner.datasets.stored import Stored
from gan_runner.errors import UserError
from gan_runner.evaluation import seeds
from gan_runner.evaluation.findings import Findings, by_reason, evaluate, settings_of, unmeasurable
from gan_runner.evaluation.metric import Metric
from gan_runner.evaluation.reference import Reference
from gan_runner.execution import hardware
from gan_runner.game.spec import Spec
from gan_runner.loggers import add_to_curves
from gan_runner.refinement import Refiner
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
    run: TrainedRun | None = None  # whose samples they are
    marks: dict[str, Any] = {}  # what the line says besides


class One(NamedTuple):
    """One run, or the samples of one source: the settings with which it is judged, as if it were alone on the line."""

    name: str
    group: int
    settings: Evaluate
    like: str | None  # the run whose parts count where the line names none: itself, for samples the first run of the line


def main(settings: Evaluate, root: str | None, samples: Mapping[str, dict[str, Any]] = MappingProxyType({})) -> None:
    """Run gan-eval: measure, print, and add the figures to the run.

    root: the folder of the data, where the line names it. samples: the data sets that `settings.samples` names, by name.
    """
    refiners = refinable(settings)
    every, grouped = each_alone(settings)
    hardware.use_threads(settings.threads)
    configs = [config_of(one, root) for one in every]  # before the first of them is measured
    given = [stored(one.settings, root, samples.get(one.name)) if one.settings.samples is not None else None for one in every]
    if len(every) > 1:
        refuse_other_shapes(every, configs, given)
    printed = Printed(settings.format, sys.stdout, together=len(every) > 1, grouped=grouped, refined=bool(settings.refiner))
    members: list[list[Member]] = [[] for _ in range(every[-1].group + 1)]
    with Reporter() as reporter:
        for one, config, dataset in zip(every, configs, given):
            run = Path(str(one.settings.run)) if one.settings.run is not None else None
            lines = judge(one, config, dataset, refiners, printed, reporter)
            members[one.group] += [Member(one.name, run, line) for line in lines[-1:]]
        groups = Groups(members)
        printed.end(groups)
        for note in groups.notes() if len(every) > 1 else ():
            reporter.say(f"note: {note}")


def refinable(settings: Evaluate) -> dict[str, Refiner]:
    """Construct the refiners of a line. UserError where they are chosen for what they cannot refine, or keys of refiners without one."""
    refiners = refining.made(settings)
    if not settings.refiner and settings.every is not None:
        raise UserError(f"every={settings.every}: this is for refiners, and none is chosen: 'refiner=[NAME]'")
    if settings.refiner and (settings.samples is not None or not isinstance(settings.run, str)):
        raise UserError("refiners work with the networks of one run: say run=RUN_DIR, without samples=, and type a line for each run")
    return refiners


def each_alone(settings: Evaluate) -> tuple[list[One], bool]:
    """List the runs and samples of the line, and whether it has groups of them. UserError where there are none, or one is there twice."""
    of_runs, of_samples = groups_of("run", settings.run), groups_of("samples", settings.samples)
    every = [One(name, i, replace(settings, run=name, samples=None), name) for i, group in enumerate(of_runs) for name in group]
    first = every[0].name if every else None
    for i, group in enumerate(of_samples, len(of_runs)):
        every += [One(name, i, replace(settings, run=None, samples=name), first) for name in group]
    if not every:
        raise UserError("say what to judge: run=RUN_DIR or samples=FOLDER_OR_FILE")
    names = [one.name for one in every]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{again} is named twice")
    if len(every) > 1 and settings.out is not None:
        raise UserError(f"out={settings.out}: the figures of several runs are added to each of them")
    grouped = any(isinstance(each, tuple) for listed in (settings.run, settings.samples) if isinstance(listed, tuple) for each in listed)
    if grouped and settings.checkpoint == "all":
        raise UserError("checkpoint=all: groups are compared at one checkpoint of each run")
    return every, grouped


def groups_of(key: str, value: str | tuple[Any, ...] | None) -> list[tuple[str, ...]]:
    """Return the groups that a key names; what is in none is a group of its own. UserError for an empty list."""
    listed = value if isinstance(value, tuple) else () if value is None else (value,)
    groups = [each if isinstance(each, tuple) else (each,) for each in listed]
    if value is not None and not (groups and all(groups)):
        raise UserError(f"{key} has no value: there is none in the list")
    return groups


def refuse_other_shapes(every: Sequence[One], configs: Sequence[dict[str, Any]], given: Sequence[Dataset | None]) -> None:
    """Raise UserError where not all samples have the same shape."""
    shapes = {}
    for one, config, dataset in zip(every, configs, given):
        if dataset is None:
            saved = build.plain(directory.read_config(Path(str(one.settings.run))))
            dataset = parts.make_one(config | {"dataset": saved["dataset"]}, one.settings.packages, "dataset")
        shapes[one.name] = dataset.spec.shape
    first = every[0].name
    if other := next((name for name, shape in shapes.items() if shape != shapes[first]), None):
        raise UserError(f"samples of {first} have the shape {shapes[first]} and those of {other} {shapes[other]}: judge them one by one")


def config_of(one: One, root: str | None) -> dict[str, Any]:
    """Return the parts with which a run, or samples, are judged. UserError where they cannot be."""
    for folder in filter(None, {one.like, one.settings.out}):
        contents.refuse_foreign(Path(folder))
    saved = build.plain(directory.read_config(Path(one.like))) if one.like else {}
    if saved and root is not None and "root" in saved["dataset"]:
        saved["dataset"]["root"] = root
    return chosen(one.settings, root, saved)


def judge(
    one: One, config: dict[str, Any], given: Dataset | None, refiners: Mapping[str, Refiner], printed: Printed, reporter: Reporter
) -> list[dict[str, Any]]:
    """Measure the checkpoints of one run, or samples, with these parts, and print and add the figures. Returns the lines.

    given: the samples; None: those of the run.
    """
    settings = one.settings
    device, place = hardware.device_of(settings.accelerator), settings.out or settings.run
    every = subjects(settings, given, device, reporter.say)
    if printed.together:
        every = (judged._replace(name=one.name if given is not None else f"{one.name}: {judged.name}") for judged in every)
    return measure_all(every, settings, config, device, partial(add, Path(str(place))) if place else None, reporter, printed, refiners)


def measure_all(
    every: Iterable[Judged],
    settings: Evaluate,
    config: dict[str, Any],
    device: torch.device,
    keep: Keep | None,
    reporter: Reporter,
    printed: Printed,
    refiners: Mapping[str, Refiner] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Measure one after another by the metrics of these parts, print and keep the figures; returns the lines.

    refiners: of each checkpoint, whose samples are judged beside those of the generator. UserError if a figure cannot be computed.
    """
    countdown = Countdown(reporter)
    reference, metrics, lines = None, None, []
    for judged in every:
        if metrics is None:
            dataset, first = real(settings, config), judged.subjects[0]
            spec = known(dataset, first)
            if refiners:
                config = with_coverage(config, settings.packages, spec.kind.bounded, reporter.say)
            metrics = build.make_metrics(config, settings.packages, spec)
            if dataset is not None:
                if found := dataset.summary():
                    reporter.say(f"real: {found}")
                reference = Reference(
                    dataset, settings.split,
                    n=settings.n_real, device=device, batch_size=settings.batch_size, tick=countdown.at,
                    order=first.spec if first.labelled else None,
                )  # fmt: skip
        measured = replace(settings, metric=config["metric"])
        comparison = RefinersOfRun(judged.run, measured, metrics, reference, reporter) if refiners and judged.run else None
        lines.append(measure(judged, metrics, reference, measured, keep, reporter, printed))
        if comparison is not None:
            comparison.compare(judged.name, refiners, lines[-1], keep, printed)
    return lines


def chosen(settings: Evaluate, root: str | None, saved: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of the command line, else those of the run. UserError for parts that cannot be built, or without a metric."""
    config = {"metric": settings.metric or saved.get("metric") or {}, "extractor": settings.extractor or saved.get("extractor") or {}}
    if "_target_" in settings.dataset:
        config["dataset"] = without_root(settings.dataset, root, settings.packages)
    elif saved:
        config["dataset"] = saved["dataset"]
    if not config["metric"]:
        raise UserError("no metric is chosen: say 'metric=[...]'; gan-eval --help lists them")
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
        return Stored(str(settings.samples), settings.resize, settings.column, keys=True)
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
        yield of_checkpoint(TrainedRun(folder, path, settings.packages, device, settings.ema), settings)


def of_checkpoint(run: TrainedRun, settings: Evaluate) -> Judged:
    """Return what is judged of a checkpoint. While its run is watched, others are not looked at: which there are depends on the time."""
    make = partial(
        Generated, run.generator, settings.n, run.spec,
        device=run.device, discriminator=run.discriminator, snapshots=None if settings.watch else run.snapshots, source=run.source,
        clock=time.perf_counter,
    )  # fmt: skip
    subjects: list[Subject] = [make(seed=seed) for seed in range(settings.seed, settings.seed + settings.seeds)]
    protocol = {"checkpoint": run.path.name, "generator": run.whose}
    return Judged(f"round {run.step}", subjects, run.step, run.step * run.config["batch_size"], protocol, run)


def measure(
    judged: Judged,
    metrics: dict[str, Metric],
    reference: Reference | None,
    settings: Evaluate,
    keep: Keep | None,
    reporter: Reporter,
    printed: Printed,
) -> dict[str, Any]:
    """Measure, print and keep; returns the line.

    UserError if a metric cannot be computed; of a run that goes on, that figure is null, as in training.
    """
    findings: list[Findings] = []
    for subject in judged.subjects:
        refuse_missing(unmeasurable(metrics, subject, reference))
        tick = Countdown(reporter, f"judging {judged.name}: ").at
        findings.append(evaluate(subject, metrics, reference, batch_size=settings.batch_size, tick=tick))
        if not settings.watch:
            refuse_missing(findings[-1].protocol.get("missing", {}))
    found, missing = findings[0], findings[0].protocol.get("missing", {})
    numbers, protocol = found.numbers, found.protocol | judged.protocol | {"metrics": settings_of(settings.metric or {})}
    if len(findings) > 1:
        numbers, intervals = seeds.over_seeds(findings)
        protocol |= {"seeds": [subject.seed for subject in judged.subjects], "intervals_95": intervals}
        sentences = [f"{key} {numbers[key]:.5g}  [{low:.5g}, {high:.5g}]" for key, (low, high) in intervals.items()]
    else:
        sentences = [metrics[name].sentence(figures) for name, figures in found.figures.items() if name not in missing]
    if printed.kind != "table":  # which says the same
        for sentence in sentences:
            reporter.say(f"{judged.name}: {sentence}")
    line = found.line(judged.step, judged.images, metrics=numbers, protocol=protocol, **judged.marks)
    reporter.pause()
    printed.add(judged.name, line)
    for note in protocol.get("notes", []):
        reporter.say(f"note: {note}")
    for name, reason in missing.items():
        reporter.say(f"{judged.name}: {name} is null: {reason}")
    if keep is not None:
        keep(line, found.pictures)
    return line


def add(out: Path, line: dict[str, Any], pictures: dict[str, Tensor]) -> None:
    """Add a line, its curves and its pictures to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    values, pictures = drawn(out, line, pictures)
    directory.add_evaluation(out, line, pictures)
    add_to_curves(out, line["step"], values, pictures)


def drawn(out: Path, line: dict[str, Any], pictures: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the figures and pictures of a line by the names of their curves."""
    names = records.drawn(out, [*line["metrics"], *pictures], line["protocol"])
    values = {names[key]: value for key, value in line["metrics"].items() if value is not None}
    return values, {names[key]: picture for key, picture in pictures.items()}


def refuse_missing(reasons: dict[str, str]) -> None:
    """Raise UserError if there is a reason why a metric cannot be computed; reasons: metric -> reason."""
    if reasons:
        raise UserError("\n".join(f"{names} cannot be computed: {reason}" for reason, names in by_reason(reasons).items()))
