"""`gan-runs`: list, compare, report and delete the runs of a folder. Imports no torch."""

import argparse
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from gan_runner.errors import DONE, UserError, printable, say
from gan_runner.inventory.tables import as_json, best_and_last, counted, labelled, print_table, short_names, show, shown, side_by_side
from gan_runner.storage import records
from gan_runner.storage.addresses import address
from gan_runner.storage.records import STATES, Run

SORTS = ("name", "state", "step", "started", "metric")
ABOUT = "Shows the runs in a folder: their state, how far they came, their best and last figure, and what was changed on their line."
USAGE = """\
gan-runs [DIR] [--state A,B] [--filter TEXT] [--sort KEY] [--limit N] [--metric KEY] [--json]
       gan-runs --compare RUN RUN [RUN ...] [--plot FILE]
       gan-runs [DIR] --report OUT.html
       gan-runs DIR --summary
       gan-runs [DIR] --published
       gan-runs [DIR] --prune"""
STORY = """\
states
  finished      it played all its rounds
  running       a process is playing it
  interrupted   a signal stopped it; resume=RUN_DIR goes on
  failed        an error stopped it; --json and --report show which
  diverged      a loss was no longer finite
  dead          it says that it runs, but no process holds its lock: it was killed, or the machine went down; resume=RUN_DIR goes on
  ?             its status.json cannot be read

columns
  step          rounds played, of those it is to play; of a running or dead one, up to its newest checkpoint, picture or figure
  best, last    of the metric that the run follows (callback.evaluate.best.metric), else of the first one that was measured; as measured
                during training, or by gan-eval where nothing was; what gan-eval measured by another protocol has a name that says so,
                as in --metric 'fd/lenet (n=500)'
  took          from its first start to its end        age   since its first start
  changed       what its line said besides the experiment and what all lines said; on a terminal it is below the name
                A narrow terminal leaves out took, images, age and metric, or has names below the rest; --json has all.

examples
  gan-runs                                             the runs in outputs/, the newest first
  gan-runs outputs/multirun --sort name                the jobs of sweeps
  gan-runs --state failed,diverged,dead                what went wrong
  gan-runs --filter sngan --filter trainer.steps=5000  both must hold; KEY=VALUE asks the configuration where it has that key
  gan-runs --metric fid/inception_v3_tf:min --sort metric
  gan-runs --json | jq -r 'select(.state == "finished") | .path'
  gan-runs --compare gaussians25/2026-01-31_10-00-00 gaussians25/2026-01-31_11-00-00 --plot curves.png
  gan-runs --compare latest outputs/gaussians25        the newest run of all, and the newest one below a folder
  gan-runs outputs/multirun/DATE_TIME --summary        sum up a sweep over its seeds: table.md, plot.png, page.md, and a file of TensorBoard
  gan-runs --published                                 our figures beside the published ones, and what differs in the measurement
  gan-runs --report runs.html                          one page with pictures and curves, to be sent to somebody
  gan-runs --prune                                     delete what failed, diverged or died, after a question

Runs of strangers may be looked at: nothing in a run directory is executed, and links are not followed. Exit codes: 0 done, 1 something
could not be deleted or written, 2 the line is wrong.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        usage=USAGE, description=ABOUT, epilog=STORY, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("dir", metavar="DIR", nargs="?", default="outputs", help="the folder to look in, at any depth; outputs if not said")
    which = made.add_argument_group("which runs, and how")
    which.add_argument("--state", metavar="A,B", help=f"only those in one of these states: {', '.join(STATES)}")
    which.add_argument("--filter", metavar="TEXT", action="append", default=[], help="only those with TEXT in name or line, or KEY=VALUE")
    which.add_argument("--sort", metavar="KEY", default="-started", help=f"{', '.join(SORTS)}; -KEY reverses; -started if not said")
    which.add_argument("--limit", metavar="N", type=int, help="no more than the first N")
    which.add_argument("--metric", metavar="KEY", help="best and last of this one; KEY:min or KEY:max says what is better")
    which.add_argument("--json", action="store_true", help="a JSON object for each run, one on a line, with all that is known of it")
    acts = made.add_argument_group("what to do besides showing them")
    act = acts.add_mutually_exclusive_group()
    act.add_argument(
        "--compare", metavar="RUN", nargs="+", help="what differs between runs, each a path or a name in DIR, and their figures"
    )
    act.add_argument(
        "--report", metavar="OUT", type=Path, help="write a page: OUT.html with all in it, or OUT.md with pictures in OUT_files/"
    )
    act.add_argument(
        "--summary",
        action="store_true",
        help="summarise the sweep in DIR and write its tables and plots into it, as gan-train did when it ended",
    )
    act.add_argument("--published", action="store_true", help="show the figures of runs beside the published ones of their experiments")
    act.add_argument("--prune", action="store_true", help="delete failed, diverged and dead runs, or those of --state, after a question")
    acts.add_argument("--plot", metavar="FILE", type=Path, help="with --compare: the curves they share, as png, pdf or svg")
    acts.add_argument("--packages", metavar="A,B", help="with --summary: packages of yours that the class of the summary may come from")
    acts.add_argument("--yes", action="store_true", help="with --prune: do not ask")

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    made.error = refuse  # type: ignore[method-assign]
    return made


def main(argv: list[str]) -> int:
    """Run gan-runs; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without arrows shows ? for them
            stream.reconfigure(errors="replace")
    if "--help" in argv or "-h" in argv:
        print(parser().format_help(), end="")
        return DONE
    if "--sort" in argv[:-1]:  # argparse takes `-started` for a flag
        at = argv.index("--sort")
        argv = [*argv[:at], f"--sort={argv[at + 1]}", *argv[at + 2 :]]
    asked = parser().parse_args(argv)
    for flag, needs in (("plot", "compare"), ("yes", "prune"), ("packages", "summary")):
        if getattr(asked, flag) and not getattr(asked, needs):
            raise UserError(f"--{flag} belongs to --{needs}; see --help")
    if asked.json and (asked.report or asked.prune or asked.published):
        raise UserError("--json shows runs; it goes with none of --report, --published and --prune")
    if asked.summary and (asked.json or asked.state or asked.filter or asked.limit is not None or asked.metric):
        raise UserError("--summary is of all runs in a folder; it goes with none of --json, --state, --filter, --limit and --metric")
    root = Path(asked.dir)
    if asked.compare:
        return compare([named(word, root) for word in asked.compare], asked.metric, asked.plot, asked.json)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; say where the runs are: gan-runs DIR")
    if asked.summary:
        from gan_runner.inventory.summary import show as sum_up

        say("gan-runs", sum_up(root, asked.packages.split(",") if asked.packages else []))
        return DONE
    states = (asked.state or ("failed,diverged,dead" if asked.prune else ",".join(STATES))).split(",")
    if unknown := [state for state in states if state not in STATES]:
        raise UserError(f"--state {unknown[0]}: expected {', '.join(STATES)}")
    if asked.sort.removeprefix("-") not in SORTS:
        raise UserError(f"--sort {asked.sort}: expected {', '.join(SORTS)}, with - in front to reverse")
    if asked.limit is not None and asked.limit < 1:
        raise UserError(f"--limit {asked.limit}: expected 1 or more")
    found = [records.read(folder, root) for folder in records.find(root)]
    chosen = [run for run in found if run.state in states and all(matches(run, text) for text in asked.filter)]
    chosen = ordered(chosen, asked.sort, asked.metric)[: asked.limit]
    if asked.prune:
        from gan_runner.inventory.prune import prune

        return prune(chosen, root, asked.yes)
    if asked.published:
        from gan_runner.inventory.published import show as beside

        say("gan-runs", beside(chosen))
        return DONE
    if asked.report:
        from gan_runner.inventory.page import write

        write(asked.report, chosen, root, asked.metric)
        say("gan-runs", f"{asked.report}: {counted(chosen)}")
    elif asked.json:
        for run in chosen:
            print(json.dumps(as_json(run, asked.metric)))
    else:
        show(chosen, asked.metric)
        say("gan-runs", f"{counted(chosen)}" if chosen or found else f"there are no runs in {root}")
    return DONE


