#!/usr/bin/env python3
"""Train the classifier of handwritten digits that ships with the package (extractor `digits`), and write its weights.

    GAN_RUNNER_DATA=FOLDER python scripts/train_digits.py --out src/gan_runner/extractors/digits.safetensors

It trains on the 60,000 training images of MNIST, each seen turned, moved and scaled at random, and keeps an average of the weights. The
test images are looked at once, at the end. Batch norms are folded into the convolutions before the weights are written. Prints the share of
test images that are classified correctly, and the SHA-256 of the file, which belong in the class and in configs/extractor/digits.yaml.
"""

import argparse
import copy
import hashlib
import math
import os
import time
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_runner.datasets import MNIST
from gan_runner.extractors.digits import CLASSES, LAYERS, Digits

AVERAGE = 0.998  # of the weights, a step


def network() -> nn.Sequential:
    """Build the layers of `Digits`, each with a batch norm that the shipped network has folded in, and the linear layer last."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in LAYERS:
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(LAYERS[-1][1], CLASSES))


def moved(x: Tensor) -> Tensor:
    """Turn images N 1 28 28 in [0, 1] by up to 12 degrees, scale them by 0.85 ... 1.1, shear them, and move them by up to 2.5 pixels."""
    n = len(x)
    angle, shear = (torch.rand(2, n) * 2 - 1) * torch.tensor([[math.radians(12)], [0.15]])
    size = 0.85 + 0.25 * torch.rand(n)
    move = (torch.rand(n, 2) * 2 - 1) * 2.5 / 14
    rows = torch.stack([angle.cos() / size, shear - angle.sin() / size, move[:, 0], angle.sin() / size, angle.cos() / size, move[:, 1]], 1)
    return F.grid_sample(x, F.affine_grid(rows.view(n, 2, 3), list(x.shape), align_corners=False), align_corners=False)


def trained(x: Tensor, y: Tensor, epochs: int, batch: int) -> nn.Sequential:
    """Train on images N 1 28 28 in [0, 1] with labels N. Returns the average of the weights, in evaluation mode."""
    net = network()
    average = copy.deepcopy(net).eval()
    steps = epochs * (len(x) // batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=steps, pct_start=0.2)
    step, start = 0, time.time()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            loss = F.cross_entropy(net(moved(x[rows])), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            total += loss.item()
            with torch.no_grad():
                keep = min(AVERAGE, (step + 1) / (step + 10))
                for mine, its in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
                    mine.copy_(keep * mine + (1 - keep) * its if mine.is_floating_point() else its)
        print(f"epoch {epoch + 1}: loss {total / (len(x) // batch):.4f}, {time.time() - start:.0f} s", flush=True)
    return average


def folded(net: nn.Sequential) -> dict[str, Tensor]:
    """Convert the layers to the weights of `Digits`."""
    state: dict[str, Tensor] = {}
    for i in range(len(LAYERS)):
        fused = fuse_conv_bn_eval(net[3 * i], net[3 * i + 1])  # type: ignore[type-var]
        state |= {f"convolutions.{i}.{key}": value.detach().clone().contiguous() for key, value in fused.state_dict().items()}
    return state | {f"head.{key}": value.clone() for key, value in net[-1].state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--root", default=os.environ.get("GAN_RUNNER_DATA", "data"), help="folder that holds MNIST/raw/")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=125)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    choices = parser.parse_args()
    torch.set_num_threads(choices.threads)
    torch.manual_seed(choices.seed)

    data = MNIST(root=choices.root)
    train = data.load("train")
    assert train.y is not None
    net = trained(train.x.float() / 255, train.y, choices.epochs, choices.batch)
    state = folded(net)
    choices.out.write_bytes(safetensors.torch.save(state))

    test, digits = data.load("test"), Digits()
    digits.load_state_dict(state)
    digits.loaded = True  # it reads no file
    assert test.y is not None
    logits = digits(test.x).logits
    assert logits is not None
    right = (logits.argmax(1) == test.y).float().mean().item()
    size, weights = choices.out.stat().st_size, sum(p.numel() for p in digits.parameters())
    print(f"{right:.2%} of {len(test.y):,} test images, {weights:,} weights, {size:,} bytes")
    print(f"SHA-256 {hashlib.sha256(choices.out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
