"""Several feature networks in one evaluation."""

import json
import sys

import pytest
import torch

from gan_runner import cli, extractors
from gan_runner.assembly.build import make_metrics, say_skipped
from gan_runner.config.composer import compose
from gan_runner.datasets import Dataset, Samples, Spec
from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import Extractor
from gan_runner.evaluation.findings import aim, evaluate
from gan_runner.evaluation.reference import Reference
from gan_runner.sampling.subjects import Collected
from gan_runner.storage import older
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.untrusted import flat

SPEC = Spec((3, 16, 16))


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GAN_RUNNER_CACHE", str(tmp_path / "cache"))


class Noise(Dataset):
    """Images of noise, darker in the test split."""

    spec = SPEC

    def load(self, split):
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (120, *SPEC.shape), generator=generator, dtype=torch.uint8)
        return Samples(pixels if split == "train" else pixels // 2)


def conv(seed, width=16):
    return {"_target_": "gan_runner.extractors.RandomConv", "seed": seed, "width": width}


LENET = {"_target_": "gan_runner.extractors.LeNet", "weights": "nowhere.pth"}
FRECHET, KERNEL = {"_target_": "gan_runner.metrics.FrechetDistance"}, {"_target_": "gan_runner.metrics.KernelDistance", "subset_size": 20}
CLASSIFIER = {"_target_": "gan_runner.metrics.ClassifierScore"}
BOTH = {"frechet_distance": FRECHET, "kernel_distance": KERNEL}


def made(metrics, **networks):
    return make_metrics({"metric": metrics, "extractor": networks}, (), SPEC)


def found(metrics):
    samples = Samples(Noise().load("test").x / 127.5 - 1)
    return evaluate(Collected(samples, SPEC), metrics, Reference(Noise()), batch_size=50)


RATIO = {"_target_": "gan_runner.metrics.FrechetRatio"}
MEAN = "fd_ratio/mean"


def test_a_ratio_has_a_mean_over_networks():
    got = found(made({"fd_ratio": RATIO}, a=conv(1), b=conv(2)))
    each = [value for key, value in got.numbers.items() if key != MEAN and not key.endswith("/n")]
    assert got.numbers[MEAN] == pytest.approx(sum(each) / 2, rel=1e-12)
    assert got.better[MEAN] == "min"
    protocol = Protocol.of(dict(flat(got.protocol)))
    assert protocol.source(MEAN).metric == "fd_ratio"
    assert protocol.source(MEAN).network["extractor"] == "random_conv_s1_d16, random_conv_s2_d16"
    other = Protocol.of(dict(flat(found(made({"fd_ratio": RATIO}, a=conv(1), c=conv(3))).protocol)))
    assert "extractor" in protocol.differing(MEAN, other), "the mean over other networks is another figure"
    assert MEAN not in found(made({"fd_ratio": RATIO}, a=conv(1))).numbers
    assert MEAN not in found(made(BOTH, a=conv(1), b=conv(2))).numbers


def test_a_metric_of_a_classifier_is_null_through_a_network_that_is_none():
    """And not an error that ends a run at its first evaluation."""
    got = found(made({"frechet_distance": FRECHET, "classifier_score": CLASSIFIER}, a=conv(1)))
    assert got.numbers["cs/random_conv_s1_d16"] is None
    assert got.numbers["fd/random_conv_s1_d16"] > 0
    assert got.protocol["missing"] == {"classifier_score": "it reads the outputs of a classifier, and random_conv_s1_d16 is none"}


def test_the_mean_over_networks_of_which_one_is_missing_is_null():
    got = found(made({"fd_ratio": RATIO}, a=conv(1), lenet=LENET))
    assert got.numbers[MEAN] is None
    assert got.numbers["fd_ratio/random_conv_s1_d16"] > 0


def test_two_networks_in_one_line_give_what_two_lines_give():
    both, first, second = (found(made(BOTH, **nets)) for nets in ({"a": conv(0), "b": conv(1)}, {"a": conv(0)}, {"b": conv(1)}))
    assert both.numbers == first.numbers | second.numbers
    assert both.better == first.better | second.better
    assert len(both.numbers) == len(first.numbers) + len(second.numbers) > 0
    protocols = [Protocol.of(dict(flat(each.protocol))) for each in (both, first, second)]
    for one, alone in ((first, protocols[1]), (second, protocols[2])):
        for key in one.numbers:
            assert protocols[0].differing(key, alone) == {}
            assert protocols[0].relevant(key) == alone.relevant(key)
    fd = "fd/random_conv_s0_d16"
    other = found(made(BOTH, a=conv(0), c={"_target_": "gan_runner.extractors.RandomConv", "seed": 1, "width": 8}))
    assert Protocol.of(dict(flat(other.protocol))).differing(fd, protocols[0]) == {}


def test_samples_are_made_once_and_every_network_sees_them_once():
    metrics = made(BOTH, a=conv(0), b=conv(1))
    passes = {name: [] for name in "ab"}
    for name in "ab":
        network = metrics[f"frechet_distance.{name}"].network
        assert network is metrics[f"kernel_distance.{name}"].network
        network.register_forward_hook(lambda module, given, out, seen=passes[name]: seen.append(len(out.features)))
    asked = []
    subject = Collected(Samples(Noise().load("test").x / 127.5 - 1), SPEC)
    plain = subject.batches
    subject.batches = lambda *given: (asked.append(1), plain(*given))[1]
    evaluate(subject, metrics, Reference(Noise()), batch_size=60)
    assert len(asked) == 1
    assert passes == {"a": [60, 60, 120], "b": [60, 60, 120]}  # two batches of samples, and the real ones


def test_a_metric_names_its_networks():
    metrics = made({"frechet_distance": FRECHET | {"through": ["b"]}, "kernel_distance": KERNEL}, a=conv(0), b=conv(1))
    assert list(metrics) == ["frechet_distance", "kernel_distance.a", "kernel_distance.b"]
    assert metrics["frechet_distance"].prefix(metrics["frechet_distance"].network) == "fd/random_conv_s1_d16"
    got = found(metrics)
    assert len(got.numbers) == 5
    assert got.protocol["keys"]["fd/random_conv_s1_d16"]["extractor"] == "random_conv_s1_d16"
    assert "extractor" not in got.protocol


@pytest.mark.parametrize(
    ("metrics", "networks", "said"),
    [
        (
            {"frechet_distance": FRECHET | {"through": ["lenett"]}},
            {"lenet": LENET},
            r"lenett is not chosen; extractor=\[lenet\]",
        ),
        (
            {"parzen": {"_target_": "gan_runner.metrics.Parzen", "through": ["a"]}},
            {"a": conv(0)},
            r"metric\.parzen\.through=\[a\]: this metric looks through no network",
        ),
        (
            {"frechet_distance": FRECHET},
            {"a": conv(0), "b": conv(0)},
            r"both measure fd/random_conv_s0_d16; .*: ~extractor\.b",
        ),
    ],
)
def test_what_is_refused(metrics, networks, said):
    with pytest.raises(UserError, match=said):
        made(metrics, **networks)


def test_a_metric_of_a_classifier_skips_networks_that_are_none(caplog):
    say_skipped.cache_clear()
    with caplog.at_level("WARNING"):
        metrics = made({"classifier_score": CLASSIFIER, "frechet_distance": FRECHET}, lenet=LENET, a=conv(0), b=conv(1))
        made({"classifier_score": CLASSIFIER}, lenet=LENET, a=conv(0), b=conv(1))
    assert list(metrics) == ["classifier_score", "frechet_distance.lenet", "frechet_distance.a", "frechet_distance.b"]
    assert metrics["classifier_score"].network.name == "lenet"
    assert caplog.messages == ["classifier_score reads the outputs of a classifier: it is not measured through a, b"]
    got = found(made({"classifier_score": CLASSIFIER, "frechet_distance": FRECHET}, lenet=LENET, a=conv(0)))
    assert got.numbers["cs/lenet"] is got.numbers["fd/lenet"] is None
    assert got.numbers["fd/random_conv_s0_d16"] > 0
    assert got.protocol["missing"].keys() == {"classifier_score", "frechet_distance.lenet"}


def test_every_network_says_whether_it_classifies():
    kinds = [getattr(extractors, name) for name in extractors.__all__]
    networks = {each.__name__: each for each in kinds if isinstance(each, type) and issubclass(each, Extractor) and each is not Extractor}
    known = {"CifarResNet", "Digits", "InceptionV3TF", "LeNet", "TorchvisionClassifier"}
    assert {name for name, kind in networks.items() if kind.classifies} == known
    assert networks.keys() - known == {"Clip", "ConvNeXt", "Dinov2", "Identity", "InceptionV3Spatial", "RandomConv"}


def test_best_follows_the_first_network_that_can_be_loaded():
    assert aim("frechet_distance", made({"frechet_distance": FRECHET}, lenet=LENET, a=conv(0))) == ("fd/random_conv_s0_d16", "min")
    assert aim("frechet_distance", made({"frechet_distance": FRECHET}, lenet=LENET)) == ("fd/lenet", "min")
    assert aim("fd/random_conv_s0_d16", made({"frechet_distance": FRECHET}, lenet=LENET, a=conv(0))) == ("fd/random_conv_s0_d16", "min")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["extractor=lenet"], {"lenet": "weights"}),
        (["extractor=[lenet]"], {"lenet": "weights"}),
        (["extractor=lenet", "extractor.weights=w.pth"], {"lenet": "w.pth"}),
        (["extractor=lenet", "extractor.lenet.weights=w.pth"], {"lenet": "w.pth"}),
        (["+experiment=dcgan_mnist", "extractor=lenet", "extractor.weights=w.pth"], {"lenet": "w.pth"}),
        (["extractor=[lenet,cifar_resnet]", "extractor.lenet.weights=w.pth"], {"lenet": "w.pth", "cifar_resnet": "weights"}),
        (["extractor=null"], {}),
    ],
)
def test_the_line_names_one_network_or_several(line, expected):
    chosen = compose(["dataset=mnist", *line]).plain()["extractor"]
    assert chosen.keys() == expected.keys()
    assert all(value == "weights" or chosen[name]["weights"] == value for name, value in expected.items())


