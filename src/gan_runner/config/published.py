"""Published figures of the experiments: the key `expect` of their files. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field

from gan_runner.config.groups import file_of
from gan_runner.errors import UserError, printable
from gan_runner.storage.untrusted import parsed_yaml, read_bounded


class Published(pydantic.BaseModel):
    """A figure that was published for an experiment.

    figure: its key in metrics.jsonl. spread: what follows +- in the source; None: nothing. protocol: what the source says of the
    measurement, by the keys of a protocol in metrics.jsonl; what it does not say is left out. training: how the training of the source
    differs from the experiment.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    figure: str
    value: float
    spread: Annotated[float, Field(ge=0)] | None = None
    protocol: dict[str, bool | int | float | str] = {}
    training: str | None = None
    source: str

    @property
    def text(self) -> str:
        """The value and its spread: 16.77 +- 0.04."""
        return f"{self.value:g}" + (f" +- {self.spread:g}" if self.spread is not None else "")

    @property
    def told(self) -> str:
        """Source, protocol and training in words."""
        said = [f"{key}={value}" for key, value in self.protocol.items()]
        return "; ".join([self.source, *said, *([f"training: {self.training}"] if self.training else [])])


def file_of_experiment(experiment: str, config_dirs: Sequence[str | Path] = ()) -> Path:
    """Return the file of an experiment. UserError if there is none."""
    if (path := file_of("experiment", experiment, config_dirs)) is None:
        raise UserError(f"there is no experiment {printable(experiment, 100)}; gan-train --help lists them")
    return path


def published(experiment: str, config_dirs: Sequence[str | Path] = ()) -> list[Published]:
    """Return the published figures of an experiment: those in its own file, as one that inherits from it is another. UserError if they
    cannot be read."""
    path = file_of_experiment(experiment, config_dirs)
    tree = parsed_yaml(read_bounded(path, 2**20))
    said = tree.get("expect") if isinstance(tree, dict) else None
    try:
        return pydantic.TypeAdapter(list[Published]).validate_python(said or [])
    except pydantic.ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{path}: expect.{where}: {error.errors()[0]['msg']}") from error
