"""Feature networks: what they recognise, and what they refuse. Inception has tests of its own."""

import hashlib
import os
import pickle

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision

from gan_runner.datasets import to_float, to_uint8
from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import exact
from gan_runner.extractors import CifarResNet, Extractor, Identity, LeNet, RandomConv, TorchvisionClassifier
from gan_runner.extractors.cifar_resnet import Block

KINDS = {
    "lenet": LeNet,
    "resnet20": lambda weights: CifarResNet(weights, depth=20),
    "torchvision_mobilenet_v3_small": lambda weights: TorchvisionClassifier("mobilenet_v3_small", weights),
    "random_conv_s1_d24": lambda weights: RandomConv(seed=1, width=24),
}
FEATURES = {"lenet": 84, "resnet20": 64, "torchvision_mobilenet_v3_small": 1024, "random_conv_s1_d24": 24}
CLASSES = {"lenet": 10, "resnet20": 10, "torchvision_mobilenet_v3_small": 1000}
IMAGES = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def plausible(state):
    """Random weights of these shapes that keep the size of activations."""
    generator = torch.Generator().manual_seed(1)

    def draw(key, value):
        if not value.is_floating_point():
            return torch.zeros_like(value)
        if value.ndim > 1:
            return torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        if key.endswith(("running_var", "weight")):
            return torch.rand(value.shape, generator=generator) + 0.5
        return torch.randn(value.shape, generator=generator) * 0.1

    return {key: draw(key, value) for key, value in state.items()}


def with_random_weights(kind, folder):
    path = folder / "weights.pth"
    if kind == "torchvision_mobilenet_v3_small":
        torch.save(plausible(torchvision.models.mobilenet_v3_small(weights=None).state_dict()), path)
    elif kind == "resnet20":
        torch.save({"state_dict": {f"module.{k}": v for k, v in plausible(KINDS[kind](str(path)).state_dict()).items()}}, path)
    elif kind == "lenet":
        torch.save(plausible(LeNet(str(path)).state_dict()), path)
    return KINDS[kind](str(path)), path


@pytest.mark.parametrize("kind", KINDS)
def test_an_extractor_is_a_frozen_function_of_uint8_images(kind, tmp_path):
    extractor, path = with_random_weights(kind, tmp_path)
    assert extractor.available() is None
    assert extractor.name == kind
    assert extractor.preprocessing
    if path.exists():
        assert extractor.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    out = extractor(IMAGES)
    assert out.features.shape == (6, FEATURES[kind])
    assert extractor.features == FEATURES[kind]
    assert (out.logits is None) == (kind not in CLASSES)
    assert out.logits is None or out.logits.shape == (6, CLASSES[kind])
    assert out.features.dtype == torch.float32
    assert not out.features.requires_grad
    assert out.features.std(0).max() > 0.01  # the images do not all look alike


@pytest.mark.parametrize("kind", KINDS)
def test_features_depend_neither_on_the_batch_nor_on_how_many_pass_at_once(kind, tmp_path):
    extractor = with_random_weights(kind, tmp_path)[0]
    whole = extractor(IMAGES).features
    halves = torch.cat([extractor(half).features for half in IMAGES.split(4)])
    extractor.chunk = 1
    for other in (halves, extractor(IMAGES).features):
        assert (whole - other).norm() <= 1e-5 * whole.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_images_may_be_grey_and_of_another_size(kind, tmp_path):
    extractor = with_random_weights(kind, tmp_path)[0]
    for height, width in ((28, 28), (17, 40), (1, 1)):
        grey = IMAGES[:2, :1, :height, :width]
        colour = grey.repeat(1, 3, 1, 1)
        assert torch.allclose(extractor(grey).features, extractor(colour).features, rtol=1e-4, atol=1e-5)
        assert extractor(colour).features.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_image_is_refused_in_one_sentence(kind, tmp_path):
    extractor = with_random_weights(kind, tmp_path)[0]
    with pytest.raises(TypeError, match=rf"^extractor {kind} takes images as uint8, 0 \.\.\. 255, and was given torch.float32"):
        extractor(to_float(IMAGES))
    with pytest.raises(ValueError, match=f"^extractor {kind} takes images of 1 or 3 channels, not of 4"):
        extractor(torch.cat([IMAGES, IMAGES[:, :1]], 1))
    for shape, said in (((3, 32, 32), "3 x 32 x 32"), ((2, 3, 0, 32), "2 x 3 x 0 x 32"), ((5, 2), "5 x 2")):
        with pytest.raises(ValueError, match=f"^extractor {kind} takes images, N C H W, and was given {said}$"):
            extractor(torch.zeros(shape, dtype=torch.uint8))


def test_all_256_levels_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(levels)), levels)


