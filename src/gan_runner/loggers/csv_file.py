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
        kept = [HEADER]
        for line in (
            (read_bounded(self.path, contents.MOST[self.path.name]) or b"").decode(errors="replace").splitlines() if run.step else ()
        ):
            row = parsed(line)
            if len(row) == 3 and row[0].isdecimal() and len(row[0]) < 16 and int(row[0]) <= run.step:
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


def parsed(line: str) -> list[str]:
    """Parse a line of CSV into cells; empty if it is invalid."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []
