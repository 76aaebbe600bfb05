#!/usr/bin/env python3
"""How fast evaluation is, and what memory it takes, beside torch-fidelity and torchmetrics: a table in Markdown.

    pip install torch-fidelity
    python scripts/benchmark_evaluation.py features frechet streaming neighbours agreement overhead --threads 2

Contenders take turns, so that whatever else the machine does meets all of them; figures are medians, and the spread is from the fastest to
the slowest turn. CPU seconds say more than seconds on a machine that is shared. Networks have the same random weights.
"""

import argparse
import hashlib
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

FEATURES = 2048


# ---- measuring ----------------------------------------------------------------------------------------------------------------------


def alternating(contenders: dict[str, Callable[[], object]], turns: int, warm: bool = True) -> dict[str, list[tuple[float, float]]]:
    """(Seconds, CPU seconds) of each turn, after a turn that does not count (warm)."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(not warm, turns + 1):
        for name, work in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            if turn:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def race(title: str, contenders: dict[str, Callable[[], object]], turns: int, images: int | None = None, warm: bool = True) -> None:
    """A table of contenders, each compared with the first in the same turn. images: how many pass in a turn."""
    times = alternating(contenders, turns, warm)
    first = next(iter(times.values()))
    print(f"\n{title}, {turns} turns\n\n| | {'images/s' if images else 's'} | spread | CPU s | times ours |\n|---|---|---|---|---|")
    for name, taken in times.items():
        rates = sorted(images / wall if images else wall for wall, _ in taken)
        cpu = statistics.median(cpu for _, cpu in taken)
        ratio = statistics.median(cpu / own for (_, cpu), (_, own) in zip(taken, first))
        print(f"| {name} | {statistics.median(rates):.3g} | {rates[0]:.3g} ... {rates[-1]:.3g} | {cpu:.2f} | {ratio:.3f} |", flush=True)


def grown(work: Callable[[int], object], n: int, threads: int) -> tuple[float, float]:
    """(MiB by which the peak of a fresh process grows while it does this with n samples, buffers of libraries included; seconds)."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_grown, work, n, threads).result()


def _grown(work: Callable[[int], object], n: int, threads: int) -> tuple[float, float]:
    import gan_runner.metrics  # noqa: F401 - not part of what grows

    torch.set_num_threads(threads)
    before, start = _peak(), time.perf_counter()
    work(n)
    return _peak() - before, time.perf_counter() - start


