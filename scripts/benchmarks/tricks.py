"""What tricks add to a round."""

from argparse import Namespace
from typing import Any

from benchmarks.clock import Summary, contest, ratios, rounds_for
from benchmarks.tables import cells, number, table
from benchmarks.training import words_of

EXPERIMENT = "dcgan_cifar10"
PLAIN = "without"
TRICKS = ("diffaugment", "ada")


def tricks(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """A run with each trick beside the run without, in turns. The operations of a round do not depend on how much is augmented."""
    with contest() as race:
        for name in (PLAIN, *TRICKS):
            more = [] if name == PLAIN else [f"+trick={name}"]
            race.run(name, words_of(EXPERIMENT, arguments, more), arguments.threads)
        rounds = rounds_for(race.contenders[PLAIN], arguments.seconds)
        race.alternate(1, rounds)  # warm
        played = race.alternate(arguments.turns, rounds)
    seconds = {name: [each.seconds / rounds for each in turns] for name, turns in played.items()}
    cpu = {name: [each.cpu / rounds for each in turns] for name, turns in played.items()}
    rows = []
    for name, taken in seconds.items():
        of_medians, of_turns = ratios(seconds[PLAIN], taken)
        of_cpu, cpu_of_turns = ratios(cpu[PLAIN], cpu[name])
        ms = Summary.of([1e3 * each for each in taken])
        rows.append([name, *cells(ms), number(of_medians), *cells(of_turns), number(of_cpu), *cells(cpu_of_turns)])
    heads = ["", "ms a round", "spread", "times that without", "median of turns", "spread", "CPU, times", "median of turns", "spread"]
    said = f"{EXPERIMENT}, {arguments.turns} turns of {rounds} rounds"
    return f"{said}:\n\n{table(heads, rows)}", {"seconds": seconds, "cpu": cpu, "rounds": rounds}