@pytest.mark.parametrize("kind", KINDS)
def test_making_and_using_an_extractor_leaves_the_random_numbers_alone(kind, tmp_path):
    with_random_weights(kind, tmp_path)
    before = torch.get_rng_state()
    KINDS[kind](str(tmp_path / "weights.pth"))(IMAGES)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_float32_whatever_precision_training_asked_for(kind, tmp_path):
    extractor = with_random_weights(kind, tmp_path)[0]
    want = extractor(IMAGES).features
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(extractor(IMAGES).features, want)
            assert (IMAGES[0, 0].float() @ IMAGES[0, 0].float()).dtype == torch.bfloat16  # and only for the extractor
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


OLD_AND_NEW = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
if hasattr(torch.backends.cudnn, "conv"):
    kinds = (torch.backends.cudnn.conv, torch.backends.cuda.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul)
    OLD_AND_NEW += [(kind, "fp32_precision") for kind in kinds]


@pytest.fixture
def settings():
    """What torch says of its precision; put back afterwards."""

    def read():
        return [torch.get_float32_matmul_precision()] + [getattr(part, name) for part, name in OLD_AND_NEW]

    before = read()
    yield read
    torch.set_float32_matmul_precision(before[0])
    for (part, name), value in zip(OLD_AND_NEW, before[1:], strict=True):
        setattr(part, name, value)


@pytest.mark.parametrize("asked", ["highest", "high", "medium"])
@pytest.mark.parametrize("tf32", [True, False])
def test_settings_of_precision_are_put_back_even_after_an_error(asked, tf32, settings):
    def fail():
        with exact(torch.device("cpu")):
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
            raise RuntimeError("inside")

    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision(asked)
    before = settings()
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert settings() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="needs torch 2.9, which has a setting for each operation")
def test_settings_of_single_operations_are_put_back(settings):
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "tf32"
    with exact(torch.device("cpu")):
        assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"


def test_only_published_figures_have_published_names(tmp_path):
    extractor = with_random_weights("lenet", tmp_path)[0]
    assert not any(kind("x").standard for kind in KINDS.values())
    assert extractor.named("fd", "fid") == "fd/lenet"
    assert not Extractor.standard
    extractor.standard = True
    assert extractor.named("fd", "fid") == "fid/lenet"


def test_missing_weights_are_a_reason(tmp_path):
    extractor = LeNet(str(tmp_path / "digits.pth"))
    reason = extractor.available()
    assert reason == (
        f"extractor lenet needs its weights, and there is no file {tmp_path / 'digits.pth'}; "
        "put digits.pth there, or set extractor.weights to its path"
    )
    with pytest.raises(UserError, match="there is no file"):
        extractor(IMAGES)
    with_random_weights("lenet", tmp_path)[1].rename(tmp_path / "digits.pth")
    assert extractor.available() is None  # it may be put there later


def test_weights_of_another_network_and_damaged_files_are_refused(tmp_path):
    path = with_random_weights("resnet20", tmp_path)[1]
    for foreign in (LeNet(str(path)), CifarResNet(str(path), depth=56), TorchvisionClassifier("resnet18", str(path))):
        assert f"does not hold the weights of {foreign.name}" in foreign.available()
        assert foreign.available().count("\n") == 0
    path.write_bytes(path.read_bytes()[:1000])
    assert "does not hold the weights of resnet20" in CifarResNet(str(path), depth=20).available()


def test_a_flipped_bit_of_weights_is_found(tmp_path):
    """torch.load alone reads it as another weight."""
    path = tmp_path / "weights.pth"
    torch.save(plausible(LeNet(str(path)).state_dict()), path)
    assert LeNet(str(path)).available() is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    assert f"{path} is damaged: the checksum of" in LeNet(str(path)).available()


def test_weights_may_be_in_a_file_of_safetensors(tmp_path):
    extractor, path = with_random_weights("lenet", tmp_path)
    other = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(torch.load(path, weights_only=True), other)
    assert torch.equal(LeNet(str(other))(IMAGES).features, extractor(IMAGES).features)
    assert LeNet(str(other)).checksum == hashlib.sha256(other.read_bytes()).hexdigest()
    other.write_bytes(path.read_bytes())  # whose name says what it is not
    assert f"{other} does not hold the weights of lenet" in LeNet(str(other)).available()


def test_a_weights_file_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    assert "does not hold" in LeNet(str(path)).available()
    assert not (tmp_path / "boom").exists()


def test_option_a_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides():
    block = Block(2, 4).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)
    want = torch.zeros(1, 4, 2, 2)
    want[:, 1:3] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), F.relu(want))


def test_identity_hands_points_through():
    x = torch.randn(5, 2)
    extractor = Identity()
    assert torch.equal(extractor(x).features, x)
    assert extractor(x).logits is None
    assert extractor.available() is None
    assert extractor.checksum is None
    assert extractor.features is None


# ---- fixed random weights -----------------------------------------------------------------------------------------------------------


