"""Label the jobs of a sweep by what differs between their lines. Imports no torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gan_runner.storage.contents import SUMMARY
from gan_runner.storage.untrusted import parsed_yaml, read_bounded

RECORD = SUMMARY[0]
VARIED = "varied"


def key_of(word: str) -> str:
    """The key of an override."""
    return word.partition("=")[0].lstrip("+~")


def differing(lines: Iterable[Sequence[str]]) -> list[str]:
    """The keys for which not all lines have the same words."""
    by_key = [{key_of(word): word for word in line} for line in lines]
    keys = dict.fromkeys(key for line in by_key for key in line)
    return [key for key in keys if len({line.get(key) for line in by_key}) > 1]


def short(keys: Iterable[str]) -> dict[str, str]:
    """The last parts of each key, as few as tell it from the others: weight, or discriminator.lr and generator.lr."""
    keys = list(keys)

    def tail(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    found = {}
    for key in keys:
        lengths = range(1, key.count(".") + 2)
        found[key] = next((tail(key, n) for n in lengths if [tail(other, n) for other in keys].count(tail(key, n)) == 1), key)
    return found


def label(line: Iterable[str], keys: Iterable[str]) -> str:
    """What a line has for these keys: `loss=hinge seed=0`."""
    names, words = short(keys), {key_of(word): word.partition("=")[2] for word in line}
    return " ".join(f"{name}={words[key]}" for key, name in names.items() if key in words)


def varied(folder: Path) -> list[str]:
    """The keys that the sweep varies whose job is in this folder, as sweep.yaml beside it says; none where there is no sweep."""
    said = parsed_yaml(read_bounded(folder.absolute().parent / RECORD, 2**22))
    keys = said.get(VARIED) if isinstance(said, dict) else None
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def line_of(folder: Path) -> list[str]:
    """The words on the line of a run; none where they cannot be read."""
    said = parsed_yaml(read_bounded(folder / "overrides.yaml", 2**22))
    return [word for word in said if isinstance(word, str)] if isinstance(said, list) else []
