"""The classifier of digits that is part of the package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import gan_runner
from gan_runner.datasets import MNIST
from gan_runner.extractors import Digits, digits

ROOT = Path(__file__).resolve().parents[2]
ACCURACY = 0.9956
SEVEN = """
import sys, torch
from gan_runner.extractors import Digits
image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
image[..., 6:9, 7:21] = 255
for row in range(8, 23):
    left = 19 - (row - 8) * 8 // 15
    image[..., row, left : left + 3] = 255
out = Digits()(image)
print(out.logits.argmax().item(), *out.features.shape, *sorted({name.partition(".")[0] for name in sys.modules} & {"timm", "torchvision"}))
"""


def noise(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_it_works_in_a_fresh_process_without_data(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "GAN_RUNNER_DATA"}
    environment |= {"PYTHONPATH": str(Path(gan_runner.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", SEVEN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.stdout.split() == ["7", "1", "64"]
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_small_and_is_the_one_that_was_measured(tmp_path, monkeypatch):
    assert digits.SHIPPED.stat().st_size <= 400_000
    assert Digits().available() is None
    assert Digits().checksum == digits.SHA256
    assert sum(weight.numel() for weight in Digits().parameters()) == 70_122
    for text in ((ROOT / "configs" / "extractor" / "digits.yaml").read_text(), Digits.__doc__):
        assert digits.SHA256 in text
        assert f"{ACCURACY:.2%}".replace("%", " %") in text
    content = bytearray(digits.SHIPPED.read_bytes())
    content[-1] ^= 1
    other = tmp_path / "digits.safetensors"
    other.write_bytes(content)
    monkeypatch.setattr(digits, "SHIPPED", other)
    assert f"{other} is not the file that gan-runner came with" in Digits().available()
    other.unlink()
    assert Digits().available() == f"{other} is part of gan-runner and is missing: install gan-runner again"


def test_it_is_a_frozen_function_of_images_of_any_size_that_draws_nothing():
    before = torch.get_rng_state()
    extractor = Digits()
    for height, width in ((28, 28), (32, 32), (64, 40), (1, 1)):
        grey = noise(3, 1, height, width)
        out = extractor(grey)
        assert (out.features.shape, out.logits.shape) == ((3, 64), (3, 10))
        assert out.features.isfinite().all()
        assert torch.allclose(extractor(grey.repeat(1, 3, 1, 1)).features, out.features, rtol=1e-4, atol=1e-5)
        assert torch.allclose(torch.cat([extractor(one).features for one in grey.split(1)]), out.features, rtol=1e-4, atol=1e-5)
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert extractor.named("cs", "is") == "cs/digits"


def test_gradients_flow_to_samples():
    x = (noise(2, 1, 32, 32) / 127.5 - 1).requires_grad_()
    (slope,) = torch.autograd.grad(Digits().extract(x).features.sum(), x)
    assert (slope.flatten(1).norm(dim=1) > 0).all()


def test_features_are_those_of_plain_convolutions():
    state, h = safetensors.torch.load_file(digits.SHIPPED), noise(2, 1, 28, 28) / 255
    for i, (_, _, stride) in enumerate(digits.LAYERS):
        h = F.conv2d(h, state[f"convolutions.{i}.weight"], state[f"convolutions.{i}.bias"], stride, 1).relu()
    out = Digits()(noise(2, 1, 28, 28))
    assert torch.allclose(out.features, h.mean((2, 3)), rtol=1e-4, atol=1e-6)
    assert torch.allclose(out.logits, F.linear(h.mean((2, 3)), state["head.weight"], state["head.bias"]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.data
def test_its_accuracy_on_mnist_is_the_one_that_is_said(real_data):
    test = MNIST(root=str(real_data)).load("test")
    right = Digits()(test.x).logits.argmax(1) == test.y
    assert right.float().mean().item() == pytest.approx(ACCURACY, abs=1.5e-4)  # one image may be on the edge
    assert ACCURACY >= 0.993
