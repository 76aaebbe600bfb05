"""Which way the figures of each shipped metric are better."""

import importlib.util
from functools import cache

import pytest
import torch
import yaml
from torch import nn

from gan_runner import metrics
from gan_runner.architectures import Discriminator, Generator
from gan_runner.assembly.parts import LIST, make
from gan_runner.config.groups import config_dir
from gan_runner.datasets import Dataset, Ring8, Samples, Spec
from gan_runner.evaluation import evaluate
from gan_runner.evaluation.findings import aim
from gan_runner.evaluation.reference import Reference
from gan_runner.extractors import Extracted, Extractor
from gan_runner.game.play import DiscriminatorOutput
from gan_runner.metrics import Metric
from gan_runner.sampling.subjects import Generated, Snapshot
from gan_runner.storage import older

FILES = {path.stem: yaml.safe_load(path.read_text())[path.stem] for path in (config_dir() / "metric").glob("*.yaml")}
SMALL = {
    "adversarial_probing": {"n": 8, "n_real": 20, "steps": 2},
    "ais": {"n_images": 2, "chains": 2, "temperatures": 4, "leapfrog": 1},
    "birthday": {"threshold": 1e9},
    "classifier_score": {"splits": 2},
    "frechet_infinity": {"smallest": 10, "points": 3},
    "geometry_score": {"draws": 2, "landmarks": 8},
    "kernel_distance": {"subset_size": 10, "subsets": 2},
    "ms_ssim": {"pairs": 4},
    "perceptual_path_length": {"n": 4},
    "prd": {"clusters": 4, "runs": 1},
    "skill_rating": {"n_games": 20},
    "support_precision_recall": {"n_precision": 10, "n_recall": 2, "restarts": 1, "steps": 1},
}
OF_POINTS = ("mode_coverage", "kernel_density", "support_precision_recall")
EXPECTED = {
    "fd/own": "min", "intra_fd/own": "min", "intra_fd/own/0": "min", "intra_fd/own/1": "min",
    "fd_infinity/own": "min", "fd_infinity/own/slope": None, "fd_infinity/own/standard_error": None,
    "mmd/own": "min", "mmd/own/std": None, "cs/own": "max", "cs/own/std": None, "geometry/own": "min",
    "fd_ratio/own": "min", "fd_ratio/own/n": None, "cmmd/own": "min", "mind/own": "min", "swd/own": "min", "vendi/own": "max",
    "ppl/own": "min", "ppl/own/standard_error": None, "authenticity/own": None, "ct/own": None, "fld/own": "min",
    "pr/own/precision": "max", "pr/own/recall": "max", "dc/own/density": None, "dc/own/coverage": "max", "prd/own/f8": "max",
    "prd/own/f1_8": "max", "c2st/own/accuracy": "min", "c2st/own/p_value": None,
    "flaws/own/count": "min", "flaws/own/1/excess": None, "flaws/own/1/accuracy": None, "flaws/own/1/p_value": None,
    "memorisation/own/closer_to_train": None, "memorisation/own/p_value": None, "memorisation/own/distance_ratio": None,
    "memorisation/own/near_duplicates": None, "birthday/own/support": "max", "birthday/own/batch": "max", "birthday/own/at_least": "max",
    "birthday/own/threshold": None, "ms_ssim": None, "ms_ssim/real": None, "ms_ssim/scales": None,
    "modes/covered": "max", "modes/covered_well": "max", "modes/high_quality": "max", "modes/kl": "min",
    "kde/fake_under_real": None, "kde/real_under_fake": "max", "support/precision": "max", "support/recall": "max", "support/f1": "max",
    "parzen/log_likelihood": "max", "parzen/standard_error": None, "parzen/sigma": None,
    "ais/log_likelihood": "max", "ais/standard_error": None, "ais/bdmc_gap": None, "ais/acceptance": None,
    "ratio/cross_entropy": "min", "ratio/steepness": None, "ratio/Z": None,
    "skill/last": None, "skill/spearman_with_step": "max", "skill/g/1": None, "skill/d/1": None,
    **{f"probing/{key}": None for key in ("rejected", "fgsm_l2", "fgsm_linf", "pgd_l2", "pgd_linf", "step_l2", "cosine", "nearest_real",
                                          "success", "step_success")},
}  # fmt: skip


