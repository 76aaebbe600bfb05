"""What runs have left behind, read to be held against each other."""

import json
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_runner.storage import checkpoint


def state_of(folder, name="last.pt"):
    return checkpoint.load(Path(folder) / "checkpoints" / name)


def status_of(folder):
    return json.loads((Path(folder) / "status.json").read_text())


def lines(folder):
    """Of metrics.jsonl."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def measured(folder):
    """The bytes of metrics.jsonl."""
    return (Path(folder) / "metrics.jsonl").read_bytes()


def curves(folder):
    """tag -> steps and values in TensorBoard, but for what a clock says."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    wall = ("time/", "memory/")
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"] if not tag.startswith(wall)}


def same(a, b, path=""):
    """The first place at which two states differ; None where they are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return None if torch.equal(a, b) else path
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return f"{path}: {a.keys() ^ b.keys()}"
        return next((found for key in a if (found := same(a[key], b[key], f"{path}/{key}"))), None)
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return f"{path}: {len(a)} and {len(b)}"
        return next((found for i, (x, y) in enumerate(zip(a, b, strict=True)) if (found := same(x, y, f"{path}/{i}"))), None)
    return None if a == b or (a != a and b != b) else f"{path}: {a} != {b}"


def floats(state):
    """The tensors of floats in the state of a game, in float64, by name."""
    return {name: value.double() for name, value in state.items() if isinstance(value, torch.Tensor) and value.is_floating_point()}


def furthest(a, b):
    """(the greatest difference of two such, where it is)"""
    assert a.keys() == b.keys()
    assert a
    return max(((a[name] - b[name]).abs().max().item(), name) for name in a)
