"""Decode image files, by the same rules for training, evaluation and rating."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gan_runner.datasets.images import resize
from gan_runner.datasets.listing import NAMED
from gan_runner.datasets.pack import Encoded, Member
from gan_runner.errors import UserError, printable
from gan_runner.reporting import Tick

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 3  # of these rules: images that were decoded by others, and their features, are not used again
BACKGROUND = "white"  # as in the grids of samples
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # how Pillow calls images by their channels
GREY = ("1", "L", "LA", "I", "F")  # modes without colour
OTHER_BYTE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}  # orders of two bytes
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
JPEG = b"\xff\xd8\xff"  # how a file begins
AT_ONCE = 512  # images that are decoded between two looks at the clock
SAVE_IT = "save it with 8 bits a channel"


class Refused(Exception):
    """An image that would be decoded wrongly; the text says why, and what to do."""


def decode(file: Encoded, resolution: int, channels: int, background: str = BACKGROUND) -> Tensor:
    """Decode an image file: uint8, C resolution resolution; the shorter side resized, the centre cropped. UserError as in `pixels`.

    With four channels, colours are weighted by their opacity when resized, and invisible pixels get the colour of the background: a
    colour hidden in the file reaches no network.
    """
    whole = pixels(file, channels, background)
    if channels < 4:
        return squared(whole[None], resolution)[0]
    whole = cropped(resized_with_opacity(whole, resolution), resolution)
    return torch.where(whole[3:] > 0, whole, torch.tensor([*colour(background), 0], dtype=torch.uint8)[:, None, None])


def squared(images: Tensor, resolution: int) -> Tensor:
    """Resize the shorter side of images (uint8, N C H W) to `resolution` pixels, and crop the centre: N C resolution resolution."""
    return cropped(resize(images, resolution), resolution)


def cropped(images: Tensor, resolution: int) -> Tensor:
    """Crop the centre of images (... H W) to a square of `resolution` pixels a side."""
    top, left = ((side - resolution) // 2 for side in images.shape[-2:])
    return images[..., top : top + resolution, left : left + resolution].contiguous()


def pixels(path: Encoded, channels: int | None = None, background: str = BACKGROUND) -> Tensor:
    """Decode an image file: uint8, C H W, rotated by its EXIF orientation; the first frame of an animation.

    channels: 1 is grey (ITU-R 601), 3 RGB, 4 RGB and opacity; None means 1 for a file without colour, else 3. With 1 and 3, transparent
    parts are composited on the background, a colour name of Pillow. 16 bits per channel, and floats from 0 to 1, are scaled to 8 bits
    and rounded. Raises UserError, which names the file, if it cannot be read or would be read wrongly.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with opened(path) as file:
            if file.format == "TIFF":
                file.filename = ""  # type: ignore[attr-defined]  # else Pillow maps some files into memory with width and height exchanged, where EXIF turns them
            grey = is_grey(file)
            image = eight_bits(file, path)
            ImageOps.exif_transpose(image, in_place=True)
            if image.has_transparency_data and channels != 4:
                image = Image.alpha_composite(Image.new("RGBA", image.size, (*colour(background), 255)), image.convert("RGBA"))
            array = np.array(image.convert(MODES[channels or (1 if grey else 3)]))
    except UserError:  # of a file that packs others, which names the image
        raise
    except Refused as error:
        raise UserError(f"the image {printable(str(path))} {error}") from error
    except Exception as error:  # the decoders raise whatever they like
        why = "no image format" if isinstance(error, UnidentifiedImageError) else printable(str(error))  # which repeats the path
        raise UserError(f"cannot decode the image {printable(str(path))} ({why}); replace or remove it") from error
    return torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1)


def refuse_unreadable(files: Sequence[Encoded], tick: Tick) -> None:
    """Decode every image of a data set. UserError that names all that cannot be decoded."""

    def reason(file: Encoded) -> str | None:
        try:
            pixels(file)
        except UserError as error:
            return str(error)
        return None

    mistakes: list[str] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(files), AT_ONCE):
            mistakes += filter(None, pool.map(reason, files[start : start + AT_ONCE]))
            tick("looking at the images", min(start + AT_ONCE, len(files)), len(files))
    if mistakes:
        rest = f"\n{len(mistakes) - NAMED:,} more images cannot be read" if len(mistakes) > NAMED else ""
        raise UserError("\n".join(mistakes[:NAMED]) + rest)


def opened(file: Encoded | IO[bytes]) -> Image:
    """Open an image file without Pillow's warning about its size; from 179 million pixels on Pillow refuses it."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image.open(file.open() if isinstance(file, Member) else file)


def is_grey(file: Image) -> bool:
    """Return whether an image that was opened has no colour."""
    return file.mode in GREY or file.mode.startswith("I;16")


def has_colour(path: Encoded) -> bool:
    """Return whether an image file has colour by its header; False if it cannot be read."""
    try:
        with opened(path) as image:
            return not is_grey(image)
    except Exception:  # is said when it is decoded
        return False


def has_opacity(path: Encoded) -> bool:
    """Return whether pixels may be transparent by the header of an image file; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(len(JPEG)) == JPEG:  # which has no opacity, and may come in millions
                return False
            with opened(file) as image:
                return image.has_transparency_data
    except Exception:  # is said when it is decoded
        return False


