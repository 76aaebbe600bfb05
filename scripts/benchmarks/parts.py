"""What a run does beside its rounds: starting, saving, judging, reading files."""

import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks.clock import GAN_TRAIN, Summary, contest, rounds_for
from benchmarks.tables import cells, table
from benchmarks.training import images_per_second, words_of
from gan_runner.config.composed import plain
from gan_runner.config.composer import compose

EXPERIMENT = "+experiment=gaussians25"


def startup(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """Seconds of whole processes, in turns; the files they read lie in the page cache."""

    def whole(*words: str) -> float:
        start = time.perf_counter()
        subprocess.run([*GAN_TRAIN, *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    def first_step() -> float:
        with contest() as race:
            start = time.perf_counter()
            race.run("first", words_of("gaussians25", arguments), arguments.threads).play(1)
            return time.perf_counter() - start

    works = {
        "gan-train --help": lambda: whole("--help"),
        f"gan-train {EXPERIMENT} --cfg job": lambda: whole(EXPERIMENT, "--cfg", "job"),
        f"gan-train {EXPERIMENT}, until the first round is played": first_step,
        "python -c 'import torch', for comparison": imported,
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(arguments.turns + 1):
        for name, work in works.items():
            seconds = work()
            if turn:
                taken[name].append(seconds)
    rows = [[name, *cells(Summary.of(seconds))] for name, seconds in taken.items()]
    return table(["", "s", "spread"], rows), taken


def imported() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - start


def checkpoint(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """Seconds to save and to restore the whole state of dcgan_cifar10, between rounds of a run."""
    with contest() as race:
        run = race.run("run", words_of("dcgan_cifar10", arguments), arguments.threads)
        run.play(2)
        path = race.folder / "state.pt"
        taken: dict[str, list[float]] = {"save": [], "restore": []}
        for _ in range(arguments.turns + 1):
            for word, seconds in taken.items():
                seconds.append(run.ask(word, str(path))["seconds"])
                run.play(1)
        mib = path.stat().st_size / 2**20
    taken = {word: seconds[1:] for word, seconds in taken.items()}
    rows = [[word, *cells(Summary.of([1e3 * each for each in seconds]))] for word, seconds in taken.items()]
    return f"State of dcgan_cifar10, {mib:.0f} MiB:\n\n{table(['', 'ms', 'spread'], rows)}", taken


def evaluation(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """Seconds of an evaluation during training, from sampling to best.pt; the first one loads the feature network."""
    rows, record = [], {}
    for experiment in ("gaussians25", *([] if arguments.quick else ["dcgan_cifar10"])):
        with contest() as race:
            more = [f"callback.evaluate.n={arguments.samples}"]
            more += ["metric=[classifier_score]", "extractor=cifar_resnet"] if experiment == "dcgan_cifar10" else []
            run = race.run("run", words_of(experiment, arguments, more), arguments.threads)
            run.play(1)
            seconds = [run.ask("evaluate", None)["seconds"] for _ in range(arguments.turns + 1)]
        rows.append([experiment, f"{arguments.samples:,}", f"{seconds[0]:.3g}", *cells(Summary.of(seconds[1:]))])
        record[experiment] = seconds
    return table(["", "samples", "first, s", "later, s", "spread"], rows), record


READERS = {
    (workers, kept): f"{workers} workers {'read decoded images' if kept else 'decode'}, nothing else"
    for kept in (False, True)
    for workers in (0, 1, 2)
}


def loader(arguments: Namespace) -> tuple[str, dict[str, Any]]:
    """Images/s of what reads a folder of JPEGs, alone; and of a run that reads while it trains, beside one whose data are resident."""
    n, side, resolution = (256, 96, 32) if arguments.quick else (2000, 128, 64)
    with contest() as race:
        folder = race.folder / "images"
        os.environ["GAN_RUNNER_CACHE"] = str(race.folder / "cache")
        write_images(folder, n, side)
        words = words_of("dcgan_image_folder", arguments, [f"dataset.path={folder}", f"dataset.resolution={resolution}"])
        run = race.run("resident", words, arguments.threads)
        race.run("read", [*words, "dataset.resident_mb=0"], arguments.threads)
        config = plain(compose([word for word in words if not word.startswith("callback.")]).config)
        for workers, kept in READERS:
            dataset = config["dataset"] | {"workers": workers, "keep_decoded": kept}
            race.work(READERS[workers, kept], "reader", {"config": config | {"dataset": dataset}, "facts": run.facts}, arguments.threads)
        rounds = rounds_for(run, arguments.seconds)
        race.alternate(1, rounds)
        played = race.alternate(arguments.turns, rounds)
    titles = {"resident": "a run, data resident", "read": f"a run, {config['dataset']['workers']} workers read"}
    titles |= {name: name for name in READERS.values()}
    rates = {titles[name]: images_per_second(turns, rounds * config["batch_size"]) for name, turns in played.items()}
    said = f"{n} JPEGs of {side} x {side}, decoded and resized to {resolution} x {resolution}; dcgan_image_folder"
    return f"{said}:\n\n{table(['', 'images/s', 'spread'], [[name, *cells(rate)] for name, rate in rates.items()])}", rates


def write_images(folder: Path, n: int, side: int) -> None:
    """JPEGs with something in them: smooth noise and some grain."""
    import torch
    import torch.nn.functional as F
    from torchvision.io import write_jpeg

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        smooth = F.interpolate(torch.rand(1, 3, 8, 8, generator=generator), size=side, mode="bicubic")[0]
        grain = 0.1 * torch.randn(3, side, side, generator=generator)
        write_jpeg(((smooth + grain).clamp(0, 1) * 255).to(torch.uint8), str(folder / f"{i:06}.jpg"), quality=90)
