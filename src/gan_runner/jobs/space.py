"""Convert Hydra's sweep syntax to the search space of Optuna. Imports Optuna only inside functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig

from gan_runner.config.command_line import recorded
from gan_runner.config.groups import LINE_ONLY
from gan_runner.errors import UserError

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution


def distribution(override: Override, log: bool) -> BaseDistribution:
    """Return the Optuna distribution of one key. Choices are strings, as they are written in the overrides of a job."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep, text = override.value(), override.input_line
    try:
        match sweep:
            case ChoiceSweep():
                return CategoricalDistribution(list(override.sweep_string_iterator()))
            case RangeSweep():
                values = sorted(sweep.range())
                if not values:
                    raise ValueError("the range is empty")
                kind: Any = IntDistribution if isinstance(values[0], int) else FloatDistribution
                step = abs(sweep.step)
                return kind(values[0], values[-1], step=None if log and kind is FloatDistribution else step, log=log or "log" in sweep.tags)
            case IntervalSweep():
                low, high = sweep.start, sweep.end
                kind = IntDistribution if isinstance(low, int) else FloatDistribution
                return kind(low, high, log=log or "log" in sweep.tags)
    except (ValueError, HydraException) as error:
        raise UserError(f"{text}: {error}") from error
    raise UserError(f"{text} cannot be searched; say interval(A,B), choice(A,B) or range(A,B)")


def sides_of(each: BaseDistribution) -> Sequence[Any]:
    """Return both ends of a range, or every choice."""
    from optuna.distributions import CategoricalDistribution

    return each.choices if isinstance(each, CategoricalDistribution) else (each.low, each.high)  # type: ignore[attr-defined]


def suggested(trial: Trial, key: str, each: Any) -> Any:
    """Return the value of a key in a trial: the existing one, else a new suggestion."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(each, CategoricalDistribution):
        return trial.suggest_categorical(key, each.choices)
    if isinstance(each, FloatDistribution):
        return trial.suggest_float(key, each.low, each.high, step=each.step, log=each.log)
    return trial.suggest_int(key, each.low, each.high, step=each.step, log=each.log)


def line_of(frame: DictConfig) -> list[str]:
    """Return the overrides of all jobs: hydra.sweeper.params, then the command line, which has precedence."""
    params = dict(frame.hydra.sweeper.params or {})
    if any(str(key).lstrip("+~") in LINE_ONLY for key in params):
        raise UserError("hydra.sweeper.params: packages, resume and accept are read from the command line only")
    return [*(f"{key}={value}" for key, value in params.items()), *recorded(frame.hydra.overrides.task)]
