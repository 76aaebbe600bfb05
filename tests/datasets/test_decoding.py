"""One decoder for every command: depth, opacity, orientation, kinds of files."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_runner.datasets import ImageFolder, Stored
from gan_runner.datasets.decoding import decode, pixels
from gan_runner.errors import UserError

H, W = 6, 6
RANDOM = np.random.default_rng(0)


def trained(path: Path, channels: Any = 3, **settings: Any) -> np.ndarray:
    """What gan-train sees of a folder with one square image of H pixels: H W C."""
    return (
        ImageFolder(str(path.parent), H, channels, test_fraction=0.0, keep_decoded=False, **settings)
        .load("train")
        .x[0]
        .permute(1, 2, 0)
        .numpy()
    )


def judged(path: Path) -> np.ndarray:
    """What gan-eval and gan-rate see."""
    return Stored(str(path.parent)).load("train").x[0].permute(1, 2, 0).numpy()


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write: uint16, H W C."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    pixels: np.ndarray, order: str = "<", packed: bool = False, kind: int = 1, photometric: int | None = None, turn: int = 1, bits: int = 0
) -> bytes:
    """A TIFF of any numbers, H W C. kind: 1 whole, 2 with a sign, 3 float; turn: the orientation of EXIF; bits: those that are used."""
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()  # type: ignore[call-overload]
    if bits == 12:
        flat = pixels.reshape(height, -1).astype(np.uint32)
        data = b"".join(int("".join(f"{v:012b}" for v in row), 2).to_bytes(len(row) * 12 // 8, "big") for row in flat)
    data = zlib.compress(data) if packed else data
    bits = bits or pixels.dtype.itemsize * 8
    photometric = (2 if channels > 2 else 1) if photometric is None else photometric
    short = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [8 if packed else 1],
        262: [photometric],
        274: [turn],
        277: [channels],
    }
    short |= {278: [height], 284: [1], 338: [2] if channels == 4 else [], 339: [kind] * channels}
    tags = sorted([(tag, 3, values) for tag, values in short.items() if values] + [(273, 4, [0]), (279, 4, [len(data)])])
    extra, entries, start = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag, size, values in tags:
        raw = b"".join(struct.pack(order + ("H" if size == 3 else "I"), value) for value in values)
        if len(raw) > 4:
            raw, extra = struct.pack(order + "I", start + len(extra)), extra + raw
        entries += struct.pack(order + "HHI", tag, size, len(values)) + (b"AT##" if tag == 273 else raw.ljust(4, b"\0"))
    entries = entries.replace(b"AT##", struct.pack(order + "I", start + len(extra)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return head + entries + b"\0\0\0\0" + extra + data


def pgm(pixels: np.ndarray, top: int) -> bytes:
    return b"P5\n%d %d\n%d\n" % (pixels.shape[1], pixels.shape[0], top) + pixels.astype(">u2").tobytes()


def ppm(pixels: np.ndarray, top: int) -> bytes:
    return b"P6\n%d %d\n%d\n" % (pixels.shape[1], pixels.shape[0], top) + pixels.astype(">u2").tobytes()


def whole(top: int, *shape: int) -> np.ndarray:
    numbers = RANDOM.integers(0, top + 1, shape).astype(np.uint16)
    numbers.flat[:4] = (0, top, top // 2, 0x80FF % (top + 1))
    return numbers


GREY, COLOUR, TWELVE = whole(65535, H, W, 1), whole(65535, H, W, 3), whole(4095, H, W, 1)
OPAQUE = np.concatenate([COLOUR, np.full((H, W, 1), 65535, np.uint16)], 2)
FLOATS = RANDOM.random((H, W, 1)).astype(np.float32)
DEEP = {
    "png grey": ("png", png(GREY), GREY, 65535),
    "png colour": ("png", png(COLOUR), COLOUR, 65535),
    "png opacity": ("png", png(OPAQUE), COLOUR, 65535),
    "pgm": ("pgm", pgm(GREY, 65535), GREY, 65535),
    "pgm of 12 bits": ("pgm", pgm(TWELVE, 4095), TWELVE, 4095),
    "ppm": ("ppm", ppm(COLOUR, 65535), COLOUR, 65535),
    "tiff of 12 bits": ("tif", tiff(TWELVE, bits=12), TWELVE, 4095),
    "tiff float": ("tif", tiff(FLOATS, kind=3), FLOATS, 1),
    "tiff float, other order": ("tif", tiff(FLOATS, ">", kind=3), FLOATS, 1),
} | {
    f"tiff {name} {order} {'packed' if packed else ''}": ("tif", tiff(numbers, order, packed), numbers[..., :3], 65535)
    for name, numbers in {"grey": GREY, "colour": COLOUR, "opacity": OPAQUE}.items()
    for order in "<>"
    for packed in (False, True)
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_8_bits_are_scaled_and_rounded(tmp_path: Path, kind: str) -> None:
    suffix, content, numbers, top = DEEP[kind]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    want = np.floor(numbers.astype(np.float64) * 255 / top + 0.5)
    assert np.abs(judged(path) - want).max() <= ("pgm of" in kind)  # Pillow rounds to 16 bits in between
    assert np.array_equal(trained(path, numbers.shape[2]), judged(path))


REFUSED = {
    "whole numbers of 32 bits": ("tif", tiff(GREY.astype(np.uint32)), "32 bits a pixel, and nothing says which number is white"),
    "with a sign, 32 bits": ("tif", tiff(GREY.astype(np.int32), kind=2), "numbers with a sign"),
    "with a sign, 16 bits": ("tif", tiff((GREY // 2).astype(np.int16), kind=2), "numbers with a sign"),
    "0 is white": ("tif", tiff(GREY, photometric=0), "0 means white"),
    "0 is white, float": ("tif", tiff(FLOATS, kind=3, photometric=0), "0 means white"),
    "floats to 255": ("tif", tiff(255 * FLOATS, kind=3), r"floats from [\d.]+ to [\d.]+; scale them to 0"),
    "negative floats": ("tif", tiff(-FLOATS, kind=3), "floats from -0.9"),
    "not finite": ("tif", tiff(FLOATS * np.float32("nan"), kind=3), "not finite"),
    "infinite": ("tif", tiff(np.full_like(FLOATS, np.inf), kind=3), "not finite"),
    "64 bits": ("tif", tiff(FLOATS.astype(np.float64), kind=3), "cannot"),
    "grey and opacity of 16 bits": ("png", png(np.repeat(GREY, 2, 2)), "not read exactly"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("see", [trained, judged])
def test_what_would_be_seen_wrongly_is_refused_by_name(tmp_path: Path, kind: str, see: Any) -> None:
    suffix, content, message = REFUSED[kind]
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        see(path)
    assert str(path) in str(error.value)


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    for mode in ("I;16", "RGB"):
        content = png(GREY if mode == "I;16" else COLOUR)
        transparent = b"\0\7" * (1 if mode == "I;16" else 3)
        chunk = struct.pack(">I", len(transparent)) + b"tRNS" + transparent + struct.pack(">I", zlib.crc32(b"tRNS" + transparent))
        (tmp_path / "x.png").write_bytes(content[:33] + chunk + content[33:])
        with pytest.raises(UserError, match="one colour that means transparent"):
            pixels(tmp_path / "x.png")


# ---- orientation ------------------------------------------------------------------------------------------------------------------------

ORIENTED = RANDOM.integers(0, 256, (H, W, 3), np.uint8)


def exif(turn: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = turn
    return made


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "deep tif", "deep png"])
def test_images_are_turned_as_their_exif_says(tmp_path: Path, turn: int, suffix: str) -> None:
    path = tmp_path / f"x.{suffix[-3:] if 'deep' in suffix else suffix}"
    quality = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    if suffix == "deep tif":
        path.write_bytes(tiff(ORIENTED.astype(np.uint16) * 257, turn=turn))
    elif suffix == "deep png":
        Image.fromarray(ORIENTED[..., 0].astype(np.uint16) * 257).save(path, exif=exif(turn))
    else:
        Image.fromarray(ORIENTED).save(path, exif=exif(turn), **quality)
    turned = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: x.swapaxes(0, 1)[:, ::-1],
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: x.swapaxes(0, 1)[::-1],
    }[turn]
    want = turned(ORIENTED if suffix != "deep png" else ORIENTED[..., :1]).astype(int)
    assert np.abs(judged(path) - want).max() <= (3 if suffix == "jpg" else 0)
    assert np.array_equal(trained(path, want.shape[2]), judged(path))


@pytest.mark.parametrize("turn", [1, 3, 6, 7])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_a_tiff_that_is_wider_than_high_is_turned_as_its_exif_says(tmp_path: Path, mode: str, turn: int) -> None:
    """Some uncompressed ones are mapped into memory by Pillow, with the width and height of the image after it is turned."""
    levels = RANDOM.integers(0, 256, (4, 6), np.uint8)
    deep = {"I;16": levels.astype(np.uint16) * 257, "F": (levels / 255).astype(np.float32)}
    image = Image.fromarray(deep[mode]) if mode in deep else Image.fromarray(levels).convert("RGB").convert(mode)
    for name, orientation in (("plain", 1), ("turned", turn)):
        image.save(tmp_path / f"{name}.tif", exif=exif(orientation))
    plain, turned = (pixels(tmp_path / f"{name}.tif").permute(1, 2, 0).numpy() for name in ("plain", "turned"))
    want = {
        1: lambda x: x,
        3: lambda x: x[::-1, ::-1],
        6: lambda x: x.swapaxes(0, 1)[:, ::-1],
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    }[turn](plain)
    assert np.array_equal(turned, want)


# ---- opacity ----------------------------------------------------------------------------------------------------------------------------


def veiled(mode: str, hidden: int, opacity: int = 0) -> tuple[Image.Image, dict[str, Any]]:
    """An image whose left half is of the grey level 100 and whose right half is `hidden` below this opacity; how it is saved."""
    level = np.full((H, W), 100, np.uint8)
    level[:, W // 2 :] = hidden
    alpha = np.full((H, W), 255, np.uint8)
    alpha[:, W // 2 :] = opacity
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(level), Image.fromarray(alpha)]), {}
    if mode == "RGBA":
        return Image.merge("RGBA", [Image.fromarray(level)] * 3 + [Image.fromarray(alpha)]), {}
    if mode == "P":
        palette = Image.fromarray((level != 100).astype(np.uint8)).convert("P")
        palette.putpalette([100, 100, 100, hidden, hidden, hidden])
        return palette, {"transparency": 1 if not opacity else bytes([255, opacity])}
    colour = Image.fromarray(level).convert(mode)
    return colour, {"transparency": (hidden,) * 3 if mode == "RGB" else hidden}


KINDS = [("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "tif"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGB", "png"), ("L", "png")]


@pytest.mark.parametrize(("mode", "suffix"), KINDS)
def test_hidden_colours_reach_nobody(tmp_path: Path, mode: str, suffix: str) -> None:
    seen: dict[str, list[np.ndarray]] = {"judged": [], "trained": [], "grey": [], "black": [], "opacity": []}
    for hidden in (7, 250):
        path = tmp_path / str(hidden) / f"x.{suffix}"
        path.parent.mkdir()
        image, options = veiled(mode, hidden)
        image.save(path, **options, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
        seen["judged"].append(judged(path))
        seen["trained"].append(trained(path))
        seen["grey"].append(trained(path, 1))
        seen["black"].append(trained(path, background="black"))
        seen["opacity"].append(trained(path, 4))
    for a, b in seen.values():
        assert np.array_equal(a, b)
    for name, right in {"judged": [255], "trained": [255] * 3, "grey": [255], "black": [0] * 3, "opacity": [255, 255, 255, 0]}.items():
        left = [100] * (len(right) - (name == "opacity")) + [255] * (name == "opacity")
        width = seen[name][0].shape[2]
        assert seen[name][0][0, 0].tolist() == (left * 3)[:width] if name == "judged" else left
        assert (seen[name][0][0, -1] == (right * 3 if name == "judged" else right)[:width]).all()


def test_images_that_differ_in_opacity_alone_differ(tmp_path: Path) -> None:
    seen = []
    for opacity in (255, 128):
        path = tmp_path / str(opacity) / "x.png"
        path.parent.mkdir()
        veiled("RGBA", 20, opacity)[0].save(path)
        seen.append(judged(path))
        assert np.array_equal(trained(path), seen[-1])
    assert seen[0][0, -1].tolist() == [20] * 3
    assert seen[1][0, -1].tolist() == [137] * 3  # 20 * 128 / 255 + 255 * 127 / 255
    assert Stored(str(tmp_path / "128")).checksum("train") != Stored(str(tmp_path / "255")).checksum("train")


def test_colours_are_resized_by_their_opacity(tmp_path: Path) -> None:
    """A red square on invisible green: halved, no pixel is of any other colour than red, and invisible ones are of the background."""
    x = np.zeros((16, 16, 4), np.uint8)
    x[..., 1] = 255
    x[3:9, 3:9] = (255, 0, 0, 255)
    Image.fromarray(x).save(tmp_path / "x.png")
    made = decode(tmp_path / "x.png", 8, 4, "black").permute(1, 2, 0)
    seen = made[made[..., 3] > 0]
    assert len(seen) > 9
    assert (seen[:, :3] == torch.tensor([255, 0, 0], dtype=torch.uint8)).all()
    assert (made[made[..., 3] == 0] == 0).all()
    assert 0 < seen[:, 3].min() < 255


def test_a_background_that_is_no_colour_is_refused() -> None:
    with pytest.raises(ValueError, match="chalk"):
        ImageFolder("x", 8, background="chalk")


@pytest.mark.parametrize("background", ["white", "#102030"])
def test_the_protocol_says_that_opacity_was_laid_on_a_colour(tmp_path: Path, background: str) -> None:
    Image.fromarray(ORIENTED).save(tmp_path / "a.png")
    assert Stored(str(tmp_path)).notes("train") == {}
    veiled("RGBA", 20, 128)[0].save(tmp_path / "b.png")
    assert Stored(str(tmp_path)).notes("train") == {"opacity": "laid on white"}
    folder = ImageFolder(str(tmp_path), H, background=background, test_fraction=0.0)
    assert folder.notes("train") == {"opacity": f"laid on {background}"}
    assert ImageFolder(str(tmp_path), H, 4, test_fraction=0.0).notes("train") == {}


# ---- other kinds ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),
    [("1", "png", 0), ("L", "png", 0), ("P", "png", 0), ("P", "gif", 0), ("CMYK", "tif", 0), ("CMYK", "jpg", 9)],
)
def test_kinds_of_colour(tmp_path: Path, mode: str, suffix: str, tolerance: int) -> None:
    source = Image.fromarray(np.where(np.arange(W)[None, :, None] < W // 2, (200, 30, 60), (20, 90, 250)).astype(np.uint8).repeat(H, 0))
    image = source.convert(mode) if mode != "P" else source.quantize(4)
    image.save(tmp_path / f"x.{suffix}", **({"quality": 100} if suffix == "jpg" else {}))
    want = np.asarray(image.convert("L" if mode in ("1", "L") else "RGB")).reshape(H, W, -1)
    seen = judged(tmp_path / f"x.{suffix}")
    assert np.abs(seen.astype(int) - want).max() <= tolerance
    assert np.array_equal(trained(tmp_path / f"x.{suffix}", seen.shape[2]), seen)


def test_grey_of_colour_and_colour_of_grey_are_one_formula_each(tmp_path: Path) -> None:
    Image.fromarray(ORIENTED).save(tmp_path / "x.png")
    assert np.abs(trained(tmp_path / "x.png", 1)[..., 0] - ORIENTED @ np.array([0.299, 0.587, 0.114])).max() <= 0.51
    Image.fromarray(ORIENTED[..., 0]).save(tmp_path / "x.png")
    assert np.array_equal(trained(tmp_path / "x.png", 3), np.repeat(ORIENTED[..., :1], 3, 2))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_picture_is_seen(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (W, H), (level, level, level)) for level in (40, 90, 200)]
    lossless = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **lossless)
    with Image.open(tmp_path / f"x.{suffix}") as file:
        assert file.n_frames == 3  # type: ignore[attr-defined]
    assert (judged(tmp_path / f"x.{suffix}") == 40).all()
    assert (trained(tmp_path / f"x.{suffix}") == 40).all()


def test_a_large_image_is_read_without_a_warning_and_a_huge_one_is_refused(tmp_path, monkeypatch):
    Image.new("L", (5, 3)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert pixels(tmp_path / "a.png").shape == (1, 3, 5)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
        with pytest.raises(UserError, match="cannot decode the image"):
            pixels(tmp_path / "a.png")