class Own(Extractor):
    """Eight numbers of a sample as its features, two of them as logits."""

    name, preprocessing = "own", "none"

    def __init__(self):
        super().__init__(weights="")

    def load(self):
        """There is nothing to load."""

    @property
    def checksum(self):
        return None

    def embed(self, images):
        rows = images.flatten(1)[:, :8].float()
        return Extracted(rows, rows[:, :2])

    def forward(self, images):
        return self.embed(images)


class G(Generator):
    latent, classes = 3, 2

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.body = nn.Linear(3, torch.Size(shape).numel())

    def forward(self, z, y=None):
        return self.body(z).tanh().unflatten(1, self.shape)


class D(Discriminator):
    features = 1

    def __init__(self, shape):
        super().__init__()
        self.head = nn.Linear(torch.Size(shape).numel(), 1)

    def forward(self, sample, y=None):
        return DiscriminatorOutput(self.head(sample.flatten(1)).squeeze(1) - 0.1, sample.flatten(1)[:, :1])


class Images(Dataset):
    """White noise of two classes."""

    spec = Spec((1, 12, 12), 2)

    def load(self, split):
        seed = torch.Generator().manual_seed(len(split))
        return Samples(torch.randint(256, (60, 1, 12, 12), generator=seed, dtype=torch.uint8), torch.arange(60) % 2)


class Ring(Ring8):
    """Points whose classes are not looked at."""

    spec = property(lambda self: super().spec._replace(classes=None))


@cache
def found(name):
    """What an evaluation says of one shipped metric: (the metric, its figures, their directions)."""
    if name == "geometry_score" and importlib.util.find_spec("gudhi") is None:
        pytest.skip("needs gudhi")
    torch.manual_seed(0)
    data, extractor = Ring(n=60) if name in OF_POINTS else Images(), Own()
    metric = make(FILES[name] | SMALL.get(name, {}), [], LIST["metric"], f"metric.{name}", spec=data.spec)
    net, shape = G(data.spec.shape), data.spec.shape
    snapshots = [Snapshot(step, net, D(shape)) for step in (1, 2, 3)]
    subject = Generated(net, 60, data.spec, discriminator=D(shape), snapshots=lambda: iter(snapshots))
    got = evaluate(subject, {name: metric.look_through(extractor)}, Reference(data, "train"))
    assert "missing" not in got.protocol, got.protocol["missing"]
    return metric, got.numbers, got.better


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_figure_has_the_direction_that_is_meant(name):
    metric, figures, better = found(name)
    assert any("better" in vars(kind) for kind in type(metric).__mro__[:-1] if kind is not Metric), "said by the metric itself"
    listed = {key for key in figures if key in EXPECTED}
    assert {key: better.get(key) for key in listed} == {key: EXPECTED[key] for key in listed}
    others = {key for key in figures.keys() - listed if not key.startswith(("skill/", "flaws/own/"))}
    assert not others, "figures of which this page says nothing"


@pytest.mark.parametrize("name", sorted(FILES))
def test_old_names_keep_the_direction_that_older_versions_gave_them(name):
    metric, figures, better = found(name)
    old = {key: older.better(key) for key in figures if older.better(key)}
    assert {key: better.get(key) for key in old} == old
    for key in old:  # under the names that belong to Inception as well
        assert older.better(key.replace("fd", "fid").replace("mmd/", "kid/").replace("cs/", "is/")) == old[key]
    for key in figures:  # before it is measured
        assert aim(key, {name: metric.look_through(Own())}) == (key, better.get(key))


def test_every_shipped_metric_is_among_them():
    kinds = {kind for name in metrics.__all__ if isinstance(kind := getattr(metrics, name), type) and issubclass(kind, Metric)}
    assert {node["_target_"].rpartition(".")[2] for node in FILES.values()} == {kind.__name__ for kind in kinds} - {"Metric"}
    measured = {key for name in FILES.keys() - {"geometry_score"} for key in found(name)[1]}
    assert EXPECTED.keys() - measured == {"geometry/own"}
