"""The Inception network of published figures: the same function as the reference, and nothing else under its name."""

import hashlib
import re
import socket
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from gan_runner.errors import UserError
from gan_runner.evaluation.moments import Moments
from gan_runner.extractors import InceptionV3Spatial, InceptionV3TF, downloads, inception
from gan_runner.extractors.inception import FILES, SHA256, VARIABLE, tf1_matrix, tf1_resize
from gan_runner.metrics.classifier import classifier_score
from gan_runner.metrics.frechet_distance import frechet
from gan_runner.metrics.mmd import kernel_distance
from random_inception import random_weights

NOISE = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CONTENT = b"weights" * 1000
SMALL = downloads.Remote("https://example.invalid/weights.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty folder of checkpoints, no variable, and a network that nobody may use; the folder does not exist yet."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(downloads, "_failed", {})
    monkeypatch.setattr(downloads, "urlopen", lambda *args, **kwargs: pytest.fail("asked the network"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("inception") / "random.pth")


@pytest.fixture(scope="session")
def net(weights):
    extractor = InceptionV3TF(str(weights), sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    assert extractor.available() is None
    return extractor


def reference(weights):
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("reference", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights))


# ---- the function -------------------------------------------------------------------------------------------------------------------


def test_its_resize_is_that_of_tensorflow_1():
    assert torch.equal(tf1_matrix(2, 4), torch.tensor([[1, 0], [0.5, 0.5], [0, 1], [0, 1]]))  # corner on corner, no half pixels
    assert torch.equal(tf1_matrix(4, 2), torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]]))  # every second pixel: no antialiasing
    assert torch.equal(tf1_matrix(7, 7), torch.eye(7))


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (64, 48), (299, 299), (500, 301), (1, 1)])
def test_its_resize_is_that_of_the_reference(size):
    compat = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = torch.randint(256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).float()
    want = compat.interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    assert (tf1_resize(images, 299) - want).abs().max() <= 1e-4


def test_each_of_256_levels_is_itself_after_resizing():
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 32, 32)
    seen = tf1_resize(levels.float(), 299)
    assert (seen - levels[..., :1, :1]).abs().max() < 1e-4


def same(mine, theirs):
    return all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(mine, theirs, strict=True))


@pytest.mark.slow
def test_features_and_logits_are_those_of_the_reference_on_random_images(weights, net):
    theirs = reference(weights)(NOISE[:2])
    assert [part.shape for part in theirs] == [(2, 2048), (2, 1008)]
    assert same(net(NOISE[:2]), theirs)
    assert theirs[0].std(0).mean() > 0.01  # which is more than that all are alike


@pytest.mark.slow
@pytest.mark.data
def test_features_and_logits_are_those_of_the_reference_on_real_images(real_data, weights, net):
    images = torch.from_numpy(torchvision.datasets.CIFAR10(real_data, train=False).data[:12]).permute(0, 3, 1, 2)
    theirs = reference(weights)(images)
    mine = net(images)
    assert same(mine, theirs)
    rows = (mine.features - theirs[0]).norm(dim=1) / theirs[0].norm(dim=1)
    assert rows.max() <= 1e-5


def test_the_file_has_the_566_tensors_that_the_reference_loads(weights):
    assert len(torch.load(weights, weights_only=True)) == 566
    assert len(reference(weights).state_dict()) == 566  # it is strict about names and shapes


@pytest.mark.slow
def test_features_depend_neither_on_the_batch_nor_on_the_number_of_channels(net):
    whole = net(NOISE[:3])
    assert same(whole, [torch.cat(parts) for parts in zip(net(NOISE[:1]), net(NOISE[1:3]), strict=True)])
    assert same(net(NOISE[:1, :1]), net(NOISE[:1, :1].repeat(1, 3, 1, 1)))
    assert net(NOISE[:0]).features.shape == (0, 2048)


