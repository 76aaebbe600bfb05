"""Replay the steps of a refiner in static memory: on a GPU, a step is one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from gan_runner.execution.recording import Recorder, difference
from gan_runner.refinement.ratio import Ratio
from gan_runner.tree import Sample

TRIES = 4  # recorded steps among which two in a row must be the same


class Captured(NamedTuple):
    """A step that can be executed again and again, and where its point is after each time."""

    execute: Callable[[], None]
    point: Sample


def as_graph(points: Iterator[Sample]) -> Captured:
    """Capture the next step as a CUDA graph, without executing it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        point = next(points)
    return Captured(graph.replay, point)


def replayed(
    begin: Callable[[], Iterator[Sample]],
    ratio: Ratio,
    say: Callable[[str], None],
    capture: Callable[[Iterator[Sample]], Captured] = as_graph,
) -> Iterator[Sample]:
    """Yield the points of a refiner, of which each may overwrite the one before.

    Once two steps in a row had the same operations on the same memory, the next one is captured and replayed from there on. Steps that
    differ, or that read a tensor on the host, are executed operation by operation. begin: begins the refiner; it is called once more
    where a capture fails.
    """
    points = begin()
    yield next(points)
    steps: list[Recorder] = []
    while len(steps) < 2 or difference(steps[-2].lines, steps[-1].lines) is not None:
        if len(steps) == TRIES:
            yield from points
            return
        before = ratio.evaluations, ratio.gradients
        with Recorder(holds=False) as recorder:
            point = next(points)
        steps.append(recorder)
        yield point
    after = ratio.evaluations, ratio.gradients
    try:
        execute, point = capture(points)
    except Exception as error:  # drivers have many ways of saying no
        say(f"steps are not replayed: {(str(error).strip().splitlines() or [type(error).__name__])[0][:200]}")
        points = begin()
        for _ in range(len(steps) + 1):
            next(points)
        ratio.evaluations, ratio.gradients = after
        yield from points
        return
    ratio.evaluations, ratio.gradients = after  # a capture counts, and executes nothing
    while True:
        execute()
        ratio.evaluations += after[0] - before[0]
        ratio.gradients += after[1] - before[1]
        yield point
