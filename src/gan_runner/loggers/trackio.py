"""Trackio."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_runner.loggers.tracker import Entry, Said, Tracker, new_id

if TYPE_CHECKING:
    from gan_runner.training.run import Run

PATIENCE_S = 10.0  # for trackio's own thread to write what it was given


class Trackio(Tracker):
    """Log to Trackio's database on this machine ($TRACKIO_DIR), shown by `trackio show`; `space` sends it to Hugging Face.

    Hugging Face reads the token for a Space itself (`hf auth login` or $HF_TOKEN).
    """

    package = "trackio"
    addresses = ("space",)

    def __init__(self, project: str = "gan-runner", space: str | None = None):
        super().__init__()
        self.project, self.space = project, space

    def shown_by(self, folder: Path) -> list[str]:
        return [] if self.space else ["trackio", "show", "--project", self.project]

    def open(self, run: Run, said: Said, known: dict[str, str] | None) -> dict[str, str]:
        import trackio

        self.known = known or {"project": self.project, "name": f"{said.name}-{new_id()}"}
        with contextlib.redirect_stdout(io.StringIO()):  # docs/loggers.md has the command
            self.tracked = trackio.init(
                self.known["project"],
                name=self.known["name"],
                space_id=self.space,
                config={**said.config, "overrides": said.overrides},
                resume="allow",
                embed=False,
            )
        self.written = 0 if self.space else self._count()
        return self.known

    def _count(self) -> int:
        """Return the number of entries in the database of this machine."""
        from trackio.sqlite_storage import SQLiteStorage

        return SQLiteStorage.get_log_count(self.known["project"], self.known["name"])

    def there(self, step: int) -> set[tuple[int, str]]:
        from trackio.sqlite_storage import SQLiteStorage

        rows = [] if self.space else SQLiteStorage.get_logs(self.known["project"], self.known["name"])
        return {(row["step"], name) for row in rows if row["step"] > step for name in row}

    def send(self, entry: Entry) -> None:
        import trackio

        pictures: dict[str, Any] = {name: trackio.Image(picture) for name, picture in entry.pictures.items()}
        self.tracked.log({**entry.values, **pictures}, step=entry.step)
        self.written += 1

    def settle(self) -> None:
        """Wait for Trackio's thread, which writes every half second, so that a kill after a checkpoint loses nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while self.space is None and self._count() < self.written:
            if time.monotonic() > deadline:
                raise TimeoutError(f"what was logged is not in its database after {PATIENCE_S:g} s")
            time.sleep(0.02)

    def end(self, state: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.tracked.finish()
