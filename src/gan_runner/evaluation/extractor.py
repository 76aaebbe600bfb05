"""The interface of feature networks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, cast

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_runner.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Extracted(NamedTuple):
    """The output of a feature network for N images."""

    features: Tensor  # N F
    logits: Tensor | None  # N K, None where it is no classifier


class Extractor(nn.Module):
    """A frozen network, always in evaluation mode. It takes uint8 images, and resizes and scales them itself.

    weights: path of the file that a subclass reads. It is opened at first use: without the file, a figure is missing, but the run
    continues. A network that reads no file passes None and sets `loaded`.
    """

    name: str
    """Part of the keys in metrics.jsonl."""

    preprocessing: str
    """What happens to an image before the first layer, for the protocol of a figure; changing it changes the features."""

    features: int | None = None
    """How many features an image has; None where that is a matter of the data."""

    standard: bool = False
    """Whether its figures compare with published ones: only the Inception network with the published weights."""

    classifies: bool = True
    """False where it gives no logits: of several networks, a metric of a classifier skips it."""

    chunk: int = 100
    """Images that pass at once on a CPU, where fewer are faster, as they fit its caches; four times as many on an accelerator. It bounds
    the memory, and changes no figure."""

    def __init__(self, weights: str | None = None):
        super().__init__()
        self.weights = Path(weights) if weights is not None else None
        self.loaded = False
        self._checksum: str | None = None

    def embed(self, images: Tensor) -> Extracted:
        """Compute features and logits of uint8 images, N C H W with 1 or 3 channels."""
        raise NotImplementedError

    def own(self, content: Any) -> dict[str, Tensor]:
        """Extract the state_dict of this network from the content of the file."""
        return content

    def named(self, own: str, published: str) -> str:
        """Return the prefix of a figure: `published` if the figure is comparable with published ones, else `own`."""
        return f"{published if self.standard else own}/{self.name}"

    @torch.no_grad()
    def forward(self, images: Tensor) -> Extracted:
        """Compute features and logits of images, N C H W in 0 ... 255, in plain float32.

        TypeError unless they are uint8, ValueError unless they are images of 1 or 3 channels, UserError without usable weights.
        """
        self.check(images)
        self.load()
        at_once = self.chunk if images.device.type == "cpu" else 4 * self.chunk
        with exact(images.device):
            parts = [self.embed(part) for part in images.split(at_once)]
        logits = [part.logits for part in parts if part.logits is not None]
        return Extracted(torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None)

    def extract(self, x: Tensor) -> Extracted:
        """Compute features and logits of samples as D sees them, images N C H W in [-1, 1], for a term of the objective.

        Gradients flow through to x. Nothing is rounded, and the precision is that of training. UserError without usable weights.
        """
        self.load()
        return self.embed((x + 1) * 127.5)

    def check(self, images: Tensor) -> None:
        """Raise an error unless these are uint8 images."""
        if images.dtype != torch.uint8:
            raise TypeError(f"extractor {self.name} takes images as uint8, 0 ... 255, and was given {images.dtype}: quantise them first")
        if images.ndim != 4 or 0 in images.shape[2:]:
            raise ValueError(f"extractor {self.name} takes images, N C H W, and was given {' x '.join(map(str, images.shape))}")
        if images.shape[1] not in (1, 3):
            raise ValueError(
                f"extractor {self.name} takes images of 1 or 3 channels, not of {images.shape[1]}; choose no metric that looks through it"
            )

    def find(self) -> Path:
        """Return the path of the weights; UserError if there is no such file."""
        assert self.weights is not None
        if not os.path.isfile(self.weights):  # False as well where one may not look
            raise UserError(
                f"extractor {self.name} needs its weights, and there is no file {self.weights}; "
                f"put {self.weights.name} there, or set extractor.weights to its path"
            )
        return self.weights

    def verify(self, path: Path, checksum: str) -> None:
        """Raise UserError if the file with this SHA-256 must not be used. By default every file is accepted."""

    def load(self) -> None:
        """Read the weights once, from a file of torch.save or .safetensors; no code in it is executed.

        UserError if the file is missing, unreadable or of another network.
        """
        if self.loaded:
            return
        path = self.find()
        try:
            with path.open("rb") as file:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
                self.verify(path, checksum)
                self.load_state_dict(self.own(content_of(file, path)))
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
        """Return the reason why this extractor cannot be used; None if it can."""
        try:
            self.load()
        except UserError as error:
            return str(error)
        return None

    @property
    def checksum(self) -> str | None:
        """SHA-256 of the weights, for the protocol of a figure; None without weights."""
        self.load()
        return self._checksum

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


def content_of(file: BinaryIO, path: Path) -> Any:
    """Read what an open file of weights holds, from its beginning: tensors by name (.safetensors), or what torch.save wrote, where names of
    classes other than those of tensors are refused. UserError if a part of an archive has another checksum than the archive says.
    """
    file.seek(0)  # the very bytes that were summed
    if path.suffix == ".safetensors":
        return safetensors.torch.load(file.read())
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            if altered := parts.testzip():  # torch.load does not look at checksums
                raise UserError(f"{path} is damaged: the checksum of {altered} is wrong; replace the file")
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def aside() -> AbstractContextManager[None]:
    """Build layers without using the random generators of training; the initial weights are overwritten later."""
    return torch.random.fork_rng(devices=[])


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute in full float32, for any settings of training: no autocast, and no TF32 or bfloat16 in products."""
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
    """A setting of torch, and its value for full float32 precision."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    exact: Any


def switches() -> Iterator[Switch]:
    """Yield the settings. Since torch 2.9 each operation has its own; they must agree with the old ones, which come first."""
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
    """Convert to N 1 H W: one channel unchanged, or the luma of three."""
    if images.shape[1] == 3:
        return sum(w * images[:, i : i + 1] for i, w in enumerate(LUMA))  # type: ignore[return-value]
    return images


def colour(images: Tensor) -> Tensor:
    """Convert to N 3 H W: three channels unchanged, or one repeated."""
    return images.expand(-1, 3, -1, -1)


def resize(images: Tensor, side: int) -> Tensor:
    """Resize to square images of this side, bilinear with antialiasing; unchanged if they have this size."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