def test_it_is_frozen_and_draws_nothing(weights, net):
    before = torch.get_rng_state()
    extractor = InceptionV3TF(str(weights), sha256=None)
    extractor.train()
    extractor(NOISE[:1])
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    for wrong, error in ((NOISE.float(), TypeError), (NOISE[:, :2], ValueError), (NOISE[0], ValueError)):
        with pytest.raises(error, match=r"^extractor inception_v3_custom_"):
            net(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_on_cuda_are_plain_float32_although_tf32_is_asked_for(weights, net):
    want = net(NOISE)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        found = InceptionV3TF(str(weights), sha256=None).cuda()(NOISE.cuda())
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert same([part.cpu() for part in found], want)


@pytest.mark.slow
def test_spatial_features_are_those_of_the_reference(weights):
    digits = hashlib.sha256(weights.read_bytes()).hexdigest()
    spatial, theirs, found = InceptionV3Spatial(str(weights), sha256=digits), reference(weights), []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda module, given, output: found.append(output))
    theirs(NOISE[:2])
    features, logits = spatial(NOISE[:2])
    assert logits is None
    assert features.shape == (2, spatial.features) == (2, 2023)
    assert same([features], [found[0][:, :7].flatten(1)])
    assert spatial.name == f"inception_v3_spatial_custom_{digits[:8]}"
    published = InceptionV3Spatial()
    assert published.named("fd", "fid") == "fd/inception_v3_spatial_tf", "which is not FID"
    assert "inception_v3_spatial_custom_" in InceptionV3Spatial(str(weights)).available()


# ---- its name -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_the_published_file_goes_by_the_published_name(weights, net):
    digits = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not net.standard
    assert net.name == f"inception_v3_custom_{digits[:8]}"
    assert net.checksum == digits
    assert net.named("fd", "fid") == f"fd/inception_v3_custom_{digits[:8]}"

    published = InceptionV3TF(str(weights))
    assert published.name == "inception_v3_tf"
    assert published.named("fd", "fid") == "fid/inception_v3_tf"
    assert published.available() == (
        f"{weights} is not the file that extractor inception_v3_tf asks for: its SHA-256 is {digits} and should be {SHA256}. Put the right "
        f"one there, or use this one, named inception_v3_custom_{digits[:8]}, by extractor.sha256={digits}"
    )
    with pytest.raises(UserError, match="is not the file"):
        published(NOISE)

    anything = InceptionV3TF(str(weights), sha256=None)
    assert anything.name == "inception_v3_custom"
    assert anything.available() is None
    assert anything.name == f"inception_v3_custom_{digits[:8]}"
    assert not anything.standard


def test_what_is_no_checksum_is_refused():
    for wrong in ("6726825d", SHA256.upper(), ""):
        with pytest.raises(UserError, match="is no SHA-256"):
            InceptionV3TF(sha256=wrong)


@pytest.mark.parametrize("change", ["missing", "foreign", "shape", "list"])
def test_another_networks_weights_are_refused_in_one_sentence(change, tmp_path, weights):
    content = torch.load(weights, weights_only=True, mmap=True)
    if change == "missing":
        del content["Mixed_7c.branch_pool.bn.bias"]
    elif change == "foreign":
        content["AuxLogits.fc.bias"] = torch.zeros(1)
    elif change == "shape":
        content["fc.weight"] = torch.zeros(1000, 2048)
    path = tmp_path / "other.pth"
    torch.save(list(content.values())[:3] if change == "list" else content, path)
    assert re.fullmatch(
        rf"{path} does not hold the weights of inception_v3_custom \(\w+\); replace the file, or set .*",
        InceptionV3TF(str(path), sha256=None).available() or "",
    )


# ---- where it is looked for ---------------------------------------------------------------------------------------------------------


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def test_a_named_path_comes_before_the_variable_and_that_before_the_hub(tmp_path, hub, monkeypatch):
    for name in reversed(FILES):
        put(hub / name)
        assert InceptionV3TF().find() == hub / name
    monkeypatch.setenv(VARIABLE, str(put(tmp_path / "mine.pth")))
    assert InceptionV3TF().find() == tmp_path / "mine.pth"
    assert InceptionV3TF(str(put(tmp_path / "named.pth"))).find() == tmp_path / "named.pth"
    reason = InceptionV3TF(str(tmp_path / "typo.pth")).available()
    assert f"no file {tmp_path / 'typo.pth'}; nothing else was tried, as this path was named" in reason


def test_what_is_missing_is_told_with_a_way_out(hub):
    assert InceptionV3TF(download=False).available() == (
        f"extractor inception_v3_tf needs the weights of Inception, and there is no file {hub / FILES[0]} nor {hub / FILES[1]}; "
        "downloading is off (extractor.download=false). The published ones are "
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth "
        "(95,628,359 bytes, SHA-256 6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2): put that file there, or name its "
        "path by extractor.weights=PATH or by the environment variable GAN_RUNNER_INCEPTION; 'extractor=[random_conv]' needs no file"
    )
    assert "only the published file is downloaded" in InceptionV3TF(sha256=None).available()
    assert not hub.parent.exists()


# ---- downloading --------------------------------------------------------------------------------------------------------------------


