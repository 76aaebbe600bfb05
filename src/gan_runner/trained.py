"""Load a run from its directory, draw samples and export its generator."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan_runner.assembly import build, parts
from gan_runner.datasets import Dataset
from gan_runner.datasets.classes import label_of
from gan_runner.errors import UserError
from gan_runner.game.game import Game
from gan_runner.game.network import Discriminator, Generator
from gan_runner.game.spec import Spec
from gan_runner.sampling import subjects
from gan_runner.sampling.subjects import NO_SPEC, Generated, Snapshot, Source
from gan_runner.storage import checkpoint, contents, directory, files
from gan_runner.storage.older import with_law
from gan_runner.training import provenance


class NoOptimizer:
    """Placeholder for an optimiser, for players that do not train: creating one of torch imports torch._dynamo, which takes seconds."""

    def __init__(self, weights: Sequence[nn.Parameter], **settings: Any):
        self.param_groups, self.state = [{"params": weights}], dict[nn.Parameter, Any]()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore the saved state of the optimiser."""


class TrainedRun:
    """A trained run: its configuration, its networks in evaluation mode, and samples.

    `generator` is the one that is evaluated: the average of G if the run keeps one, else G. `whose` says it in words.
    """

    def __init__(
        self,
        folder: Path,
        which: str = "last",
        packages: Sequence[str] = (),
        device: torch.device | None = None,
        ema: float | None = None,
    ):
        self.folder, self.device, self.ema = folder, device or torch.device("cpu"), ema
        contents.refuse_foreign(folder)
        self.config: dict[str, Any] = build.plain(directory.read_config(folder))
        self.path, state = read_state(folder, which)
        mistakes = [line for part in parts.parts_of(self.config) for line in parts.mistakes_in(part, packages)]
        if mistakes:
            raise UserError(f"{folder / 'config.yaml'}: " + "\n".join(mistakes))
        provenance.refuse_other_networks(self.path, state, folder)
        self.dataset: Dataset = parts.make_one(self.config, packages, "dataset")
        try:
            spec = named(Spec.restored(state["spec"]), self.dataset)
            trainer = parts.make_one(self.config, packages, "trainer")
            game = build.build_game(self.config, packages, trainer, spec, self.device, optimizer=NoOptimizer)
            game.load_state_dict(state["game"])
        except checkpoint.MISFIT as error:
            raise UserError(f"{self.path} does not fit {folder / 'config.yaml'}: {checkpoint.misfit(error)}") from error
        self.spec, self.step = spec, state["step"]
        self.packages, self.whose = packages, "G" if game.average is None else "average of G"
        self.generator: Generator = (game.sampler if ema is None else self.average(game, ema)).eval().requires_grad_(False)
        self.shift_invariant: bool = game.terms["loss"].shift_invariant
        self.discriminator: Discriminator | None = game.D and game.D.eval().requires_grad_(False)

    def average(self, game: Game, halflife: float) -> Generator:
        """Return the average of G with this half-life in thousand images. UserError where the run keeps none."""
        kept = {each: net for trick in game.tricks.values() for each, net in trick.averages.items()}
        if halflife not in kept:
            there = f"averages with half-lives of {', '.join(f'{each:g}' for each in kept)} thousand images" if kept else "no average of G"
            raise UserError(f"ema={halflife:g}: {self.folder} keeps {there}")
        if kept[halflife] is game.average:
            return game.sampler
        self.whose = f"average of G with a half-life of {halflife:g} kimg"
        found: Generator = kept[halflife]
        for trick in game.tricks.values():
            found = found if trick.averages else trick.sampler(found)
        return found

    def sample(self, n: int = 64, y: Tensor | int | str | None = None, seed: int = 0, batch_size: int = 500) -> Tensor:
        """Draw n samples as data, N ... (images: float in [-1, 1]).

        y: labels (N), or the number or name of one class for all; None: random classes for a conditional generator. ValueError if the
        generator takes no labels, or a label is unknown.
        """
        return self.draw(n, y, seed, batch_size)[0]

    def draw(self, n: int = 64, y: Tensor | int | str | None = None, seed: int = 0, batch_size: int = 500) -> tuple[Tensor, Tensor | None]:
        """Draw the same samples with their labels: N, indices in `spec.class_names`; None for an unconditional generator."""
        label = self.label_of(y) if isinstance(y, str) else y
        made = Generated(self.generator, n, NO_SPEC, seed=seed, y=label, device=self.device, source=self.source)
        x, labels = zip(*made.batches(range(n), batch_size), strict=True)
        return torch.cat([part.cpu() for part in x]), None if labels[0] is None else torch.cat([part.cpu() for part in labels])

    @cached_property
    def source(self) -> Source | None:
        """The data that samples are made for, the test split, where the generator works on data."""
        return subjects.source_of(self.generator, self.dataset)

    def label_of(self, said: str | int) -> int:
        """Return the label of the class with this name or number. ValueError if the generator takes no labels, or has no such class."""
        if self.generator.classes is None:
            raise ValueError("this generator takes no labels")
        return label_of(said, self.spec)

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield the networks of every numbered checkpoint, oldest first, loading each on demand."""
        for path in checkpoint.numbered(self.folder / "checkpoints"):
            try:
                then = TrainedRun(self.folder, str(path), self.packages, self.device, self.ema)
            except UserError as error:
                if isinstance(error.__cause__, FileNotFoundError):  # the run goes on, and has removed it
                    continue
                raise
            yield Snapshot(then.step, then.generator, then.discriminator)


def named(spec: Spec, dataset: Dataset) -> Spec:
    """Add class names to the spec of an older state, from the data set if it can be read; other specs are returned unchanged."""
    if spec.classes is None or spec.class_names is not None:
        return spec
    try:
        there = dataset.spec
    except (UserError, OSError):
        return spec
    return spec._replace(class_names=there.class_names) if there.classes == spec.classes else spec


def load(
    folder: str | Path, checkpoint: str = "last", packages: Sequence[str] = (), device: str = "cpu", ema: float | None = None
) -> TrainedRun:
    """Load the run in a directory. checkpoint: last, best or the path of a file. packages: packages that its configuration may name.

    ema: the half-life, in thousand images, of the average of G to sample; None: the one that is judged. UserError where there is none.
    """
    return TrainedRun(Path(folder), checkpoint, packages, torch.device(device), ema)


def read_state(folder: Path, which: str) -> tuple[Path, dict[str, Any]]:
    """Read the checkpoint `which`; returns (path, state). UserError if it is missing or unreadable."""
    names = {"last": "last.pt", "best": "best.pt"}
    path = folder / "checkpoints" / names[which] if which in names else Path(which)
    try:
        return path, checkpoint.load(path, root=folder if which in names else None)
    except FileNotFoundError as error:
        why = "; best.pt is written where callback.evaluate.best.metric names a metric that was computed" if which == "best" else ""
        raise UserError(f"there is no {path}{why}") from error
    except checkpoint.Damaged as error:
        others = [str(other) for other in checkpoint.candidates(folder / "checkpoints") if other != path]
        raise UserError(f"{error}; others: {', '.join(others) or 'none'}") from error


def export(run: TrainedRun, path: Path, packages: Sequence[str] = ()) -> None:
    """Write the generator as safetensors, with the metadata that `load_generator` needs to build it.

    The weights are copied into a new network of the same class, so that parametrisations of tricks (spectral norm) are folded in.
    """
    node = run.config["architecture"]["generator"]
    metadata = {"format": "pt", "generator": json.dumps(node), "spec": json.dumps(run.spec.saved()), "step": str(run.step)}
    weights = {name: tensor.contiguous() for name, tensor in plain_weights(run, "generator", packages).items()}
    files.write_bytes(path, safetensors.torch.save(weights, metadata))


def plain_weights(run: TrainedRun, side: str, packages: Sequence[str]) -> dict[str, Tensor]:
    """Return the weights of a player's network as its class makes it, on the CPU: what tricks had wrapped around them is folded in.

    side: "generator", whose average is taken where the run keeps one, or "discriminator". UserError where a trick has replaced the network.
    """
    source: nn.Module = getattr(run, side)
    net = parts.make(run.config["architecture"][side], packages, parts.SIDES[side], f"architecture.{side}", spec=run.spec)
    with torch.no_grad():
        for name, mine in net.eval().named_modules():
            if "parametrizations" in name.split("."):
                continue
            try:
                its = source.get_submodule(name)
                for key, tensor in [*mine._parameters.items(), *mine._buffers.items()]:
                    if tensor is not None:
                        tensor.copy_(getattr(its, key))
            except AttributeError as error:
                raise UserError(f"{run.path}: a trick has replaced the {side}, so that its weights fit no other network") from error
            for key in mine.parametrizations if parametrize.is_parametrized(mine) else ():  # type: ignore[union-attr]
                setattr(mine, str(key), getattr(its, str(key)).cpu())
    return net.state_dict()


def load_generator(path: str | Path, packages: Sequence[str] = ()) -> Generator:
    """Load a generator that gan-sample exported, in evaluation mode. UserError if the file is invalid."""
    try:
        os.close(files.typed(Path(path)))  # a pipe would never answer
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        node, spec = with_law(json.loads(metadata["generator"])), Spec.restored(json.loads(metadata["spec"]))
    except Exception as error:
        raise UserError(f"{path} is not a generator that gan-sample exported: {error}") from error
    made = parts.make(node, packages, Generator, "generator", spec=spec)
    made.load_state_dict(weights)
    return made.eval().requires_grad_(False)


def finite(run: TrainedRun, x: Tensor) -> Tensor:
    """Return x. UserError if a sample is not finite, which could not be seen in its pixels."""
    if (broken := int((~x.isfinite()).flatten(1).any(1).sum())) > 0:
        raise UserError(
            f"{broken} of {len(x)} samples of round {run.step} ({run.path}) are not finite (nan or inf): take another checkpoint"
        )
    return x
