"""Plays the cases: for each command a process, forked from one that has imported everything, and killed where it does not end."""

import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostile import characters, directories, files, ratings, settings, stage, states, watch
from hostile.child import NOT_BUILT, Case, become
from hostile.stage import COMMANDS, Attack

BESIDE = 2  # commands at a time
IDLE_S, CPU_S, WALL_S = 10, 30, 600  # seconds without any work, of work, and in all, after which a command is believed to hang
MEMORY = 2 * 10**9  # bytes that a command may take beside what is shared


@dataclass
class Child:
    """A command that is being played."""

    case: Case
    command: str
    root: Path
    slot: int
    begun: float
    worked: float = 0.0  # seconds of its processor
    busy: float = 0.0  # when it was last seen at work
    killed: str = ""


@dataclass
class Server:
    pid: int
    port: int
    log: Path


def catalogue() -> list[Attack]:
    """Every attack there is."""
    return [attack for module in (directories, characters, states, settings, ratings, files) for attack in module.attacks()]


def cases(n: int, seed: int) -> list[Case]:
    """n cases, at least one of each kind where there are so many; beyond the number of attacks they come again with other details."""
    chance, attacks = random.Random(seed), catalogue()
    chance.shuffle(attacks)
    first = {attack.kind: attack for attack in reversed(attacks)}
    once = [id(attack) for attack in first.values()]
    order = [*first.values(), *(attack for attack in attacks if id(attack) not in once)]
    return [Case(number, order[number % len(order)], seed) for number in range(n)]


# ---- forking --------------------------------------------------------------------------------------------------------


IMPORTED = (
    "pydantic.main", "gan_runner.cli", "gan_runner.commands.evaluate", "gan_runner.commands.sample", "gan_runner.inventory.curves",
    "gan_runner.inventory.overview", "gan_runner.inventory.page", "gan_runner.inventory.prune", "gan_runner.jobs.search",
    "gan_runner.jobs.single", "gan_runner.jobs.sweep", "gan_runner.lifecycle.runs", "gan_runner.rating.page", "gan_runner.rating.scorer",
)  # fmt: skip


def ready() -> None:
    """Import all that a command could, on one thread: only such a process can be forked safely."""
    for name in IMPORTED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    for thread in threading.enumerate():  # a timer of matplotlib's, while it looks for fonts
        if thread is not threading.current_thread():
            thread.join()
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a child would inherit their locks"


