"""Refiners of a line: the networks and real samples that they use, the samples they make, and what these cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gan_runner import tree
from gan_runner.assembly import build, parts
from gan_runner.assembly.signatures import signature
from gan_runner.commands.settings import Evaluate, Sample
from gan_runner.draws import NumberedDraws
from gan_runner.errors import UserError
from gan_runner.evaluation.reference import Reference
from gan_runner.game.network import Discriminator, Generator
from gan_runner.refinement import OnData, Refiner
from gan_runner.refinement.comparison import Networks
from gan_runner.storage import starts
from gan_runner.trained import TrainedRun

TRAIN = "gan-train +experiment=ratio architecture.generator.run=RUN_DIR trains one: say discriminator=ITS_RUN_DIR"
KEYS = ("discriminator", "corrector")  # that name runs


def made(settings: Sample | Evaluate) -> dict[str, Refiner]:
    """Construct the refiners of a line. UserError with all mistakes."""
    node = {"refiner": settings.refiner}
    if mistakes := build.wrong_values(node, settings.packages, whole=False):
        raise UserError("\n".join(mistakes))
    if not settings.refiner and (unused := [key for key in KEYS if getattr(settings, key) is not None]):
        raise UserError(f"{unused[0]}={getattr(settings, unused[0])}: this is for refiners, and none is chosen: refiner=NAME")
    return parts.make_list(node, settings.packages, "refiner")


def networks(run: TrainedRun, settings: Sample | Evaluate) -> tuple[Networks, dict[str, str]]:
    """Find the networks of a density ratio. Returns them, and which are of other runs, for a protocol.

    UserError where there is none, or one of them does not fit the samples of the run.
    """
    if run.generator.overrides("asked"):
        raise UserError(f"{run.folder}: this generator works on data, which refiners cannot")
    others = {key: other(key, getattr(settings, key), run, settings.packages) for key in KEYS if getattr(settings, key) is not None}
    judges = {key: judge(key, there, run) for key, there in others.items()}
    found = judges.get("discriminator", run.discriminator)
    if found is None:
        raise UserError(f"{run.folder} has no discriminator, and a refiner needs one: {TRAIN}")
    for net in (found, judges.get("corrector")):
        if net is not None and net.classes not in (None, run.generator.classes):
            raise UserError(
                f"the discriminator is given one of {net.classes} classes, and the generator has {run.generator.classes or 'none'}"
            )
    critic = others.get("discriminator", run).shift_invariant
    said = {key: f"{there.path} (round {there.step})" for key, there in others.items()}
    return Networks(run.generator, found, judges.get("corrector"), critic), said


def judge(key: str, there: TrainedRun, run: TrainedRun) -> Discriminator:
    """Return the discriminator of another run for samples as a run emits them, or for data where the other one emits these.

    UserError where it judges another form, such as a pyramid of images.
    """
    assert there.discriminator is not None
    of_other = form(there.generator, run.device)
    if of_other == form(run.generator, run.device):
        return there.discriminator
    if of_other != [run.spec.shape]:
        raise UserError(f"{key}={there.folder}: its discriminator judges samples in a form that the generator of this run does not make")
    return OnData(there.discriminator, run.generator)


@torch.no_grad()
def form(generator: Generator, device: torch.device) -> list[tuple[int, ...]]:
    """Return the shapes of one sample as a generator emits it: one for each scale."""
    draws = NumberedDraws("form", 0, indices=torch.arange(1), device=device)
    return [tuple(leaf.shape[1:]) for leaf in tree.leaves(generator(generator.prior(draws), generator.labels(draws)))]


def other(key: str, said: str, run: TrainedRun, packages: Sequence[str]) -> TrainedRun:
    """Load the run that a key names, best.pt unless it names a checkpoint. UserError where it has no discriminator for such samples."""
    folder, which = starts.place_of(said)
    if which == "last" and not said.endswith(":last") and Path(folder, "checkpoints", "best.pt").is_file():
        which = "best"
    there = TrainedRun(Path(folder), which, packages, run.device)
    if there.discriminator is None:
        raise UserError(f"{key}={said}: this run has no discriminator")
    if there.spec.shape != run.spec.shape or there.spec.symbols != run.spec.symbols:
        raise UserError(
            f"{key}={said}: its discriminator judges samples of shape {there.spec.shape}, and those of this run have {run.spec.shape}"
        )
    return there


def reference_of(run: TrainedRun, root: str | None) -> Reference:
    """Return the real samples of a run, with the data in `root` where it is not None. UserError where they have no root."""
    node = run.config["dataset"]
    if root is not None:
        if "root" not in signature(parts.locate(node["_target_"], parts.ONE["dataset"], "dataset", run.packages)):
            raise UserError(f"dataset.root={root}: {run.dataset.name} reads no files")
        node = node | {"root": root}
    return Reference(parts.make_one({"dataset": node}, run.packages, "dataset"), device=run.device)


def label(name: str, node: Mapping[str, Any], packages: Sequence[str]) -> str:
    """Name a refiner with those of its settings that are not the default ones: dgflow_eta0.1."""
    known = signature(parts.locate(node["_target_"], Refiner, f"refiner.{name}", packages))
    return "_".join([name, *(f"{key}{value}" for key, value in node.items() if key in known and value != known[key][1])])
