"""Base of loggers for experiment trackers: a tracker that fails or is unreachable must not stop a run."""

from __future__ import annotations

import importlib.util
import json
import secrets
import time
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from omegaconf import OmegaConf
from torch import Tensor

from gan_runner.errors import UserError, printable
from gan_runner.reporting import log
from gan_runner.storage import directory, files
from gan_runner.storage.untrusted import parsed_json, parsed_yaml, read_bounded
from gan_runner.training.logger import Logger

if TYPE_CHECKING:
    from gan_runner.training.run import Run

EVERY_S = 5.0  # between two deliveries; after one that failed twice as long, then four times as long, ...
LONGEST_S = 1800.0
MOST = 20_000  # entries that wait for a tracker which cannot be reached; the oldest are dropped


class Entry(NamedTuple):
    """The numbers and pictures of one call."""

    step: int
    values: dict[str, float]
    pictures: dict[str, np.ndarray]  # uint8 H W 3


class Said(NamedTuple):
    """The description of a run that a tracker receives: name, configuration and overrides."""

    name: str
    config: dict[str, Any]  # but for references to the place of the data
    overrides: list[str]


class Tracker(Logger):
    """Log to the tracker in `package`, installed by the extra of the same name. UserError if it is not installed.

    Entries are buffered, and sent every few seconds and at every checkpoint. The first failed delivery is reported, all are retried later;
    the run goes on. FOLDER/`package`.json has the id of the tracker's run, so that a resumed run continues it.
    """

    package: str

    def __init__(self) -> None:
        if importlib.util.find_spec(self.package) is None:
            raise UserError(f"logger.{self.package} needs {self.package}, which is not installed: pip install {self.package}")

    @abstractmethod
    def open(self, run: Run, said: Said, known: dict[str, str] | None) -> dict[str, str]:
        """Start a run, or continue the one in `known`. Returns the ids to store in `package`.json; never a credential."""

    @abstractmethod
    def send(self, entry: Entry) -> None: ...

    def there(self, step: int) -> set[tuple[int, str]]:
        """Return (step, name) of the entries that the tracker has after round `step`; a resumed run does not send them again."""
        return set()

    def settle(self) -> None:
        """Wait until all that was sent is stored, so that it survives a kill of the process."""

    @abstractmethod
    def end(self, state: str) -> None: ...

    def begin(self, run: Run) -> None:
        self.run, self.is_open, self.told = run, False, False
        self.waiting: list[Entry] = []
        self.due, self.pause = 0.0, EVERY_S
        self.from_step = run.step
        self.deliver()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.hold(Entry(step, dict(values), {}))

    def picture(self, step: int, name: str, picture: Tensor) -> None:
        self.hold(Entry(step, {}, {name: picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()}))

    def hold(self, entry: Entry) -> None:
        self.waiting.append(entry)
        del self.waiting[:-MOST]
        if time.monotonic() >= self.due:
            self.deliver()

    def flush(self) -> None:
        if self.pause == EVERY_S or time.monotonic() >= self.due:
            self.deliver(safely=True)

    def close(self, state: str) -> None:
        self.deliver()
        if self.is_open:
            self.attempt(lambda: self.end(state))

    def deliver(self, safely: bool = False) -> None:
        """Send the buffered entries, in order."""
        if self.attempt(self._deliver) and (not safely or self.attempt(self.settle)):
            self.pause = EVERY_S
        else:
            self.pause = min(2 * self.pause, LONGEST_S)
        self.due = time.monotonic() + self.pause

    def _deliver(self) -> None:
        if not self.is_open:
            file = self.run.folder / f"{self.package}.json"
            known = self.remembered(file) if file.exists() else None
            found = self.open(self.run, said_of(self.run.folder), known)
            if found != known:
                files.write_bytes(file, json.dumps(found, indent=2).encode(), self.run.folder)
            self.again = self.there(self.from_step or -1) if known else set()  # what belongs to round 0 is made again
            self.is_open = True
        while self.waiting:
            step, values, pictures = self.waiting[0]
            values = {name: value for name, value in values.items() if (step, name) not in self.again}
            pictures = {name: picture for name, picture in pictures.items() if (step, name) not in self.again}
            if values or pictures:
                self.send(Entry(step, values, pictures))
            del self.waiting[0]

    def remembered(self, file: Path) -> dict[str, str] | None:
        """Read the ids of the tracker's run; None, with a message, if the file is invalid."""
        said = parsed_json(read_bounded(file))
        if isinstance(said, dict) and all(isinstance(value, str) and value == printable(value) for value in said.values()):
            return said
        self.run.reporter.say(f"{file} cannot be read; {self.package} begins a new run")
        return None

    def attempt(self, act: Any) -> bool:
        """Call `act` and return whether it succeeded. The first error is printed, later ones are in train.log; none is raised."""
        try:
            act()
        except Exception as error:
            message = f"{self.package}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            if self.told:
                log.warning("%s", message)
            else:
                self.run.reporter.say(f"{message}; training goes on, what is not sent is kept and tried again later")
            self.told = True
            return False
        return True


def said_of(folder: Path) -> Said:
    """Read the description of a run from its files."""
    config = OmegaConf.to_container(directory.read_config(folder), resolve=False)
    line = parsed_yaml(read_bounded(folder / "overrides.yaml", 2**24))
    overrides = [str(word) for word in line] if isinstance(line, list) else []
    assert isinstance(config, dict)
    return Said(f"{folder.absolute().parent.name}/{folder.absolute().name}", {str(key): each for key, each in config.items()}, overrides)


def new_id() -> str:
    """Return a unique name for a run; the random state of the run is not used."""
    return secrets.token_hex(5)


def refuse_password(key: str, address: str | None, instead: str) -> None:
    """Raise UserError if an address contains a credential: the configuration is written to files and sent to trackers."""
    parts = urlsplit(address or "")
    if parts.password or "token=" in parts.query:
        raise UserError(f"{key} holds a credential, which would be written to config.yaml; leave it out and set {instead}")
