"""Extend Hydra's loader by one rule, and explain its errors in plain words. Imports no torch.

Hydra merges the body of an experiment after the parts are chosen. Without the rule, `+experiment=e 'penalty=[gp]'` keeps e's settings of
r1, a part without a class, and `+experiment=e optimizer=ttur` silently keeps e's learning rates. `Composer` is Hydra's own loader with the
rule **the settings of an experiment for a part apply only while that part is chosen**. Because it is the loader, the rule applies wherever
Hydra composes: in a run, in every job of a sweep, under any launcher, and for `--cfg job`.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.default_element import GroupDefault
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_runner.config.command_line import named_packages, parsed, recorded, text_of
from gan_runner.config.composed import Composed, without_line_keys
from gan_runner.config.explain import keys_of, leaves
from gan_runner.config.groups import BELOW, LINE_ONLY, LISTS, ONE, PAIRS, PARTS, SINGLE, Names, config_dir
from gan_runner.config.mistakes import (
    Mistake,
    WrongLine,
    corrected,
    misplaced,
    missing_option,
    misspelt,
    orphans,
    strangers,
    unheard_of,
    wrong_choices,
    wrong_keys,
)
from gan_runner.config.of_run import complete, run_behind
from gan_runner.config.sources import Bounded, Repository, is_ours, refuse_placed, refuse_searchpath, settings_of
from gan_runner.config.trust import refuse_foreign_code
from gan_runner.errors import UserError, did_you_mean
from gan_runner.storage.documents import refuse_covered, refuse_growth, rendered, texts

EXPLAINED = (HydraException, OmegaConfBaseException, ValueError, UserError, yaml.YAMLError, RecursionError)


@dataclass
class _Loading:
    """The state of one composition."""

    config_name: str
    line: list[Override]
    choices_typed: bool  # whether the line itself chooses a part
    replaced: set[str]  # list groups that it replaces as a whole
    experiments: list[str]  # the overrides that choose a whole-config file: +experiment=e, study=s
    chosen: dict[str, Names] = field(default_factory=dict)
    meant: dict[str, dict[str, Names]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)  # that are not the project's own
    given: dict[str, str] = field(default_factory=dict)  # setting of Hydra's -> the file that gave it and is not ours
    interpolated: set[tuple[Any, ...]] = field(default_factory=set)  # paths of interpolations in the files so far


class Composer(ConfigLoaderImpl):
    """Hydra's config loader; drops an experiment's settings for parts that are not chosen, and raises only UserError."""

    def __init__(self, config_dirs: Sequence[str | Path] = (), main: str | Path | None = None):
        version.setbase("1.3")
        setup_globals()
        path = create_config_search_path(str(Path(main or config_dir()).resolve()))
        for folder in config_dirs:
            if not Path(folder).is_dir():
                raise UserError(f"--config-dir: there is no folder {folder}")
            mine = f"file://{Path(folder).resolve()}"
            path.prepend("command-line", mine, SearchPathQuery(provider="main"))  # of two files with one name, the user's is taken
        super().__init__(path)
        self.repository = Repository(path, Path(main or config_dir()).resolve())
        self.loading = _Loading("train", [], False, set(), [])
        self._known: dict[Any, tuple[DictConfig, _Loading]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}  # a launcher may send the loader to another process

    def compose(self, overrides: list[str], config_name: str = "train") -> Composed:
        return self.composed(self.load_configuration(config_name, overrides, RunMode.RUN), overrides)

    def compose_job(self, frame: DictConfig, overrides: list[str]) -> Composed:
        """Compose a job of a sweep."""
        return self.composed(self.load_sweep_config(frame, overrides), overrides)

    def output_root(self, config_name: str, overrides: Sequence[str]) -> Path:
        """Return the folder that runs are created in: the part of hydra.run.dir before what differs between them."""
        words = [text_of(o) for o in parsed(overrides) if o.key_or_group == "hydra.run.dir"]
        where = str(self.load_configuration(config_name, words, RunMode.RUN).hydra.run._get_node("dir")._value())
        fixed = where.partition("${")[0]
        return Path(fixed) if fixed == where or fixed.endswith("/") else Path(fixed).parent

    def composed(self, loaded: DictConfig, overrides: list[str]) -> Composed:
        """Return the configuration that `load_configuration` has just loaded, with its notes."""
        loading, hydra = self.loading, loaded.hydra
        config = without_line_keys(loaded)
        choices: dict[str, Any] = dict(hydra.runtime.choices)
        for group in LISTS:
            if group in config:
                choices[group] = list(config[group] or {})
        packages, summary = named_packages(parsed(overrides)), loaded.summary if "summary" in loaded else None
        return Composed(config, hydra, overrides, loading.notes, choices, packages, loading.origins, loading.files, summary)

    # Hydra calls these --------------------------------------------------------------------------------------------------------------

    def load_configuration(self, config_name: str | None, overrides: list[str], run_mode: RunMode, *args: Any, **kwargs: Any) -> DictConfig:
        """Load as Hydra does, but once for each line (Hydra calls it up to four times, 0.3 s each), so that the checked one is run."""
        key = (config_name, tuple(overrides), run_mode, args, tuple(kwargs.items()))
        if key not in self._known:
            loaded = self._composed_line(config_name or "train", overrides, run_mode, *args, **kwargs)
            self._known[key] = loaded, self.loading
        loaded, self.loading = self._known[key]
        return copy.deepcopy(loaded)

    def _composed_line(self, config_name: str, overrides: list[str], run_mode: RunMode, *args: Any, **kwargs: Any) -> DictConfig:
        line = parsed(overrides)
        try:
            return self._loaded(config_name, line, run_mode, *args, **kwargs)
        except EXPLAINED as error:
            if run_mode == RunMode.MULTIRUN:
                return self._frame(error, config_name, line, *args, **kwargs)
            raise self._wrong_line(error, config_name, line) from error

    def _frame(self, error: Exception, config_name: str, line: list[Override], *args: Any, **kwargs: Any) -> DictConfig:
        """Compose the frame of a sweep without the words that are wrong in it: every job finds its own mistakes.

        A value such as penalty.r1.weight=5 may only make sense once a job has chosen its experiment. WrongLine where Hydra's own settings
        are wrong.
        """
        groups = [o for o in line if self._chooses(o) or o.key_or_group.startswith("hydra.")]
        if len(groups) < len(line):
            frame = self._composed_line(config_name, [text_of(o) for o in groups], RunMode.MULTIRUN, *args, **kwargs)
        else:
            wrong = self._wrong_line(error, config_name, [o for o in line if not o.is_sweep_override()])
            if wrong.rest is None or any(each.key is None or each.key.startswith("hydra") for each in wrong.mistakes):
                raise wrong from error
            good = [*wrong.rest.overrides, *(text_of(o) for o in line if o.is_sweep_override())]
            frame = self._loaded(config_name, parsed(good), RunMode.MULTIRUN, *args, **kwargs)
        self._record_line(frame, line)
        return frame

    def _wrong_line(self, error: Exception, config_name: str, line: list[Override]) -> WrongLine:
        """Find all mistakes of a line: explain those of an error, set them right or leave them out, and compose what is left."""
        mistakes: list[Mistake] = []
        rest: Composed | None = None
        while rest is None:
            found = self._explained(error, config_name, line)
            mistakes += [each for each in found if each not in mistakes]
            words = corrected(line, found)
            if words == [text_of(o) for o in line]:
                break
            line = parsed(words)
            try:
                rest = self.composed(self._loaded(config_name, line, RunMode.RUN), words)
            except EXPLAINED as another:
                error = another
        return WrongLine(mistakes, rest)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        overrides = [*recorded(master_config.hydra.overrides.hydra), *sweep_overrides]
        loaded = self.load_configuration(master_config.hydra.job.config_name, overrides, RunMode.RUN)
        OmegaConf.copy_cache(from_config=master_config, to_config=loaded)  # one date for the whole sweep
        return loaded

    def _parse_overrides_and_create_caching_repo(self, config_name: str | None, overrides: list[str]) -> tuple[list[Override], Bounded]:
        line, repo = parsed(overrides), Bounded(self.repository)
        self._process_config_searchpath(config_name, line, repo)
        return line, repo

    def _process_config_searchpath(self, config_name: str | None, line: list[Override], repo: Any) -> None:
        refuse_searchpath(None if config_name is None else repo.load_config(config_name), line)
        super()._process_config_searchpath(config_name, line, repo)

    def _compose_config_from_defaults_list(self, defaults: list[Any], repo: Any) -> DictConfig:
        loading = self.loading
        loading.chosen = _choices(defaults, repo)
        if not loading.choices_typed:
            loading.meant[" ".join(loading.experiments)] = loading.chosen
        config = super()._compose_config_from_defaults_list(defaults, repo)
        if (run := run_behind(config, loading.line)) is not None:
            taken = complete(config, run, loading.line, self._overridden(defaults, repo), loading.origins)
            loading.notes += [f"taken from {run}: {', '.join(taken)}"] if taken else []
            for place in taken:
                keys = [place, *keys_of(OmegaConf.select(config, place), f"{place}.")]
                loading.origins = dict.fromkeys(keys, f"{run}/config.yaml") | loading.origins
        refuse_growth(config, "the configuration")
        return config

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema")  # said of another one's hydra/launcher/basic
            result = super()._load_single_config(default, repo)
        if not is_ours(result.path):
            file = f"{default.config_path}.yaml"
            self.loading.files.append(file)
            self.loading.given.update(dict.fromkeys(settings_of(file, result.config), file))
        tree = OmegaConf.to_container(result.config, resolve=False)
        refuse_covered(f"{default.config_path}.yaml", tree, self.loading.interpolated)
        self.loading.interpolated |= {path for path, _ in texts(tree)}
        if not default.primary and not default.package and not default.config_path.startswith("hydra"):
            result.config = self._repaired(default.config_path, copy.deepcopy(result.config), repo)
        return result

    # The repair ---------------------------------------------------------------------------------------------------------------------

    def _loaded(self, config_name: str, line: list[Override], run_mode: RunMode, *args: Any, **kwargs: Any) -> DictConfig:
        choosers = [o for o in line if self._chooses(o)]
        single = [o for o in line if run_mode == RunMode.RUN or not o.is_sweep_override()]  # a sweep is to have several values
        words = [
            *misspelt(single, self.repository, config_name == "train"),
            *unheard_of(line, self._groups(config_name), config_name),
        ]
        if wrong := [*words, *wrong_choices(choosers, self.repository)]:
            raise WrongLine(wrong)
        self.loading = _Loading(
            config_name,
            line,
            choices_typed=any(o.key_or_group in PARTS for o in choosers),
            replaced={o.key_or_group for o in choosers if o.key_or_group in LISTS and not o.is_add()},
            experiments=[text_of(o) for o in choosers if o.key_or_group not in PARTS and not o.is_sweep_override()],
        )
        loaded = super().load_configuration(config_name, self._spelled_out(config_name, line), run_mode, *args, **kwargs)
        self._record_line(loaded, line)
        if run_mode == RunMode.RUN:
            self._verify(loaded, config_name, line)
        refuse_placed(loaded.hydra, self.loading.given, line)
        refuse_foreign_code(loaded.hydra, named_packages(line))
        return loaded

    def _spelled_out(self, config_name: str, line: list[Override]) -> list[str]:
        """Write `+penalty=x` as the whole resulting list: Hydra loses x if an experiment sets the list, and allows only one."""
        written: list[str] = []
        added: dict[str, list[str]] = {}
        for override in self._addressed(config_name, line):
            group = override.key_or_group
            if not self._chooses(override) or group not in (*ONE, *LISTS) or override.is_sweep_override():
                written.append(text_of(override))
            elif group in ONE and override.is_add():
                said = f"{text_of(override)}: exactly one {group} is chosen, so it is replaced, not added: {text_of(override)[1:]}"
                raise WrongLine([Mistake(said, group, text_of(override)[1:])])
            elif group in LISTS and (override.is_delete() or override.value() is None):
                written.append(f"{group}=[]" if override.value() in (None, "") else f"~{group}.{override.value()}")
            elif group in BELOW and override.value() is None:
                written.append(f"~{group}")  # Hydra has no other word for it
            elif group in LISTS and override.is_add():
                value = override.value()
                added.setdefault(group, []).extend(map(str, value if isinstance(value, list) else [value]))
            else:
                written.append(text_of(override))
        if added:
            defaults = self.compute_defaults_list(config_name, written, RunMode.MULTIRUN).defaults
            for group, names in added.items():
                written.append(f"{group}=[{','.join(dict.fromkeys([*_options(defaults, group), *names]))}]")
        return written

    def _addressed(self, config_name: str, line: list[Override]) -> list[Override]:
        """Write `extractor.KEY=` as `extractor.NAME.KEY=` where one network is chosen: until version 0.1 a run had only one."""
        group = "extractor"
        below = [o for o in line if o.key_or_group.startswith(f"{group}.")]
        names = self.repository.get_group_options(group) if below and self.repository.group_exists(group) else []
        short = [o for o in below if o.key_or_group.split(".")[1] not in names]
        if not short or not names:
            return line
        defaults = self.compute_defaults_list(config_name, [text_of(o) for o in line if o not in short], RunMode.MULTIRUN).defaults
        chosen = _options(defaults, group)
        if len(chosen) != 1:
            return line
        return [parsed([text_of(o).replace(f"{group}.", f"{group}.{chosen[0]}.", 1)])[0] if o in short else o for o in line]

    def _chooses(self, override: Override) -> bool:
        """Return whether an override chooses files of a group, rather than setting a value."""
        if override.is_sweep_override():
            return self.repository.group_exists(override.key_or_group)
        return self.repository.group_exists(override.key_or_group) and not isinstance(override.value(), dict)

    def _overridden(self, defaults: Sequence[Any], repo: Any) -> set[str]:
        """Return the groups whose choice in train.yaml the line, or a file that it chooses, replaces."""
        typed = {o.key_or_group for o in self.loading.line if self._chooses(o)}
        listed = [each for default in defaults for each in repo.load_config(config_path=default.config_path).defaults_list or ()]
        return typed | {each.group.removeprefix("/") for each in listed if each.is_override()}

    def _record_line(self, loaded: DictConfig, line: list[Override]) -> None:
        loaded.hydra.overrides.task = [text_of(o) for o in line if not o.is_hydra_override()]
        loaded.hydra.overrides.hydra = [text_of(o) for o in line if o.is_hydra_override()]

    def _meant(self, selections: list[str], repo: Any) -> dict[str, Names]:
        """Return the parts that these experiments choose without other overrides."""
        key = " ".join(selections)
        if key not in self.loading.meant:
            listing = create_defaults_list(repo, self.loading.config_name, parsed(selections), prepend_hydra=True, skip_missing=True)
            self.loading.meant[key] = _choices(listing.defaults, repo)
        return self.loading.meant[key]

    def _repaired(self, path: str, body: Any, repo: Any) -> DictConfig:
        """Return the body of an experiment without its settings for parts that are not chosen."""
        body.pop("expect", None)  # published figures: read from the file, and no setting (config/published.py)
        self._refuse_body(path, body, repo)
        parts = [str(key) for key in body if key in PARTS]
        if parts:
            group, _, name = path.partition("/")
            meant = self._meant([f"{'' if group == 'study' else '+'}{group}={name}"], repo)
            unreplaced = self._meant(self.loading.experiments, repo)  # as it would be, had the line replaced nothing
            for part in parts:
                repair = self._repair_list if part in LISTS else self._repair_single
                repair(path, body, part, meant.get(part, ()), self.loading.chosen.get(part, ()), unreplaced.get(part, ()))
        self.loading.origins.update(dict.fromkeys(keys_of(body), f"{path}.yaml"))
        return body

    def _refuse_body(self, path: str, body: DictConfig, repo: Any) -> None:
        """Refuse settings that are not allowed in the file of an experiment."""
        primary = [str(key) for key in repo.load_config(config_path=self.loading.config_name).config]
        for key in map(str, body):
            if key in LINE_ONLY:
                raise UserError(f"{path}.yaml sets {key}, which is read from the command line only: {key}=...")
            if key in PARTS and not isinstance(body._get_node(key), DictConfig):
                raise UserError(f"{path}.yaml: {key} has no keys below it; a part is chosen under defaults, by `- override /{key}: ...`")
            if key not in (*PARTS, *primary, "hydra", "defaults") and not self.repository.group_exists(key):
                raise UserError(f"{path}.yaml: unknown key {key}{did_you_mean(key, [*primary, *PARTS])}")

    def _repair_single(self, path: str, body: DictConfig, part: str, meant: Names, chosen: Names, unreplaced: Names) -> None:
        if meant == chosen:
            return
        said = ", ".join(leaves(body.pop(part), part))
        if meant == unreplaced:  # else a derived experiment made this choice itself; the user need not know
            instead = "".join(chosen) or "null"
            self.loading.notes.append(f"{part}={instead} is chosen; what {path} says about {''.join(meant)} is dropped: {said}")

    def _repair_list(self, path: str, body: DictConfig, part: str, meant: Names, chosen: Names, unreplaced: Names) -> None:
        for name in [str(name) for name in body[part] if name not in chosen]:
            node = body[part]._get_node(name)
            whole = isinstance(node, DictConfig) and "_target_" in node  # written out in the experiment, without a file of its own
            if name not in meant and not whole:
                raise UserError(
                    f"{path}.yaml sets {part}.{name}, but chooses {part}: [{', '.join(meant)}]; "
                    f"add {name} to `- override /{part}: [...]` under its defaults{did_you_mean(name, meant)}"
                )
            if whole and name not in meant and part not in self.loading.replaced and set(meant) <= set(chosen):
                continue
            said = ", ".join(leaves(node, f"{part}.{name}"))
            del body[part][name]
            if whole or name in unreplaced:
                self.loading.notes.append(f"'{part}=[{','.join(chosen)}]' is chosen; what {path} says about {name} is dropped: {said}")

    # Mistakes -----------------------------------------------------------------------------------------------------------------------

    def _verify(self, loaded: DictConfig, config_name: str, line: list[Override]) -> None:
        """Refuse errors that Hydra accepts: new names at the top level, and a part of a list without a class."""
        primary = self.repository.load_config(config_path=config_name)
        known = ["hydra", *self._groups(config_name), *(map(str, primary.config) if primary else ())]
        own = {group: self._own_keys(group) for group in PAIRS}
        if mistakes := [
            *strangers(loaded, known, self.repository, config_name),
            *misplaced(loaded, own),
            *orphans(loaded, self.repository),
        ]:
            raise WrongLine(mistakes)
        for override in line:
            self.loading.origins.pop(override.key_or_group, None)

    def _groups(self, config_name: str) -> list[str]:
        """Return the groups of parts that are in the file that a command composes, under `defaults` or as a key."""
        primary = self.repository.load_config(config_path=config_name)
        there = [default.group for default in primary.defaults_list or () if isinstance(default, GroupDefault)] if primary else []
        return [group for group in (*PARTS, *BELOW) if group in there or (primary and group in primary.config)]

    def _own_keys(self, group: str) -> list[str]:
        """Return the keys beside `generator` and `discriminator` that are in a file of the group: any other would have no effect."""
        own: dict[str, None] = {"generator": None, "discriminator": None}
        for name in self.loading.chosen.get(group, ()):
            file = self.repository.load_config(config_path=f"{group}/{name}")
            own |= dict.fromkeys([name.split("/")[0]] if "/" in name else map(str, file.config) if file else ())
        return list(own)

    def _explained(self, error: Exception, config_name: str, line: list[Override]) -> list[Mistake]:
        """Explain the mistakes of a line that was refused."""
        if isinstance(error, WrongLine):
            return error.mistakes
        if isinstance(error, UserError):
            return [Mistake(str(error))]
        if isinstance(error, yaml.YAMLError):
            return [Mistake(rendered(error))]
        if isinstance(error, RecursionError):
            return [Mistake("the files of this line lead back to themselves by their defaults")]
        if isinstance(error, MissingConfigException):
            return [Mistake(missing_option(error, self.repository, self.loading.experiments))]
        choosers = [o for o in line if self._chooses(o)]
        try:
            frame = super().load_configuration(config_name, self._spelled_out(config_name, choosers), RunMode.RUN)
        except (HydraException, OmegaConfBaseException) as cause:
            return [Mistake(rendered(cause))]
        return wrong_keys([o for o in line if o not in choosers], frame, self.repository) or [Mistake(rendered(error))]


def _options(defaults: Sequence[Any], group: str) -> list[str]:
    """Return the names of the files of a group in a defaults list."""
    paths = [default.config_path or "" for default in defaults]
    return [path.removeprefix(f"{group}/") for path in paths if path.startswith(f"{group}/")]


def _choices(defaults: Sequence[Any], repo: Any) -> dict[str, Names]:
    """Return the parts chosen by a defaults list: the option of a single group; the keys of its files in a list group."""
    chosen: dict[str, Names] = {}
    for default in defaults:
        group, _, name = default.config_path.partition("/")
        if group in SINGLE:
            chosen[group] = (*chosen.get(group, ()), name)
        elif group in LISTS:
            names = [str(key) for key in repo.load_config(config_path=default.config_path).config if key != "defaults"]
            chosen[group] = tuple(dict.fromkeys((*chosen.get(group, ()), *names)))
    return chosen


def compose(overrides: Sequence[str], config_dirs: Sequence[str | Path] = (), config_name: str = "train") -> Composed:
    """Compose the configuration of a command line."""

    return Composer(config_dirs).compose(list(overrides), config_name)
