"""Measure the metrics during training, and keep best.pt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Ge
from typing_extensions import TypedDict

from gan_runner import distributed
from gan_runner.datasets import Split
from gan_runner.evaluation import findings
from gan_runner.evaluation.reference import Reference
from gan_runner.reporting import Countdown, Stopwatch, duration
from gan_runner.sampling.subjects import Generated
from gan_runner.storage import directory, records
from gan_runner.storage.protocols import Protocol
from gan_runner.storage.records import Evaluation, evaluations_of, settled
from gan_runner.storage.untrusted import flat, read_bounded
from gan_runner.training.callback import Callback

if TYPE_CHECKING:
    from gan_runner.evaluation.metric import Metric
    from gan_runner.game.play import Logs
    from gan_runner.training.run import Run


class Best(TypedDict):
    """The metric that best.pt follows, by its name in metrics.jsonl, and which direction is better."""

    metric: str | None
    mode: Literal["max", "min"] | None  # None: as the metric says


class Final(TypedDict):
    """The evaluation after the last round, against all real samples."""

    n: Annotated[int, Ge(1)] | Literal["auto"] | None  # samples; auto: 50,000 on an accelerator, none on a CPU; None: there is none


REAL_ON_A_CPU, PUBLISHED = 10_000, 50_000  # samples: real ones in training; of published figures
TIMED = 16  # samples, to announce how long evaluations take


class Evaluate(Callback):
    """Measure the chosen metrics on `n` samples every `every_steps` rounds and at the end: a line of metrics.jsonl, curves, best.pt.

    Metrics that need real data use the split `split`: `n_real` samples of it, or all (None); "auto" is 10,000 on a CPU and all elsewhere.
    After the last round they are measured once more, on `final.n` samples against all real ones, as published figures are; this line has
    another protocol, and best.pt does not follow it.
    """

    everywhere = True

    def __init__(
        self,
        every_steps: Annotated[int, Ge(1)] = 5000,
        n: Annotated[int, Ge(1)] = 10000,
        batch_size: Annotated[int, Ge(1)] = 500,
        seed: int = 0,
        split: Split = "train",
        n_real: Annotated[int, Ge(2)] | Literal["auto"] | None = None,
        final: Final = {"n": None},  # noqa: B006
        best: Best = {"metric": None, "mode": None},  # noqa: B006
    ):
        self.every_steps, self.n, self.batch_size, self.seed, self.split, self.n_real = every_steps, n, batch_size, seed, split, n_real
        self.final, self.best = final, best
        self.key: str | None = None  # what best.pt follows; None until there is such a figure
        self.mode: str | None = best["mode"]
        self.value: float | None = None  # the best so far
        # what a resume may change of the protocol
        self.measures: dict[str, Any] = {"n_fake": n, "seed": seed, "split": split, "n_real": n_real}
        self.first: dict[str, Any] = self.measures  # as it was when the run began
        self.loaded: dict[str, Any] | None = None  # the state that a resumed run begins with
        self.evaluated_at = -1

    def begin(self, run: Run) -> None:
        if self.n_real == "auto":
            self.measures["n_real"] = REAL_ON_A_CPU if run.device.type == "cpu" else None
        self.settle(run)
        if self.loaded is not None:
            self.take_up(run, self.loaded)
        self.evaluated_at = self.finished_at = run.step
        run.objective = self.value
        self.countdown = Countdown(run.reporter)
        self.reference = self.real(run, self.measures["n_real"])
        missing = findings.unmeasurable(run.metrics, self.subject(run, self.n), self.reference)
        for reason, names in findings.by_reason(missing).items():
            run.reporter.say(f"{names} will be null: {reason}")
        self.told = set(missing)  # the metrics whose reason was told, and the notes that were
        self.announce(run, {name: metric for name, metric in run.metrics.items() if name not in missing})
        if run.step == 0:
            some = run.batches.take(torch.linspace(0, run.batches.order.n - 1, 64, dtype=torch.float64).long())
            if run.spec.kind.nearly_black(run.dataset.to_float(some)):
                run.reporter.say(f"note: {findings.nearly_black('training images')}")

    def announce(self, run: Run, metrics: dict[str, Metric]) -> None:
        """Say how many evaluations follow and how long they take, by a few samples in the networks; nothing without networks."""
        networks = findings.looks_through(metrics)
        self.each: float | None = None  # seconds for one sample
        rounds = run.steps // self.every_steps - run.step // self.every_steps + (run.steps % self.every_steps > 0)
        if not networks or run.step >= run.steps:
            return
        x = run.dataset.to_float(run.batches.take(torch.arange(TIMED) % run.batches.order.n)).to(run.device)
        for network in networks:
            network.to(run.device)
        for _ in range(2):  # the first pass does work that is done once
            watch = Stopwatch()
            for network in networks:
                network(run.spec.kind.as_bytes(x)).features.cpu()
            self.each = watch.seconds / TIMED
        planned = [f"{rounds} of {self.n:,} samples, about {self.expected(self.n)} each"]
        if (n := self.last(run)) is not None:
            planned.append(f"one of {n:,} after the last round, about {self.expected(n)}")
        run.reporter.say(f"evaluations: {'; '.join(planned)} ({TIMED} samples were timed; the real samples, once, come in addition)")

    def expected(self, n: int) -> str | None:
        """Return how long an evaluation of n samples takes, in words; None if none was timed."""
        return None if self.each is None else duration(self.each * n / distributed.size())

    def last(self, run: Run) -> int | None:
        """Return the number of samples of the evaluation after the last round; None: there is none."""
        n = self.final["n"]
        return n if n != "auto" else None if run.device.type == "cpu" else PUBLISHED

    def settle(self, run: Run) -> None:
        """Find what best.pt follows, as far as it is known before the next round."""
        if (name := self.best["metric"]) is not None:
            self.key = distributed.shared(settled(trained(run.folder), name, self.best["mode"]))
            aimed = findings.aim(self.key or name, run.metrics)
            self.mode = self.best["mode"] or (aimed[1] if aimed else None)

    def take_up(self, run: Run, state: dict[str, Any]) -> None:
        """Restore the best value so far if its protocol is the same; else report the change, and rename the curves."""
        if "followed" not in state:
            state = state | distributed.shared(recalled(run.folder, self.measures, self.followed, state.get("value")))
        before, self.first = state["followed"], state.get("first", self.first)
        self.value = state.get("value") if before == {**self.measures, **self.followed} else None
        changed = [f"{key} from {before.get(key)} to {value}" for key, value in self.measures.items() if before.get(key) != value]
        if changed:
            drawn = f"; their curves are called KEY{self.suffix}" if self.suffix else ""
            run.reporter.say(f"figures are measured by another protocol from here on ({', '.join(changed)}){drawn}")
        if self.value is None and state.get("value") is not None and self.best["metric"]:
            run.reporter.say(f"best.pt followed another figure until now; from here on it follows {self.best['metric']}")

    @property
    def followed(self) -> dict[str, str | None]:
        """What best.pt follows, and which way is better."""
        return {"metric": self.key or self.best["metric"], "mode": self.mode}

    @property
    def suffix(self) -> str:
        """Suffix of the names of curves if the protocol differs from the one that the run began with: ` (n=500)`."""
        own, now = ({key: str(value) for key, value in each.items()} for each in (self.first, self.measures))
        differs = Protocol.of(own).described("", Protocol.of(now))
        return f" ({differs})" if differs else ""

    def subject(self, run: Run, n: int) -> Generated:
        game = run.game
        return Generated(game.sampler, n, run.spec, seed=self.seed, device=run.device, discriminator=game.D, source=run.source)

    def real(self, run: Run, n: int | None) -> Reference:
        return Reference(run.dataset, self.split, n=n, device=run.device, batch_size=self.batch_size, tick=self.countdown.at)

    def after_round(self, run: Run, logs: Logs) -> None:
        if run.metrics and run.step % self.every_steps == 0:
            self.evaluate(run)

    def end(self, run: Run) -> None:
        if run.metrics and run.step == run.steps and self.evaluated_at != run.step:
            self.evaluate(run)
        n = self.last(run)
        if run.metrics and run.step == run.steps and self.finished_at != run.step and n is not None:
            about = "" if (time := self.expected(n)) is None else f": about {time}, the real ones not counted"
            run.reporter.say(f"the figures of the last round, once more on {n:,} samples against all real ones{about}")
            self.measured(run, n, self.real(run, None), checkpoint="last.pt")

    def evaluate(self, run: Run) -> None:
        found, protocol = self.measured(run, self.n, self.reference)
        self.evaluated_at = run.step
        if self.best["metric"] is not None:
            line = Evaluation(run.step, run.images, found.numbers, dict(flat(protocol)), found.better)
            self.follow(run, line, self.best["metric"])

    def measured(self, run: Run, n: int, reference: Reference, checkpoint: str | None = None) -> tuple[findings.Findings, dict[str, Any]]:
        """Measure n samples, write and say the figures. Returns them and their protocol.

        checkpoint: of a measurement beside those of training; it is recorded, named and drawn as gan-eval does it for this checkpoint.
        """
        distributed.copy_buffers(run.game.sampler)
        tick = Countdown(run.reporter, f"evaluating round {run.step}: ").at
        watch = Stopwatch()
        found = findings.evaluate(self.subject(run, n), run.metrics, reference, batch_size=self.batch_size, tick=tick)
        self.each = watch.seconds * distributed.size() / n  # of the first evaluation with the real samples
        for metric in run.metrics.values():
            metric.reset()  # features of all samples need no memory until the next evaluation
        figures, better = distributed.shared((found.figures, found.better))  # what follows from a figure must follow everywhere
        found = found._replace(figures=figures, better=better)
        whose = "G" if run.game.average is None else "average of G"
        settings = findings.settings_of(run.config.get("metric") or {})
        protocol = found.protocol | {"generator": whose, "metrics": settings}
        keys = [*found.numbers, *found.pictures]
        names, files = {key: key + self.suffix for key in keys}, {key: key for key in keys}
        if checkpoint is not None:
            protocol |= {"checkpoint": checkpoint}
            names = files = distributed.shared(records.drawn(run.folder, keys, protocol))
        if distributed.is_first():
            pictures = {files[key]: picture for key, picture in found.pictures.items()}
            directory.add_evaluation(run.folder, found.line(run.step, run.images, protocol=protocol), pictures)
        run.write({names[key]: value for key, value in found.numbers.items() if value is not None})
        for key, picture in found.pictures.items():
            run.draw(names[key], picture)
        missing = found.protocol.get("missing", {})
        said = [f"{name} is null" if name in missing else run.metrics[name].sentence(each) for name, each in found.figures.items()]
        run.reporter.say(f"round {run.step}: " + "; ".join(said))
        for name in sorted(missing.keys() - self.told):
            run.reporter.say(f"{name} is null: {missing[name]}")
        notes = found.protocol.get("notes", [])
        for note in notes:
            if note not in self.told:
                run.reporter.say(f"note: {note}")
        self.told |= missing.keys() | set(notes)
        return found, protocol

    def follow(self, run: Run, line: Evaluation, name: str) -> None:
        """Write best.pt if the metric that it follows has improved."""
        self.key = self.key or line.meant(name, self.best["mode"])
        if self.key is None and name not in line.figures and name not in self.told:
            run.reporter.say(f"no best.pt: callback.evaluate.best.metric={name} is none of {', '.join(line.figures)}")
        if self.key is None or (value := line.figures.get(self.key)) is None:
            return
        self.mode = self.best["mode"] or line.direction(self.key)
        if self.is_better(value):
            self.value = run.objective = value
            run.save(run.folder / "checkpoints" / "best.pt")

    def follows(self) -> list[str]:
        return [self.best["metric"]] if self.best["metric"] else []

    def states(self) -> int:
        return len(self.follows())

    def is_better(self, value: float) -> bool:
        return self.value is None or (value > self.value if self.mode == "max" else value < self.value)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "followed": {**self.measures, **self.followed}, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.loaded = state.get("value"), state


def trained(folder: Path) -> list[Evaluation]:
    """Read what training has measured so far."""
    every = evaluations_of(read_bounded(folder / "metrics.jsonl", 2**24, cut=True) or b"")
    return [line for line in every if line.measured.trained]


def recalled(folder: Path, measures: dict[str, Any], best: dict[str, str | None], value: float | None) -> dict[str, Any]:
    """Recover from metrics.jsonl what a state of an older version lacks: the protocol of training and the metric of best.pt.

    measures, best: today's settings, which are assumed unless a line has others; value: the best value in the state.
    """
    lines = trained(folder)
    said = lines[-1].protocol if lines else {}
    first = measures | {key: said[key] for key in ("n_fake", "seed") if key in said}
    if measures["n_real"] is not None and said.get("n_real") == measures["n_real"] and "real_chosen" not in said:
        first["n_real"] = f"the first {measures['n_real']}"  # now they are chosen by chance
    known = any(value == line.figures.get(best["metric"] or "") for line in lines)
    return {"followed": {**first, **best} | ({} if known else {"metric": None}), "first": first}
