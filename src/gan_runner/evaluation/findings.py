"""Compute the metrics of samples, with the protocol of the measurement."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gan_runner import distributed
from gan_runner.datasets.dataset import unheard
from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import Extractor
from gan_runner.evaluation.metric import Direction, Need
from gan_runner.game.spec import Spec
from gan_runner.reporting import Tick
from gan_runner.sampling.subjects import NOT_FINITE, Subject

if TYPE_CHECKING:
    from gan_runner.evaluation.metric import Metric
    from gan_runner.evaluation.reference import Reference


MISSING: dict[Need, str] = {
    "reference": "there are no real samples to compare with (reference=...)",
    "labels": "it needs labels of both real and fake samples",
    "generator": "it looks at a generator, and there are only samples",
    "log_prob": "it asks how probable data are, and no generator is there that overrides log_prob",
    "encoder": "it asks from which latents data come, and no generator is there that overrides encode",
    "discriminator": "it looks at a discriminator, and there is none",
    "snapshots": "it looks at the checkpoints of a whole run: use gan-eval run=RUN_DIR, without watch",
    "clock": "it measures time, and figures of training are the same whether it was resumed or not: use gan-eval run=RUN_DIR",
}
VERBS: dict[Need, str] = {"log_prob": "log_prob", "encoder": "encode"}  # what a generator has to override


class Findings(NamedTuple):
    """The results of an evaluation."""

    figures: dict[str, dict[str, float | None]]  # name of a metric -> whole key -> figure; None: it could not be computed
    protocol: dict[str, Any]
    pictures: dict[str, Tensor]  # whole key -> uint8, 3 H W
    better: dict[str, Direction]  # whole key -> which way is better; what is not there is better neither way

    @property
    def numbers(self) -> dict[str, float | None]:
        """Return all figures by key."""
        return {key: value for figures in self.figures.values() for key, value in figures.items()}

    def line(self, step: int, images: int, **changed: Any) -> dict[str, Any]:
        """Make the line of metrics.jsonl. changed: entries to replace or add."""
        return {"step": step, "images": images, "metrics": self.numbers, "better": self.better, "protocol": self.protocol} | changed


def settings_of(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what a protocol says of the configurations of metrics. `through` is left out: a protocol names the network of a figure."""
    return {name: {key: value for key, value in node.items() if key != "through"} for name, node in metrics.items()}


def unmeasurable(metrics: Mapping[str, Metric], subject: Subject, reference: Reference | None) -> dict[str, str]:
    """Return the metrics that cannot be computed: name -> reason."""
    reasons: dict[str, str] = {}
    for name, metric in metrics.items():
        lacking = [reason for need in sorted(metric.needs - {"extractor"}) if (reason := missing(need, subject, reference)) is not None]
        if metric.extracts and metric.network is None:
            lacking.append("no extractor is chosen ('extractor=[...]')")
        elif "logits" in metric.reads and not metric.extractor.classifies:
            lacking.append(f"it reads the outputs of a classifier, and {metric.extractor.name} is none")
        elif metric.extracts and (reason := unfit(metric.extractor, subject.spec) or metric.extractor.available()):
            lacking.append(reason)
        if lacking:
            reasons[name] = "; ".join(lacking)
    return reasons


def by_reason(reasons: Mapping[str, str]) -> dict[str, str]:
    """Return what `unmeasurable` found as reason -> names, each reason once: a file that is missing concerns every metric that reads it."""
    return {reason: ", ".join(name for name in reasons if reasons[name] == reason) for reason in reasons.values()}


def unfit(extractor: Extractor, spec: Spec) -> str | None:
    """Return why an extractor does not accept samples of this shape; None if it does, or if its own `forward` decides."""
    if type(extractor).forward is not Extractor.forward:
        return None
    try:
        extractor.check(torch.zeros(1, *spec.shape, dtype=torch.uint8))
    except ValueError as error:
        return str(error)
    return None


def missing(need: Need, subject: Subject, reference: Reference | None) -> str | None:
    """Return why a need of a metric is not met; None if it is met. For labels, this may read the real samples."""
    if need == "labels":
        try:
            without = None if subject.labelled else "the samples"
            if without is None and (reference is None or reference.labels is None):
                without = "the real samples"
        except UserError as error:  # the classes are others
            return f"{MISSING[need]}, and {error}"
        return without and f"{MISSING[need]}, and {without} have none"
    if need in ("generator", "snapshots") and subject.generator is not None and subject.generator.overrides("asked"):
        return "it makes samples from latents alone, and this generator works on data"
    if need in VERBS:
        there = subject.generator is not None and subject.generator.overrides(VERBS[need])
    else:
        there = (reference if need == "reference" else getattr(subject, need)) is not None
    return None if there else MISSING[need]


