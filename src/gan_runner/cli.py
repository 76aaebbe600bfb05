"""The commands: parse the command line, call the code that does the work, and turn errors into exit codes.

This module imports torch only after a configuration is composed, so that --help, --cfg and completion are fast. Exit codes: 0 done,
1 failed, 2 wrong configuration or input (nothing was created), 3 diverged, 128 + signal interrupted.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gan_runner.config.groups import file_of
from gan_runner.config.home import at_home
from gan_runner.errors import DONE, FAILED, KEYBOARD, UserError, plain, say, verdict
from gan_runner.storage.streams import courteous


def train() -> int:
    """Run the command `gan-train`."""
    return _exit_code("gan-train", _train)


def sample() -> int:
    """Run the command `gan-sample`."""
    return _exit_code("gan-sample", _sample)


def evaluate() -> int:
    """Run the command `gan-eval`."""
    return _exit_code("gan-eval", _evaluate)


def runs() -> int:
    """Run the command `gan-runs`."""
    return _exit_code("gan-runs", _runs)


def rate() -> int:
    """Run the command `gan-rate`."""
    return _exit_code("gan-rate", _rate)


# ------------------------------------------------------------------------------------------------------------ what every command shares


def _exit_code(command: str, body: Callable[[list[str]], int]) -> int:
    """Run a command and return its exit code. Only here, exceptions become exit codes."""
    with courteous() as streams:
        try:
            if sys.platform == "win32":
                raise UserError("gan-runner does not run on Windows: use Linux, such as WSL on Windows, or macOS")
            code = _version_of(command) if "--version" in sys.argv[1:] else body([at_home(word) for word in sys.argv[1:]])
        except KeyboardInterrupt:
            return KEYBOARD
        except Exception as error:
            code, message = verdict(error)
            say(command, message)
        sys.stdout.flush()
        if code == DONE and "stdout" in streams and (lost := streams["stdout"].lost):
            say(command, f"standard output could not be written: {lost.strerror}")
            return FAILED
        return code


def _version_of(command: str) -> int:
    print(f"{command} {_version()}")
    return DONE


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gan-runner")
    except PackageNotFoundError:  # a source checkout on PYTHONPATH
        import tomllib

        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"] if project.is_file() else "unknown"


def _arguments(argv: list[str]) -> Namespace:
    """Parse Hydra's flags and the overrides. Flags may be anywhere (Hydra 1.3 refuses overrides on both sides of a flag)."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    parser.error = refuse  # type: ignore[method-assign]
    shown = next(action.choices for action in parser._actions if "--info" in action.option_strings) or ()
    words = [
        "--info=all" if word in ("-i", "--info") and (argv[at + 1 :] or [""])[0] not in shown else word for at, word in enumerate(argv)
    ]
    return parser.parse_intermixed_args(words)


def _config_dirs(arguments: Namespace) -> list[str]:
    return [arguments.config_dir] if arguments.config_dir else []


def _composer(arguments: Namespace) -> Any:
    from gan_runner.config.composer import Composer

    return Composer(_config_dirs(arguments), arguments.config_path)


def _locate_runs(command: str, arguments: Namespace, composer: Any, name: str) -> None:
    """Put run directories in the place of the addresses of runs on the line, and say which they are."""
    from gan_runner.config.addresses import located
    from gan_runner.jobs.job import speaks

    arguments.overrides, notes = located(arguments.overrides, lambda: composer.output_root(name, arguments.overrides))
    for note in notes if speaks() else ():
        say(command, note)


def _shown(command: str, arguments: Namespace, composer: Any, name: str) -> bool:
    """Handle the flags of Hydra that only print something. Returns False if none is given."""
    from hydra._internal.utils import get_args_parser

    from gan_runner.jobs.job import runner

    if not (arguments.cfg or arguments.info or arguments.hydra_help or arguments.shell_completion):
        return False
    hydra = runner(command, composer)
    if arguments.shell_completion:
        _complete(hydra, arguments, name)
    elif arguments.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=get_args_parser(), args=arguments)
    else:
        composed = composer.compose(arguments.overrides, name)
        for note in composed.notes:
            say(command, f"note: {note}")
        if arguments.cfg == "job" and not arguments.package:
            print(plain(composed.yaml(arguments.resolve)), end="")
        elif arguments.cfg:
            hydra.show_cfg(name, arguments.overrides, arguments.cfg, arguments.package, arguments.resolve)
        else:
            hydra.show_info(arguments.info, name, arguments.overrides)
    return True


