"""Images that are packed in one file: members of a zip, rows of a .parquet or .arrow table. Nothing of it is unpacked to the disk."""

from __future__ import annotations

import io
import os
import stat
import threading
import zipfile
import zlib
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

from gan_runner.datasets.listing import LARGEST, PLACES, SUFFIXES, Images, Listing, Parts, Walk, arranged, shown, some, suffix_of
from gan_runner.errors import UserError, did_you_mean, printable
from gan_runner.storage.files import typed
from gan_runner.storage.untrusted import memory, parsed_json

ZIP = ".zip"
TABLES = (".arrow", ".parquet")
PACKED = (ZIP, *TABLES)
NESTED = {".7z", ".arrow", ".bz2", ".gz", ".npz", ".parquet", ".rar", ".tar", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst"}
MEMBERS = 2**22  # images of a file, at most
EASY = 2**26  # bytes that an image or a file may have unpacked, whatever it has packed
RATIO = 200  # beyond that: bytes for one packed byte
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of which no more is unpacked than is asked for, whatever a member says of itself
END, END64, DIRECTORY = b"PK\x05\x06", b"PK\x06\x06", 46  # of a zip: how its ends begin, and the least bytes of an entry of its directory
CLASSES = 1_000_000  # at most; metrics make room for each
LABELS = ("label", "labels", "class")  # columns that are taken for labels
NAME = 1000  # characters of the name of an image or a class
GROUPS = 2  # groups of rows that are kept unpacked
ROWS = 64  # that are unpacked at once


class Member:
    """An image that is packed in a file: read whole, when it is asked for. UserError, which names it, where it cannot be read.

    name: of the image below the file, by which it is split. size: bytes, 0 where it is not known before. mark: stands for its label where
    the name does not tell it, else "-".
    """

    __slots__ = ("key", "mark", "name", "pack", "size")

    def __init__(self, pack: Pack, key: int, name: str, size: int = 0, mark: str = "-"):
        self.pack, self.key, self.name, self.size, self.mark = pack, key, name, size, mark

    def __str__(self) -> str:
        return self.pack.described(self.key)

    @property
    def identity(self) -> str:
        """What changes when the bytes of the image do."""
        return f"{self.pack.path.absolute()} {self.pack.state} {self.key} {self.name} "

    @property
    def suffix(self) -> str:
        return suffix_of(self.name)

    def read_bytes(self) -> bytes:
        """Read the encoded image."""
        return self.pack.read(self.key)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the encoded image for reading."""
        return io.BytesIO(self.read_bytes())


Encoded = Path | Member  # an image file: by itself, or packed in another file


class Pack:
    """A file that packs images. Each process opens it for itself, so that none moves the place at which another reads.

    UserError where the file cannot be read, or has changed since it was listed.
    """

    def __init__(self, path: Path):
        self.path, self.state = path, state_of(path)
        self._opened: tuple[int, Any] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_opened", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_opened": None, "_lock": threading.Lock()}

    @property
    def handle(self) -> Any:
        """The file, opened in this process."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            if state_of(self.path) != self.state:
                raise UserError(f"{shown(self.path)} has changed while it was in use; start again")
            opened = self._opened = (os.getpid(), self.opened())
        return opened[1]

    def opened(self) -> Any:
        """Open the file."""
        raise NotImplementedError

    def read(self, key: int) -> bytes:
        """Read the bytes of an image."""
        raise NotImplementedError

    def described(self, key: int) -> str:
        """Name an image in messages."""
        raise NotImplementedError


def state_of(path: Path) -> tuple[int, int]:
    """Return size and time of change of a regular file. UserError where there is none."""
    try:
        about = path.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {shown(path)}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(about.st_mode):
        raise UserError(f"cannot read {shown(path)}: it is no regular file")
    return about.st_size, about.st_mtime_ns


def unpacked(path: Path, column: str | None = None, label: str | None = "auto", key: str | None = "") -> Listing:
    """List the images of a .zip, .parquet or .arrow file.

    column, label: of a table, see `Table`. key: how a line names these, such as `dataset.`; None: it cannot. UserError where the file is
    not one of these, is damaged or unsafe, or leaves open what its images and labels are.
    """
    suffix = path.suffix.lower()
    if suffix == ZIP:
        if column is not None:
            raise UserError(f"{key}column={printable(column)}: {shown(path)} is a zip, which has no columns")
        return Zip(path).listing()
    if suffix not in TABLES:
        raise UserError(f"{shown(path)} is no file of packed images ({', '.join(PACKED)})")
    return Table(path, column, label, key).listing()


def is_packed(path: Path) -> bool:
    """Return whether a path is a file whose suffix is one of packed images."""
    return path.suffix.lower() in PACKED and path.is_file()


# ---- zip ----------------------------------------------------------------------------------------------------------------------------


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


def reason(error: BaseException) -> str:
    """Return one line of an error."""
    return printable((getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0], 200)


# ---- tables -------------------------------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Rows of a table that are read together: the number of the first, and how many."""

    first: int
    rows: int


class Table(Pack):
    """The images of a column of a .parquet or .arrow file: encoded images (binary), or structs of such `bytes` and a `path`.

    column: its name; None: the only one of that kind. label: the column of the classes, as text or whole numbers; auto: label, labels or
    class, where there is one; None: no labels. Names of classes are those that the metadata of the schema have for the numbers
    (`huggingface`: info, features, names), else the texts in alphabetical order; numbers without names stay numbers. An image is split by
    its path where each has one of its own, else by the number of its row. UserError where the file is damaged, or leaves open which column
    is meant.
    """

    def __init__(self, path: Path, column: str | None = None, label: str | None = "auto", key: str | None = ""):
        super().__init__(path)
        self.key = key
        self._groups: OrderedDict[int, list[bytes | None]] = OrderedDict()
        arrow(path)
        self.column = self.chosen(column)
        self.label, self.unused = self.classes(label)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_groups": OrderedDict()}

    def described(self, key: int) -> str:
        return f"row {key} of {self.path}"

    def opened(self) -> Any:
        try:
            return Parquet(self.path) if self.path.suffix.lower() == ".parquet" else Arrow(self.path)
        except UserError:
            raise
        except Exception as error:  # pyarrow has many, and they are not all of its own
            kind = self.path.suffix.lower().removeprefix(".")
            raise UserError(f"{shown(self.path)} cannot be read as {kind}: {reason(error)}") from error

    # -- columns

    @cached_property
    def schema(self) -> Any:
        return self.handle.schema

    def chosen(self, column: str | None) -> str:
        """Return the column of the images."""
        kinds = {field.name: is_image(field.type) for field in self.schema}
        if column is not None:
            if column not in kinds:
                raise self.absent("column", column)
            if not kinds[column]:
                raise UserError(
                    f"{self.key}column={printable(column)}: no column of encoded images; {shown(self.path)} has {self.columns()}"
                )
            return column
        images = [name for name, image in kinds.items() if image]
        if not images:
            raise UserError(
                f"{shown(self.path)} has no column of images (encoded ones as binary, or structs of such bytes); it has {self.columns()}"
            )
        if len(images) > 1:
            way = f"choose one: {self.key}column={printable(images[0], 100)}" if self.key is not None else "keep one"
            raise UserError(f"{shown(self.path)} has several columns of images: {some(images)}; {way}")
        return images[0]

    def columns(self) -> str:
        """Name the columns and their types."""
        return some([f"{printable(field.name, 60)} ({printable(str(field.type), 60)})" for field in self.schema]) or "no column"

    def absent(self, key: str, column: str) -> UserError:
        """Return the error for a column that is not there; key: what asks for it."""
        near = did_you_mean(column, [field.name for field in self.schema])
        return UserError(f"{self.key}{key}={printable(column)}: {shown(self.path)} has no such column{near}; it has {self.columns()}")

    def classes(self, label: str | None) -> tuple[str | None, str | None]:
        """Return the column of the labels, and a column of that name that is none; None where there is no such column."""
        names = [field.name for field in self.schema]
        asked = label not in (None, "auto")
        found = label if asked else next((name for name in LABELS if name in names), None) if label else None
        if found is None:
            return None, None
        if found not in names:
            raise self.absent("label", found)
        if is_label(self.schema.field(found).type):
            return found, None
        if asked:
            raise UserError(f"{self.key}label={printable(found)}: expected text or whole numbers; {shown(self.path)} has {self.columns()}")
        return None, found

    def names_of_numbers(self) -> tuple[str, ...] | None:
        """Return the names that the file has for the numbers of its labels; None where it has none."""
        told = parsed_json((self.schema.metadata or {}).get(b"huggingface"))
        for step in ("info", "features", self.label, "names"):
            told = told.get(step) if isinstance(told, dict) else None
        good = isinstance(told, list) and told and all(isinstance(name, str) and 0 < len(name) <= NAME for name in told)
        return tuple(told) if good and len({*told}) == len(told) else None

    # -- rows

    def listing(self) -> Listing:
        """List the images, in the order of the rows. UserError as above, and for a row without image or label."""
        n = sum(group.rows for group in self.handle.groups)
        if n == 0:
            raise UserError(f"there is no image in {shown(self.path)}: it has no row")
        if n > MEMBERS:
            raise UserError(f"{shown(self.path)} has {n:,} rows: at most {MEMBERS:,} are read")
        labels, order, numbered = self.labels(n)
        paths = self.paths(n)
        files: Images = []
        for row in range(n):
            name = labels[row] if labels else ""
            mark = "-" if not labels else name.encode("utf-8", "surrogatepass").hex()[:32]
            files.append((Member(self, row, paths[row] if paths else str(row), 0, mark), name))
        left_out = Counter({f"column {printable(self.unused, 60)}, which is no class": 1} if self.unused else {})
        return Listing(self.path, {"": files}, {}, left_out, [], order, numbered, "paths" if paths else "row numbers")

    def labels(self, n: int) -> tuple[list[str], tuple[str, ...] | None, bool]:
        """Return the class of each row as text, the classes in the order of their labels, and whether they are numbers without names."""
        if self.label is None:
            return [], None, False
        values = list(self.values(self.label))
        if lacking := [row for row, value in enumerate(values) if value is None]:
            raise UserError(
                f"row {lacking[0]} of {shown(self.path)} has no {printable(self.label, 60)}; replace or remove it, or {self.without()}"
            )
        if isinstance(values[0], str):
            if long := [row for row, value in enumerate(values) if not 0 < len(value) <= NAME]:
                raise UserError(f"row {long[0]} of {shown(self.path)} has a class of {len(values[long[0]]):,} characters; {self.without()}")
            return values, None, False
        names, low, high = self.names_of_numbers(), min(values), max(values)
        if low < 0 or high >= (len(names) if names else CLASSES):
            expected = f"0 to {len(names) - 1}, as {len(names)} are named" if names else f"0, 1, 2 ..., fewer than {CLASSES:,}"
            row = values.index(low if low < 0 else high)
            raise UserError(f"row {row} of {shown(self.path)} has the label {values[row]}: expected {expected}; or {self.without()}")
        known = names or tuple(map(str, range(high + 1)))
        return [known[value] for value in values], known, names is None

    def without(self) -> str:
        """Say how the labels are left out."""
        return f"leave the labels out: {self.key}label=null" if self.key else "take the column away"

    def paths(self, n: int) -> list[str] | None:
        """Return the paths that the file has for its images; None unless each has one of its own."""
        if not has_path(self.schema.field(self.column).type):
            return None
        paths = list(self.values(self.column, "path"))
        good = all(path and len(path) <= NAME for path in paths) and len({*paths}) == n
        return paths if good else None

    def values(self, column: str, field: str | None = None) -> Iterator[Any]:
        """Read a column of short values. UserError where it cannot be read."""
        try:
            yield from self.handle.values(column, field)
        except Exception as error:
            raise UserError(f"the column {printable(column, 60)} of {shown(self.path)} cannot be read: {reason(error)}") from error

    @cached_property
    def ends(self) -> list[int]:
        return list(accumulate(group.rows for group in self.handle.groups))

    def read(self, key: int) -> bytes:
        number = bisect_right(self.ends, key)
        with self._lock:
            group = self._groups.get(number)
            if group is None:
                group = self.read_group(number)
                while len(self._groups) >= GROUPS:
                    self._groups.popitem(last=False)
            self._groups[number] = group
            self._groups.move_to_end(number)
        data = group[key - (self.ends[number - 1] if number else 0)]
        if not data:
            raise UserError(f"{shown(self.described(key))} has no image; replace or remove it")
        return data

    def read_group(self, number: int) -> list[bytes | None]:
        """Read the images of rows that are stored together. UserError where they cannot be read or do not fit into memory."""
        found: list[bytes | None] = []
        room = memory() // 4
        first = self.ends[number] - self.handle.groups[number].rows
        try:
            for values in self.handle.images(number, self.column):
                found += values
                room -= sum(map(len, filter(None, values)))
                if room < 0:
                    raise ValueError("more than fits into memory; write it with smaller groups of rows")
        except Exception as error:
            raise UserError(
                f"rows {first + len(found)} to {self.ends[number] - 1} of {shown(self.path)} cannot be read: {reason(error)}"
            ) from error
        if len(found) != self.handle.groups[number].rows:
            raise UserError(f"{shown(self.path)} is damaged: rows from {first} are {len(found)}, not {self.handle.groups[number].rows}")
        return found


class Parquet:
    """A parquet file that was opened."""

    def __init__(self, path: Path):
        import pyarrow as pa
        from pyarrow import parquet

        self.file = parquet.ParquetFile(pa.OSFile(os.fspath(path)), pre_buffer=False)
        self.schema = self.file.schema_arrow
        about = self.file.metadata
        rows = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        self.groups = [Group(end - n, n) for end, n in zip(accumulate(rows), rows)]

    def images(self, number: int, column: str) -> Iterator[list[bytes | None]]:
        """Yield the encoded images of a group of rows, ROWS at a time; None where there is none."""
        if self.groups[number].rows:
            for batch in self.file.iter_batches(ROWS, row_groups=[number], columns=[column], use_threads=False):
                yield bytes_of(batch.column(0))

    def values(self, column: str, field: str | None) -> Iterator[Any]:
        """Yield the values of a column, or of a field of its structs."""
        for batch in self.file.iter_batches(2**12, columns=[f"{column}.{field}" if field else column], use_threads=False):
            yield from plain_values(batch.column(0), field)


class Arrow:
    """An Arrow file that was opened, of either format (file or stream)."""

    def __init__(self, path: Path):
        import pyarrow as pa

        source = pa.memory_map(os.fspath(path))
        stream = source.read(6) != b"ARROW1"
        source.seek(0)
        reader = pa.ipc.open_stream(source) if stream else pa.ipc.open_file(source)
        self.schema = reader.schema
        self.batches: list[Any] = []
        room = max(memory() // 4, path.stat().st_size)  # what is not compressed is mapped, not read
        for batch in reader if stream else map(reader.get_batch, range(reader.num_record_batches)):
            batch.validate(full=True)  # else a damaged file is read beyond its end
            room -= batch.nbytes
            if room < 0:
                raise ValueError("more than fits into memory")
            self.batches.append(batch)
        rows = [batch.num_rows for batch in self.batches]
        self.groups = [Group(end - n, n) for end, n in zip(accumulate(rows), rows)]

    def images(self, number: int, column: str) -> Iterator[list[bytes | None]]:
        """Yield the encoded images of a group of rows, ROWS at a time; None where there is none."""
        whole = self.batches[number].column(self.schema.get_field_index(column))
        for first in range(0, len(whole), ROWS):
            yield bytes_of(whole.slice(first, ROWS))

    def values(self, column: str, field: str | None) -> Iterator[Any]:
        """Yield the values of a column, or of a field of its structs."""
        for batch in self.batches:
            yield from plain_values(batch.column(self.schema.get_field_index(column)), field)


def arrow(path: Path) -> Any:
    """Import pyarrow. UserError where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(f"{shown(path)} needs pyarrow, which is not installed: pip install 'gan-runner[packed]'") from error
    return pyarrow


def is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind)


def is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def field_of(kind: Any, name: str) -> Any:
    """Return the type of a field of a struct; None where there is none."""
    from pyarrow import types

    return kind.field(name).type if types.is_struct(kind) and kind.get_field_index(name) >= 0 else None


def is_image(kind: Any) -> bool:
    """Return whether a column of this type may have encoded images."""
    inner = field_of(kind, "bytes")
    return is_bytes(kind) or (inner is not None and is_bytes(inner))


def has_path(kind: Any) -> bool:
    """Return whether images of this type may have paths."""
    inner = field_of(kind, "path")
    return inner is not None and is_text(inner)


def is_label(kind: Any) -> bool:
    """Return whether a column of this type may have labels."""
    from pyarrow import types

    return types.is_integer(kind) or is_text(kind) or (types.is_dictionary(kind) and is_text(kind.value_type))


def bytes_of(column: Any) -> list[bytes | None]:
    """Return the encoded images of an array of binary, or of structs."""
    from pyarrow import types

    if types.is_struct(column.type):
        inner = column.field("bytes")
        return [inner[i].as_py() if column[i].is_valid else None for i in range(len(column))]
    return column.to_pylist()


def plain_values(column: Any, field: str | None) -> list[Any]:
    """Return the values of an array, or of a field of its structs."""
    return (column.field(field) if field else column).to_pylist()
