"""What a run says when it starts, when it has finished and when it was interrupted. The commands in it work as they are printed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from gan_runner.config.addresses import typed
from gan_runner.config.command_line import allowed_packages
from gan_runner.errors import shell_line
from gan_runner.game.spec import Spec
from gan_runner.storage import checkpoint
from gan_runner.storage.records import numbered, read
from gan_runner.training.run import Run

FIRST = 1000  # rounds that are proposed after a run of none


def beginning(run: Run) -> str:
    """Return a table: directory, device, data, networks and length."""
    machine, n, total = run.machine, run.batches.order.n, run.steps * run.batch_size
    precision, threads = machine["precision"], machine["threads"]
    automatic = " (auto)" if run.trainer.precision == "auto" else ""
    cores = f"{threads} CPU thread{'s' * (threads != 1)}"
    nets = {"G": run.game.G, "D": run.game.D}
    rows = {
        "device": f"{machine['device']}, {'float32' if precision == 32 else precision}{automatic}, {cores}",
        "data": f"{run.dataset.name}: {n:,} samples of {shape(run.spec)}",
        "files": run.dataset.summary(),
        "networks": ", ".join(f"{name} {size(net):,}" for name, net in nets.items() if net is not None) + " parameters",
        "length": f"{run.steps:,} rounds of {run.batch_size}: {total:,} samples, {total / n:.3g} epochs",
    }
    return "\n".join([f"run directory: {run.folder}", *(f"  {name:8}  {row}" for name, row in rows.items() if row)])


def left_random(run: Run) -> str | None:
    """Say which network has random weights although `init_from` names a file for another; None where that is not so."""
    said = run.config["init_from"]
    if said["run"] is not None or not any(said[side] for side in run.game.players):
        return None
    sides = [side for side in run.game.players if said[side] is None]
    return f"note: the weights of the {sides[0]} are random: init_from.{sides[0]} names no file" if sides else None


def shape(spec: Spec) -> str:
    """Describe a sample: `3 x 32 x 32, 10 classes`."""
    numbers = " x ".join(map(str, spec.shape)) + (" numbers" if len(spec.shape) == 1 else "")
    return f"{numbers}, {spec.classes} classes" if spec.classes else numbers


def size(net: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(weight.numel() for weight in net.parameters())


def finished(run: Run, packages: Sequence[str]) -> str:
    """Return where the samples are, the best figure, and what may be typed next."""
    folder, rows = short(run.folder), []
    if pictures := numbered(folder):
        rows.append(("samples", str(pictures[0][1])))
    measured = read(folder, folder.parent)
    key, mode = measured.followed()
    if key and (best := measured.best(key, mode)):
        rows.append(("best", f"{key} {best[1]:.5g} after round {best[0] // run.batch_size:,}"))
    rows += [("curves", command(*words)) for logger in run.loggers if (words := logger.shown_by(folder))]
    rows.append(("go on", command("gan-train", *named("resume", folder, packages), f"trainer.steps={2 * run.steps or FIRST}")))
    if run.config.get("metric"):
        rows.append(("measure", command("gan-eval", *named("run", folder, packages))))
    rows.append(("sample", command("gan-sample", *named("run", folder, packages))))
    return "\n".join(f"{f'{name}:':9} {row}" for name, row in rows)


def interrupted(folder: Path, packages: Sequence[str]) -> str | None:
    """Return the line that goes on with a run; None if it has no checkpoint."""
    if not checkpoint.candidates(folder / "checkpoints"):
        return None
    return f"go on with it by  {command('gan-train', *named('resume', short(folder), packages))}"


def short(folder: Path) -> Path:
    """Return the path from the working folder where it leads down, so that a line is not longer than it need be."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) and folder != here else folder


def named(key: str, folder: Path, packages: Sequence[str]) -> list[str]:
    """Return the words that name a run, and the packages that it needs and the environment does not allow."""
    needed = [name for name in packages if name not in allowed_packages()]
    return [f"{key}={typed(str(folder))}", *([f"packages=[{','.join(needed)}]"] if needed else [])]


def command(program: str, *words: str) -> str:
    """Return a command as it is typed in a shell: the program by its path if the shell would not find it."""
    beside = Path(sys.executable).with_name(program)
    return shell_line([program if shutil.which(program) or not beside.exists() else str(beside), *words])
