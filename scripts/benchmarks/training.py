"""Rounds per second: a run against the bare round, the textbook loop and the arithmetic limit; and what moves them."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import Contender, Contest, Played, Summary, contest, ratios, rounds_for, tell
from benchmarks.rounds import made
from benchmarks.tables import cells, number, picture_of_scaling, picture_of_speeds, table
from gan_runner.config.composed import plain
from gan_runner.config.composer import compose

EXPERIMENTS = ("dcgan_cifar10", "sngan_cifar10", "wgan_gp_cifar10", "gaussians25")
RUN, BARE, TEXTBOOK, LIMIT = "run", "bare", "textbook", "limit"
TITLES = {RUN: "(a) gan-train", BARE: "(b) bare round", TEXTBOOK: "(c) textbook loop", LIMIT: "(d) arithmetic limit"}
SMALL = ["batch_size=8", "architecture.generator.width=16", "architecture.discriminator.width=16"]
FAR = 10**7  # rounds: further than any benchmark comes


def words_of(experiment: str, arguments: Namespace, more: Sequence[str] = ()) -> list[str]:
    """The line of a run as its user writes it, without an end and with evaluation far away."""
    precision = [f"trainer.precision={arguments.precision}"] if arguments.precision else []
    return [
        f"+experiment={experiment}",
        f"trainer.steps={FAR}",
        f"callback.evaluate.every_steps={FAR}",
        f"trainer.accelerator={arguments.device}",
        f"seed={arguments.seed}",
        *precision,
        *(SMALL if arguments.quick and experiment != "gaussians25" else []),
        *arguments.set,
        *more,
    ]


def settings_of(words: list[str], facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a worker is told; the data lie in a file, so that reading them leaves no trace in its memory."""
    config = plain(compose([word for word in words if not word.startswith("callback.")]).config)
    file = folder / "data.npy"
    np.save(file, made(config["dataset"]).load("train").x.numpy())
    return {"config": config, "facts": facts, "data": str(file)}


def enter(race: Contest, words: list[str], threads: int, kinds: Sequence[str]) -> Contender:
    """The run and the contenders that compute as it does."""
    run = race.run(RUN, words, threads)
    settings = settings_of(words, run.facts, race.folder)
    for kind in kinds:
        race.work(kind, kind, settings, run.facts["threads"])
    return run


