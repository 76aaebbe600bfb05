"""What watches a run. A callback changes nothing of the training: without any, the weights are the same bit for bit."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from typing_extensions import TypedDict

from gan_runner import distributed
from gan_runner.datasets import Split, to_float, to_uint8
from gan_runner.evaluation import findings
from gan_runner.evaluation.reference import Reference
from gan_runner.reporting import Countdown, duration
from gan_runner.sampling import subjects
from gan_runner.sampling.subjects import Generated
from gan_runner.storage import checkpoint, directory, files
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.records import evaluations_of
from gan_runner.storage.untrusted import content

if TYPE_CHECKING:
    from gan_runner.game.play import Logs
    from gan_runner.trainer import Run


class Callback:
    """Every verb is optional."""

    order: int = 0
    """Among the callbacks of a step, smaller comes first; then the order of the list counts."""

    everywhere: bool = False
    """Of several processes, whether all have it rather than the first alone: because its work is shared, or takes all of them."""

    def begin(self, run: Run) -> None:
        """The first round is about to be played, here or after a resume."""

    def after_round(self, run: Run, logs: Logs) -> None:
        """A round was played; `logs` are scalars on the device."""

    def end(self, run: Run) -> None:
        """The last round was played, or a signal came."""

    def follows(self) -> list[str]:
        """Names of the metrics by which this run is to be compared with others."""
        return []

    def states(self) -> int:
        """How many states of the run it keeps on the disk at a time."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """What has to survive a resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what state_dict gave."""


def to_numbers(logs: Logs) -> dict[str, float]:
    """Device scalars as floats, with one wait for the device."""
    return dict(zip(logs, torch.stack([value.float() for value in logs.values()]).tolist(), strict=True)) if logs else {}


class Log(Callback):
    """Every `every_steps` rounds: each term by name, mean logits on real and fake, gradient norms, learning rates, speed, memory."""

    everywhere = True

    def __init__(self, every_steps: Annotated[int, Ge(1)] = 50):
        self.every_steps = every_steps
        self.latest: Logs = {}  # a lazy penalty is not in the logs of every round

    def begin(self, run: Run) -> None:
        self.since, self.at = time.monotonic(), run.step
        if run.step == 0 and run.loggers:
            n = run.batches.order.n
            x = run.batches.take(torch.linspace(0, n - 1, min(64, n), dtype=torch.float64).long())  # a folder is sorted by class
            run.draw("data/real", run.dataset.picture(to_float(x) if run.spec.is_image else x))

    def after_round(self, run: Run, logs: Logs) -> None:
        self.latest |= logs
        if run.step % self.every_steps:
            return
        values = to_numbers(self.latest)
        for name, player in run.game.players.items():
            grads = [p.grad for p in player.parameters() if p.grad is not None]  # type: ignore[union-attr]
            if grads:
                values[f"grad_norm/{name[0]}"] = float(torch.stack(torch._foreach_norm(grads)).norm())
            values[f"lr/{name[0]}"] = float(player.optimizer.param_groups[0]["lr"])  # type: ignore[union-attr,index]
        now = time.monotonic()
        values["time/images_per_second"] = (run.step - self.at) * run.batch_size / max(now - self.since, 1e-9)
        values["memory/host_mib"] = resident_mib()
        if run.device.type == "cuda":
            values["memory/device_mib"] = torch.cuda.max_memory_allocated(run.device) / 2**20
        values["progress/images"] = run.images
        run.write(values)
        self.since, self.at = time.monotonic(), run.step

    def state_dict(self) -> dict[str, Any]:
        return {"latest": dict(self.latest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.latest = dict(state.get("latest", {}))


def resident_mib() -> float:
    """The most memory that this process has had in RAM, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class Progress(Callback):
    """The line that moves: rounds, rate, losses, time left."""

    def __init__(self, every_seconds: Annotated[float, Gt(0)] = 10.0):
        self.every_seconds = every_seconds

    def begin(self, run: Run) -> None:
        run.reporter.plain_seconds = self.every_seconds
        self.began, self.first, self.shown = time.monotonic(), run.step, 0.0

    def after_round(self, run: Run, logs: Logs) -> None:
        now = time.monotonic()
        if now - self.shown < 0.5:
            return
        self.shown = now
        per_round = (now - self.began) / (run.step - self.first)
        losses = "  ".join(f"{name} {value:.4g}" for name, value in to_numbers(logs).items() if name.startswith("loss/"))
        run.reporter.show(
            f"round {run.step}/{run.steps}  {run.batch_size / per_round:.0f} images/s  {losses}  "
            f"{duration((run.steps - run.step) * per_round)} left"
        )

    def end(self, run: Run) -> None:
        took, rounds = time.monotonic() - self.began, run.step - self.first
        run.reporter.say(f"played {rounds} rounds in {duration(took)} ({rounds * run.batch_size / max(took, 1e-9):.0f} images/s)")


class Grid(Callback):
    """A picture of the samples of fixed latents, every `every_steps` rounds and at the end: samples/step_N.png and samples/fixed_z."""

    def __init__(self, every_steps: Annotated[int, Ge(1)] = 1000, n: Annotated[int, Ge(1)] = 64, seed: int = 0):
        self.every_steps, self.n, self.seed = every_steps, n, seed

    def begin(self, run: Run) -> None:
        self.drawn_at = -1
        if run.step == 0:
            self.draw(run)

    def after_round(self, run: Run, logs: Logs) -> None:
        if run.step % self.every_steps == 0:
            self.draw(run)

    def end(self, run: Run) -> None:
        if self.drawn_at != run.step and run.step == run.steps:
            self.draw(run)

    def draw(self, run: Run) -> None:
        made = subjects.samples(run.game.sampler, self.n, seed=self.seed, device=run.device)
        picture = run.dataset.picture(torch.cat([part.cpu() for part in made]))
        directory.write_picture(run.folder / "samples" / f"step_{run.step:08d}.png", picture, run.folder)
        run.draw("samples/fixed_z", picture)
        self.drawn_at = run.step


class Best(TypedDict):
    """What best.pt follows: a name in metrics.jsonl, and which way is better."""

    metric: str | None
    mode: Literal["max", "min"]


class Evaluate(Callback):
    """The chosen metrics on `n` samples, every `every_steps` rounds and at the end: a line of metrics.jsonl, curves, best.pt.

    Metrics that compare do so with the split `split`: `n_real` samples of it, or all.
    """

    everywhere = True

    def __init__(
        self,
        every_steps: Annotated[int, Ge(1)] = 5000,
        n: Annotated[int, Ge(1)] = 10000,
        batch_size: Annotated[int, Ge(1)] = 500,
        seed: int = 0,
        split: Split = "train",
        n_real: Annotated[int, Ge(2)] | None = None,
        best: Best = {"metric": None, "mode": "max"},  # noqa: B006
    ):
        self.every_steps, self.n, self.batch_size, self.seed, self.split, self.n_real = every_steps, n, batch_size, seed, split, n_real
        self.best = best
        self.value: float | None = None  # the best so far
        self.measures = {"n_fake": n, "seed": seed, "split": split, "n_real": n_real}  # what a resume may change of the protocol
        self.first: dict[str, Any] = self.measures  # as it was when the run began
        self.loaded: dict[str, Any] | None = None  # the state that a resumed run begins with
        self.evaluated_at = -1

    def begin(self, run: Run) -> None:
        if self.loaded is not None:
            self.take_up(run, self.loaded)
        self.evaluated_at = run.step
        run.objective = self.value
        self.countdown = Countdown(run.reporter)
        self.reference = Reference(
            run.dataset, self.split, run.extractor, n=self.n_real, device=run.device, batch_size=self.batch_size, tick=self.countdown.at
        )
        missing = findings.unmeasurable(run.metrics, run.extractor, self.subject(run), self.reference)
        for name, reason in missing.items():
            run.reporter.say(f"{name} will be null: {reason}")
        self.told = set(missing)  # the metrics whose reason was told, and the notes that were
        if run.step == 0 and run.spec.is_image:
            some = run.batches.take(torch.linspace(0, run.batches.order.n - 1, 64, dtype=torch.float64).long())
            if int(to_uint8(to_float(some)).max()) <= findings.BLACK:
                run.reporter.say(f"note: {findings.nearly_black('training images')}")

    def take_up(self, run: Run, state: dict[str, Any]) -> None:
        """Restore the best value so far if it was measured by the same protocol; else say so in a line, and give curves another name."""
        followed = {**self.measures, **self.best}
        if "followed" not in state:
            state = state | distributed.shared(recalled(run.folder, self.measures, self.best, state.get("value")))
        before, self.first = state["followed"], state.get("first", self.first)
        self.value = state.get("value") if before == followed else None
        changed = [f"{key} from {before.get(key)} to {value}" for key, value in self.measures.items() if before.get(key) != value]
        if changed:
            drawn = f"; their curves are called KEY{self.suffix}" if self.suffix else ""
            run.reporter.say(f"figures are measured by another protocol from here on ({', '.join(changed)}){drawn}")
        if self.value is None and state.get("value") is not None and self.best["metric"]:
            run.reporter.say(f"best.pt followed another figure until now; from here on it follows {self.best['metric']}")

    @property
    def suffix(self) -> str:
        """What follows a key in curves where the protocol is not the one that the run began with: ` (n=500)`."""
        own, now = ({key: str(value) for key, value in each.items()} for each in (self.first, self.measures))
        differs = Protocol.of(own).described("", Protocol.of(now))
        return f" ({differs})" if differs else ""

    def subject(self, run: Run) -> Generated:
        return Generated(run.game.sampler, self.n, run.spec, seed=self.seed, device=run.device, discriminator=run.game.D)

    def after_round(self, run: Run, logs: Logs) -> None:
        if run.metrics and run.step % self.every_steps == 0:
            self.evaluate(run)

    def end(self, run: Run) -> None:
        if run.metrics and run.step == run.steps and self.evaluated_at != run.step:
            self.evaluate(run)

    def evaluate(self, run: Run) -> None:
        distributed.copy_buffers(run.game.sampler)
        tick = Countdown(run.reporter, f"evaluating round {run.step}: ").at
        found = findings.evaluate(self.subject(run), run.metrics, run.extractor, self.reference, batch_size=self.batch_size, tick=tick)
        self.evaluated_at = run.step
        found = found._replace(figures=distributed.shared(found.figures))  # what follows from a figure must follow everywhere
        whose = "G" if run.game.sampler is run.game.G else "average of G"
        protocol = found.protocol | {"generator": whose, "metrics": run.config.get("metric") or {}}
        if distributed.is_first():
            directory.add_evaluation(run.folder, run.step, run.images, found.numbers, protocol, found.pictures)
        run.write({name + self.suffix: value for name, value in found.numbers.items() if value is not None})
        for name, picture in found.pictures.items():
            run.draw(name + self.suffix, picture)
        missing = found.protocol.get("missing", {})
        said = [f"{name} is null" if name in missing else run.metrics[name].sentence(each) for name, each in found.figures.items()]
        run.reporter.say(f"round {run.step}: " + "; ".join(said))
        for name in missing.keys() - self.told:
            run.reporter.say(f"{name} is null: {missing[name]}")
        notes = found.protocol.get("notes", [])
        for note in notes:
            if note not in self.told:
                run.reporter.say(f"note: {note}")
        self.told |= missing.keys() | set(notes)
        self.follow(run, found.numbers)

    def follow(self, run: Run, numbers: dict[str, float | None]) -> None:
        """Keep best.pt."""
        followed = self.best["metric"]
        if followed is not None and followed not in numbers:
            run.reporter.say(f"no best.pt: callback.evaluate.best.metric={followed} is none of {', '.join(numbers)}")
        value = numbers.get(followed or "")
        if value is not None and self.is_better(value):
            self.value = run.objective = value
            run.save(run.folder / "checkpoints" / "best.pt")

    def follows(self) -> list[str]:
        return [self.best["metric"]] if self.best["metric"] else []

    def states(self) -> int:
        return len(self.follows())

    def is_better(self, value: float) -> bool:
        return self.value is None or (value > self.value if self.best["mode"] == "max" else value < self.value)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "followed": {**self.measures, **self.best}, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.loaded = state.get("value"), state


def recalled(folder: Path, measures: dict[str, Any], best: Best, value: float | None) -> dict[str, Any]:
    """Find in metrics.jsonl what a state of an older version does not say: by which protocol training measured, and what best.pt followed.

    measures, best: of now, which are those of then where no line says otherwise; value: the best one then.
    """
    every = evaluations_of(content(folder / "metrics.jsonl", 2**24, cut=True) or b"")
    lines = [line for line in every if Protocol.of(line.protocol).trained]
    said = lines[-1].protocol if lines else {}
    first = measures | {key: said[key] for key in ("n_fake", "seed") if key in said}
    if measures["n_real"] is not None and said.get("n_real") == measures["n_real"] and "real_chosen" not in said:
        first["n_real"] = f"the first {measures['n_real']}"  # now they are chosen by chance
    known = any(value == line.figures.get(best["metric"] or "") for line in lines)
    return {"followed": {**first, **best} | ({} if known else {"metric": None}), "first": first}


class Checkpoint(Callback):
    """Every `every_steps` rounds, at the end and at a signal: step_N.pt, of which the newest `keep` stay, and last.pt.

    That of the last round is written when all other callbacks have ended: who goes on from it does not do their work again.
    """

    order = 1  # after what the state of this step has to contain
    everywhere = True

    def __init__(self, every_steps: Annotated[int, Ge(1)] = 1000, keep: Annotated[int, Ge(1)] = 2):
        self.every_steps, self.keep = every_steps, keep

    def begin(self, run: Run) -> None:
        for part in (run.folder / "checkpoints").glob(".*.part") if distributed.is_first() else ():  # of a process that was killed
            files.unlink(part, run.folder)

    def after_round(self, run: Run, logs: Logs) -> None:
        if run.step % self.every_steps == 0 and run.step < run.steps:
            self.save(run)

    def states(self) -> int:
        return self.keep + 1  # an old one goes when the new one is there

    def end(self, run: Run) -> None:
        if run.saved_at != run.step:
            self.save(run)

    def save(self, run: Run) -> None:
        folder = run.folder / "checkpoints"
        path = folder / f"step_{run.step:08d}.pt"

        def name_it_last() -> None:
            files.link(path, folder / "last.pt", run.folder)
            for old in checkpoint.numbered(folder)[: -self.keep]:
                files.unlink(old, run.folder)

        run.save(path, name_it_last)
        run.saved_at = run.step
