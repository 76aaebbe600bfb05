"""Images that are the members of a zip."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import IO

from gan_runner.datasets.listing import LARGEST, PLACES, SUFFIXES, Listing, Parts, Walk, arranged, shown, suffix_of
from gan_runner.datasets.pack import MEMBERS, NAME, Member, Pack, reason
from gan_runner.errors import UserError, printable
from gan_runner.storage.files import typed

NESTED = {".7z", ".arrow", ".bz2", ".gz", ".npz", ".parquet", ".rar", ".tar", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst"}
EASY = 2**26  # bytes that an image or a file may have unpacked, whatever it has packed
RATIO = 200  # beyond that: bytes for one packed byte
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of which no more is unpacked than is asked for, whatever a member says of itself
END, END64, DIRECTORY = b"PK\x05\x06", b"PK\x06\x06", 46  # of a zip: how its ends begin, and the least bytes of an entry of its directory


class Zip(Pack):
    """A zip of images. Members are listed as the files of a folder are; where all are in folders below one folder, that is the folder.

    UserError for a zip that is damaged, encrypted, nested or larger unpacked than images are, and for names that lead out of it, links,
    and two members of one name.
    """

    def opened(self) -> zipfile.ZipFile:
        try:
            file = os.fdopen(typed(self.path), "rb")
            if (n := members_said(file, self.state[0])) > MEMBERS:
                raise UserError(f"{shown(self.path)} has {n:,} members: at most {MEMBERS:,} are read")
            return zipfile.ZipFile(file)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError) as error:
            raise UserError(f"{shown(self.path)} cannot be read as a zip: {reason(error)}") from error

    def described(self, key: int) -> str:
        return f"{self.path}/{self.handle.infolist()[key].filename}"

    def read(self, key: int) -> bytes:
        archive: zipfile.ZipFile = self.handle
        info = archive.infolist()[key]
        try:
            with archive.open(info) as file:
                return file.read(info.file_size + 1)
        except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
            raise UserError(f"cannot read {shown(self.described(key))} ({reason(error)}); replace or remove it") from error

    def listing(self) -> Listing:
        """List the images. UserError as above."""
        infos: list[zipfile.ZipInfo] = self.handle.infolist()
        self.refuse_unsafe(infos)
        walk, keys = Walk(), dict[Parts, int]()
        walk.others[()] = Counter()
        for i, info in enumerate(infos):
            parts = tuple(info.filename.rstrip("/").split("/"))
            folders = parts if info.is_dir() else parts[:-1]
            if any(part.startswith(".") or part == "__MACOSX" for part in parts):
                walk.reasons["hidden"] += not info.is_dir()
                continue
            for depth in range(1, len(folders) + 1):
                walk.others.setdefault(folders[:depth], Counter())
            if info.is_dir():
                continue
            if (suffix := suffix_of(parts[-1])) not in SUFFIXES:
                walk.others[folders][suffix] += 1
            elif info.file_size == 0:
                walk.broken[parts] = "empty"
            elif info.file_size > LARGEST:
                walk.broken[parts] = f"{info.file_size / 2**30:.0f} GiB"
            else:
                walk.found.append(parts)
                keys[parts] = i
        top = self.top(walk.found)
        if top:
            walk = Walk(
                [parts[1:] for parts in walk.found],
                {parts[1:]: others for parts, others in walk.others.items() if parts[:1] == top},
                walk.reasons + Counter({f"beside {top[0]}/": n} if (n := self.beside(walk, top)) else {}),
                {parts[1:]: why for parts, why in walk.broken.items() if parts[:1] == top},
            )
        walk.found.sort()

        def member(parts: Parts) -> Member:
            key = keys[(*top, *parts)]
            return Member(self, key, "/".join(parts), infos[key].file_size)

        return arranged(self.path, walk, member)

    @staticmethod
    def beside(walk: Walk, top: Parts) -> int:
        """Count the other files that are not below the folder `top`."""
        return sum(sum(others.values()) for parts, others in walk.others.items() if parts[:1] != top)

    @staticmethod
    def top(found: Sequence[Parts]) -> Parts:
        """Return the one folder that holds all images, where it holds them in folders or is of a split; else nothing."""
        first = {parts[0] for parts in found}
        if len(first) != 1:
            return ()
        [name] = first
        split = any(name.lower() in names for names in PLACES.values())
        return (name,) if all(len(parts) > 1 + (not split) for parts in found) else ()

    def refuse_unsafe(self, infos: Sequence[zipfile.ZipInfo]) -> None:
        """Raise UserError for a member that is no plain file or folder below the zip, and for more bytes than images have."""
        names: set[str] = set()
        total = 0
        for info in infos:
            name, why = info.filename, ""
            parts, kind = name.rstrip("/").split("/"), stat.S_IFMT(info.external_attr >> 16)
            if name.startswith("/") or name[1:2] == ":":
                why = "an absolute path"
            elif ".." in parts or "\\" in name or info.orig_filename != name:
                why = "a name that leads out of the zip"
            elif "" in parts or "." in parts or len(name) > NAME:
                why = "a name that is no path"
            elif kind == stat.S_IFLNK:
                why = "a link"
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                why = "no plain file"
            elif name in names:
                why = "a second member of its name"
            elif info.flag_bits & 1:
                why = "encrypted"
            elif info.compress_type not in METHODS:
                why = "packed by a method that is not read: only stored and deflated members are"
            elif suffix_of(name) in NESTED and not info.is_dir():
                why = "packed itself: images are not looked for in there"
            elif suffix_of(name) in SUFFIXES and info.file_size > EASY and info.file_size > RATIO * info.compress_size:
                why = f"{info.file_size:,} bytes in {info.compress_size:,}: no image is packed so small"
            if why:
                raise UserError(f"{shown(self.path)} is refused: {shown(printable(name, 100))} is {why}")
            names.add(name)
            total += info.file_size if suffix_of(name) in SUFFIXES else 0
        if total > EASY and total > RATIO * self.state[0]:
            raise UserError(f"{shown(self.path)} is refused: images of {total:,} bytes in a zip of {self.state[0]:,}")
        places = sorted((info.header_offset, info.compress_size, info.filename) for info in infos)
        for (start, size, _), (following, _, name) in pairwise(places):
            if start + size > following:
                raise UserError(f"{shown(self.path)} is refused: {shown(printable(name, 100))} is stored within another member")


def members_said(file: IO[bytes], size: int) -> int:
    """Return how many members a zip can have by its last bytes, before its directory is read into memory; 0 where they do not say.

    The directory says its own size, and a member takes at least DIRECTORY bytes of it.
    """
    file.seek(max(0, size - 2**16 - 22 - 76))
    tail = file.read()
    file.seek(0)
    at, at64 = tail.rfind(END), tail.rfind(END64)
    said = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if said == 2**32 - 1 and at64 >= 0:
        said = int.from_bytes(tail[at64 + 40 : at64 + 48], "little")
    return min(said, size) // DIRECTORY
