"""Launchers of Hydra's, which looks for them in this package: several jobs of a sweep at once, here or on a SLURM cluster."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt

from gan_runner.errors import UserError, handled, say
from gan_runner.jobs.submitit_launcher import FOREVER_MIN, SubmititLauncher, Task


class GanLocal(SubmititLauncher):
    """hydra/launcher=gan_local: n_jobs at once on this machine, each with its share of the GPUs and cores ($OMP_NUM_THREADS, if set)."""

    def __init__(self, n_jobs: Annotated[int, Ge(1)] = 2):
        super().__init__(n_jobs=n_jobs)
        self.n_jobs = n_jobs

    def executor(self, folder: Path) -> Any:
        import submitit

        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=FOREVER_MIN, gpus_per_node=0)
        self.slots: dict[int, int] = {}  # job -> slot
        return executor

    def submit(self, executor: Any, waiting: list[Task], running: dict[int, Any]) -> list[tuple[Task, Any]]:
        started = []
        self.slots = {number: slot for number, slot in self.slots.items() if number in running}
        while waiting and len(self.slots) < self.n_jobs:
            task = waiting.pop(0)
            slot = next(slot for slot in range(self.n_jobs) if slot not in self.slots.values())
            task.devices = share(visible_devices(), slot, self.n_jobs)
            self.slots[task.number] = slot
            with inherited(OMP_NUM_THREADS=str(max(1, len(os.sched_getaffinity(0)) // self.n_jobs))):
                started.append((task, executor.submit(task)))
        return started

    def stop(self, jobs: Sequence[Any]) -> None:
        for job in jobs:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(int(job.job_id), signal.SIGTERM)  # the process that holds the job passes it on


def visible_devices() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    return said.split(",") if said else [str(i) for i in range(torch.cuda.device_count())]


def share(devices: list[str], slot: int, n: int) -> list[str]:
    """The devices of one of n slots; where there are fewer devices than slots, several share one."""
    return devices[slot::n] or ([devices[slot % len(devices)]] if devices else [])


@contextmanager
def inherited(**environment: str) -> Iterator[None]:
    """What processes that are started meanwhile find: variables, unless the user has set them; Ctrl-C and the end of the terminal ignored,
    which are this process's affair."""
    new = {key: value for key, value in environment.items() if key not in os.environ}
    os.environ.update(new)
    try:
        with handled((signal.SIGHUP, signal.SIGINT), signal.SIG_IGN):
            yield
    finally:
        for key in new:
            del os.environ[key]


class GanSlurm(SubmititLauncher):
    """hydra/launcher=gan_slurm: jobs of an array, each with gpus, cpus and mem_gb on one node, for time_min minutes; n_jobs at once.

    warn_s before its time is up, or when SLURM warns it, a job saves and is requeued; at most `requeues` times for want of time.
    """

    def __init__(
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        time_min: Annotated[int, Ge(1)] = 60,
        gpus: Annotated[int, Ge(0)] = 0,
        cpus: Annotated[int, Ge(1)] = 2,
        mem_gb: Annotated[float, Gt(0)] | Annotated[int, Gt(0)] | None = None,
        n_jobs: Annotated[int, Ge(1)] = 32,
        warn_s: Annotated[int, Ge(1)] = 120,
        requeues: Annotated[int, Ge(0)] = 100,
    ):
        super().__init__(partition=partition, account=account, qos=qos, constraint=constraint)
        if missing := [program for program in ("sbatch", "srun", "sacct", "scontrol") if shutil.which(program) is None]:
            raise UserError(f"hydra/launcher=gan_slurm needs {', '.join(missing)}: start it where jobs are submitted to SLURM")
        self.requeues = requeues
        self.parameters = {
            "job_name": "gan-train",
            "timeout_min": time_min,
            "gpus_per_node": gpus or None,
            "cpus_per_task": cpus,
            "mem_gb": mem_gb,
            "array_parallelism": n_jobs,
            "signal_delay_s": warn_s,
            "additional_parameters": {"requeue": True},
        } | self.settings

    def executor(self, folder: Path) -> Any:
        import submitit

        executor = submitit.SlurmExecutor(folder, max_num_timeout=self.requeues)
        executor.update_parameters(
            **executor._convert_parameters({key: value for key, value in self.parameters.items() if value is not None})
        )
        return executor

    def submit(self, executor: Any, waiting: list[Task], running: dict[int, Any]) -> list[tuple[Task, Any]]:
        if not waiting:
            return []
        tasks, waiting[:] = list(waiting), []
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks]
        return list(zip(tasks, jobs))

    def stop(self, jobs: Sequence[Any]) -> None:
        names = " ".join(job.job_id for job in jobs)
        say("gan-train", f"the jobs go on; to end them: scancel {names}; to see them to their end: the same line with hydra.sweep.dir=DIR")
        raise SystemExit(128 + signal.SIGINT)
