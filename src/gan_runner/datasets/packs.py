"""Images that are packed in one file: members of a zip, rows of a .parquet or .arrow table."""

from __future__ import annotations

from pathlib import Path

from gan_runner.datasets.listing import Listing, shown
from gan_runner.datasets.tables import TABLES, Table
from gan_runner.datasets.zips import Zip
from gan_runner.errors import UserError, printable

ZIP = ".zip"
PACKED = (ZIP, *TABLES)


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