def _complete(hydra: Any, arguments: Namespace, name: str) -> None:
    """Run Hydra's shell completion, with flags anywhere on the line and the experiments of --config-dir."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    unfinished = words.pop() if words[1:] and not line[-1].isspace() else ""
    if line and any("query" in word for word in arguments.overrides):
        typed = _arguments(words[1:])
        if typed.config_dir or typed.config_path:
            hydra.config_loader = _composer(typed)
        front = [words[0], *(["-m"] if typed.multirun else [])]
        attempts = [[*typed.overrides, unfinished], [unfinished]]  # what was typed before may not compose (yet)
    else:
        front, attempts = [], [[]]
    for attempt in attempts:
        if front:
            os.environ["COMP_LINE"] = " ".join([*front, *attempt])
        try:
            hydra.shell_completion(config_name=name, overrides=arguments.overrides)
            break
        except UserError:
            continue


# ------------------------------------------------------------------------------------------------------------------------------ gan-train


def _train(argv: list[str]) -> int:
    if "--help" in argv or "-h" in argv:
        from gan_runner.commands.usage import experiment_help, train_help

        dirs = _config_dirs(_arguments(argv))
        named = [word.partition("=")[2] for word in argv if word.lstrip("+").startswith("experiment=")]
        print(plain("\n\n".join(experiment_help(name, dirs) for name in named) if named else train_help(dirs)))
        return DONE
    arguments = _arguments(argv)
    name = arguments.config_name or "train"
    if arguments.experimental_rerun:
        raise UserError("--experimental-rerun reads a pickle, which could run any code; use resume=RUN_DIR")
    if not argv or not (arguments.overrides or arguments.cfg or arguments.info or arguments.hydra_help or arguments.config_name):
        raise UserError(
            "say what to train, for example\n"
            "  gan-train +experiment=gaussians25\n"
            "  gan-train --help                     all experiments, parts and keys"
        )
    composer = _composer(arguments)
    _locate_runs("gan-train", arguments, composer, name)
    if _shown("gan-train", arguments, composer, name):
        return DONE

    from hydra.types import RunMode

    from gan_runner.config.command_line import parsed
    from gan_runner.jobs.single import NO_AUTO, run
    from gan_runner.jobs.sweep import sweep

    overrides = arguments.overrides
    line = parsed(overrides)
    resumed = next((o for o in line if o.key_or_group == "resume" and not o.is_delete() and o.value() is not None), None)
    goes_on = resumed is not None and not resumed.is_sweep_override() and resumed.value() == "auto"
    if resumed and not goes_on:
        return _resume(resumed, line, arguments.multirun, lambda: composer.output_root(name, overrides))
    asked = arguments.multirun or any(o.key_or_group in ("study", "hydra.mode") for o in line)
    if asked and (arguments.multirun or composer.load_configuration(name, overrides, RunMode.MULTIRUN).hydra.mode == RunMode.MULTIRUN):
        if goes_on:
            raise UserError(NO_AUTO)
        return sweep(composer, name, overrides, argv)
    return run(composer, name, overrides, argv, goes_on)


def _resume(resumed: Any, line: list[Any], multirun: bool, root: Callable[[], Path]) -> int:
    """Resume a run with its own config.yaml; the other words of the line are applied to it. root: returns the folder for `latest`."""
    from gan_runner.config.command_line import named_packages
    from gan_runner.storage.addresses import LATEST, address

    if multirun or resumed.is_sweep_override():
        raise UserError("resume goes on with one run; it cannot be swept with -m")
    if not str(resumed.value()).strip():  # `resume=$RUN`, and there is no such variable
        raise UserError("resume has no value: say which run goes on, resume=outputs/NAME/DATE_TIME")
    said = str(resumed.value())
    try:
        folder, checkpoint = address(said, root())
    except UserError as error:
        raise UserError(f"resume={said}: {error}") from error
    if checkpoint not in (None, "last"):
        raise UserError(
            f"resume={said}: a run goes on from its newest state, resume={folder}; to start another run from this state: init_from={said}"
        )
    elsewhere = ["hydra.run.dir"] if said == LATEST else []
    rest = [o.input_line for o in line if o.key_or_group not in ("resume", "packages", *elsewhere)]

    from gan_runner.jobs.job import joined, speaks
    from gan_runner.lifecycle.runs import resume

    if str(folder) != said and speaks():
        say("gan-train", f"resume={said} is resume={folder}")
    with joined():
        resume(folder, rest, named_packages(line))
    return DONE


# ------------------------------------------------------------------------------------------------------- gan-sample, gan-eval, gan-rate


def _settings(command: str, argv: list[str], name: str, needed: str) -> Any:
    """Compose and read the settings of a command; None if a flag only prints something. UserError with all mistakes of the line."""
    if "--help" in argv or "-h" in argv:
        from gan_runner.commands import usage

        print(usage.HELP[command]())
        return None
    arguments = _arguments(argv)
    if not argv:
        raise UserError(f"{needed}, for example\n  {command} run=outputs/NAME/DATE_TIME\n  {command} --help")
    if arguments.multirun:
        raise UserError(f"{command} does one thing at a time; -m is for gan-train")
    composer = _composer(arguments)
    _locate_runs(command, arguments, composer, name)
    if _shown(command, arguments, composer, name):
        return None

    from omegaconf import OmegaConf

    from gan_runner.commands.settings import KINDS, read, wrong
    from gan_runner.config.composed import plain as values_of
    from gan_runner.config.groups import LISTS
    from gan_runner.config.mistakes import composed_or_rest, sets_values

    composed, mistakes = composed_or_rest(lambda: composer.compose(arguments.overrides, name))
    values = {**values_of(composed.config, complete=False), "packages": composed.packages}
    mistakes += wrong(KINDS[name], values)
    of_dataset = [key for key in sorted(OmegaConf.missing_keys(composed.config)) if key.startswith("dataset.")]
    mistakes += [f"{key} has no value: that data set needs one, {key}=..." for key in of_dataset]
    if mistakes and sets_values(composed, LISTS):
        from gan_runner.assembly.build import wrong_values

        mistakes += wrong_values({group: values.get(group) or {} for group in LISTS}, composed.packages, whole=False)
    if mistakes:
        raise UserError("\n".join(mistakes))
    return read(KINDS[name], values)


def _sample(argv: list[str]) -> int:
    if (settings := _settings("gan-sample", argv, "sample", "say which run to sample from")) is not None:
        from gan_runner.commands.sample import main

        main(settings)
    return DONE


def _evaluate(argv: list[str]) -> int:
    dirs = [] if {"--help", "-h"} & {*argv} else _config_dirs(_arguments(argv))
    named = {key: names for key in ("samples", "reference") if (names := _datasets_of(argv, key, dirs))}
    real = [f"dataset={named['reference'][0]}"] if "reference" in named else []
    of_samples = [] if real or "samples" not in named else [word for word in argv if word.startswith("dataset.")]
    line = [word for word in argv if word not in of_samples] + real
    if (settings := _settings("gan-eval", line, "evaluate", "say what to judge")) is not None:
        from gan_runner.config.command_line import parsed

        roots = [word for word in argv if word.startswith("dataset.root=")]
        root = next((str(override.value()) for override in parsed(roots[-1:])), None)
        samples = {name: _dataset(argv, name, of_samples or roots) for name in named.get("samples", ())}
        if settings.watch:
            from gan_runner.commands.watch import main as watch

            watch(settings, root)
            return DONE

        from gan_runner.commands.evaluate import main

        main(settings, root, samples)
    return DONE


def _rate(argv: list[str]) -> int:
    if (settings := _settings("gan-rate", argv, "rate", "say what people are to rate")) is not None:
        from gan_runner.rating import make, score
        from gan_runner.reporting import Reporter

        with Reporter() as reporter:
            (score if settings.answers else make)(settings, reporter.say)
    return DONE


def _datasets_of(argv: list[str], key: str, dirs: list[str]) -> list[str]:
    """Return the data sets that a word names, such as `reference=cifar10` or `'samples=[cifar10,made.zip]'`; not what is a path."""
    value = next((word.removeprefix(f"{key}=") for word in reversed(argv) if word.startswith(f"{key}=")), "")
    names = re.findall(r"[^\[\],'\"\s]+", value) if value.startswith("[") else [value]
    return [name for name in names if file_of("dataset", name, dirs) is not None and not Path(name).exists()]


def _dataset(argv: list[str], name: str, words: list[str]) -> dict[str, Any]:
    """Compose a data set of samples. words: those of the line for its keys. UserError where it needs more than that."""
    from omegaconf import OmegaConf

    arguments = _arguments(argv)
    packages = [word for word in arguments.overrides if word.startswith("packages=")]
    composed = _composer(arguments).compose([f"dataset={name}", *words, *packages], "evaluate")
    if missing := sorted(OmegaConf.missing_keys(composed.config)):
        raise UserError(
            f"samples={name}: {missing[0]} has no value: that data set needs one; where reference= names a data set, {missing[0]} is of "
            "that one, and samples= takes a folder or file itself"
        )
    return composed.plain()["dataset"]


# ------------------------------------------------------------------------------------------------------------------------------- gan-runs


def _runs(argv: list[str]) -> int:
    from gan_runner.inventory.overview import main

    return main(argv)
