"""The weights that a run starts from: of another run, or of files. They are read without executing anything, and loaded strictly: all
names and shapes must fit, but a network may hold the one of which the weights are."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from omegaconf import open_dict
from torch import Tensor, nn

from gan_runner.config.composed import plain
from gan_runner.errors import UserError, some
from gan_runner.storage import checkpoint, files, starts
from gan_runner.trained import TrainedRun, plain_weights

SIDES = ("generator", "discriminator")


def load(nets: dict[str, nn.Module], config: Mapping[str, Any], packages: Sequence[str]) -> None:
    """Load the weights of `init_from`, if any, into networks that no trick has wrapped yet. config: as `plain` gives it.

    UserError for a file that is missing, damaged or of another network, or whose checksum is not `init_from.sha256`.
    """
    said = config["init_from"]
    there = paths(said)
    if "run" in there and len(there) > 1:
        raise UserError("init_from names a run and a file: choose the run, or a file for each network")
    if there and said["sha256"] is not None and checksum(there) != said["sha256"]:
        raise UserError(f"init_from.sha256={said['sha256']}: {some(map(str, there.values()), 2)} has changed, or is another file")
    if "run" in there:
        folder, which = starts.place_of(said["run"])
        run = TrainedRun(Path(folder), which, packages)
        if "discriminator" in nets and run.discriminator is None:
            raise UserError(f"init_from.run={said['run']}: this run has no discriminator; say init_from.generator=FILE, its export")
        weights = {side: plain_weights(run, side, packages) for side in nets}
    else:
        weights = {side: weights_in(path) for side, path in there.items()}
    for side, found in weights.items():
        if side not in nets:
            raise UserError(f"init_from.{side}: the architecture has no {side}")
        wanted = nets[side].state_dict()
        found = named_as(wanted, found)
        if reasons := misfits(found, wanted):
            raise UserError(f"init_from: the weights of the {side} do not fit: {'; '.join(reasons)}")
        nets[side].load_state_dict(found)


def recorded(config: Any) -> Any:
    """Return the configuration with the checksum of the files that `init_from` names; one that is given stays, and is checked by `load`."""
    said = plain(config)["init_from"]
    if there := paths(said):
        config = config.copy()
        with open_dict(config):
            config.init_from = said | {"sha256": said["sha256"] or checksum(there)}
    return config


def checksum(there: Mapping[str, Path]) -> str:
    """Compute the SHA-256 of files, joined by + where there are two."""
    return "+".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in there.values())


def paths(said: Mapping[str, Any]) -> dict[str, Path]:
    """Return the file behind each key. UserError where one is missing."""
    found = {key: Path(said[key]) for key in ("run", *SIDES) if said[key] is not None}
    if "run" in found:
        folder, which = starts.place_of(said["run"])
        found["run"] = Path(which if which.endswith(".pt") else Path(folder, "checkpoints", f"{which}.pt"))
    for key, path in found.items():
        if not path.is_file():
            raise UserError(f"init_from.{key}={said[key]}: there is no file {path}")
    return found


def weights_in(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or of a state_dict that torch.save wrote. UserError where it has none."""
    try:
        if path.suffix == ".safetensors":
            with open(files.typed(path), "rb") as file:
                return safetensors.torch.load(file.read())
        found: Any = checkpoint.read_tensors(path)
    except checkpoint.Damaged as error:
        raise UserError(str(error)) from error
    except Exception as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if isinstance(found, dict) and {"version", "game"} <= found.keys():
        raise UserError(f"{path} is the state of a run: say init_from=RUN_DIR, or RUN_DIR:best")
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path} has no tensors by name, as torch.save(net.state_dict(), FILE) writes them")
    return found


def named_as(wanted: Mapping[str, Any], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name weights as a network does that is a wrapper of theirs, or that theirs is one of: `0.weight` becomes `net.0.weight`.

    Weights of which the network knows a name keep theirs.
    """
    if wanted.keys() & found.keys():
        return found
    ours, theirs = wrapper(wanted), wrapper(found)
    return {ours + key.removeprefix(theirs): value for key, value in found.items()}


def wrapper(names: Iterable[str]) -> str:
    """Return the path of the innermost module that holds all weights of these names: `net.` of net.0.weight and net.2.bias."""
    paths = [name.split(".")[:-1] for name in names]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths))
    return "".join(f"{parts[0]}." for parts in shared)


def misfits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Describe, key by key, how weights do not fit a network; empty where they do."""
    shapes = [
        f"{key} is {tuple(found[key].shape)} and should be {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in found and isinstance(value, Tensor) and found[key].shape != value.shape
    ]
    lacks, extra = [key for key in wanted if key not in found], [key for key in found if key not in wanted]
    kinds = [*shapes[:5], *([f"{len(shapes) - 5} more of other shapes"] if shapes[5:] else [])]
    return [*kinds, *([f"missing {some(lacks, 5)}"] if lacks else []), *([f"not known {some(extra, 5)}"] if extra else [])]
