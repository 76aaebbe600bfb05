"""The line that people type, against torch-fidelity: the same images, the same file of random weights, the same settings."""

import hashlib
import json
import subprocess
import sys

import pytest
from PIL import Image

from gan_runner.datasets import CIFAR10
from random_inception import random_weights

N = 2_000  # images, half of them against the other half


@pytest.mark.slow
@pytest.mark.minutes
@pytest.mark.data
def test_figures_of_two_folders_are_those_of_torch_fidelity(real_data, tmp_path):
    """KID of one subset that is each whole set; scores over 10 splits of samples shuffled by seed 2020; neighbourhoods of 3: as both do."""
    calculate_metrics = pytest.importorskip("torch_fidelity").calculate_metrics
    images = CIFAR10(str(real_data)).load("test").x[:N]
    paler, real = images[: N // 2] // 4 * 3 + 32, images[N // 2 :]  # so far apart that KID is no small difference of large sums
    for name, part in {"fakes": paler, "reals": real}.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(part):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:04}.png")
    weights = random_weights(tmp_path / "random.pth")
    line = [
        "samples=fakes", "reference=reals", "metric=[frechet_distance,classifier_score,kernel_distance,precision_recall]",
        "extractor=[inception_v3_tf]", f"extractor.weights={weights}",
        f"extractor.sha256={hashlib.sha256(weights.read_bytes()).hexdigest()}",
        f"metric.kernel_distance.subset_size={N // 2}", "metric.kernel_distance.subsets=1", "accelerator=cpu", "format=json",
    ]  # fmt: skip
    command = [sys.executable, "-c", "import sys; from gan_runner.cli import evaluate; sys.exit(evaluate())", *line]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    ours = {key.replace(key.split("/")[1], "net"): value for key, value in json.loads(said)["metrics"].items()}
    theirs = calculate_metrics(
        input1=str(tmp_path / "fakes"), input2=str(tmp_path / "reals"),
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
        isc=True, fid=True, kid=True, prc=True, kid_subset_size=N // 2, kid_subsets=1, cuda=False, verbose=False, cache=False,
        save_cpu_ram=False, batch_size=50,
    )  # fmt: skip
    assert ours["cs/net"] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours["cs/net/std"] == pytest.approx(theirs["inception_score_std"], rel=1e-5)
    assert ours["fd/net"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["mmd/net"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    assert ours["pr/net/precision"] == pytest.approx(theirs["precision"], rel=1e-5)
    assert ours["pr/net/recall"] == pytest.approx(theirs["recall"], rel=1e-5)
    assert 0 < ours["pr/net/recall"] < 1