def _peak() -> float:
    """The most memory that this process ever had, MiB."""
    if sys.platform == "linux":  # where ru_maxrss begins with that of the process that started this one
        status = Path("/proc/self/status").read_text().split()
        return int(status[status.index("VmHWM:") + 1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def rows(n: int, seed: int = 0) -> Tensor:
    """n rows as Inception's features may be: not below 0, and a spectrum that falls like a power."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(1)) / FEATURES**0.5
    scales = torch.arange(1, FEATURES + 1) ** -0.5
    return torch.cat(
        [(torch.randn(len(part), FEATURES, generator=generator) * scales @ mixing).relu() for part in torch.arange(n).split(500)]
    )


# ---- what is measured ---------------------------------------------------------------------------------------------------------------


def random_weights(path: Path) -> None:
    """A file with random weights in the published form."""
    from gan_runner.extractors.inception import CLASSES, Convolution, InceptionV3TF

    state = {"fc.weight": torch.randn(CLASSES, FEATURES) * 0.03, "fc.bias": torch.zeros(CLASSES)}
    for module in InceptionV3TF().modules():
        if isinstance(module, Convolution):
            n, name = module.out_channels, module.published
            state[f"{name}.conv.weight"] = torch.randn(module.weight.shape) * (2 / module.weight[0].numel()) ** 0.5
            state |= {f"{name}.bn.{key}": torch.ones(n) for key in ("weight", "running_var")}
            state |= {f"{name}.bn.{key}": torch.zeros(n) for key in ("bias", "running_mean")}
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    torch.save(state, path)


def agreement(images: int, data: str) -> None:
    """Figures of CIFAR-10 test images, one half against the other, by this project from end to end and by torch-fidelity."""
    from torch_fidelity import calculate_metrics

    from gan_runner.datasets import CIFAR10, Samples
    from gan_runner.evaluation import evaluate
    from gan_runner.evaluation.reference import Reference
    from gan_runner.extractors import InceptionV3TF
    from gan_runner.metrics import ClassifierScore, FrechetDistance, KernelDistance
    from gan_runner.sampling.subjects import Collected

    dataset, half = CIFAR10(data), images // 2
    x = dataset.load("test").x[:images]

    class Half(CIFAR10):
        def load(self, split: str) -> Samples:  # type: ignore[override]
            return Samples(x[half:])

        open = load

    with tempfile.TemporaryDirectory() as folder:
        os.environ["GAN_RUNNER_CACHE"] = folder
        path = Path(folder, "weights.pth")
        random_weights(path)
        extractor = InceptionV3TF(str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        metrics = {"fid": FrechetDistance(), "is": ClassifierScore(), "kid": KernelDistance(subset_size=half // 2)}
        metrics = {name: metric.look_through(extractor) for name, metric in metrics.items()}
        real = Reference(Half(data), "test", batch_size=64)
        found = evaluate(Collected(Samples(x[:half]), dataset.spec), metrics, real, batch_size=64).figures
        ours = {name: next(iter(figures.values())) for name, figures in found.items()}
        settings = {"isc": True, "fid": True, "kid": True, "kid_subset_size": half // 2, "verbose": False, "cuda": False, "batch_size": 64}
        halves = {"input1": Images(x[:half]), "input2": Images(x[half:])}
        said = calculate_metrics(**halves, **settings, feature_extractor_weights_path=str(path))
    theirs = {name: said[key] for name, key in THEIR_NAMES.items()}
    print(f"\n{images} test images of CIFAR-10, halves against each other, random weights\n")
    print("| | ours | torch-fidelity | difference | relative |")
    print("|---|---|---|---|---|")
    for name, value in ours.items():
        off = abs(value - theirs[name])
        print(f"| {name} | {value:.9g} | {theirs[name]:.9g} | {off:.1e} | {off / abs(theirs[name]):.1e} |", flush=True)


THEIR_NAMES = {"fid": "frechet_inception_distance", "is": "inception_score_mean", "kid": "kernel_inception_distance_mean"}


class Images(torch.utils.data.Dataset):
    """Images as torch-fidelity takes them: each by itself."""

    def __init__(self, x: Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        return self.x[i]


def features(turns: int, images: int, side: int) -> None:
    """Images per second through the Inception networks."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.fid import NoTrainInceptionV3

    from gan_runner.extractors import InceptionV3TF

    wanted = ["2048", "logits_unbiased"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pth")
        random_weights(path)
        ours = InceptionV3TF(str(path), sha256=None)
        ours.load()
        theirs = FeatureExtractorInceptionV3("inception", wanted, feature_extractor_weights_path=str(path))
        metrics = NoTrainInceptionV3("inception", wanted, str(path))
        metrics_tf1 = NoTrainInceptionV3("inception", wanted, str(path), antialias=False)
    x = torch.randint(256, (images, 3, side, side), dtype=torch.uint8)
    found, expected = ours(x).features, theirs(x)[0]
    with torch.no_grad():
        race(
            f"Features and logits of {images} images of {side} x {side} at once (ours differ from torch-fidelity's by "
            f"{float((found - expected).norm() / expected.norm()):.1e})",
            {
                "ours": lambda: ours(x),
                "torch-fidelity": lambda: theirs(x),
                "torchmetrics": lambda: metrics(x),
                "torchmetrics, antialias=False": lambda: metrics_tf1(x),
            },
            turns,
            images,
        )


def frechet(turns: int, n: int) -> None:
    """Seconds from moments to the distance."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    from gan_runner.evaluation.moments import Moments
    from gan_runner.metrics.frechet_distance import frechet

    a, b = Moments.of(rows(n, 2)), Moments.of(rows(n, 3) * 1.05)
    statistics_a, statistics_b = ({"mu": m.mean.numpy(), "sigma": m.covariance.numpy()} for m in (a, b))
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: frechet(a, b),
        "torch-fidelity": lambda: fid_statistics_to_metric(statistics_a, statistics_b, False),
        "torchmetrics": lambda: _compute_fid(a.mean, a.covariance, b.mean, b.covariance),
    }
    race(f"Frechet distance, {FEATURES} features, moments of {n:,} samples ({float(frechet(a, b)):.9f})", contenders, turns)


def overhead(turns: int, n: int, data: str) -> None:
    """Whole evaluations of n made images (FID, IS and KID; real features cached), against one generation and the bare passes."""
    from gan_runner.architectures import DCGANGenerator
    from gan_runner.datasets import CIFAR10
    from gan_runner.evaluation import Metric, evaluate
    from gan_runner.evaluation.extractor import Extractor
    from gan_runner.evaluation.reference import Reference
    from gan_runner.extractors import InceptionV3TF, RandomConv
    from gan_runner.metrics import ClassifierScore, FrechetDistance, KernelDistance
    from gan_runner.sampling.subjects import Generated

    dataset = CIFAR10(data)
    generator = DCGANGenerator(dataset.spec).eval().requires_grad_(False)

    def figures(subset: int) -> dict[str, Metric]:
        return {"fid": FrechetDistance(), "is": ClassifierScore(), "kid": KernelDistance(subset_size=subset)}

    with tempfile.TemporaryDirectory() as folder:
        os.environ["GAN_RUNNER_CACHE"] = folder
        path = Path(folder, "weights.pth")
        random_weights(path)
        inception = InceptionV3TF(str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        both: list[list[Extractor]] = [[inception], [inception, RandomConv()]]
        for networks in both:

            def ours(n: int = n, networks: list[Extractor] = networks) -> object:
                metrics = {
                    f"{name}.{network.name}": metric.look_through(network)
                    for network in networks
                    for name, metric in figures(min(n // 2, 1000)).items()
                    if network.classifies or name != "is"
                }
                return evaluate(Generated(generator, n, dataset.spec), metrics, Reference(dataset, "test", n=n)).figures

            def bare(n: int = n, networks: list[Extractor] = networks) -> object:
                made = [dataset.spec.kind.as_bytes(x) for x, _ in Generated(generator, n, dataset.spec).batches(range(n), 500)]
                return [network(x) for network in networks for x in made]

            for network in networks:  # the real features are cached, and what comes first in a process is not part of the turns
                network.load()
                assert len(Reference(dataset, "test", network, n=n).features()) == n
            ours(64)
            bare(64)
            names = " and ".join(network.name for network in networks)
            contenders: dict[str, Callable[[], object]] = {"one generation and bare passes": bare, "whole evaluation": ours}
            race(f"FID, IS and KID of {n:,} made images through {names}", contenders, turns, n, warm=False)


def stream(n: int, distance: bool = True) -> None:
    """Features of n samples, made 500 at a time, into the metric; and the distance to a reference that has only moments."""
    from gan_runner.evaluation.moments import Moments
    from gan_runner.metrics.frechet_distance import FrechetDistance

    metric = FrechetDistance()
    for i in range(0, n, 500):
        metric.update(torch.rand(min(500, n - i), FEATURES))
    if distance:
        metric.reference = SimpleNamespace(moments=lambda: Moments.of(torch.rand(4 * FEATURES, FEATURES)))  # type: ignore[assignment]
        metric.compute()


def stream_only(n: int) -> None:
    stream(n, distance=False)


def streaming(threads: int) -> None:
    """Memory of a measure that keeps no features."""
    print(
        "\nPeak memory of the Frechet distance (growth of a fresh process)\n\n| samples | while they come | with the distance at the end |"
    )
    print("|---|---|---|")
    for n in (2_000, 20_000):
        print(f"| {n:,} | {grown(stream_only, n, threads)[0]:.0f} MiB | {grown(stream, n, threads)[0]:.0f} MiB |", flush=True)


def compare(n: int) -> None:
    from gan_runner.metrics.manifold import precision_recall

    precision_recall(rows(n, 2), rows(n, 3), 3)


def keep(n: int) -> None:
    rows(n, 2), rows(n, 3)


def neighbours(threads: int, n: int) -> None:
    """Memory and time of precision and recall."""
    (memory, seconds), (kept, _) = grown(compare, n, threads), grown(keep, n, threads)
    print(
        f"\nPrecision and recall, {n:,} x {n:,} x {FEATURES}: {seconds:.0f} s, peak memory {memory:.0f} MiB ({kept:.0f} without comparing)"
    )


# ---- the command --------------------------------------------------------------------------------------------------------------------


def machine(threads: int) -> str:
    """Where this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torch-fidelity", "torchmetrics", "numpy"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{model}, {os.cpu_count()} cores, {threads} threads, load {load}; Python {platform.python_version()}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("features", "frechet", "streaming", "neighbours", "agreement", "overhead")
    parser.add_argument("parts", nargs="*", default=parts, metavar="PART", help=", ".join(parts) + "; all by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=32, help="images at once")
    parser.add_argument("--side", type=int, default=32, help="of an image, pixels")
    parser.add_argument("--samples", type=int, default=10_000, help="for the Frechet step, and on each side of precision and recall")
    parser.add_argument("--data", default=os.environ.get("GAN_RUNNER_DATA", "data"), help="folder of CIFAR-10, for agreement")
    parser.add_argument("--compared", type=int, default=4000, help="images of the agreement, one half against the other")
    parser.add_argument("--evaluated", type=int, default=2000, help="images of a whole evaluation, for overhead")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"there is no part {', '.join(unknown)}")
    torch.set_num_threads(arguments.threads)
    print(machine(arguments.threads))
    if "features" in arguments.parts:
        features(arguments.turns, arguments.images, arguments.side)
    if "frechet" in arguments.parts:
        frechet(arguments.turns, arguments.samples)
        frechet(arguments.turns, 2_000)  # fewer samples than features: singular covariances
    if "streaming" in arguments.parts:
        streaming(arguments.threads)
    if "neighbours" in arguments.parts:
        neighbours(arguments.threads, arguments.samples)
    if "agreement" in arguments.parts:
        agreement(arguments.compared, arguments.data)
    if "overhead" in arguments.parts:
        overhead(arguments.turns, arguments.evaluated, arguments.data)


if __name__ == "__main__":
    main()