class Answer:
    """Gives CONTENT, or as much as there is before something happens."""

    def __init__(self, content=CONTENT, then=None):
        self.content, self.then = content, then

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def read(self, n):
        part, self.content = self.content[:1000], self.content[1000:]
        if not part and self.then:
            raise self.then
        return part


def serve(monkeypatch, *answers):
    """A network that gives these answers, and what was asked of it."""
    asked, left = [], list(answers)

    def urlopen(url, timeout):
        assert timeout <= 10
        asked.append(url)
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(downloads, "urlopen", urlopen)
    monkeypatch.setattr(inception, "PUBLISHED", SMALL)
    return asked


def test_the_file_is_downloaded_once_to_where_the_reference_looks_for_it(hub, monkeypatch):
    asked = serve(monkeypatch, Answer())
    assert InceptionV3TF().find() == hub / FILES[0]
    assert InceptionV3TF().find() == hub / FILES[0]
    assert asked == [SMALL.url]
    assert (hub / FILES[0]).read_bytes() == CONTENT
    assert [path.name for path in hub.iterdir()] == [FILES[0]]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (URLError(OSError("Name or service not known")), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (Answer(CONTENT[:3000], then=ConnectionResetError("reset by peer")), "reset by peer"),
        (Answer(CONTENT[:3000]), "3,000 bytes"),
        (Answer(CONTENT + b"more"), "what came is another file"),
        (Answer(b"x" * len(CONTENT)), "what came is another file: 7,000 bytes, SHA-256"),
    ],
)
def test_a_download_that_fails_is_a_reason_leaves_nothing_and_is_not_tried_again(answer, said, hub, monkeypatch):
    asked = serve(monkeypatch, answer, answer)
    for extractor in (InceptionV3TF(), InceptionV3TF()):
        reason = extractor.available()
        assert "; it could not be downloaded (" in reason
        assert said in reason
    assert asked == [SMALL.url]
    assert not hub.parent.exists()


def test_an_interrupted_download_leaves_nothing_but_what_was_there(hub, monkeypatch):
    put(hub / "other.pth")
    serve(monkeypatch, Answer(CONTENT[:3000], then=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        InceptionV3TF().available()
    assert [path.name for path in hub.iterdir()] == ["other.pth"]


def test_without_a_network_there_is_a_reason_and_no_exception(hub, monkeypatch):
    def blocked(*args, **kwargs):
        raise OSError("blocked")

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "_hub_dir", str(hub.parent))
    monkeypatch.setattr(downloads, "_failed", {})
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    assert "it could not be downloaded (blocked)" in InceptionV3TF().available()
    assert not hub.parent.exists()


# ---- the published weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def published():
    extractor = InceptionV3TF(download=False)
    if reason := extractor.available():
        pytest.skip(reason)
    return extractor.to("cuda" if torch.cuda.is_available() else "cpu")


def passed(extractor, root, train, n):
    """Features and logits of n random images of CIFAR-10, in the order of the data: the selection of torch-fidelity's own tests."""
    data = torchvision.datasets.CIFAR10(root, train=train).data
    images = torch.from_numpy(data[np.sort(np.random.RandomState(2020).choice(len(data), n, replace=False))]).permute(0, 3, 1, 2)
    parts = [extractor(part.to(extractor.fc.weight.device)) for part in images.split(500)]
    return [torch.cat(part).cpu() for part in zip(*parts, strict=True)]


def inception_score(logits):
    """Over ten parts of them in the order in which torch-fidelity shuffles them."""
    return classifier_score(logits[np.random.RandomState(2020).permutation(len(logits))], 10)


@pytest.mark.slow
@pytest.mark.data
def test_the_inception_score_of_cifar10_is_the_published_one(published, real_data):
    scores = inception_score(passed(published, real_data, True, 50_000)[1])
    assert scores.mean().item() == pytest.approx(11.23678, abs=1e-2)
    assert scores.std(correction=0).item() == pytest.approx(0.09514, abs=1e-2)


@pytest.mark.slow
@pytest.mark.data
def test_figures_of_5000_train_against_5000_test_images_are_those_of_torch_fidelity(published, real_data):
    (features, logits), (others, _) = (passed(published, real_data, train, 5000) for train in (True, False))
    assert inception_score(logits).mean().item() == pytest.approx(10.75051, abs=1e-2)
    assert frechet(Moments.of(features), Moments.of(others)).item() == pytest.approx(10.32333, abs=1e-2)
    distances = kernel_distance(features, others)
    assert distances.mean().item() == pytest.approx(-2.907863e-05, abs=2e-6)
    assert distances.std(correction=0).item() == pytest.approx(1.023118e-04, abs=2e-6)
