"""The data themselves as features."""

from torch import Tensor

from gan_runner.evaluation.extractor import Extracted, Extractor


class Identity(Extractor):
    """Returns the points unchanged, for data whose own space is meaningful (2-D); takes floats and needs no weights."""

    name = "identity"
    preprocessing = "none"
    classifies = False

    def __init__(self) -> None:
        super().__init__()
        self.loaded = True

    def forward(self, images: Tensor) -> Extracted:
        """Flatten samples N ... to features N F."""
        return self.extract(images.detach().float())

    def extract(self, x: Tensor) -> Extracted:
        """Flatten samples N ... to features N F; may be differentiated."""
        return Extracted(x.flatten(1), None)
