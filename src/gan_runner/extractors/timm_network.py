"""Feature networks of the library timm, with weights from a file that is named, or fetched once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_runner.errors import UserError
from gan_runner.evaluation.extractor import Extractor
from gan_runner.extractors.downloads import Remote, fetch

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of channels in [0, 1]
MB = 10**6


class TimmNetwork(Extractor):
    """Base of networks of timm. A subclass calls `build`, and defines `embed`, and `own` where published files use other names.

    weights: path of a file (.pt, .pth, .bin, .safetensors), which is taken whatever its checksum is; only `checksum` in the protocol tells
    it from another. By default the published file is looked for in torch.hub's folder of checkpoints and, with `download`, fetched once to
    it; it is refused if its SHA-256 is not the published one, where one was published.

    UserError without timm, which is optional.
    """

    chunk = 16
    classifies = False
    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: str | None, download: bool):
        super().__init__(weights)
        self.download = download

    def build(self, net: nn.Module, published: Remote, file: str, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        """Take this network, its published weights and their file name, and the mean and deviation of its input."""
        self.net = net.to_empty(device="cpu")
        self.published, self.file = published, file
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)
        self.train(False)

    def normalised(self, images: Tensor) -> Tensor:
        """Convert images in 0 ... 255 to what the network takes."""
        return (images / 255 - self.mean) / self.deviation

    def find(self) -> Path:
        if self.weights is not None:
            return super().find()
        place = Path(torch.hub.get_dir(), "checkpoints", self.file)
        if os.path.isfile(place):  # False as well where one may not look
            return place
        if (why := fetch(self.published, place, self.download)) is None:
            return place
        size = f"{self.published.size / MB:,.0f} MB, " if self.published.size is not None else ""
        known = f"SHA-256 {self.published.sha256}" if self.published.sha256 is not None else "no published checksum"
        raise UserError(
            f"extractor {self.name} needs its weights, and there is no file {place}; {why}. The published ones are {self.published.url} "
            f"({size}{known}): put that file there, or name its path by extractor.weights=PATH"
        )

    def verify(self, path: Path, checksum: str) -> None:
        """Raise UserError if the file was not named, and is not the published one."""
        if self.weights is None and self.published.sha256 not in (None, checksum):
            raise UserError(
                f"{path} is not the published file of extractor {self.name}: its SHA-256 is {checksum} and should be "
                f"{self.published.sha256}. Remove it, and it is fetched again; to use it nevertheless, name it by extractor.weights={path}"
            )

    def own(self, content: Any) -> dict[str, Tensor]:
        return {f"net.{key}": value for key, value in content.items()}


def library() -> Any:
    """Import timm. UserError without it."""
    try:
        import timm  # an optional dependency, which takes seconds to import
    except ImportError as error:
        raise UserError("this extractor needs timm, which is not installed: pip install timm") from error
    return timm