def test_a_random_network_is_a_function_of_its_seed_and_width():
    first, again, other = RandomConv(0, 16), RandomConv(0, 16), RandomConv(1, 16)
    assert first.name == "random_conv_s0_d16"
    assert torch.equal(first(IMAGES).features, again(IMAGES).features)
    assert first.checksum == again.checksum
    assert first.checksum != other.checksum
    assert not torch.allclose(first(IMAGES).features, other(IMAGES).features)
    weight = first.convolutions[0].weight  # the first of them, so that another stream of random numbers is noticed
    assert weight.flatten()[:3].tolist() == pytest.approx([0.1578845, 0.3952741, 0.4704282], abs=1e-6)
    assert first.convolutions[1].weight.std() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.02)


def test_a_random_network_tells_noise_from_smooth_images():
    noise = torch.randint(256, (128, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    smooth = F.interpolate(noise[:, :, :4, :4].float(), 32, mode="bilinear").byte()
    means = [RandomConv()(images).features.mean(0) for images in (noise[:64], noise[64:], smooth[:64], smooth[64:])]
    assert (means[0] - means[2]).norm() > 4 * max((means[0] - means[1]).norm(), (means[2] - means[3]).norm())


# ---- classifiers of torchvision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "last", "side"),
    [
        ("resnet18", "fc", 224),
        pytest.param("resnet50", "fc", 224, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "classifier.1", 224, marks=pytest.mark.slow),
        pytest.param("vgg16", "classifier.6", 224, marks=pytest.mark.slow),
        pytest.param("inception_v3", "fc", 299, marks=pytest.mark.slow),
        pytest.param("regnet_x_400mf", "fc", 224, marks=pytest.mark.slow),
    ],
)
def test_a_classifier_of_torchvision_gives_its_logits_and_what_its_last_layer_reads(model, last, side, tmp_path):
    choices = {"transform_input": True, "init_weights": False} if model == "inception_v3" else {}
    net = torchvision.models.get_model(model, weights=None, **choices).eval()
    net.load_state_dict(plausible(net.state_dict()))
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    read = []
    net.get_submodule(last).register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    x = F.interpolate(IMAGES[:2].float() / 255, (side, side), mode="bilinear", antialias=True)
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        logits = net(x)
    extractor = TorchvisionClassifier(model, str(tmp_path / "weights.pth"))
    out = extractor(IMAGES[:2])
    assert extractor.name == f"torchvision_{model}"
    assert extractor.preprocessing.startswith(f"resize bilinear antialiased {side}, (x/255-[0.485")
    assert extractor.features == out.features.shape[1]
    assert (out.features - read[0]).norm() <= 1e-5 * read[0].norm()
    assert (out.logits - logits).norm() <= 1e-5 * logits.norm()


def test_the_number_of_classes_is_read_off_the_file(tmp_path):
    net = torchvision.models.resnet18(weights=None, num_classes=7)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    out = TorchvisionClassifier("resnet18", str(tmp_path / "weights.pth"))(IMAGES[:2])
    assert out.features.shape == (2, 512)
    assert out.logits.shape == (2, 7)


def test_models_that_torchvision_has_not_or_that_have_no_last_layer_are_refused():
    with pytest.raises(UserError, match=r"torchvision has no classifier resnet81 \(did you mean resnet18\?\)"):
        TorchvisionClassifier("resnet81", "x.pth")
    with pytest.raises(UserError, match="torchvision has no classifier nonsense; it has alexnet, "):
        TorchvisionClassifier("nonsense", "x.pth")
    with pytest.raises(UserError, match="squeezenet1_0 has no linear layer"):
        TorchvisionClassifier("squeezenet1_0", "x.pth")


# ---- real weights -------------------------------------------------------------------------------------------------------------------


def accuracy(extractor, images, labels):
    right = sum((extractor(x).logits.argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500), strict=True))
    return right / len(labels)


def cifar10(root, n):
    data = torchvision.datasets.CIFAR10(root, train=False)
    return torch.from_numpy(data.data[:n]).permute(0, 3, 1, 2), torch.tensor(data.targets[:n])


@pytest.mark.slow
@pytest.mark.data
def test_lenet_recognises_mnist(real_data):
    data = torchvision.datasets.MNIST(real_data, train=False)
    extractor = LeNet(str(real_data / "classifiers" / "lenet_epoch12_acc0.991.pth"))
    assert accuracy(extractor, data.data[:, None], data.targets) == pytest.approx(0.9908, abs=2e-4)  # its file's name says 0.991


@pytest.mark.slow
@pytest.mark.data
def test_cifar_resnet_recognises_a_part_of_cifar10(real_data):
    extractor = CifarResNet(str(real_data / "classifiers" / "resnet20-12fca82f.th"), depth=20)
    assert extractor.checksum.startswith("12fca82f")
    assert accuracy(extractor, *cifar10(real_data, 1000)) == pytest.approx(0.915, abs=2e-3)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(("depth", "file", "published"), [(20, "resnet20-12fca82f.th", 0.9173), (56, "resnet56-4bfd9763.th", 0.9339)])
def test_cifar_resnets_have_their_published_accuracy(real_data, depth, file, published):
    extractor = CifarResNet(str(real_data / "classifiers" / file), depth=depth)
    assert accuracy(extractor, *cifar10(real_data, 10_000)) == pytest.approx(published, abs=2e-4)
