"""Start the processes of a run, and return one result or raise one error.

There are three cases. One device: the run is played in this process. Several devices: this process composes and checks the run, then
starts one worker per device; the workers connect to a TCPStore of this process, so that no port is chosen twice. Under torchrun or srun,
this process is itself one of the workers, and joins the group.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp
from omegaconf import OmegaConf

from gan_runner import distributed
from gan_runner.errors import Diverged, Failed, Interrupted, UserError, handled
from gan_runner.reporting import log
from gan_runner.storage import directory
from gan_runner.storage.streams import courteous
from gan_runner.training.signals import SIGNALS

GRACE_S = 10.0  # that the other workers have to end by themselves once one has failed
KINDS = {kind.__name__: kind for kind in (UserError, Failed, Diverged)}

Work = Callable[[Path, Any, Sequence[str], Path | None], float | None]
"""(folder, config, packages, the checkpoint to go on from) -> the run's objective. A function of a module, for workers import it."""


def launch(work: Work, devices: int, folder: Path, config: Any, packages: Sequence[str], start: Path | None) -> float | None:
    """Do the work of a run in one process per device. Returns the result of rank 0; raises the error of the rank that failed first."""
    if devices == 1 or distributed.size() > 1:
        return work(folder, config, packages, start)
    with tempfile.TemporaryDirectory(prefix="gan-runner-") as room:
        workers = Workers(work, devices, Path(room))
        with handled(SIGNALS, workers.forward):
            return workers.run(folder, directory.portable(config), list(packages), start)


class Workers:
    """Worker processes on this machine. Signals are forwarded to them; the second of the same kind kills."""

    def __init__(self, work: Work, n: int, room: Path):
        self.work, self.n, self.room = work, n, room
        self.signals: list[int] = []
        self.context: Any = None

    def run(self, folder: Path, config: dict[str, Any], packages: list[str], start: Path | None) -> float | None:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DistributedDataParallel warns of find_unused_parameters in every process
        store = dist.TCPStore("127.0.0.1", 0, world_size=None, is_master=True, wait_for_workers=False)
        resource_tracker.ensure_running()  # starting it later would unblock signals
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # workers are born so, until trainer.Signals can save what they do
        try:
            self.context = mp.start_processes(
                _worker,
                args=(self.work, self.n, store.port, self.room, folder, config, packages, start),
                nprocs=self.n,
                join=False,
                start_method="spawn",
            )
            for number in set(self.signals):  # that a thread of the store has caught before the workers were known
                self.send(number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self.wait()
            return self.outcome()
        finally:
            for process in self.context.processes if self.context else ():
                if process.is_alive():
                    process.kill()
                process.join()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def forward(self, number: int, frame: FrameType | None) -> None:
        """Forward a signal to the workers; the second of the same kind kills them, except SIGHUP, which a terminal sends twice."""
        again = number in self.signals and number != signal.SIGHUP
        self.signals.append(number)
        self.send(signal.SIGKILL if again else number)

    def send(self, number: int) -> None:
        for process in self.context.processes if self.context else ():
            if process.is_alive():
                os.kill(process.pid, number)

    def wait(self) -> None:
        """Wait until all workers have ended; at most GRACE_S after one has failed."""
        deadline: float | None = None
        while any(process.is_alive() for process in self.context.processes):
            time.sleep(0.05)
            failed = any(process.exitcode not in (None, 0) for process in self.context.processes)
            if failed and deadline is None:
                deadline = time.monotonic() + GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                return

    def outcome(self) -> float | None:
        """Return the result of rank 0, or raise the error of the worker that failed first, not counting lost peers."""
        told = {rank: json.loads(path.read_text()) for rank in range(self.n) if (path := self.room / f"{rank}.json").is_file()}
        if all(rank in told and told[rank]["kind"] == "done" for rank in range(self.n)):
            return told[0]["value"]
        interrupted = next((each for each in told.values() if each["kind"] == "Interrupted"), None)
        if interrupted:
            raise Interrupted(interrupted["signal"])
        errors = sorted((each["at"], rank, each) for rank, each in told.items() if each["kind"] not in ("done", "Lost"))
        if errors:
            _, rank, first = errors[0]
            if first["kind"] in KINDS:
                raise KINDS[first["kind"]](first["message"])
            failure = Failed(f"process {rank} of {self.n} failed: {first['message']}; train.log says where")
            failure.add_note(first["trace"])
            raise failure
        if self.signals:
            raise Interrupted(self.signals[0])
        for rank, process in enumerate(self.context.processes):
            if rank not in told and process.exitcode is not None and process.exitcode < 0:
                name = signal.Signals(-process.exitcode).name
                why = ": out of memory? the kernel's log (dmesg) says so" if name == "SIGKILL" else ""
                raise Failed(f"process {rank} of {self.n} was killed by {name}{why}; go on with resume=RUN_DIR")
        silent = ", ".join(str(rank) for rank in range(self.n) if rank not in told)
        raise Failed(
            f"process {silent or '?'} of {self.n} has not answered for {distributed.patience():g} s ($GAN_RUNNER_TIMEOUT_S); "
            "go on with resume=RUN_DIR"
        )


def _worker(
    rank: int, work: Work, n: int, port: int, room: Path, folder: Path, config: dict[str, Any], packages: list[str], start: Path | None
) -> None:
    """Run one worker: join the group, do the work, and write the result or the error to a JSON file."""
    os.setpgid(0, 0)  # a Ctrl-C of the terminal reaches the parent alone, which passes it on
    log.addHandler(logging.NullHandler())  # the trace of an error goes into the word; without a handler, it would be printed
    word: dict[str, Any]
    try:
        with courteous(), distributed.translate_lost_peers():
            distributed.join(rank, n, rank, dist.TCPStore("127.0.0.1", port, is_master=False))
            try:
                word = {"kind": "done", "value": work(folder, OmegaConf.create(config), packages, start)}
            except Interrupted as error:
                word = {"kind": "Interrupted", "signal": error.signal}
            distributed.leave()
    except (UserError, Failed, Diverged) as error:
        word = {"kind": type(error).__name__, "message": str(error)}
    except BaseException as error:  # somebody's sys.exit, too
        message = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        word = {"kind": "error", "message": message, "trace": "".join(traceback.format_exception(error))}
    (room / f"{rank}.part").write_text(json.dumps(word | {"at": time.time()}))
    (room / f"{rank}.part").rename(room / f"{rank}.json")
    os._exit(0 if word["kind"] in ("done", "Interrupted") else 1)  # threads of a broken process group could keep it from ending
