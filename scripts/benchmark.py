#!/usr/bin/env python3
"""How fast training is: a run as its user starts it (a), the bare round on the same networks (b), the loop of a textbook (c) and the
arithmetic limit (d), in turns; what a run does beside its rounds; and refiners against their bare passes. Tables in Markdown; --write puts
them into docs/benchmarks.md.

    python scripts/benchmark.py training --experiments dcgan_cifar10 gaussians25
    python scripts/benchmark.py --set trainer.threads=2 --write
    python scripts/benchmark.py --quick --experiments gaussians25

Every contender is a process of its own that plays when it is told to and sleeps otherwise. Figures are medians, and spreads go from the
lowest to the highest turn; ratios of the same turn say most on a machine that is shared. Where (b), (c) and (d) have a choice, they follow
what the run says of itself: threads, precision of (b) and (d), memory format of (b).
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import torch

from benchmarks import parts, refinement, slopes, training, tricks
from benchmarks.tables import load, machine, write

PARTS = {
    "training": training.trainings,
    "scaling": training.scaling,
    "tricks": tricks.tricks,
    "slopes": slopes.slopes,
    "startup": parts.startup,
    "checkpoint": parts.checkpoint,
    "evaluation": parts.evaluation,
    "loader": parts.loader,
    "refinement": refinement.refinement,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + "; all by default")
    parser.add_argument("--experiments", nargs="+", default=list(training.EXPERIMENTS), choices=training.EXPERIMENTS, metavar="NAME")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of every run, such as batch_size=128")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", help="trainer.precision of the runs; (b) and (d) follow")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn of the run")
    parser.add_argument("--samples", type=int, default=10_000, help="of an evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small networks and batches, two short turns: whether it works, no figures")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md, with pictures")
    parser.add_argument("--record", type=Path, metavar="FILE", help="all turns, as JSON")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if arguments.quick:
        if arguments.write:
            parser.error("--quick measures nothing that is worth writing")
        arguments.turns, arguments.seconds, arguments.samples = 2, 0.3, 500
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that contenders and their folder go, too
    where, records = machine(arguments), {}
    print(where, flush=True)
    for part in arguments.parts or PARTS:
        before = load()
        text, records[part] = PARTS[part](arguments)
        text = f"{text}\n\n({where}; load {before} before and {load()} after.)"
        print(f"\n## {part}\n\n{text}", flush=True)
        if arguments.write:
            write(part, text)
        if arguments.record:
            arguments.record.write_text(json.dumps({"machine": where, "parts": records}, indent=1))


if __name__ == "__main__":
    main()
