"""Find the mistakes of a line, all of them at once: each is explained, and what it should have been is put in its place."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from gan_runner.config.command_line import accepted, as_typed, named_packages, parsed, text_of
from gan_runner.config.composed import Composed
from gan_runner.config.explain import exists, keys_of, listed, orphan, unknown_key
from gan_runner.config.groups import BELOW, LINE_ONLY, LISTS, ONE, PARTS, SINGLE, chosen_names, is_part, takes_no
from gan_runner.errors import UserError, did_you_mean, nearest, with_article
from gan_runner.storage.documents import rendered


class Mistake(NamedTuple):
    """A mistake in words."""

    text: str
    key: str | None = None  # of the words of the line that made it; None: a file made it
    instead: str | None = None  # a word that is probably meant


class WrongLine(UserError):
    """A line with mistakes; `rest` is what it composes to without them, None where nothing can be composed."""

    def __init__(self, mistakes: Sequence[Mistake], rest: Composed | None = None):
        super().__init__("\n".join(dict.fromkeys(each.text for each in mistakes)))
        self.mistakes, self.rest = list(mistakes), rest


def composed_or_rest(compose: Callable[[], Composed]) -> tuple[Composed, list[str]]:
    """Compose a line. Returns (configuration without the words that are wrong, mistakes). WrongLine where nothing can be composed."""
    try:
        return compose(), []
    except WrongLine as error:
        if error.rest is None:
            raise
        return error.rest, str(error).split("\n")


def sets_values(composed: Composed, groups: Collection[str] | None = None) -> bool:
    """Return whether the line, or a file of the user, sets a value; groups: of which parts alone."""
    keys = [override.key_or_group for override in parsed(composed.overrides) if not override.is_hydra_override()]
    valued = [key for key in keys if key not in (*PARTS, *BELOW, *LINE_ONLY, "experiment", "study")]
    return bool(composed.files or any(groups is None or key.split(".")[0] in groups for key in valued))


def corrected(line: Sequence[Override], mistakes: Sequence[Mistake]) -> list[str]:
    """Return the words of a line with what was probably meant in the place of each mistake, and without what cannot be judged then."""
    words = []
    for override in line:
        key = override.key_or_group
        if instead := [each.instead for each in mistakes if each.key == key and each.instead]:
            words.append(instead[-1])
        elif not any(_is_of(key, each) for each in mistakes if not each.instead):
            words.append(text_of(override))
    return words


def _is_of(key: str, mistake: Mistake) -> bool:
    """Return whether a word belongs to a mistake: it has its key or one below it, or sets a part that an unknown experiment may choose."""
    if mistake.key in ("experiment", "study"):
        return key == mistake.key or ("." in key and key.split(".")[0] in PARTS)
    return mistake.key is not None and (key == mistake.key or key.startswith(f"{mistake.key}."))


# ------------------------------------------------------------------------------------------------------------------- words of a line


def misspelt(line: Sequence[Override], repository: Any, sweeps: bool) -> Iterator[Mistake]:
    """Yield the words that are wrong whatever the configuration is. sweeps: whether the command can run each of several values."""
    for override in line:
        key, text = override.key_or_group, text_of(override)
        if key == "experiment" and not override.is_add():
            yield Mistake(f"an experiment is added, with a plus: +{text.lstrip('~')}", key, f"+{text.lstrip('~')}")
        elif override.is_sweep_override():
            first = next(map(str, override.sweep_string_iterator()), None) if override.is_discrete_sweep() else None
            yield Mistake(several_values(override, repository, sweeps), key, f"{text.partition('=')[0]}={first}" if first else None)
        elif key in ("packages", "accept"):
            try:
                named_packages([override])
                accepted([text])
            except UserError as error:
                yield Mistake(str(error), key)


def unheard_of(line: Sequence[Override], groups: Collection[str], config_name: str) -> Iterator[Mistake]:
    """Yield words for parts of groups that the command does not compose. groups: those that it composes."""
    for override in line:
        group = override.key_or_group.split(".")[0]
        if group in (*PARTS, *BELOW) and group not in groups:
            yield Mistake(takes_no(config_name, group, text_of(override)), override.key_or_group)


def several_values(override: Override, repository: Any, sweeps: bool) -> str:
    """Explain a value with a comma where one is expected."""
    key, _, values = text_of(override).partition("=")
    instead = ["add -m to run each of them"] if sweeps else []
    instead.append(f"write '{key}=[{values}]' for one list")
    if not repository.group_exists(key.lstrip("+~")) and (typed := as_typed(text_of(override))):
        instead.append(f"{typed} for one text with a comma")
    return f"{text_of(override)}: several values; {', or '.join(instead)}"


def wrong_choices(choosers: Sequence[Override], repository: Any) -> Iterator[Mistake]:
    """Yield values that cannot be names, which crash Hydra, two names for a single part, which Hydra would merge, and unknown names."""
    for override in choosers:
        group = override.key_or_group
        value = override.value()
        if override.is_sweep_override() or (override.is_delete() and (value is None or isinstance(value, str))):
            continue
        names = value if isinstance(value, list) and group not in ONE else [value]
        if value is None and group in (*LISTS, *BELOW):
            continue
        if not all(isinstance(name, str) and name.strip() for name in names):
            what = f"names, '{group}=[A,B]'" if group in LISTS else f"the name of {with_article(group)}"
            yield Mistake(f"{text_of(override)}: expected {what}{available(group, repository)}", group)
            continue
        options = repository.get_group_options(group)
        unknown = [str(name) for name in names if not repository.config_exists(f"{group}/{name}")]
        meant = [near for name in names for near in ([str(name)] if name not in unknown else nearest(str(name), options)[:1])]
        said = meant[0] if meant and not isinstance(value, list) else f"[{','.join(meant)}]"
        instead = f"{text_of(override).partition('=')[0]}={said}" if meant or group in LISTS else None
        for name in unknown:
            yield Mistake(f"there is no {group} {name}{did_you_mean(name, options)}{available(group, repository)}", group, instead)


def wrong_keys(words: Sequence[Override], frame: DictConfig, repository: Any) -> list[Mistake]:
    """Return the mistakes of words that set values in a configuration: unknown keys, and keys that are added and exist already."""
    found: list[Mistake] = []
    added: list[str] = []
    for override in words:
        key, text = override.key_or_group, text_of(override)
        if override.is_add() or override.is_force_add():
            added.append(key)
            if override.is_add() and exists(frame, key) and not isinstance(override.value(), (dict, list)):
                found.append(Mistake(f"{text}: {key} exists already; set it without the plus: {text[1:]}", key, text[1:]))
        elif not exists(frame, key) and not any(key == new or key.startswith(f"{new}.") for new in added):
            found.append(Mistake(_unknown(key, frame, repository, removed=override.is_delete()), key))
        elif override.is_delete() and OmegaConf.select(frame, key, throw_on_missing=False) is None:
            found.append(Mistake(f"{text}: {key} is null already; leave it out", key))
    return found


def _unknown(key: str, frame: DictConfig, repository: Any, removed: bool) -> str:
    head, *rest = key.split(".")
    if head in LISTS and rest and rest[0] not in (frame.get(head) or {}):
        chosen = chosen_names(frame, head)
        if removed:
            return f"~{key}: nothing to remove; {head} has {', '.join(chosen) or 'no entries'}"
        return orphan(key, chosen, repository.get_group_options(head))
    if head in SINGLE and frame.get(head) is None:
        return f"{key}: no {head} is chosen; choose one with {head}=NAME{available(head, repository)}"
    return unknown_key(key, frame)


# ----------------------------------------------------------------------------------------------------------- of a loaded configuration


def strangers(loaded: DictConfig, known: Sequence[str], repository: Any, config_name: str) -> Iterator[Mistake]:
    """Yield keys at the top level that are not known, which Hydra accepts."""
    new = [str(key) for key in loaded if key not in known]
    keys = [key for key in keys_of(loaded, hydra=False) if key.split(".")[0] not in new]
    for key in new:
        if key in PARTS:
            yield Mistake(takes_no(config_name, key, key), key)
        elif repository.group_exists(key):
            yield Mistake(f"{key}/ files must begin with the line `# @package _global_`")
        else:
            yield Mistake(f"unknown key {key}{did_you_mean(key, keys)}", key)


def orphans(loaded: DictConfig, repository: Any) -> Iterator[Mistake]:
    """Yield settings of a part of a list that is not chosen."""
    for group in LISTS:
        for name in (loaded.get(group) or {}) if group in loaded else ():
            if not is_part(loaded[group]._get_node(name)):
                key = f"{group}.{name}"
                yield Mistake(orphan(key, chosen_names(loaded, group), repository.get_group_options(group)), key)


def misplaced(loaded: DictConfig, own: Mapping[str, Sequence[str]]) -> Iterator[Mistake]:
    """Yield keys of a group that are in none of its files. own: group -> the keys that are."""
    for group, keys in own.items():
        for key in loaded.get(group) or ():
            if key not in keys:
                said = f"unknown key {group}.{key}; {group} has {', '.join(keys)}{did_you_mean(str(key), list(keys))}"
                yield Mistake(said, f"{group}.{key}")


# ---------------------------------------------------------------------------------------------------------------------------- of a file


def missing_option(error: MissingConfigException, repository: Any, experiments: Sequence[str]) -> str:
    """Explain that a file chooses an option that does not exist."""
    group, _, name = str(error.missing_cfg_file or "").partition("/")
    if not name or not repository.group_exists(group):
        return rendered(error)
    asking = ", ".join(experiment.lstrip("+") for experiment in experiments)
    by = f" (asked for by {asking})" if asking else ""
    return f"there is no {group} {name}{did_you_mean(name, repository.get_group_options(group))}{by}{available(group, repository)}"


def available(group: str, repository: Any) -> str:
    return f"; available: {listed(repository.get_group_options(group))}"