def colour(name: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 ... 255, of a colour name of Pillow: white, #a0b0c0, ... ValueError for an unknown name."""
    from PIL import ImageColor

    return ImageColor.getrgb(name)[:3]


def eight_bits(file: Image, path: Encoded) -> Image:
    """Convert an image to 8 bits a channel. Refused where its numbers do not give a brightness."""
    tags = getattr(file, "tag_v2", {})  # of TIFF
    bits, signed = max(tags.get(BITS, (8,))), 2 in tags.get(SAMPLE_FORMAT, ())
    grey = file.mode == "I" or file.mode.startswith("I;16")
    if file.mode != "F" and not grey and bits <= 8 and not any(";16" in raw_mode(tile) for tile in tiles(file)):
        return file
    if tags.get(PHOTOMETRIC) == 0:
        raise Refused(f"has more than 8 bits a pixel, and 0 means white; {SAVE_IT}")
    if "transparency" in file.info:
        raise Refused(f"has more than 8 bits a channel and one colour that means transparent; {SAVE_IT}")
    if file.mode == "F":
        return of_floats(np.asarray(file))
    if grey and (signed or bits > 16 or file.format not in ("PNG", "PPM", "TIFF")):
        known = "numbers with a sign" if signed else f"{bits} bits a pixel" if bits > 8 else "more than 8 bits a pixel"
        raise Refused(f"has {known}, and nothing says which number is white; {SAVE_IT}")
    numbers, top = (np.asarray(file).astype(np.uint32), 2**bits - 1 if tags else 65535) if grey else (sixteen_bits(file, path), 65535)
    return of_numbers(numbers, top, file)


def of_numbers(numbers: np.ndarray, top: int, file: Image) -> Image:
    """Convert whole numbers 0 ... top to an image of 8 bits, rounded, turned as `file` is."""
    from PIL import Image

    image = Image.fromarray(((numbers * 255 + top // 2) // top).astype(np.uint8))
    image.info["exif"] = file.getexif().tobytes()
    return image


def of_floats(numbers: np.ndarray) -> Image:
    """Convert floats 0 ... 1 to an image of 8 bits, rounded. Refused where they are others."""
    from PIL import Image

    if not np.isfinite(numbers).all():
        raise Refused("has floats that are not finite; replace or remove it")
    if numbers.min() < 0 or numbers.max() > 1:
        raise Refused(f"has floats from {numbers.min():.4g} to {numbers.max():.4g}; scale them to 0 (black) ... 1 (white), or {SAVE_IT}")
    return Image.fromarray((numbers * 255).round().astype(np.uint8))


def tiles(file: Any) -> list[Any]:
    """Return the parts of a file that Pillow has not read yet: (decoder, box, offset, arguments)."""
    return getattr(file, "tile", [])


def raw_mode(tile: Any) -> str:
    """Return Pillow's raw mode of a part: how its numbers are stored in the file."""
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def sixteen_bits(file: Any, path: Encoded) -> np.ndarray:
    """Read an image with 16 bits per channel: uint32, H W C. Pillow returns the high bytes; with reversed byte order, the low ones.

    Raises Refused if they are stored in an unusual way.
    """
    if not all(raw_mode(tile) in (file.mode + order for order in OTHER_BYTE) for tile in tiles(file)):
        raise Refused(f"has more than 8 bits a channel, stored in a way that is not read exactly; {SAVE_IT}")
    with opened(path) as again:
        again.tile = [other_byte(tile) for tile in tiles(again)]  # type: ignore[attr-defined]
        return np.asarray(file).astype(np.uint32) * 256 + np.asarray(again)


def other_byte(tile: Any) -> Any:
    """Return the part with reversed byte order."""
    arguments, mode = tile[3], raw_mode(tile)
    other = mode[:-4] + OTHER_BYTE[mode[-4:]]
    changed = (other, *arguments[1:]) if isinstance(arguments, tuple) else other
    return tile._replace(args=changed) if hasattr(tile, "_replace") else (*tile[:3], changed)


def resized_with_opacity(image: Tensor, resolution: int) -> Tensor:
    """Resize the shorter side of an RGBA image (uint8 4 H W) to `resolution` pixels; colours are weighted by opacity."""
    if min(image.shape[1:]) == resolution:
        return image
    opacity = image[3:].float()
    weighted = resize(torch.cat([image[:3] * (opacity / 255), opacity])[None], resolution)[0]
    rgb = 255 * weighted[:3] / weighted[3:].clamp_min(0.5)
    return torch.cat([rgb, weighted[3:]]).round().clamp(0, 255).to(torch.uint8)