def training(experiment: str, arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """The table of one experiment, and its record."""
    words = words_of(experiment, arguments)
    config = plain(compose(words).config)
    images = config["batch_size"] * config["rule"]["d_steps"]
    tell(experiment)
    with contest() as race:
        run = enter(race, words, arguments.threads, (BARE, TEXTBOOK, LIMIT))
        rounds = rounds_for(run, arguments.seconds)
        race.alternate(1, rounds)  # warm
        played = race.alternate(arguments.turns, rounds)
        peaks = {name: contender.peak_mib() for name, contender in race.contenders.items()}
        device = {name: contender.device_mib for name, contender in race.contenders.items()}
        facts = {name: contender.facts for name, contender in race.contenders.items()}
    seconds = {name: [each.seconds / rounds for each in turns] for name, turns in played.items()}
    rows = []
    for name, taken in seconds.items():
        ms = Summary.of([1e3 * each for each in taken])
        of_medians, of_turns = ratios(seconds[RUN], taken)
        cpu = "" if name == LIMIT else number(1e3 * Summary.of([each.cpu / rounds for each in played[name]]).median)
        memory = "" if name == LIMIT else f"{peaks[name]:.0f}" + (f" + {device[name]:.0f}" if device[name] else "")
        rows.append([TITLES[name], *cells(ms), cpu, number(1e3 * images / ms.median), number(of_medians), *cells(of_turns), memory])
    heads = ["", "ms a round", "spread", "CPU ms", "real images/s", "(a) is times as fast", "median of turns", "spread", "peak MiB"]
    notes = [
        f"{arguments.turns} turns of {rounds} rounds; D sees {images} real images a round; {facts[RUN]['precision']}, "
        f"{facts[RUN]['threads']} threads, channels_last {'yes' if facts[RUN]['channels_last'] else 'no'}",
        f"{facts[LIMIT]['flops'] / 1e9:.3g} GFLOP a round over {flop_rate(facts, seconds) / 1e9:.0f} GFLOP/s",
        f"peak of (a) above (b), which holds the networks and the data: {peaks[RUN] - peaks[BARE]:.0f} MiB",
    ]
    if "loader" in facts[TEXTBOOK]:
        notes.append(f"(c)'s loader alone {facts[TEXTBOOK]['loader']:.0f} images/s")
    record = {"seconds": seconds, "rounds": rounds, "images": images, "peak_mib": peaks, "device_mib": device, "facts": facts}
    return f"**{experiment}**: {'; '.join(notes)}.\n\n{table(heads, rows)}", record


def flop_rate(facts: dict[str, dict[str, Any]], seconds: dict[str, list[float]]) -> float:
    """FLOP/s of the matrix product: the median of the turns."""
    return facts[LIMIT]["flops"] / Summary.of(seconds[LIMIT]).median


def trainings(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    texts, records = zip(*(training(experiment, arguments) for experiment in arguments.experiments))
    record = dict(zip(arguments.experiments, records))
    if arguments.write:
        picture_of_speeds(record)
        texts = (*texts, "![Speed of each contender, times that of the textbook loop](pictures/benchmark_training.png)")
    return "\n\n".join(texts), record


# ---- what moves them ----------------------------------------------------------------------------------------------------------------

SCALES = {
    "batch size": [[f"batch_size={n}"] for n in (16, 64, 256)],
    "width": [[f"architecture.generator.width={n}", f"architecture.discriminator.width={n}"] for n in (32, 64, 128)],
    "resolution": [[f"dataset.resolution={n}", "dataset.resident_mb=100000"] for n in (16, 32, 64)],
}


def scaling(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """dcgan_cifar10 with one thing changed at a time, run and bare round in turns; then one process against two."""
    rows, record = [], {}
    for what, choices in SCALES.items():
        for more in choices[:: 2 if arguments.quick else 1]:
            words = words_of("dcgan_cifar10", arguments, more)
            batch_size = plain(compose(words).config)["batch_size"]
            with contest() as race:
                run = enter(race, words, arguments.threads, (BARE,))
                rounds = rounds_for(run, arguments.seconds)
                played = race.alternate(arguments.turns, rounds)
                peak = run.peak_mib()
            rates = images_per_second(played[RUN], rounds * batch_size)
            ratio = Summary.of([b.seconds / a.seconds for a, b in zip(played[RUN], played[BARE], strict=True)])
            value = int(more[0].partition("=")[2])
            rows.append([what, str(value), *cells(rates), *cells(ratio), f"{peak:.0f}"])
            record.setdefault(what, {})[value] = rates.median
    shared = table(["changed", "to", "images/s", "spread", "(a)/(b)", "spread", "peak MiB"], rows)
    processes, record["processes"] = processes_compared(arguments)
    text = f"dcgan_cifar10 with one thing changed:\n\n{shared}\n\n{processes}"
    if arguments.write:
        picture_of_scaling(record)
        text += "\n\n![Images per second](pictures/benchmark_scaling.png)"
    return text, record


def processes_compared(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """One process with all threads against two that share them."""
    with contest() as race:
        for n in (1, 2):
            share = max(arguments.threads // n, 1)
            words = words_of("dcgan_cifar10", arguments, [f"trainer.devices={n}", f"trainer.threads={share}"])
            batch_size = plain(compose(words).config)["batch_size"]
            contender = race.run(f"{n}", words, share)
            rounds = rounds_for(contender, arguments.seconds)
        played = race.alternate(arguments.turns, rounds)
    rates = {name: images_per_second(turns, rounds * batch_size) for name, turns in played.items()}
    rows = [[name, str(max(arguments.threads // int(name), 1)), *cells(rate)] for name, rate in rates.items()]
    return table(["processes", "threads of each", "images/s", "spread"], rows), {name: rate.median for name, rate in rates.items()}


def images_per_second(turns: Sequence[Played], images: int) -> Summary:
    return Summary.of([images / each.seconds for each in turns])
