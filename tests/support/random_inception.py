"""A file with random weights of Inception."""

from pathlib import Path

import torch

from gan_runner.extractors import InceptionV3TF
from gan_runner.extractors.inception import Convolution


def random_weights(path: Path) -> Path:
    """Write random weights in the published form: 566 tensors that keep the size of activations. Returns the path."""
    generator = torch.Generator().manual_seed(1)
    state = {}
    for module in InceptionV3TF().modules():
        if isinstance(module, Convolution):
            n, name = module.out_channels, module.published
            state[f"{name}.conv.weight"] = torch.randn(module.weight.shape, generator=generator) * (2 / module.weight[0].numel()) ** 0.5
            state[f"{name}.bn.weight"] = torch.rand(n, generator=generator) + 0.5
            state[f"{name}.bn.running_var"] = torch.rand(n, generator=generator) + 0.5
            state[f"{name}.bn.bias"], state[f"{name}.bn.running_mean"] = torch.randn(2, n, generator=generator) * 0.1
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
    state |= {"fc.weight": torch.randn(1008, 2048, generator=generator) * 0.03, "fc.bias": torch.randn(1008, generator=generator)}
    torch.save({key: value.clone() for key, value in state.items()}, path)
    return path
