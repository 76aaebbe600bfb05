"""The settings of gan-sample, gan-eval and gan-rate: a field for each key of a YAML file, which has the defaults. Imports no torch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from omegaconf import MISSING
from pydantic import AfterValidator
from typing_extensions import Doc

from gan_runner.assembly.signatures import converted, mistyped, signature
from gan_runner.errors import UserError

Settings = TypeVar("Settings")


def one_line(text: str) -> str:
    """Return a text of one line. ValueError if it is empty or has several lines."""
    if not text.strip() or len(text.splitlines()) > 1:
        raise ValueError("it has to be one line, and not empty")
    return text


def below_folders(path: str) -> str:
    """Return a path whose parents are folders or can be created. ValueError if one is a file, or its name is invalid."""
    try:
        files = [parent for parent in Path(path).parents if parent.exists() and not parent.is_dir()]
    except OSError as error:
        raise ValueError(str(error.strerror).lower()) from error
    if files:
        raise ValueError(f"{files[0]} is a file, not a folder")
    return path


def folder(path: str) -> str:
    """Return the path of a folder that exists or can be created. ValueError as for `below_folders`."""
    below_folders(f"{path}/file")
    return path


def no_folder(path: str) -> str:
    """Return a path that is not a folder. ValueError if it is one."""
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder")
    return path


Accelerator = Literal["auto", "cpu", "cuda", "mps"]
Seed = Annotated[int, Ge(0)]
Text = Annotated[str, AfterValidator(one_line)]
Run = Annotated[Text, Doc("the folder of a run (./3 where its name is a number)")]
Checkpoint = Annotated[Text, Doc("last, best or the path of a file")]
Halflife = Annotated[float, Gt(0), Doc("a number of thousand images")]
Images = Annotated[Text, Doc("a folder of images, a .npz, .npy, .zip, .parquet or .arrow file")]
Judged = Annotated[Text, Doc("a folder of images, a .npz, .npy, .zip, .parquet or .arrow file, or the name of a data set")]
Folder = Annotated[Text, AfterValidator(folder), Doc("a folder")]


@dataclass(frozen=True)
class Sample:
    """The keys of sample.yaml."""

    run: Run
    checkpoint: Checkpoint
    ema: Halflife | None
    n: Annotated[int, Ge(1), Doc("a number of samples")] | None
    seed: Seed
    class_: Annotated[Text | Annotated[int, Ge(0)], Doc("the name or the number of a class")] | None
    format: Literal["grid", "png", "npz", "files", "interpolation"]
    columns: Annotated[int, Ge(1), Doc("a number of columns")] | None
    scale: Annotated[int, Ge(1), Le(64)] | Literal["auto"]
    out: Annotated[Text, AfterValidator(below_folders), Doc("a path")] | None
    trajectory: bool
    discriminator: Run | None
    corrector: Run | None
    export: Annotated[Text, AfterValidator(below_folders), AfterValidator(no_folder), Doc("the path of a file")] | None
    accelerator: Accelerator
    packages: tuple[str, ...]
    refiner: dict[str, Any]
    dataset: dict[str, Any]

    def __post_init__(self) -> None:
        """Raise UserError if `out` cannot be a folder, which format=png needs for its files."""
        if self.format == "png" and self.out is not None:
            try:
                folder(self.out)
            except ValueError as error:
                raise UserError(f"out={self.out!r}: {error}") from error


@dataclass(frozen=True)
class Evaluate:
    """The keys of evaluate.yaml."""

    run: Run | tuple[Run, ...] | Annotated[tuple[tuple[Run, ...], ...], Doc("a list of groups of them, [[A,B],[C,D]]")] | None
    checkpoint: Annotated[Text, Doc("last, best, all or the path of a file")]
    ema: Halflife | None
    watch: bool
    samples: Judged | tuple[Judged, ...] | Annotated[tuple[tuple[Judged, ...], ...], Doc("a list of groups of them, [[A,B],[C,D]]")] | None
    reference: Judged | None
    resize: Annotated[int, Ge(1), Doc("a number of pixels")] | None
    column: Annotated[Text, Doc("the name of a column")] | None
    split: Literal["train", "test"]
    n: Annotated[int, Ge(2), Doc("a number of samples")]
    n_real: Annotated[int, Ge(2), Doc("a number of samples")] | None
    seed: Seed
    seeds: Annotated[int, Ge(1), Doc("a number of evaluations")]
    batch_size: Annotated[int, Ge(1), Doc("a number of samples")]
    discriminator: Run | None
    corrector: Run | None
    every: Annotated[int, Ge(1), Doc("a number of steps")] | None
    format: Literal["auto", "json", "csv", "markdown", "table"]
    out: Folder | None
    accelerator: Accelerator
    threads: Annotated[int, Ge(1), Le(1024), Doc("a number of threads")] | None
    packages: tuple[str, ...]
    metric: dict[str, Any] | None
    extractor: dict[str, Any]
    refiner: dict[str, Any]
    dataset: dict[str, Any]


@dataclass(frozen=True)
class Rate:
    """The keys of rate.yaml."""

    run: Run | None
    checkpoint: Checkpoint
    fake: Images | None
    real: Images | None
    split: Literal["train", "test"]
    out: Folder
    questions: Annotated[int, Ge(1), Doc("a number of pairs")]
    pool: Annotated[int, Ge(1), Doc("a number of pairs")]
    practice: Annotated[int, Ge(0), Doc("a number of pairs")]
    repeats: Annotated[int, Ge(0), Doc("a number of pairs")]
    order: Literal["unsure", "random"]
    epsilon: Annotated[float, Gt(0), Le(1), Doc("a share")]
    time: Literal["unlimited", "staircase"]
    title: Annotated[Text, Doc("a title")]
    seed: Seed
    key: Annotated[Text, Doc("the path of a key.json")] | None
    answers: Annotated[tuple[Text, ...], Doc("the paths of files, [A,B]")]
    accelerator: Accelerator
    packages: tuple[str, ...]


KINDS: dict[str, type] = {"sample": Sample, "evaluate": Evaluate, "rate": Rate}  # by the file that a command composes
PLACES = {"run": "outputs/NAME/DATE_TIME"}  # examples of values


def fields(kind: type) -> dict[str, tuple[str, Any]]:
    """Return field -> (key, annotation) of the settings of a command."""
    return {name: (name.removesuffix("_"), annotation) for name, (annotation, _) in signature(kind).items()}  # class_ is `class`


def wrong(kind: type, values: dict[str, Any]) -> list[str]:
    """Return the mistakes of all keys of a command: those without a value, and those whose value does not fit."""
    annotations = dict(fields(kind).values())
    missing = [key for key in annotations if values.get(key, MISSING) == MISSING]
    there = {key: annotation for key, annotation in annotations.items() if key not in missing}
    return [f"{key} has no value: say {key}={PLACES.get(key, '...')}" for key in missing] + list(mistyped("", there, values))


def read(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Make the settings of a command from its composed keys. UserError with the mistakes of all keys."""
    if mistakes := wrong(kind, values):
        raise UserError("\n".join(mistakes))
    return kind(**{name: converted(annotation, values[key]) for name, (key, annotation) in fields(kind).items()})
