"""Markdown, pictures, and the page that they go to."""

import os
import platform
import re
import subprocess
from argparse import Namespace
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.clock import Summary

ROOT = Path(__file__).parents[2]
PAGE, PICTURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "pictures"


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def cells(summary: Summary) -> list[str]:
    """Median; from the lowest to the highest."""
    return [number(summary.median), f"{number(summary.low)} ... {number(summary.high)}"]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def machine(arguments: Namespace) -> str:
    """Where and of what this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    gpu = f", {torch.cuda.get_device_name()}" if arguments.device == "cuda" else ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy"))
    said = f"set: {' '.join(arguments.set)}; " if arguments.set else ""
    return (
        f"{date.today()}, {model}{gpu}, {os.cpu_count()} cores, {arguments.threads} threads, {torch.backends.cpu.get_cpu_capability()}; "
        f"{said}seed {arguments.seed}; Python {platform.python_version()}, {versions}, commit {commit()}"
    )


def commit() -> str:
    """What is checked out, and whether it was changed."""
    said = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def load() -> str:
    """The load averages, where the system has them."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def write(part: str, text: str, page: Path = PAGE) -> None:
    """Put the text of a part between its markers on the page; at the end where there are none yet."""
    begin, end = f"<!-- benchmark {part}: begin -->", f"<!-- benchmark {part}: end -->"
    block, before = f"{begin}\n{text}\n{end}", page.read_text(encoding="utf-8")
    if begin not in before:
        after = f"{before.rstrip()}\n\n{block}\n"
    else:
        after = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, before, flags=re.DOTALL)
    page.write_text(after, encoding="utf-8")


def figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def picture_of_speeds(record: dict[str, Any]) -> None:
    """Bars: how many times as fast as the textbook loop, turn by turn."""
    whole = figure(8, 3.2)
    axes = whole.subplots()
    names = ("run", "bare", "limit")
    for i, (name, label) in enumerate(zip(names, ("(a) gan-train", "(b) bare round", "(d) arithmetic limit"))):
        speeds = []
        for each in record.values():
            turns = zip(each["seconds"][name], each["seconds"]["textbook"], strict=True)
            speeds.append(Summary.of([theirs / ours for ours, theirs in turns]))
        middles = [s.median for s in speeds]
        spread = [[s.median - s.low for s in speeds], [s.high - s.median for s in speeds]]
        axes.bar([x + 0.27 * (i - 1) for x in range(len(record))], middles, 0.25, yerr=spread, capsize=2, label=label)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(record)), list(record))
    axes.set_ylabel("times as fast as (c),\nthe textbook loop")
    axes.legend(frameon=False)
    whole.savefig(PICTURES / "benchmark_training.png", dpi=110)


def picture_of_scaling(record: dict[str, Any]) -> None:
    """Images per second against what was changed."""
    whole = figure(8, 2.6)
    for axes, (what, rates) in zip(whole.subplots(1, len(record)), record.items()):
        axes.plot(list(map(str, rates)), list(rates.values()), marker="o")
        axes.margins(x=0.12)
        axes.set(xlabel=what, ylim=(0, 1.1 * max(rates.values())))
    whole.axes[0].set_ylabel("images/s, dcgan_cifar10")
    whole.savefig(PICTURES / "benchmark_scaling.png", dpi=110)
