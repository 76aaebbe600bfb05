"""Searches: sweeps whose jobs are the trials of an Optuna study. Imports no torch; imports Optuna only for a search.

The results of a search are in its storage, and the run of each trial is in its folder, so both survive a killed process: a trial that was
running becomes the same job again, which resumes it. The sampler is seeded by (seed, trial), so that a killed search proposes the same
trials.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from gan_runner.assembly.signatures import mistyped, signature
from gan_runner.config.command_line import lasting, parsed
from gan_runner.config.composed import Composed
from gan_runner.errors import UserError, did_you_mean, printable
from gan_runner.jobs.space import distribution, line_of, sides_of, suggested
from gan_runner.storage import contents, records
from gan_runner.storage.untrusted import flat

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler


SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler"}
DIRECTIONS: dict[str | None, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}
MEASURING = r"(metric|extractor)(\..+)?|callback\.evaluate\.(n|seed|split|n_real|best\..+)"  # keys that change what a figure is
BAD = 1e12  # the value of a trial that has none or diverged, in the bad direction: a study takes no nan


class OptunaSweeper(Sweeper):
    """Search a space by `n_trials` trials in total, over all starts of the search; each is a job with its own folder.

    metric: a key of metrics.jsonl, whose best value in training is used; null: the metric of best.pt. direction: maximize, minimize, or
    null to derive it from the metric. n_jobs: trials that are proposed together, for launchers that run several. storage: a URL of
    SQLAlchemy; null: study.db in the folder of the sweep. log: keys to search on a logarithmic scale, like tag(log,interval(A,B)).
    """

    def __init__(
        self,
        line: Sequence[Override],
        metric: str | None = None,
        direction: Literal["maximize", "minimize"] | None = None,
        n_trials: Annotated[int, Ge(1)] = 20,
        n_jobs: Annotated[int, Ge(1)] = 1,
        sampler: Literal["tpe", "random"] = "tpe",
        seed: int = 0,
        storage: str | None = None,
        log: list[str] = [],  # noqa: B006
    ):
        self.metric, self.direction, self.n_trials, self.n_jobs = metric, direction, n_trials, n_jobs
        self.sampler, self.seed, self.storage = sampler, seed, storage
        said = {o.get_key_element(): o for o in line}.values()  # of two words about one key, the last
        self.shared: list[str] = list(BasicSweeper.split_arguments([o for o in said if not o.is_sweep_override()], None)[0][0])
        swept = {o.get_key_element(): o for o in said if o.is_sweep_override()}
        if strangers := [key for key in log if key not in swept]:
            raise UserError(f"hydra.sweeper.log names {', '.join(strangers)}, which is not searched; searched: {', '.join(swept)}")
        if measuring := [key for key in swept if re.fullmatch(MEASURING, key.lstrip("+"))]:
            raise UserError(f"{', '.join(measuring)}: trials that are measured differently cannot be compared; give it one value")
        self.space = {key: distribution(override, key in log) for key, override in swept.items()}
        self.study: Study | None = None
        self.mode: str | None = None

    @classmethod
    def of(cls, frame: DictConfig) -> OptunaSweeper:
        """Create the search of a command line. UserError with all mistakes in its settings."""
        try:
            import optuna
        except ImportError as error:
            raise UserError("a search needs Optuna: pip install optuna") from error

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        settings: dict[str, Any] = OmegaConf.to_container(frame.hydra.sweeper, resolve=True)  # type: ignore[assignment]
        mistakes = list(mistakes_in(settings))
        line = parsed(line_of(frame))
        if not any(o.is_sweep_override() for o in {o.get_key_element(): o for o in line}.values()):
            mistakes.append("there is nothing to search: say KEY=interval(A,B), KEY=choice(A,B) or KEY=range(A,B)")
        if frame.hydra.sweep._get_node("subdir")._value() != "${hydra.job.num}":
            mistakes.append("hydra.sweep.subdir: the trials of a search are in folders named by their numbers")
        if mistakes:
            raise UserError("\n".join(mistakes))
        return cls(line, **{key: value for key, value in settings.items() if key not in ("_target_", "params")})

    # before the start ---------------------------------------------------------------------------------------------------------------

    def ends(self) -> dict[int, list[str]]:
        """Return the command lines of a few points that together cover both ends of every range and every choice."""
        sides = {key: sides_of(each) for key, each in self.space.items()}
        return {n: self.overrides({key: each[n % len(each)] for key, each in sides.items()}) for n in range(max(map(len, sides.values())))}

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial."""
        return [*(f"{key}={point[key]}" for key in self.space), *self.shared]

    def follow(self, composed: Composed) -> None:
        """Set metric and direction from the line, else from what best.pt follows and the metric says. UserError if nobody names them."""
        from gan_runner.assembly import build, parts
        from gan_runner.evaluation.findings import aim

        config = composed.plain()
        own, own_mode = records.best_of(dict(flat(config)))
        name = self.metric or own
        if name is None:
            raise UserError("which metric is searched by? Say hydra.sweeper.metric=KEY, or callback.evaluate.best.metric=KEY")
        if not config.get("metric"):
            raise UserError(f"no metric is measured, and the search is by {name}: choose it with 'metric=[NAME]'")
        spec = parts.make_one(config, composed.packages, "dataset").spec
        self.metric, mode = aim(name, build.judges(config, composed.packages, spec)) or (name, None)
        said = next((key for key, value in DIRECTIONS.items() if value == self.direction), None)
        self.mode = said or (own_mode if name == own else None) or mode
        if self.mode is None:
            raise UserError(f"is a large {self.metric} good? Say hydra.sweeper.direction=maximize or minimize")

    @property
    def followed(self) -> tuple[str | None, str | None]:
        """(metric, mode)"""
        return self.metric, self.mode

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that identify this search."""
        from optuna.distributions import distribution_to_json

        space = {key: distribution_to_json(each) for key, each in self.space.items()}
        own = {"metric": self.metric, "mode": self.mode, "sampler": self.sampler, "seed": self.seed}
        shared = dict(each.split("=", 1) for each in lasting(self.shared))
        return {**space, **shared, **{f"hydra.sweeper.{key}": value for key, value in own.items()}}

    def taken_up(self, folder: Path) -> dict[int, list[str]]:
        """Open an existing study. Returns its unfinished trials and trial 0; UserError if the folder holds another search."""
        from optuna import load_study

        contents.refuse_foreign_sweep(folder, folder.glob("[0-9]*"))
        if self.storage is None and not (folder / "study.db").is_file():
            if stranger := next((each for each in folder.glob("[0-9]*") if records.is_run(each)), None):
                raise UserError(f"{stranger} is of another sweep, for there is no study.db; choose another folder with hydra.sweep.dir=...")
            return {}
        try:
            self.study = load_study(study_name=self.name(folder), storage=self.address(folder))
        except KeyError:  # there is none of this name
            return {}
        except Exception as error:  # SQLAlchemy and its drivers have many
            raise UserError(f"{self.storage or folder / 'study.db'} cannot be read: {str(error).splitlines()[0]}") from error
        there = self.study.user_attrs.get("search", self.identity)
        if not isinstance(there, dict):
            raise UserError(
                f"{self.storage or folder / 'study.db'} is no study of gan-train; choose another folder with hydra.sweep.dir=..."
            )
        for key in {**there, **self.identity}:
            if there.get(key, "not set") != self.identity.get(key, "not set"):
                found = f"{key} is {there.get(key, 'not set')} there and {self.identity.get(key, 'not set')} here"
                raise UserError(f"{folder} holds another search: {found}; choose another folder with hydra.sweep.dir=...")
        trials = self.study.get_trials(deepcopy=False)
        chosen = {each.number: each.params for each in trials if each.number == 0 or not each.state.is_finished()}
        foreign = [f"{k}={v}" for each in chosen.values() for k, v in each.items() if not self.proposes(k, v)]
        if foreign:
            raise UserError(
                f"{folder} has a trial with {printable(foreign[0], 100)}, which this search does not propose; choose another folder"
            )
        return {n: self.overrides(params) for n, params in chosen.items() if params.keys() == self.space.keys()}

    def proposes(self, key: str, value: Any) -> bool:
        """Return whether a value from the database is in the space: it becomes part of an override, which could read the environment."""
        try:
            return key not in self.space or self.space[key]._contains(self.space[key].to_internal_repr(value))
        except ValueError:
            return False

    def name(self, folder: Path) -> str:
        return "search" if self.storage is None else str(folder)

    def address(self, folder: Path) -> Any:
        """Open the storage of the study."""
        from optuna.storages import RDBStorage
        from sqlalchemy.engine import URL

        return RDBStorage(self.storage or URL.create("sqlite", database=str(folder / "study.db")).render_as_string(hide_password=False))

    # the search ---------------------------------------------------------------------------------------------------------------------

    def run(self, hydra: Hydra, name: str, overrides: list[str], task: TaskFunction) -> Any:
        """Run the search, like Hydra.multirun with a sweeper from its plugins."""
        config = hydra.compose_config(name, overrides, RunMode.MULTIRUN, with_log_configuration=True)
        callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name=name)
        self.setup(hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks), task_function=task, config=config)
        returned = self.sweep([])
        callbacks.on_multirun_end(config=config, config_name=name)
        return returned

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run trials until there are n_trials; unfinished ones are run first, with their parameters."""
        from optuna import create_study
        from optuna.trial import TrialState

        assert self.config is not None
        assert self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir).absolute()
        if self.study is None:
            self.study = create_study(
                study_name=self.name(folder), storage=self.address(folder), direction=DIRECTIONS[self.mode], load_if_exists=True
            )
        self.study.set_user_attr("search", self.identity)
        returned = []
        while batch := self.batch():
            first, jobs = batch[0][0], [self.overrides(point) for _, point in batch]
            returned.append(self.launcher.launch(jobs, initial_job_idx=first))
            outcomes = [job.return_value for job in returned[-1]]
            for (number, _), outcome in zip(batch, outcomes, strict=True):
                if outcome.state == "interrupted":
                    continue  # it has no result yet, and goes on when the search does
                if outcome.state == "failed":
                    self.study.tell(number, state=TrialState.FAIL)
                else:
                    self.study.tell(number, self.value(Path(outcome.folder), outcome.state))
            if any(outcome.state == "interrupted" for outcome in outcomes):
                break
        return returned

    def batch(self) -> list[tuple[int, dict[str, Any]]]:
        """Return (number, point) of the next trials: those of a batch of n_jobs that have no result, unfinished ones included."""
        import optuna

        assert self.study is not None
        trials = self.study.get_trials(deepcopy=False)
        running = [each for each in trials if not each.state.is_finished()]
        first = running[0].number if running else len(trials)
        end = min((first // self.n_jobs + 1) * self.n_jobs, self.n_trials)
        found = []
        numbers = [*(each.number for each in running), *range(len(trials), end)]
        for number in [number for i, number in enumerate(numbers) if number == first + i]:  # a launcher counts on from the first
            self.study.sampler = self.sampler_of(number)
            trial = optuna.Trial(self.study, trials[number]._trial_id) if number < len(trials) else self.study.ask()
            found.append((number, {key: suggested(trial, key, each) for key, each in self.space.items()}))
        return found

    def sampler_of(self, number: int) -> BaseSampler:
        """Create the sampler for a trial, seeded by (seed, trial), so that every process proposes the same point."""
        import optuna

        digest = hashlib.sha256(f"trial/{self.seed}/{number}".encode()).digest()
        return getattr(optuna.samplers, SAMPLERS[self.sampler])(seed=int.from_bytes(digest[:4], "little"))

    def value(self, folder: Path, state: str) -> float:
        """Return the value of a trial for the study. UserError if it has not measured the metric, not even as null."""
        run = records.read(folder, folder.parent)
        if state == "finished" and self.metric not in run.keys:
            has = ", ".join(run.keys) or "nothing"
            raise UserError(f"the search is by {self.metric}, and {folder} has measured {has}{did_you_mean(str(self.metric), run.keys)}")
        found = run.objective(self.metric, self.mode) if state == "finished" else None
        return found if found is not None and math.isfinite(found) else (-BAD if self.mode == "max" else BAD)

    def jobs(self, folder: Path) -> dict[int, tuple[list[str], Path]]:
        """Return number -> (overrides, folder) of every trial so far."""
        trials = self.study.get_trials(deepcopy=False) if self.study else []
        return {t.number: (self.overrides(t.params), folder / str(t.number)) for t in trials if t.params.keys() == self.space.keys()}


def mistakes_in(settings: dict[str, Any]) -> Iterator[str]:
    """List the mistakes in the settings of a search."""
    known = {name: annotation for name, (annotation, _) in signature(OptunaSweeper).items() if name != "line"}
    names = [*known, "params"]
    yield from (f"unknown key hydra.sweeper.{key}{did_you_mean(key, names)}" for key in settings if key not in (*names, "_target_"))
    yield from mistyped("hydra.sweeper", {key: known[key] for key in settings if key in known}, settings)
