"""Parse command lines: overrides, packages and what is accepted. Imports no torch."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from gan_runner.config.explain import bad_grammar
from gan_runner.config.groups import LISTS, SWEEP_ONLY
from gan_runner.errors import UserError, printable, shell_line

ACCEPTABLE = ("data", "config")  # what may be another than that of the state from which a run goes on


def parsed(overrides: Sequence[str], loader: ConfigLoaderImpl | None = None) -> list[Override]:
    """Parse the overrides by Hydra's grammar; loader: gives the options of a group, for `loss=glob(*)`."""
    parser = OverridesParser.create(config_loader=loader)
    try:
        return parser.parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise UserError("\n".join(_mistakes(overrides, parser))) from error
    except ValueError as error:  # a number of more digits than Python reads
        long = max(overrides, key=len)
        raise UserError(f"cannot read {printable(long, 100)}: {str(error).partition(':')[0].lower()}") from error


def _mistakes(overrides: Sequence[str], parser: OverridesParser) -> Iterator[str]:
    """Explain each override that the grammar refuses, and how it is typed where its value is a text."""
    for at, word in enumerate(overrides):
        try:
            parser.parse_overrides([word])
        except OverrideParseException as error:
            before = next((i for i in reversed(range(at)) if "=" in overrides[i]), None) if "=" not in word else at
            instead = None if before is None else as_typed(" ".join(overrides[before : at + 1]))
            yield bad_grammar(word, str(error), instead)


def as_typed(word: str) -> str | None:
    """Quote KEY=VALUE, for the shell and for Hydra's grammar, so that VALUE is read as a text; in a list, each item that needs it.

    None where quotes do not help: VALUE is a mapping, or a list that does not end.
    """
    key, _, value = word.partition("=")
    if value.startswith("[") and value.endswith("]"):
        items = (item if _is_read(f"{key}={item}") else quoted(item, Quote.double) for item in value[1:-1].split(","))
        said = f"{key}=[{','.join(items)}]"
    elif value.startswith(("[", "{")):
        return None
    else:
        said = f"{key}={quoted(value, Quote.double)}"
    return shell_line([said]) if _is_read(said) else None


def _is_read(word: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_overrides([word]))
    except OverrideParseException:
        return False


def recorded(overrides: Any) -> list[str]:
    """Return the overrides that Hydra recorded, as typed: `a=${b}` is not resolved here."""
    return [str(override) for override in overrides._iter_ex(resolve=False)]


def quoted(text: str, quote: Quote = Quote.single) -> str:
    """Quote a text as the value of an override."""
    return QuotedString(text, quote).with_quotes()


def gathered(overrides: Sequence[str]) -> list[str]:
    """Rewrite `+penalty=a +penalty=b` as `'+penalty=[a,b]'`: Hydra's sweeper keeps only the last of two equal keys."""
    line: dict[str, list[str]] = {}
    for number, override in enumerate(parsed(overrides)):
        value, text = override.value() if not override.is_sweep_override() else None, text_of(override)
        if override.is_add() and override.key_or_group in LISTS and isinstance(value, str | list):
            line.setdefault(f"+{override.key_or_group}", []).extend(map(str, value if isinstance(value, list) else [value]))
        else:
            line[f"{number} {text}"] = [text]
    return [f"{key}=[{','.join(said)}]" if key.startswith("+") else said[0] for key, said in line.items()]


def allowed_packages() -> list[str]:
    """Return the packages in GAN_RUNNER_PACKAGES."""
    return [name.strip() for name in os.environ.get("GAN_RUNNER_PACKAGES", "").split(",") if name.strip()]


def named_packages(overrides: Sequence[Override]) -> list[str]:
    """Return the packages allowed in `_target_`: those on the line, then those in GAN_RUNNER_PACKAGES."""
    names: list[str] = []
    for override in overrides:
        if override.key_or_group == "packages" and not override.is_delete() and not override.is_sweep_override():
            value: Any = override.value()
            names += value if isinstance(value, list) else [] if value is None else [value]
    names += allowed_packages()
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"packages: expected names of Python packages, as in 'packages=[mypkg]'; got {name!r}")
    return list(dict.fromkeys(names))


def accepted(overrides: Sequence[str]) -> list[str]:
    """Return what the line accepts of ACCEPTABLE: accept=data, 'accept=[data,config]'. UserError for anything else."""
    names: list[str] = []
    for override in parsed(overrides):
        if override.key_or_group == "accept" and not override.is_delete():
            value: Any = None if override.is_sweep_override() else override.value()
            names = value if isinstance(value, list) else [value]
    if any(name not in ACCEPTABLE for name in names):
        raise UserError(
            "accept: what may differ when a run is resumed is data, config or both: accept=data, accept=config, 'accept=[data,config]'"
        )
    return names


def lasting(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that define a run: all except `accept` and `resume`, which are for one start."""
    return [text for text in overrides if parsed([text])[0].key_or_group.partition(".")[0] not in ("accept", "resume", *SWEEP_ONLY)]


def said(line: Sequence[Override], key: str) -> Any:
    """Return the value that a line gives to this key, directly or within a mapping; None for several values, `...` where it says none."""
    found: Any = ...
    for override in line:
        value: Any = None if override.is_sweep_override() else override.value()
        rest = key.removeprefix(override.key_or_group)
        for part in rest.split(".")[1:]:
            value = value.get(part, ...) if isinstance(value, dict) else ...
        if rest[:1] in ("", ".") and rest != key and not override.is_delete() and value is not ...:
            found = value
    return found


def says(line: Sequence[Override], key: str) -> bool:
    """Return whether a line sets this key, directly or within a mapping."""
    return said(line, key) is not ...


def text_of(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line
