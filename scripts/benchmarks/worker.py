"""A contender that is no run of the project: `python -m benchmarks.worker bare|textbook|limit|reader SOCKET SETTINGS`."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rounds import Bare, made, resident
from benchmarks.textbook import AHEAD, images, loop_of, points
from benchmarks.wire import Wire, Work, serve, wait_for
from gan_runner.datasets.batches import PREFETCH, Streamed
from gan_runner.datasets.dataset import Dataset
from gan_runner.execution.hardware import kept_memory

READ = 60  # batches after which the rate of a loader is known


def playing(play: Callable[[], None]) -> Work:
    def work(rounds: int) -> None:
        for _ in range(rounds):
            play()

    return work


def bare(config: dict[str, Any], x: Tensor, facts: dict[str, Any], device: torch.device) -> Bare:
    """The bare round on data that lie on the device, computed as the run computes."""
    dataset: Dataset = made(config["dataset"])
    generator = torch.Generator(device).manual_seed(config["seed"])
    batches = resident(x.to(device), config["batch_size"], dataset.flip, generator)
    half = partial(torch.autocast, device.type, getattr(torch, facts["precision"]))
    precision = {} if facts["precision"] == "float32" else {"precision": half}
    return Bare(config, dataset.spec, batches, generator, channels_last=facts["channels_last"], **precision)


def loader_rate(batches: Iterator[Tensor], batch_size: int, device: torch.device) -> float:
    """Images per second of the textbook's loader alone, once what its workers have read ahead is used up."""
    for _ in range(AHEAD):
        next(batches)
    start = time.perf_counter()
    for _ in range(READ):
        next(batches)
    wait_for(device)
    return READ * batch_size / (time.perf_counter() - start)


def reader(config: dict[str, Any], device: torch.device) -> Work:
    """Batches of a folder of images, read and thrown away; a round is one. What was read ahead while others played does not count."""
    dataset: Dataset = made(config["dataset"])
    batches = Streamed(dataset.at_hand("train"), config["batch_size"], config["seed"], device, dataset.flip, dataset.workers)

    def work(rounds: int) -> dict[str, float]:
        for _ in range(PREFETCH * dataset.workers):
            next(batches)
        start = time.perf_counter()
        for _ in range(READ):
            next(batches)
        wait_for(device)
        return {"seconds": (time.perf_counter() - start) * rounds / READ}

    return work


def textbook(config: dict[str, Any], x: Tensor, device: torch.device) -> tuple[Work, dict[str, Any]]:
    """The textbook loop and what its loader gives alone."""
    dataset, said = made(config["dataset"]), {}
    if dataset.spec.kind.bounded:
        batches = images(config["dataset"]["root"], config["batch_size"], device, config["dataset"]["resolution"])
        said["loader"] = loader_rate(batches, config["batch_size"], device)
    else:
        batches = points(x, config["batch_size"], device)
    return playing(loop_of(config)(config, dataset.spec, batches, device).round), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("bare", "textbook", "limit", "reader"))
    parser.add_argument("socket")
    parser.add_argument("settings", help="JSON: config, facts of the run, data: a file of the training samples")
    arguments = parser.parse_args()
    settings = json.loads(arguments.settings)
    config, facts, said = settings["config"], settings["facts"], {}
    device = torch.device(facts["device"])
    torch.set_num_threads(facts["threads"])
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = facts["tf32"]
    x = torch.from_numpy(np.load(settings["data"])) if "data" in settings else torch.empty(0)
    if arguments.kind == "bare":
        work = playing(bare(config, x, facts, device).round)
    elif arguments.kind == "textbook":
        work, said = textbook(config, x, device)
    elif arguments.kind == "reader":
        work = reader(config, device)
    else:
        from benchmarks.limit import flops, limit

        said["flops"] = flops(bare(config, x, facts, device).round)
        work = limit(said["flops"], getattr(torch, facts["precision"]), device)
    with kept_memory(device) if arguments.kind == "bare" else nullcontext():
        serve(Wire(arguments.socket), said, {"play": work}, device)


if __name__ == "__main__":
    main()
