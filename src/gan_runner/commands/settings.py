"""What the keys of gan-sample and gan-eval take. Imports no torch."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Keys = dict[str, tuple[str, Callable[[Any], bool]]]  # key -> (what it takes, in words; whether a value is that)


def whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def one_of(*options: str) -> tuple[str, Callable[[Any], bool]]:
    *others, last = options
    return f"{', '.join(others)} or {last}", lambda value: value in options


def or_null(what: str, fits: Callable[[Any], bool]) -> tuple[str, Callable[[Any], bool]]:
    return f"{what} or null", lambda value: value is None or fits(value)


def at_least(least: int) -> Callable[[Any], bool]:
    return lambda value: whole(value, least)


SAMPLE: Keys = {
    "run": ("the folder of a run (./3 where its name is a number)", text),
    "checkpoint": ("last, best or the path of a file", text),
    "n": ("a number of samples, 1 or more", at_least(1)),
    "seed": ("a whole number, 0 or more", whole),
    "class": or_null("the name or the number of a class", lambda value: whole(value) or text(value)),
    "columns": or_null("a number of columns", at_least(1)),
    "format": one_of("grid", "png", "npz", "interpolation"),
    "out": or_null("a path", text),
    "export": ("the path of a file or null", lambda value: value is None or (text(value) and not Path(value).is_dir())),
    "accelerator": one_of("auto", "cpu", "cuda", "mps"),
}

EVALUATE: Keys = {
    "run": or_null("the folder of a run (./3 where its name is a number)", text),
    "checkpoint": ("last, best, all or the path of a file", text),
    "samples": or_null("a folder of images or a .npz file", text),
    "reference": or_null("the name of a data set, a folder or a .npz file", text),
    "split": one_of("train", "test"),
    "n": ("a number of samples, 2 or more", at_least(2)),
    "n_real": or_null("a number of samples, 2 or more,", at_least(2)),
    "seed": ("a whole number, 0 or more", whole),
    "seeds": ("a number of evaluations, 1 or more", at_least(1)),
    "batch_size": ("a number of samples, 1 or more", at_least(1)),
    "out": or_null("a folder", text),
    "accelerator": one_of("auto", "cpu", "cuda", "mps"),
    "threads": or_null("a number of threads, 1 or more,", at_least(1)),
}


RATE: Keys = {
    "run": or_null("the folder of a run (./3 where its name is a number)", text),
    "checkpoint": ("last, best or the path of a file", text),
    "fake": or_null("a folder of images or a .npz file", text),
    "real": or_null("a folder of images or a .npz file", text),
    "split": one_of("train", "test"),
    "out": ("a folder", text),
    "questions": ("a number of pairs, 1 or more", at_least(1)),
    "pool": ("a number of pairs, 1 or more", at_least(1)),
    "practice": ("a number of pairs, 0 or more", whole),
    "repeats": ("a number of pairs, 0 or more", whole),
    "order": one_of("unsure", "random"),
    "epsilon": ("a share above 0, at most 1", lambda value: isinstance(value, float | int) and 0 < value <= 1),
    "time": one_of("unlimited", "staircase"),
    "title": ("a line of text", text),
    "seed": ("a whole number, 0 or more", whole),
    "key": or_null("the path of a key.json", text),
    "answers": ("the paths of files, [A,B]", lambda value: isinstance(value, list) and all(map(text, value))),
    "accelerator": one_of("auto", "cpu", "cuda", "mps"),
}


def mistakes_in(keys: Keys, settings: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the values; also a file that lies where a folder is needed to write `out` or `export`."""
    wrong = [f"{key}={settings[key]}: expected {what}" for key, (what, fits) in keys.items() if not fits(settings[key])]
    wrong += [f"{key}: expected one line of text" for key, value in settings.items() if key in keys and len(str(value).splitlines()) > 1]
    yield from wrong
    for key in () if wrong else ("out", "export"):
        if settings.get(key) is not None:
            path = Path(settings[key])
            is_folder = key == "out" and settings.get("format", "png") == "png"
            needed = [path, *path.parents] if is_folder else path.parents
            yield from (f"{key}={settings[key]}: {each} is a file, not a folder" for each in needed if each.exists() and not each.is_dir())