def looks_through(metrics: Mapping[str, Metric]) -> list[Extractor]:
    """Return the networks that metrics look through, each once."""
    return list({id(metric.network): metric.network for metric in metrics.values() if metric.network is not None}.values())


def prefix_of(name: str, metric: Metric) -> str:
    """Return the key of a metric's figures; its name if it needs an extractor and there is none."""
    return name if metric.extracts and metric.network is None else metric.prefix(metric.network)


def means(metrics: Mapping[str, Metric]) -> dict[str, list[str]]:
    """Return the keys of means over networks, each with the names of the metrics whose figures it is of."""
    found: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if metric.mean_key is not None and metric.network is not None:
            found.setdefault(metric.mean_key, []).append(name)
    return {key: names for key, names in found.items() if len(names) > 1}


def refuse_same_keys(metrics: Mapping[str, Metric]) -> None:
    """Raise UserError if two metrics have the same key, as one figure would overwrite the other."""
    names: dict[str, str] = {}
    for name, metric in metrics.items():
        prefix = prefix_of(name, metric)
        if names.setdefault(prefix, name) != name:
            other, _, network = name.partition(".")
            way_out = f"~extractor.{network}" if other == names[prefix].partition(".")[0] else f"~metric.{other}"
            raise UserError(f"metric.{names[prefix]} and metric.{name} both measure {prefix}; take one of them out: {way_out}")


def evaluate(
    subject: Subject,
    metrics: Mapping[str, Metric],
    reference: Reference | None = None,
    *,
    batch_size: int = 500,
    tick: Tick = unheard,
) -> Findings:
    """Compute the figures of a subject. A figure that cannot be computed is None, with the reason in the protocol.

    metrics: by name; those of several networks by `name.network`. Samples are made once and passed through each network once.

    Each process takes a contiguous share of the samples, and sample i is the same on every rank. So neither the number of processes nor
    batch_size changes a figure. Uses no global random generator of torch. tick is called with the progress.
    """
    device, reasons = subject.device, unmeasurable(metrics, subject, reference)
    home = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    measured = {name: metric for name, metric in metrics.items() if name not in reasons}
    for metric in measured.values():
        metric.reset()
        metric.to(home)
        if "reference" in metric.needs and reference is not None:
            metric.reference = reference if metric.network is None else reference.through(metric.network)
    for network in looks_through(measured):
        network.load()
        network.to(device)
    seen, broken, dark, kind = 0, False, True, subject.spec.kind
    notes: list[str] = []
    networks = looks_through({name: metric for name, metric in measured.items() if {"features", "logits"} & set(metric.reads)})
    if any(metric.reads for metric in measured.values()):
        rows = distributed.rows(subject.n)
        for x, y in subject.batches(rows, batch_size):
            broken |= not x.isfinite().all()
            dark &= kind.nearly_black(x)
            shown = kind.as_bytes(x) if networks and not broken else x
            outputs = {id(network): network(shown)._asdict() for network in ([] if broken else networks)}
            for name, metric in {} if broken else measured.items():  # of samples that are not finite there is no figure
                values = {"samples": x, "y": y} | outputs.get(id(metric.network), {})
                metric.update(*[given(values, field, name).to(home) for field in metric.reads])
            seen += len(x)
            tick("samples", seen, len(rows))
        if distributed.agree(int(broken)):
            reasons |= {name: NOT_FINITE for name, metric in measured.items() if metric.reads}
        elif not distributed.agree(int(not dark)):
            notes.append(nearly_black("samples"))
    figures: dict[str, dict[str, float | None]] = {}
    pictures: dict[str, Tensor] = {}
    keys: dict[str, dict[str, str]] = {}
    several = len(looks_through(measured)) > 1
    for name, metric in metrics.items():
        prefix = prefix_of(name, metric)
        keys[prefix] = {"metric": name.partition(".")[0], "reads": ", ".join(sorted({*metric.reads, *metric.needs}))}
        keys[prefix] |= described(metric.extractor) if several and metric.extracts and name in measured else {}
        if name in reasons:
            figures[name] = {prefix: None}
            continue
        try:
            metric.tick = partial(tick, name)
            metric.examine(subject)
            figures[name] = {key: float(value) if math.isfinite(value) else None for key, value in metric.figures(metric.network).items()}
            pictures |= {f"{prefix}/{key}" if key else prefix: picture for key, picture in metric.pictures(subject).items()}
        except UserError as error:  # such as too few samples: the other figures are kept
            figures[name], reasons[name] = {prefix: None}, str(error)
    for key, names in means(metrics).items():
        values = [figures[name].get(prefix_of(name, metrics[name])) for name in names]
        known = [value for value in values if value is not None]
        figures[names[-1]][key] = statistics.fmean(known) if len(known) == len(values) else None
        keys[key] = dict(keys[prefix_of(names[0], metrics[names[0]])]) | together([metrics[name].extractor for name in names])
    notes += [f"{name}: {note}" for name in figures if name not in reasons for note in metrics[name].notes()]
    compared = reference if any("reference" in metric.needs for metric in measured.values()) else None
    if compared is not None and compared.nearly_black:
        notes.append(nearly_black("real images"))
    said = (
        protocol(subject, [] if several else looks_through(measured), compared, reasons)
        | {"keys": keys}
        | ({"notes": notes} if notes else {})
    )
    return Findings(figures, said, pictures, directions(figures, metrics))


