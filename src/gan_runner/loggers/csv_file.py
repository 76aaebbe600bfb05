"""Write numbers as a CSV table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gan_runner.errors import Failed
from gan_runner.storage import contents, files
from gan_runner.storage.untrusted import read_bounded
from gan_runner.training.logger import Logger

if TYPE_CHECKING:
    from gan_runner.training.run import Run

HEADER = ["step", "name", "value"]


class CSV(Logger):
    """Write scalars.csv in the run directory, a line for each number: step, name, value, in full precision; nan and inf as words.

    A resumed run first removes the lines of the rounds that it repeats. Pictures are in samples/ and evaluations/.
    """

    def begin(self, run: Run) -> None:
        self.path = run.folder / "scalars.csv"
        there = (read_bounded(self.path, contents.MOST[self.path.name]) or b"").decode(errors="replace") if run.step else ""
        kept = [HEADER]
        for line in there.split("\n")[:-1]:  # after the last line break there is nothing, or half a line
            row = parsed(line)
            if is_number(row) and int(row[0]) <= run.step:
                kept.append(row)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(kept)
        files.write_bytes(self.path, text.getvalue().encode(), run.folder)
        with self.disk():
            self.file = os.fdopen(files.appended(self.path, run.folder), "a", newline="", encoding="utf-8")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with self.disk():
            csv.writer(self.file, lineterminator="\n").writerows([step, name, float(value)] for name, value in values.items())
            self.file.flush()

    def flush(self) -> None:
        with self.disk():
            os.fsync(self.file.fileno())

    def close(self, state: str) -> None:
        with self.disk():
            self.file.close()

    @contextmanager
    def disk(self) -> Iterator[None]:
        """Turn an OSError into Failed."""
        try:
            yield
        except OSError as error:
            raise Failed(f"{self.path} could not be written: {error.strerror or error}") from error


def is_number(row: list[str]) -> bool:
    """Return whether a row is a step, a name and a value: after a power cut, the end of a file may be anything."""
    if len(row) != 3 or not row[0].isdecimal() or len(row[0]) > 15:
        return False
    try:
        float(row[2])
    except ValueError:
        return False
    return True


def parsed(line: str) -> list[str]:
    """Parse a line of CSV into cells; empty if it is invalid."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []
