"""Images that are rows of a .parquet or .arrow table."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from gan_runner.datasets.listing import Images, Listing, shown, some
from gan_runner.datasets.pack import MEMBERS, NAME, Member, Pack, reason
from gan_runner.errors import UserError, did_you_mean, printable
from gan_runner.storage.untrusted import memory, parsed_json

TABLES = (".arrow", ".parquet")
CLASSES = 1_000_000  # at most; metrics make room for each
LABELS = ("label", "labels", "class")  # columns that are taken for labels
GROUPS = 2  # groups of rows that are kept unpacked
ROWS = 64  # that are unpacked at once


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
        raise UserError(f"{shown(path)} needs pyarrow, which is not installed: pip install pyarrow") from error
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