def forked(work: Sequence[object]) -> int:
    """The exit code of a function that is called in a process of its own: (function, arguments ...)."""
    function, *arguments = work
    sys.stdout.flush()
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        function(*arguments)  # type: ignore[operator]
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def quietly(folder: Path) -> None:
    """Make the stock; what is said is kept beside it."""
    os.environ["GAN_RUNNER_CACHE"] = str(folder.parent / "cache")
    for number in (1, 2):
        os.dup2(os.open(folder.parent / "stock.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    stage.make_stock(folder)


def used(pid: int) -> tuple[str, float, int]:
    """(state, seconds of work, bytes in memory) of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return "Z", 0.0, 0
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def overdue(child: Child, pid: int, shared: int) -> str:
    """Why a command has to be killed; nothing where it may go on."""
    now, (state, worked, memory) = time.monotonic(), used(pid)
    if worked > child.worked or state == "R":
        child.worked, child.busy = worked, now
    if memory > shared + MEMORY:
        return f"fills the memory: {memory / 1e9:.1f} GB"
    if now - child.busy > IDLE_S:
        return f"hung: waits for ever after {worked:.0f} s of work"
    if worked > CPU_S or now - child.begun > WALL_S:
        return f"hung: {worked:.0f} s of work, {now - child.begun:.0f} s in all"
    return ""


def session(leader: int) -> list[int]:
    """The processes of a session that are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def buried(leader: int) -> int:
    """How many processes a command has left; they are killed."""
    left = session(leader)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def played(turns: list[tuple[Case, str]], work: Path, servers: list[Server]) -> Generator[tuple[Child, watch.Ending], None, None]:
    """Every command of every case, some beside each other."""
    waiting, children, free = list(reversed(turns)), dict[int, Child](), list(range(len(servers)))
    shared = used(os.getpid())[2]
    try:
        while waiting or children:
            while waiting and free:
                (case, command), slot = waiting.pop(), free.pop()
                root = work / f"{case.number}_{command}"
                root.mkdir()
                sys.stdout.flush()
                pid = os.fork()
                if pid == 0:
                    become(case, command, root, work / "stock", servers[slot].port)
                now = time.monotonic()
                children[pid] = Child(case, command, root, slot, now, busy=now)
            time.sleep(0.02)
            for pid, child in list(children.items()):
                if not child.killed and (reason := overdue(child, pid, shared)):
                    child.killed = reason
                    os.kill(pid, signal.SIGKILL)
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    del children[pid]
                    free.append(child.slot)
                    left = buried(pid)
                    yield child, ending(child, status, 0 if child.killed else left, servers[child.slot])
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def ending(child: Child, status: int, left: int, server: Server) -> watch.Ending:
    said = [(child.root / name).read_bytes() if (child.root / name).exists() else b"" for name in ("out", "err")]
    sent = server.log.read_bytes()
    os.truncate(server.log, 0)
    seconds = time.monotonic() - child.begun
    return watch.Ending(child.command, os.waitstatus_to_exitcode(status), child.killed, said[0], said[1], sent, left, seconds)


def main(n: int, seed: int, only: int | None = None, commands: Sequence[str] = COMMANDS, kinds: str = "", keep: bool = False) -> int:
    """Play n cases (only: this one of them; kinds: those whose kind or name has this in it), and print what came of it."""
    begun = time.monotonic()
    chosen = [case for case in cases(n if only is None else max(n, only + 1), seed) if only in (None, case.number) and kinds in str(case)]
    turns = [(case, command) for case in chosen for command in commands]
    work = Path(tempfile.mkdtemp(prefix="hostile-"))
    os.environ |= {"HOME": str(work), "MPLCONFIGDIR": str(work / "matplotlib")}
    ready()
    servers: list[Server] = []
    try:
        for slot in range(BESIDE):
            servers.append(Server(*watch.listen(log := work / f"server_{slot}"), log))
        if forked([quietly, work / "stock"]):
            print((work / "stock.log").read_text(errors="replace")[-3000:])
            return 1
        return report(turns, work, servers, begun, seed, keep or only is not None)
    finally:
        for server in servers:
            os.kill(server.pid, signal.SIGKILL)
            os.waitpid(server.pid, 0)
        if keep or only is not None:
            print(f"\neverything is in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


def report(turns: list[tuple[Case, str]], work: Path, servers: list[Server], begun: float, seed: int, keep: bool) -> int:
    """Play, and print the tables and the failures; the exit code."""
    runs: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    codes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    slowest = (0.0, "")
    for child, end in until_stopped(played(turns, work, servers)):
        kind, case = child.case.attack.kind, child.case
        runs[kind, child.command] += 1
        if end.code == NOT_BUILT and not (child.root / "before.json").exists():
            found = [f"the case could not be built: {end.killed or 'see above'}"]
        else:
            found = watch.faults(end, child.root, case.attack.answers.get(child.command))
            codes[str(end.code) if not end.killed else "killed"] += 1
            slowest = max(slowest, (end.seconds, f"{case}, {end.name}"))
        wrong[kind, child.command] += bool(found)
        if found:
            print(f"{case} ({end.name}): {'; '.join(found)}".encode("unicode_escape").decode(), flush=True)
        reasons.update(reason.partition(":")[0] for reason in found)
        if keep:
            line = (child.root / "line").read_text() if (child.root / "line").exists() else ""
            said = (end.out + end.err).decode(errors="replace")[-1500:]
            print(f"--- {end.name} {line!a}\n{said.encode('unicode_escape').decode()!s}\n    exit code {end.code}; {found or 'right'}")
        else:
            shutil.rmtree(child.root, ignore_errors=True)
    show(runs, wrong, codes, reasons)
    n, bad, minutes = sum(runs.values()), sum(wrong.values()), (time.monotonic() - begun) / 60
    print(f"\n{-(-n // len(COMMANDS))} cases, {n} commands, seed {seed}, {minutes:.1f} min; {bad} not as promised")
    print(f"the slowest took {slowest[0]:.1f} s: {slowest[1]}")
    print(f"repeat one: python scripts/faults.py --hostile N --seed {seed} --case K")
    return 1 if bad else 0


def until_stopped(ended: Generator[tuple[Child, watch.Ending], None, None]) -> Iterator[tuple[Child, watch.Ending]]:
    """What has ended, until SIGINT or SIGTERM comes: then the tables tell of what there is."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        yield from ended
    except KeyboardInterrupt:
        print("stopped; the tables tell of what was played")
    finally:
        ended.close()


def show(runs: Counter, wrong: Counter, codes: Counter, reasons: Counter) -> None:
    print("\n| kind | " + " | ".join(f"gan-{'eval' if name == 'evaluate' else name}" for name in COMMANDS) + " |\n" + "|---" * 6 + "|")
    for kind in sorted({kind for kind, _ in runs}):
        cells = [f"{wrong[kind, name]} of {runs[kind, name]}" if wrong[kind, name] else str(runs[kind, name]) for name in COMMANDS]
        print(f"| {kind} | {' | '.join(cells)} |")
    for title, counts in (("exit code", codes), ("not as promised", reasons)):
        print(f"\n| {title} | times |\n|---|---|")
        for what, times in counts.most_common():
            print(f"| {what} | {times} |")
