"""Feature networks: what they recognise, and what they refuse."""

import hashlib
import os
import pickle

import pytest
import torch
import torch.nn.functional as F
import torchvision

from gan_runner.errors import UserError
from gan_runner.extractors import CifarResNet, Identity, LeNet
from gan_runner.extractors.cifar_resnet import Block

KINDS = {"lenet": LeNet, "resnet20": lambda weights: CifarResNet(weights, depth=20)}
IMAGES = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def with_random_weights(kind, folder):
    path = folder / "weights.pth"
    state = KINDS[kind](str(path)).state_dict()
    generator = torch.Generator().manual_seed(1)
    state = {k: torch.rand(v.shape, generator=generator) * 0.1 if v.is_floating_point() else v for k, v in state.items()}
    torch.save(state if kind == "lenet" else {"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return KINDS[kind](str(path)), path


@pytest.mark.parametrize(("kind", "features"), [("lenet", 84), ("resnet20", 64)])
def test_an_extractor_is_a_frozen_function_of_uint8_images(kind, features, tmp_path):
    extractor, path = with_random_weights(kind, tmp_path)
    assert extractor.available() is None
    assert extractor.name == kind
    assert extractor.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    out = extractor(IMAGES)
    assert out.features.shape == (6, features)
    assert out.logits.shape == (6, 10)
    assert not out.features.requires_grad
    halves = torch.cat([extractor(half).features for half in IMAGES.split(3)])
    assert torch.allclose(out.features, halves, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"uint8, 0 \.\.\. 255, and was given torch.float32"):
        extractor(IMAGES.float())
    with pytest.raises(ValueError, match="1 or 3 channels, not of 4"):
        extractor(torch.cat([IMAGES, IMAGES[:, :1]], 1))
    assert extractor(IMAGES[:, :1, :28, :28]).logits.shape == (6, 10)  # another size, grey


@pytest.mark.parametrize("kind", KINDS)
def test_making_and_using_an_extractor_leaves_the_random_numbers_alone(kind, tmp_path):
    with_random_weights(kind, tmp_path)
    before = torch.get_rng_state()
    KINDS[kind](str(tmp_path / "weights.pth"))(IMAGES)
    assert torch.equal(torch.get_rng_state(), before)


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
    assert "does not hold the weights of lenet" in LeNet(str(path)).available()
    assert "does not hold the weights of resnet56" in CifarResNet(str(path), depth=56).available()
    path.write_bytes(path.read_bytes()[:1000])
    assert "does not hold the weights of resnet20" in CifarResNet(str(path), depth=20).available()


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


def accuracy(extractor, images, labels):
    right = sum((extractor(x).logits.argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500), strict=True))
    return right / len(labels)


def cifar10(root, n):
    data = torchvision.datasets.CIFAR10(root, train=False)
    return torch.from_numpy(data.data[:n]).permute(0, 3, 1, 2), torch.tensor(data.targets[:n])


@pytest.mark.data
def test_lenet_recognises_mnist(real_data):
    data = torchvision.datasets.MNIST(real_data, train=False)
    extractor = LeNet(str(real_data / "classifiers" / "lenet_epoch12_acc0.991.pth"))
    assert accuracy(extractor, data.data[:, None], data.targets) == pytest.approx(0.9908, abs=2e-4)  # its file's name says 0.991


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
