"""What penalties on the slope of D add to a round."""

import math
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from benchmarks.clock import Summary, contest, rounds_for
from benchmarks.tables import cells, number, table
from benchmarks.training import words_of

EXPERIMENT = "dcgan_cifar10"
SHARED = ["loss=relativistic_paired", "architecture.discriminator.norm=none"]
PLAIN, EXACT = "none", "r1 and r2"
LAZY = 4


def approximate(share: float) -> list[str]:
    pair = ("approximate_r1", "approximate_r2")
    return [f"penalty=[{','.join(pair)}]", *(f"penalty.{name}.share={share}" for name in pair)]


PENALTIES = {
    PLAIN: ["penalty=[]"],
    EXACT: ["penalty=[r1,r2]"],
    f"r1 and r2 every {LAZY}": ["penalty=[r1,r2]", f"penalty.r1.every={LAZY}", f"penalty.r2.every={LAZY}"],
    "approximate_r1 and approximate_r2": approximate(1.0),
    "the same with share .25": approximate(0.25),
}


def slopes(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """Runs with each penalty beside one without, in turns: CPU seconds that they add, as a share of those of r1 and r2."""
    with contest() as race:
        for name, words in PENALTIES.items():
            race.run(name, words_of(EXPERIMENT, arguments, [*SHARED, *words]), arguments.threads)
        rounds = LAZY * math.ceil(rounds_for(race.contenders[PLAIN], arguments.seconds) / LAZY)  # as many rounds with as without
        race.alternate(1, rounds)  # warm
        played = race.alternate(arguments.turns, rounds)
    cpu = {name: [1e3 * each.cpu / rounds for each in turns] for name, turns in played.items()}
    added = {name: [with_it - without for with_it, without in zip(taken, cpu[PLAIN], strict=True)] for name, taken in cpu.items()}
    rows = [row(name, cpu[name], added[name], added[EXACT]) for name in PENALTIES]
    heads = ["penalties", "CPU ms a round", "spread", "added", "spread", "/ r1 and r2", "spread"]
    said = f"{EXPERIMENT} without batch norm in D, relativistic pairs, {arguments.turns} turns of {rounds} rounds; medians of the turns"
    return f"{said}:\n\n{table(heads, rows)}", {"cpu": cpu, "rounds": rounds}


def row(name: str, taken: Sequence[float], added: Sequence[float], exact: Sequence[float]) -> list[str]:
    if name == PLAIN:
        return [name, *cells(Summary.of(taken)), "0", "", "0", ""]
    shares = [mine / other for mine, other in zip(added, exact, strict=True)]
    return [
        name,
        *cells(Summary.of(taken)),
        *cells(Summary.of(added)),
        *([number(1.0), ""] if name == EXACT else cells(Summary.of(shares))),
    ]
