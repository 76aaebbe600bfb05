"""Classifiers of torchvision, with weights from a file."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.errors import UserError, did_you_mean
from gan_runner.evaluation.extractor import Extracted, Extractor, aside, colour, resize, unit

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # classifiers that only training of Inception and GoogLeNet uses


class TorchvisionClassifier(Extractor):
    """A classifier of torchvision.models; features are the input of its last linear layer.

    model: its name there, such as resnet50, efficientnet_b0, vgg16. weights: path of its state_dict, as published by torchvision or with
    another number of classes, which is read from the file. The whole image is resized to torchvision's crop size for this model (bilinear,
    antialiased), and normalised by torchvision's mean and deviation for it. inception_v3 is torchvision's own network with its own weights:
    its figures are not comparable with those of InceptionV3TF, and have another name.
    """

    chunk = 16
    mean: Tensor
    deviation: Tensor

    def __init__(self, model: str, weights: str):
        from torchvision import models  # takes a second to import

        super().__init__(weights)
        known = models.list_models(module=models)
        if model not in known:
            hint = did_you_mean(model, known) or f"; it has {', '.join(known)}"
            raise UserError(f"torchvision has no classifier {model}{hint}")
        published = models.get_model_weights(model).DEFAULT.transforms()
        self.side = published.crop_size[0]
        self.name = f"torchvision_{model}"
        self.preprocessing = f"resize bilinear antialiased {self.side}, (x/255-{published.mean})/{published.std}"
        self.body = without_weights(model)
        linear = [path for path, module in self.body.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise UserError(f"torchvision's {model} has no linear layer, whose input would be the features; choose another extractor.model")
        self.last = linear[-1]
        self.head: nn.Linear = self.body.get_submodule(self.last)  # type: ignore[assignment]
        self.body.set_submodule(self.last, nn.Identity())
        self.features = self.head.in_features
        self.register_buffer("mean", torch.tensor(published.mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(published.std)[:, None, None], persistent=False)
        self.train(False)

    def own(self, content: Any) -> dict[str, Tensor]:
        classes = len(content[f"{self.last}.weight"])
        if classes != self.head.out_features:
            self.head = nn.utils.skip_init(nn.Linear, self.features, classes, device=self.mean.device)
        state = {}
        for key, value in content.items():
            key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key)  # DenseNet's published files have the names of old
            layer, _, rest = key.rpartition(".")
            if not key.startswith(AUXILIARY):
                state[f"head.{rest}" if layer == self.last else f"body.{key}"] = value
        return state

    def embed(self, images: Tensor) -> Extracted:
        features = self.body((resize(colour(unit(images)), self.side) - self.mean) / self.deviation)
        return Extracted(features, self.head(features))


def without_weights(model: str) -> nn.Module:
    """Build a network of torchvision without initial weights, which would take seconds and random numbers."""
    from torchvision import models

    # as with published weights, these two rescale their input themselves; without auxiliary classifiers they give one tensor
    rescaling = {"aux_logits": False, "transform_input": True, "init_weights": False} if model in ("inception_v3", "googlenet") else {}
    try:
        with torch.device("meta"):
            net = models.get_model(model, weights=None, **rescaling)
    except NotImplementedError:  # RegNet computes its widths with tensors
        with aside():
            return models.get_model(model, weights=None, **rescaling)
    return net.to_empty(device="cpu")
