"""What every feature network promises."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Extracted(NamedTuple):
    """What a feature network says of N images."""

    features: Tensor  # N F
    logits: Tensor | None  # N K, None where it is no classifier


class Extractor(nn.Module):
    """A frozen network, always in evaluation mode, that takes images as uint8 and does its own resizing and scaling.

    weights: path of the file that a subclass reads. It is opened when first needed, so that a missing file is a reason why a figure is
    missing and not the end of a run. A network that reads no file passes None and sets `loaded`.
    """

    name: str
    """Part of the keys in metrics.jsonl."""

    preprocessing: str
    """What happens to an image before the first layer, for the protocol of a figure; changing it changes the features."""

    features: int | None = None
    """How many features an image has; None where that is a matter of the data."""

    standard: bool = False
    """Whether its figures compare with published ones: only the Inception network with the published weights."""

    chunk: int = 500
    """Images that pass at once, which bounds the memory; it changes no figure."""

    def __init__(self, weights: str | None = None):
        super().__init__()
        self.weights = Path(weights) if weights is not None else None
        self.loaded = False
        self._checksum: str | None = None

    def embed(self, images: Tensor) -> Extracted:
        """Compute features and logits of uint8 images, N C H W with 1 or 3 channels."""
        raise NotImplementedError

    def own(self, content: Any) -> dict[str, Tensor]:
        """Return the state_dict of this network in what the file contains."""
        return content

    def named(self, own: str, published: str) -> str:
        """Return the prefix of a figure: the published name where the figure compares with published ones, and a name of its own
        elsewhere."""
        return f"{published if self.standard else own}/{self.name}"

    @torch.no_grad()
    def forward(self, images: Tensor) -> Extracted:
        """Compute features and logits of images, N C H W in 0 ... 255, in plain float32.

        TypeError unless they are uint8, ValueError unless they are images of 1 or 3 channels, UserError without usable weights.
        """
        self.check(images)
        self.load()
        with exact(images.device):
            parts = [self.embed(part) for part in images.split(self.chunk)]
        logits = [part.logits for part in parts if part.logits is not None]
        return Extracted(torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None)

    def check(self, images: Tensor) -> None:
        """Refuse what are no images as uint8."""
        if images.dtype != torch.uint8:
            raise TypeError(f"extractor {self.name} takes images as uint8, 0 ... 255, and was given {images.dtype}: quantise them first")
        if images.ndim != 4 or 0 in images.shape[2:]:
            raise ValueError(f"extractor {self.name} takes images, N C H W, and was given {' x '.join(map(str, images.shape))}")
        if images.shape[1] not in (1, 3):
            raise ValueError(
                f"extractor {self.name} takes images of 1 or 3 channels, not of {images.shape[1]}; choose no metric that looks through it"
            )

    def find(self) -> Path:
        """Return where the weights are; UserError where they are not."""
        assert self.weights is not None
        if not os.path.isfile(self.weights):  # False as well where one may not look
            raise UserError(
                f"extractor {self.name} needs its weights, and there is no file {self.weights}; "
                f"put {self.weights.name} there, or set extractor.weights to its path"
            )
        return self.weights

    def verify(self, path: Path, checksum: str) -> None:
        """Raise UserError where the file is not to be used; its SHA-256 is `checksum`. By default any file is."""

    def load(self) -> None:
        """Read the weights unless that is done; UserError where the file is missing, unreadable or another network's."""
        if self.loaded:
            return
        path = self.find()
        try:
            with path.open("rb") as file:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
                self.verify(path, checksum)
                if zipfile.is_zipfile(file):
                    with zipfile.ZipFile(file) as parts:
                        if altered := parts.testzip():  # torch.load does not look at checksums
                            raise UserError(f"{path} is damaged: the checksum of {altered} is wrong; replace the file")
                file.seek(0)  # the very bytes that were summed
                self.load_state_dict(self.own(torch.load(file, map_location="cpu", weights_only=True)))
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        except Exception as error:  # whatever a damaged or foreign file can bring about
            raise UserError(
                f"{path} does not hold the weights of {self.name} ({type(error).__name__}); "
                "replace the file, or set extractor.weights to the path of the right one"
            ) from error
        self.requires_grad_(False)
        self._checksum, self.loaded = checksum, True

    def available(self) -> str | None:
        """Return why this extractor cannot be used; None where it can."""
        try:
            self.load()
        except UserError as error:
            return str(error)
        return None

    @property
    def checksum(self) -> str | None:
        """SHA-256 of the weights, for the protocol of a figure; None where there are none."""
        self.load()
        return self._checksum

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


def aside() -> AbstractContextManager[None]:
    """Build layers without drawing from training's random numbers: their initial weights are overwritten anyway."""
    return torch.random.fork_rng(devices=[])


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute in real float32, whatever training chose: no autocast, and neither TF32 nor bfloat16 inside a product."""
    before: list[tuple[Switch, Any]] = []
    for switch in switches():
        with contextlib.suppress(RuntimeError):  # torch refuses to read an old setting that a new one contradicts
            before.append((switch, switch.read()))
    try:
        for switch, _ in before:
            switch.write(switch.exact)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, value in before:
            switch.write(value)


class Switch(NamedTuple):
    """A setting of torch, and the value that keeps float32 whole."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    exact: Any


def switches() -> Iterator[Switch]:
    """List the settings of precision; since torch 2.9 each operation has its own, which must agree with the old ones, so those are set
    first."""
    cudnn, cuda, mkldnn = (cast(Any, backend) for backend in (torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn))
    yield Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
    yield Switch(partial(getattr, cudnn, "allow_tf32"), partial(setattr, cudnn, "allow_tf32"), False)
    if hasattr(cudnn, "conv"):
        for part in (cudnn.conv, cuda.matmul, mkldnn.conv, mkldnn.matmul):
            yield Switch(partial(getattr, part, "fp32_precision"), partial(setattr, part, "fp32_precision"), "ieee")


def unit(images: Tensor) -> Tensor:
    """Convert uint8 to float32 in [0, 1]."""
    return images.float() / 255


def grey(images: Tensor) -> Tensor:
    """Convert one channel, or three by their luma, to N 1 H W."""
    if images.shape[1] == 3:
        return sum(w * images[:, i : i + 1] for i, w in enumerate(LUMA))  # type: ignore[return-value]
    return images


def colour(images: Tensor) -> Tensor:
    """Convert three channels, or one repeated, to N 3 H W."""
    return images.expand(-1, 3, -1, -1)


def resize(images: Tensor, side: int) -> Tensor:
    """Resize square images to this side, by bilinear interpolation with antialiasing; images of that side stay untouched."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