# ------------------------------------------------------------------------------------------------------------------------------ choosing


def matches(run: Run, text: str) -> bool:
    """Return whether a text is in the name or line of a run; KEY=VALUE compares its configuration, if the key or part exists there."""
    key, equals, value = text.partition("=")
    part = f"{key}._target_"
    if equals and key in run.config:
        return alike(value) == alike(str(run.config[key]))
    if equals and part in run.config:
        return alike(value) in (alike(str(run.config[part])), alike(str(run.config[part]).rpartition(".")[2]))
    return text.casefold() in " ".join([run.name, *(run.overrides or [])]).casefold()


def alike(text: str) -> str:
    """Normalise a text: equal for true and True, 1 and 1.0, non_saturating and NonSaturating."""
    try:
        return str(float(text))
    except ValueError:
        return {"null": "none"}.get(text.casefold(), text.casefold().replace("_", ""))


def ordered(runs: list[Run], key: str, metric: str | None) -> list[Run]:
    """Sort the runs by a key; those without it come last in both directions."""

    def value(run: Run) -> Any:
        match key.removeprefix("-"):
            case "state":
                return STATES.index(run.state)
            case "step":
                return run.step
            case "started":
                return run.started
            case "metric":
                return best_and_last(run, metric)[2]
        return run.name

    runs = sorted(runs, key=lambda run: run.name)
    there = sorted((run for run in runs if value(run) is not None), key=value, reverse=key.startswith("-"))
    return there + [run for run in runs if value(run) is None]


def named(word: str, root: Path) -> Run:
    """Find a run by its address, or by its name below a folder."""
    for said in (word, str(root / word)):
        try:
            folder = address(said, root).folder
        except UserError as error:
            if Path(said).is_dir():
                raise UserError(f"{word}: {error}") from error
            continue
        if records.is_run(folder):
            return replace(records.read(folder, folder), name=printable(word.rstrip("/") if Path(said) == folder else str(folder)))
    raise UserError(f"{word}: there is no run (a folder with config.yaml and status.json), neither there nor in {root}")


# ------------------------------------------------------------------------------------------------------------------------ besides showing


def compare(runs: list[Run], metric: str | None, plot: Path | None, as_lines: bool) -> int:
    """Print the differences between runs, and draw the curves that they share."""
    if len({run.folder.resolve() for run in runs}) < max(len(runs), 2):
        raise UserError("--compare takes two runs or more, each of them once")
    tables = side_by_side(runs, metric)
    if as_lines:
        print(json.dumps({"runs": [run.name for run in runs], **tables}))
    else:
        for number, (title, rows) in enumerate(tables.items()):
            print("\n" * bool(number) + title + ("" if rows else ": the same" if title != "metrics" else ": none"))
            if rows:
                print_table(["", *short_names([run.name for run in runs])], [[key, *map(shown, cells)] for key, cells in rows.items()])
    if plot:
        from gan_runner.inventory.curves import draw, shared_keys

        keys = shared_keys(runs, metric)
        if not keys:
            raise UserError("these runs share no metric; there is no curve to plot")
        draw(plot, runs, labelled(runs), keys)
        say("gan-runs", f"curves: {plot}")
    return DONE
