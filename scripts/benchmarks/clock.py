"""The parent's side of the wire: contenders as processes of their own, and turns that alternate between them."""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

SCRIPTS = Path(__file__).parents[1]
GAN_TRAIN = [sys.executable, "-c", "import sys; from gan_runner.cli import train; sys.exit(train())"]
PATIENCE_S = 900.0  # for a contender to begin, or to play a turn


class Played(NamedTuple):
    """A turn."""

    seconds: float
    cpu: float
    """Seconds of all threads and of the processes that it started, busy waiting included."""


class Contender:
    """A process that works when it is told to, and sleeps in a blocking read meanwhile."""

    def __init__(self, name: str, line: Sequence[str], folder: Path, threads: int):
        self.name, self.log = name, folder / f"{name}.log"
        path = str(folder / f"{name}.socket")
        with socket.socket(socket.AF_UNIX) as listener, self.log.open("w") as log:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(1.0)
            environment = os.environ | {
                "OMP_NUM_THREADS": str(threads),
                "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
            }
            words = [path if word == "SOCKET" else word.replace("=SOCKET", f"={path}") for word in line]
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
            self.wire = self.accepted(listener)
        self.wire.settimeout(PATIENCE_S)
        self.lines = self.wire.makefile("rw", encoding="utf-8")
        self.facts = self.hear()
        self.device_mib: float | None = None

    def accepted(self, listener: socket.socket) -> socket.socket:
        for _ in range(int(PATIENCE_S)):
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None:
                    break
        self.process.kill()
        raise SystemExit(f"{self.name} did not begin; it said:\n{self.log.read_text()[-3000:]}")

    def hear(self) -> dict[str, Any]:
        if line := self.lines.readline():
            return json.loads(line)
        raise SystemExit(f"{self.name} has ended; it said:\n{self.log.read_text()[-3000:]}")

    def ask(self, word: str, argument: Any) -> dict[str, Any]:
        """Let it do something; what it says of it."""
        self.lines.write(json.dumps({word: argument}) + "\n")
        self.lines.flush()
        said = self.hear()
        self.device_mib = said.get("device_mib") or self.device_mib
        return said

    def play(self, rounds: int) -> Played:
        before = self.cpu()
        seconds = self.ask("play", rounds)["seconds"]
        return Played(seconds, self.cpu() - before)

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in family(self.process.pid))

    def peak_mib(self) -> float:
        """The most memory that the process has had, not counting those that it started."""
        return host_peak_mib(self.process.pid)

    def close(self) -> None:
        self.lines.close()
        self.wire.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def tell(what: str) -> None:
    """Where the work stands, beside the tables."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def host_peak_mib(pid: int) -> float:
    """VmHWM, MiB: unlike ru_maxrss, it begins anew with a program. 0 where there is no /proc."""
    path = Path(f"/proc/{pid}/status")
    words = path.read_text().split() if path.exists() else []
    return int(words[words.index("VmHWM:") + 1]) / 2**10 if "VmHWM:" in words else 0.0


def fields_of(pid: int) -> list[str]:
    """/proc/PID/stat from its third field on (the second may hold blanks); nothing where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    fields = fields_of(pid)
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def family(pid: int) -> list[int]:
    """A process and those that it started."""
    if not Path("/proc").exists():
        return [pid]
    parents = {int(path.name): fields_of(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    children = [child for child, fields in parents.items() if fields and int(fields[1]) == pid]
    return [pid, *(each for child in children for each in family(child))]


@contextmanager
def contest() -> Iterator["Contest"]:
    """Contenders are started in here, and ended with it."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, ExitStack() as stack:
        yield Contest(Path(folder), stack)


class Contest:
    """Who takes part, and in which folder."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder, self.stack = folder, stack
        self.contenders: dict[str, Contender] = {}

    def enter(self, name: str, line: Sequence[str], threads: int) -> Contender:
        tell(f"{name} is starting")
        self.contenders[name] = Contender(name, line, self.folder, threads)
        self.stack.callback(self.contenders[name].close)
        return self.contenders[name]

    def run(self, name: str, words: Sequence[str], threads: int) -> Contender:
        """A run of the project, as its user starts it; one more callback does the waiting."""
        turns = ["packages=[benchmarks]", "+callback.turns._target_=benchmarks.turns.Turns", "+callback.turns.path=SOCKET"]
        return self.enter(name, [*GAN_TRAIN, *words, f"hydra.run.dir={self.folder / name}", *turns], threads)

    def work(self, name: str, kind: str, settings: dict[str, Any], threads: int) -> Contender:
        """A contender that is no run."""
        return self.enter(name, [sys.executable, "-m", "benchmarks.worker", kind, "SOCKET", json.dumps(settings)], threads)

    def alternate(self, turns: int, rounds: int) -> dict[str, list[Played]]:
        """So many turns of all, each of so many rounds; who begins changes from turn to turn."""
        names = list(self.contenders)
        played: dict[str, list[Played]] = {name: [] for name in names}
        for turn in range(turns):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                played[name].append(self.contenders[name].play(rounds))
            tell(f"turn {turn + 1} of {turns}")
        return played


def rounds_for(contender: Contender, seconds: float) -> int:
    """How many rounds fill a turn; the rounds that this plays are the warm-up."""
    rounds = 1
    contender.play(rounds)
    while (taken := contender.play(rounds).seconds) < seconds / 4:
        rounds *= 2
    return max(1, round(rounds * seconds / taken))


class Summary(NamedTuple):
    """Milliseconds (or whatever unit) of several turns."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        return cls(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, Summary]:
    """How many times as fast we are: the ratio of the medians; those of the turns."""
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(theirs) / statistics.median(ours), Summary.of(each)