def test_a_key_of_one_network_is_refused_where_several_are_chosen():
    with pytest.raises(UserError, match=r"extractor\.weights: there is no extractor weights; chosen: lenet, cifar_resnet"):
        compose(["dataset=mnist", "extractor=[lenet,cifar_resnet]", "extractor.weights=w.pth"])


@pytest.mark.slow
def test_a_file_of_before_has_one_network_without_a_name(tmp_path):
    assert older.translated({"extractor": LENET}) == {"extractor": {"lenet": LENET}}
    assert older.translated({"extractor": {"_target_": "mine.Net"}}) == {"extractor": {"extractor": {"_target_": "mine.Net"}}}
    assert older.translated({"extractor": None}) == {"extractor": {}}
    assert older.translated({"extractor": {"lenet": LENET}}) == {"extractor": {"lenet": LENET}}
    (tmp_path / "extractor").mkdir()
    (tmp_path / "extractor" / "mine.yaml").write_text("# Mine\n_target_: gan_runner.extractors.RandomConv\nseed: 3\n")
    chosen = compose(["extractor=[mine,identity]", "extractor.mine.seed=4"], [tmp_path]).plain()["extractor"]
    assert chosen["mine"] == {"_target_": "gan_runner.extractors.RandomConv", "seed": 4}
    assert chosen.keys() == {"mine", "identity"}


