#!/usr/bin/env python3
"""Pictures for docs/gallery.md: the samples of some runs, each by itself and all side by side.

    python scripts/gallery.py docs/pictures RUN_DIR [RUN_DIR ...]

writes docs/pictures/<experiment>.png for every run (the folder above the run's date is its experiment) and docs/pictures/first.png.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

import gan_runner
from gan_runner.storage.directory import write_picture

HEIGHT = 600  # pixels of the pictures side by side


def picture(folder: Path, checkpoint: str) -> torch.Tensor:
    """Samples of a run as gan-sample draws them: uint8, 3 H W."""
    run = gan_runner.load(folder, checkpoint)
    return run.dataset.drawn(run.sample(run.spec.kind.pictured), title=f"round {run.step:,}")


def enlarged(pixels: torch.Tensor) -> torch.Tensor:
    """A small picture at a whole multiple of its size, so that its pixels stay sharp."""
    times = -(-HEIGHT // pixels.shape[1])
    return pixels.repeat_interleave(times, 1).repeat_interleave(times, 2)


def beside(pictures: list[torch.Tensor]) -> torch.Tensor:
    """The pictures side by side, at one height."""
    scaled = [F.interpolate(p[None].float(), scale_factor=HEIGHT / p.shape[1], mode="area")[0].round().byte() for p in pictures]
    height = min(p.shape[1] for p in scaled)
    gap = torch.full((3, height, 16), 255, dtype=torch.uint8)
    return torch.cat([part for p in scaled for part in (p[:, :height], gap)][:-1], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--checkpoint", default="last")
    arguments = parser.parse_args()
    pictures = [enlarged(picture(folder, arguments.checkpoint)) for folder in arguments.runs]
    for folder, pixels in zip(arguments.runs, pictures, strict=True):
        write_picture(arguments.out / f"{folder.resolve().parent.name}.png", pixels)
    write_picture(arguments.out / "first.png", beside(pictures))


if __name__ == "__main__":
    main()