def directions(figures: Mapping[str, Mapping[str, float | None]], metrics: Mapping[str, Metric]) -> dict[str, Direction]:
    """Find which way is better, by whole key, of the figures of each metric."""
    prefixes = {name: prefix_of(name, metrics[name]) for name in figures}
    found = {
        key: metrics[name].direction("" if key == metrics[name].mean_key else key[len(prefixes[name]) + 1 :])
        for name, each in figures.items()
        for key in each
    }
    return {key: direction for key, direction in found.items() if direction is not None}


def aim(name: str, metrics: Mapping[str, Metric]) -> tuple[str, Direction | None] | None:
    """Find the figure that best.pt or a search follows: (its key, which way is better). None: no metric measures it.

    name: a key, or the name of a metric. The key of a metric is that of its prefix, where this has a direction, else the first that has
    one; of several networks the first counts whose weights can be loaded.
    """
    if same := {each: metric for each, metric in metrics.items() if name in (each, each.partition(".")[0])}:
        usable = (each for each, metric in same.items() if len(same) == 1 or metric.extractor.available() is None)
        chosen = next(usable, next(iter(same)))
        metric = same[chosen]
        rests = sorted(metric.better, key=bool) if isinstance(metric.better, Mapping) else [""]
        rest = next((rest for rest in rests if metric.direction(rest)), "")
        return "/".join(filter(None, (prefix_of(chosen, metric), rest))), metric.direction(rest)
    prefixes = {prefix_of(each, metric): metric for each, metric in metrics.items()}
    own = max((prefix for prefix in prefixes if f"{name}/".startswith(f"{prefix}/")), key=len, default=None)
    return None if own is None else (name, prefixes[own].direction(name[len(own) + 1 :]))


def nearly_black(what: str) -> str:
    """Return the warning for images whose values are all 0 or 1."""
    return f"all values of the {what} are 0 or 1, of 255: nearly black images; were they meant to be scaled to 0 ... 255?"


def given(values: Mapping[str, Any], field: str, name: str) -> Tensor:
    """Return the values that a metric reads. UserError where they are missing."""
    if values[field] is None:
        raise UserError(
            f"metric {name} reads {field}, and " + ("the extractor is no classifier" if field == "logits" else "there are none")
        )
    return values[field]


def described(extractor: Extractor) -> dict[str, Any]:
    """Return what a protocol says of a network."""
    return {"extractor": extractor.name, "extractor_sha256": extractor.checksum, "preprocessing": extractor.preprocessing}


def together(extractors: list[Extractor]) -> dict[str, str]:
    """Return what a protocol says of several networks whose mean a figure is; null where the weights of one are missing."""
    if any(extractor.available() for extractor in extractors):
        return {"extractor": ", ".join(extractor.name for extractor in extractors)}
    each = [described(extractor) for extractor in extractors]
    return {key: ", ".join(str(one[key]) for one in each) for key in each[0]}


def protocol(subject: Subject, networks: list[Extractor], reference: Reference | None, reasons: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that must be equal or known when figures are compared. networks: the one that all figures look through."""
    found: dict[str, Any] = {"n_fake": subject.n} | subject.protocol()
    if subject.spec.kind.rounding is not None:
        found["images"] = subject.spec.kind.rounding
    for network in networks:
        found |= described(network)
    if reference is not None:
        found |= reference.protocol()
    if reasons:
        found["missing"] = dict(reasons)
    return found
