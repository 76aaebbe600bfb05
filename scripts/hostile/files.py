"""What is trained on, judged and rated beside runs: arrays, folders of images."""

import functools
import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile.directories import device, directory, fifo, huge, linked, plug
from hostile.stage import ESCAPE, TURNED, Attack, Stage, put
from hostile.states import Payload

# ---- arrays -----------------------------------------------------------------------------------------------------------------------------


def archive(stage: Stage, **arrays: Any) -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    put(stage.here / "samples.npz", buffer.getvalue())


def headed(header: str, body: bytes = b"\0" * 64, compressed: int = 0) -> Callable[[Stage], None]:
    """An archive with one array, whose header says what it likes; compressed: megabytes of zeros instead of the body."""

    def spoil(stage: Stage) -> None:
        text = header.encode("latin1") + b"\n"
        front = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text
        with (
            zipfile.ZipFile(stage.here / "samples.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
            file.open("samples.npy", "w", force_zip64=True) as out,
        ):
            out.write(front + body)
            for _ in range(compressed):
                out.write(bytes(2**20))

    return spoil


def shaped(shape: str, kind: str = "|u1") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"


def arrays() -> Iterator[Attack]:
    import numpy as np

    pixels = np.random.default_rng(1).integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
    points = np.random.default_rng(1).normal(size=(24, 2)).astype(np.float32)
    contents: dict[str, dict[str, Any]] = {
        "no samples": {"samples": pixels[:0]},
        "one sample": {"samples": pixels[:1]},
        "images without pixels": {"samples": np.zeros((24, 3, 0, 0), np.uint8)},
        "images without rows": {"samples": np.zeros((24, 0, 8), np.uint8)},
        "a scalar": {"samples": np.uint8(3)},
        "whole numbers": {"samples": pixels.astype(np.int64)},
        "complex numbers": {"samples": points.astype(np.complex64)},
        "half precision, infinite": {"samples": np.full((24, 2), np.inf, np.float16)},
        "texts": {"samples": np.array([["a", "b"]] * 24)},
        "records": {"samples": np.zeros(24, dtype=[("a", "u1"), ("b", "f4")])},
        "dates": {"samples": np.zeros((24, 2), dtype="datetime64[s]")},
        "the other end first": {"samples": points.astype(">f8")},
        "columns first": {"samples": np.asfortranarray(pixels)},
        "points that are nan": {"samples": np.full((24, 2), np.nan, np.float32)},
        "points beyond float32": {"samples": np.full((24, 2), 1e300)},
        "points without coordinates": {"samples": np.zeros((24, 0), np.float32)},
        "five dimensions": {"samples": pixels[None]},
        "labels of no class": {"samples": pixels, "labels": np.full(24, -5)},
        "labels of 2^62": {"samples": pixels, "labels": np.full(24, 2**62)},
        "labels beyond int64": {"samples": pixels, "labels": np.full(24, 2**64 - 1, np.uint64)},
        "labels of a billion classes": {"samples": pixels, "labels": np.full(24, 10**9)},
        "too few labels": {"samples": pixels, "labels": np.zeros(3, np.int64)},
        "other names": {"x\x1b[2J": pixels, "../../outside/evil": pixels},
    }
    for name, content in contents.items():
        yield Attack("arrays", name, "npz", lambda stage, content=content: archive(stage, **content))
    yield Attack("arrays", "a pickle", "npz", lambda stage: archive(stage, samples=np.array([Payload(stage.owned)] * 24, dtype=object)))
    yield Attack(
        "arrays", "labels that are a pickle", "npz", lambda stage: archive(stage, samples=pixels, labels=np.array([Payload(stage.owned)]))
    )
    headers = {
        "a shape of 10^12": shaped("(1000000000000, 3, 8, 8)"),
        "a shape beyond all numbers": shaped(f"({10**400}, 2)"),
        "a negative shape": shaped("(-24, 3, 8, 8)"),
        "a shape of text": shaped("'x'"),
        "a header that calls": "{'descr': __import__('os').system('touch OWNED'), 'fortran_order': False, 'shape': (1,)}",
        "a deep header": "(" * 9000 + ")" * 9000,
        "a long header": shaped("(24, 2)") + " " * 2_000_000,
        "an object for a kind": shaped("(24,)", "|O"),
        "a kind of a terabyte": shaped("(24,)", f"|V{2**31 - 1}"),
    }
    for name, header in headers.items():
        yield Attack("arrays", name, "npz", headed(header))
    yield Attack("bomb", "an array that grows to 3 GB", "npz", headed(shaped("(1000000, 3, 32, 32)"), b"", 3000))
    texts = {"empty": b"", "text": b"samples", "a bare array": b"\x93NUMPY\x01\x00", "a half archive": b"PK\x03\x04" + bytes(100)}
    for name, data in texts.items():
        yield Attack("arrays", name, "npz", lambda stage, data=data: put(stage.here / "samples.npz", data))
    yield Attack("arrays", "cut", "npz", lambda stage: put(stage.here / "samples.npz", (stage.here / "real.npz").read_bytes()[:-300]))
    for what, spoil in {"a pipe": fifo, "/dev/zero": device("zero"), "1 TB": huge, "a socket": plug, "a loop": linked("itself")}.items():
        yield Attack("arrays", what, "npz", lambda stage, spoil=spoil: spoil(stage, stage.here / "samples.npz"))


# ---- images -----------------------------------------------------------------------------------------------------------------------------


def in_all(name: str, spoil: Callable[[Stage, Path], None]) -> Callable[[Stage], None]:
    """Does the same to a file in the folder that is trained on and in those that are judged."""

    def apply(stage: Stage) -> None:
        for folder in ("images/a", "judged", "real"):
            spoil(stage, stage.here / folder / name)

    return apply


def data(content: Callable[[], bytes]) -> Callable[[Stage, Path], None]:
    return lambda stage, path: put(path, content())


def drawn(mode: str, size: tuple[int, int] = (8, 8), kind: str = "png", **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, rows: bytes, more: bytes = b"") -> bytes:
    """A grey PNG by hand: what its header says need not be so."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@functools.cache
def zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(megabytes)), packer.flush()])


def text_bomb() -> bytes:
    body = b"Comment\0\0" + zeros(300)
    return png(
        8, 8, zlib.compress(bytes(72)), struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    )


def frames() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    images = [Image.new("P", (8, 8), i % 256) for i in range(2000)]
    images[0].save(buffer, "gif", save_all=True, append_images=images[1:])
    return buffer.getvalue()


CONTENTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"<html>\x1b[2J</html>",
    "cut": lambda: drawn("RGB", (64, 64))[:60],
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\nshowpage\n%%EOF\n",
    "16 bits": lambda: drawn("I;16"),
    "32 bits": lambda: drawn("F", kind="tiff"),
    "opacity": lambda: drawn("RGBA"),
    "four inks": lambda: drawn("CMYK", kind="jpeg"),
    "a picture of 1 x 100,000": lambda: drawn("L", (1, 100_000)),
    "one pixel": lambda: drawn("RGB", (1, 1)),
    "a header of 100,000 x 100,000": lambda: png(100_000, 100_000, zlib.compress(bytes(100))),
    "a header of 13,000 x 13,000, that warns": lambda: png(13_000, 13_000, zlib.compress(bytes(100))),
    "a header without width": lambda: png(0, 8, b""),
    "170 million pixels": lambda: png(13_000, 13_000, zeros(170)),
    "a comment of 300 MB": text_bomb,
    "2,000 frames": frames,
}
BESIDE: dict[str, Callable[[Stage, Path], None]] = {
    "a pipe": fifo,
    "/dev/zero": device("zero"),
    "a socket": plug,
    "a folder": directory,
    "1 TB": huge,
    "a link to itself": linked("itself"),
    "a link to nothing": linked("not/there"),
}
CHARACTERS = {"a line break": "\nFORGED rm", "an escape sequence": ESCAPE, "a turn of direction": TURNED, "no UTF-8": "\udcff\udcfe"}


def looped(stage: Stage) -> None:
    """Folders that lead back to where they are."""
    for name in ("x", "y"):
        (stage.here / "images/a" / name).symlink_to("..")
        (stage.here / "judged" / name).symlink_to(".")


def classes(names: list[str]) -> Callable[[Stage], None]:
    """Class folders of these names."""

    def spoil(stage: Stage) -> None:
        for name in names:
            for folder in ("images", "judged"):
                shutil.copytree(stage.here / "images/b", stage.here / folder / name)
        for path in (stage.here / "judged").glob("*.png"):
            path.unlink()

    return spoil


def images() -> Iterator[Attack]:
    for name, content in CONTENTS.items():
        yield Attack("images", name, "images", in_all("07.png", data(content)))
    for name, spoil in BESIDE.items():
        yield Attack("images", name, "images", in_all("07.png", spoil))
    for name, text in CHARACTERS.items():
        yield Attack("images", f"{name} in the name of a bad image", "images", in_all(f"x{text}.png", data(lambda: b"x")))
        yield Attack("images", f"{name} in the name of a class", "images", classes([f"c{text}"]))
    yield Attack("images", "a suffix that is unknown", "images", in_all("07.xyz\x1b[2J", data(lambda: b"x")))
    yield Attack("images", "folders that lead back", "images", looped)
    yield Attack("images", "1,000 classes", "images", lambda stage: many(stage, 1000))
    yield Attack("images", "folders train and val", "images", classes(["train", "val"]))
    yield Attack("images", "a folder of 200 levels", "images", deep)
    yield Attack("images", "no image", "images", lambda stage: [path.unlink() for path in stage.here.rglob("*.png")] and None)
    yield Attack("images", "the folder itself leads back", "images", lambda stage: looping(stage))


def many(stage: Stage, n: int) -> None:
    for i in range(n):
        put(stage.here / f"images/{i}/x.png", drawn("RGB"))


def deep(stage: Stage) -> None:
    folder = stage.here / "images/a" / "/".join(["d"] * 200)
    folder.mkdir(parents=True)
    put(folder / "x.png", drawn("RGB"))


def looping(stage: Stage) -> None:
    for name in ("images", "judged"):
        shutil.rmtree(stage.here / name)
        (stage.here / name).symlink_to(name)


def attacks() -> Iterator[Attack]:
    for some in (arrays, images):
        yield from some()
