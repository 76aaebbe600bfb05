"""A classifier of handwritten digits whose weights are part of the package, so that its figures need no download."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import Extracted, Extractor, aside, grey, resize, unit

LAYERS = ((1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))  # inputs, outputs and stride of 3x3 convolutions with ReLU
SIDE, CLASSES = 28, 10
SHIPPED = Path(__file__).with_name("digits.safetensors")
SHA256 = "e2f3db475252630ab0dd17e86e14c763b8ca0ae987cdd2edf9519586c060b711"


class Digits(Extractor):
    """Classify images as handwritten digits: 64 features, the mean over positions after five convolutions, and 10 logits.

    Images N C H W of any size with 1 or 3 channels are resized to 28 x 28, in [0, 1], white on black as in MNIST. It classifies 99.56 % of
    MNIST's test set correctly. Its 70,122 weights (scripts/train_digits.py: MNIST's training set, each image turned, moved and scaled at
    random) are in digits.safetensors beside this file; UserError if that is another file than the one with the SHA-256
    e2f3db475252630ab0dd17e86e14c763b8ca0ae987cdd2edf9519586c060b711.
    Figures are named cs/digits, fd/digits, ..., and do not compare with those of other classifiers.
    """

    name = "digits"
    preprocessing = f"luma of colour images, resize bilinear antialiased {SIDE}, x/255"
    features = LAYERS[-1][1]

    def __init__(self) -> None:
        super().__init__(str(SHIPPED))
        with aside():
            self.convolutions = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, stride, 1) for inputs, outputs, stride in LAYERS)
            self.head = nn.Linear(LAYERS[-1][1], CLASSES)
        self.train(False)

    def find(self) -> Path:
        if not SHIPPED.is_file():
            raise UserError(f"{SHIPPED} is part of gan-runner and is missing: install gan-runner again")
        return SHIPPED

    def verify(self, path: Path, checksum: str) -> None:
        if checksum != SHA256:
            raise UserError(
                f"{path} is not the file that gan-runner came with: its SHA-256 is {checksum} and should be {SHA256}; "
                "install gan-runner again"
            )

    def embed(self, images: Tensor) -> Extracted:
        h = resize(grey(unit(images)), SIDE)
        for convolution in self.convolutions:
            h = F.relu(convolution(h))
        features = h.mean((2, 3))
        return Extracted(features, self.head(features))