@pytest.mark.slow
def test_gan_eval_prints_the_figures_of_two_networks_and_of_each(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from torchvision.utils import save_image

    for folder, split in (("fakes", "test"), ("reals", "train")):
        (tmp_path / folder).mkdir()
        for i, x in enumerate(Noise().load(split).x):
            save_image(x / 255, tmp_path / folder / f"{i:03}.png")

    def line(*words):
        common = ["samples=fakes", "reference=reals", "metric=[frechet_distance]", "n=100", "format=json"]
        monkeypatch.setattr(sys, "argv", ["gan-eval", *common, *words])
        assert cli.evaluate() == 0
        return json.loads(capsys.readouterr().out)["metrics"]

    two = line("extractor=[random_conv,identity]", "extractor.random_conv.width=8")
    assert two == line("extractor=random_conv", "extractor.width=8") | line("extractor=[identity]")
    assert len(two) == 2


def test_real_samples_are_opened_once_for_all_networks(monkeypatch):
    opened = []
    plain = Noise.open
    monkeypatch.setattr(Noise, "open", lambda self, split: (opened.append(split), plain(self, split))[1])
    monkeypatch.setattr(Noise, "checksum", lambda self, split: opened.append(f"{split} read") or "0")
    reference = Reference(Noise())
    networks = [metric.network for metric in made({"frechet_distance": FRECHET}, a=conv(0), b=conv(1)).values()]
    features = [reference.through(network).features() for network in networks]
    assert sorted(opened) == ["train", "train read"]
    assert not torch.equal(*features)
    assert reference.through(networks[0]) is reference.through(networks[0])
    assert reference.through(networks[0]).of("test").through(networks[1]) is reference.through(networks[1]).of("test")
