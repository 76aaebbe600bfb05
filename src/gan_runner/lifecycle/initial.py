"""The weights that a run starts from: of another run, or of files. They are read without executing anything, and loaded strictly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
from omegaconf import OmegaConf, open_dict
from torch import Tensor, nn

from gan_runner.errors import UserError, some
from gan_runner.storage import checkpoint, files, starts
from gan_runner.trained import TrainedRun, plain_weights

SIDES = ("generator", "discriminator")


def initial(config: Mapping[str, Any], packages: Sequence[str]) -> Callable[[dict[str, nn.Module]], None] | None:
    """Return the function that loads the weights of `init_from` into networks; None where a run starts from random ones."""
    said = starts.spelled(config.get("init_from"))
    chosen = {key: said[key] for key in ("run", *SIDES) if said[key] is not None}
    if not chosen:
        return None
    if "run" in chosen and len(chosen) > 1:
        raise UserError("init_from names a run and a file: choose the run, or a file for each network")
    return partial(load, chosen, packages, said["sha256"])


def recorded(config: Any) -> Any:
    """Return the configuration with the checksum of the files that `init_from` names."""
    said = starts.spelled(OmegaConf.to_container(OmegaConf.create({"init_from": config.get("init_from")}), resolve=True)["init_from"])  # type: ignore[index,call-overload]
    if any(said[key] is not None for key in ("run", *SIDES)):
        config = config.copy()
        with open_dict(config):
            config.init_from = said | {"sha256": checksum(said)}
    return config


def checksum(said: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of the files that are named, joined by + where there are two."""
    return "+".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths(said).values())


def paths(said: Mapping[str, Any]) -> dict[str, Path]:
    """Return the file behind each key. UserError where one is missing."""
    found = {key: Path(said[key]) for key in ("run", *SIDES) if said.get(key) is not None}
    if "run" in found:
        folder, which = starts.place_of(said["run"])
        found["run"] = Path(folder, "checkpoints", f"{which}.pt")
    for key, path in found.items():
        if not path.is_file():
            raise UserError(f"init_from.{key}={said[key]}: there is no file {path}")
    return found


def load(said: Mapping[str, str], packages: Sequence[str], expected: str | None, nets: dict[str, nn.Module]) -> None:
    """Load weights into networks, which no trick has wrapped yet. UserError for a file that is missing, damaged or of another network."""
    there = paths(said)
    if expected is not None and checksum(said) != expected:
        raise UserError(f"init_from.sha256={expected}: {some(map(str, there.values()), 2)} has changed, or is another file")
    if "run" in said:
        folder, which = starts.place_of(said["run"])
        run = TrainedRun(Path(folder), which, packages)
        missing = [side for side in nets if side == "discriminator" and run.discriminator is None]
        if missing:
            raise UserError(f"init_from.run={said['run']}: this run has no discriminator; say init_from.generator=FILE, its export")
        weights = {side: plain_weights(run, side, packages) for side in nets}
    else:
        weights = {side: weights_in(there[side]) for side in SIDES if side in said}
    for side, found in weights.items():
        if side not in nets:
            raise UserError(f"init_from.{side}: the architecture has no {side}")
        if reasons := misfits(found, nets[side].state_dict()):
            raise UserError(f"init_from: the weights of the {side} do not fit: {'; '.join(reasons)}")
        nets[side].load_state_dict(found)


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
