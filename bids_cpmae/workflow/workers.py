"""Worker processes, and the clean one that they are forked from, made ready while the dataset is still being read."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver

from bids_cpmae.processes import end_now, keep_memory, tell_threads
from bids_cpmae.settings import Settings

# libraries that are given less address space than this cannot be relied upon to say so: some try for ever
LEAST_BYTES = 1_500_000_000


def prepare_workers(settings: Settings, scans: int | None = None) -> None:
    """Set the threads of the numerical libraries, and start to import what all workers need; returns at once.

    Parameters
    ----------
    settings : Settings
    scans : int, optional
        How many there are, where it is known: few are given more threads each.

    Raises
    ------
    MemoryError
        Where a process may not have what a scan needs (``ulimit -v``).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if not settings.plugin and limit != resource.RLIM_INFINITY and limit < LEAST_BYTES:
        raise MemoryError(f"{limit} bytes of address space a process, and {LEAST_BYTES} are needed")
    tell_threads(settings.threads(scans))
    keep_memory()
    if not settings.plugin:
        multiprocessing.set_forkserver_preload(["bids_cpmae.workflow.preload"])
        forkserver.ensure_running()


class Worker:
    """A process that does one job after the other; started with the first, and anew after it was killed.

    Attributes
    ----------
    process : ProcessPoolExecutor
        Of one process.
    scan : str
        The last one that it worked on.
    """

    def __init__(self, new_process: Callable[[], ProcessPoolExecutor]) -> None:
        self._new_process = new_process
        self.process = new_process()
        self.scan = ""
        self._job: Future | None = None
        self._rehearsal: Future | None = None

    @property
    def free(self) -> bool:
        """Whether it has nothing to do."""
        return self._job is None or self._job.done() or is_broken(self.process)

    @property
    def rehearsed(self) -> bool:
        """Whether its process has done before what it will be asked to do."""
        rehearsal = self._rehearsal
        return rehearsal is not None and rehearsal.done() and not rehearsal.cancelled() and not rehearsal.exception()

    @property
    def rehearsing(self) -> bool:
        """Whether it does what nobody waits for."""
        return self._rehearsal is not None and not self._rehearsal.done()

    def rehearse(self, job: Callable[[], None]) -> None:
        """Do a job that nobody waits for, if a process can be started."""
        with suppress(Exception):
            self._job = self._rehearsal = self.process.submit(job)

    def submit(self, scan: str, job: Callable, *arguments) -> Future:
        """Hand over a job of a scan, though the process be killed at that very moment.

        Raises
        ------
        MemoryError
            No process can be started.
        """
        self.scan = scan
        if is_broken(self.process):
            self._renew()
        try:
            self._job = self.process.submit(job, *arguments)
            return self._job
        except Exception:
            # one that is killed meanwhile, or that has nothing to be forked from any more, raises all kinds of errors
            self._renew()
        try:
            self._job = self.process.submit(job, *arguments)
            return self._job
        except Exception as error:
            raise MemoryError("no worker process can be started") from error

    def _renew(self) -> None:
        end_now(self.process)
        self.process, self._rehearsal = self._new_process(), None


class Workers:
    """A number of workers, each with a process of its own, so that one that is killed takes no other's job with it."""

    def __init__(self, count: int, new_process: Callable[[], ProcessPoolExecutor]) -> None:
        self._all = [Worker(new_process) for _ in range(count)]

    def rehearse(self, count: int, job: Callable[[], None] | None) -> None:
        """Have some workers do a job that nobody waits for, so that what a process does once is done by then."""
        for worker in self._all[::-1][:count]:
            worker.rehearse(job)

    def choose(self, scan: str) -> Worker:
        """One that is free: best one that has rehearsed, or that knows the scan."""
        free = [worker for worker in self._all if worker.free]
        return max(free or self._all, key=lambda worker: (worker.rehearsed, worker.scan == scan, worker.scan != ""))

    def shutdown(self, wait: bool = True) -> None:
        """Wait for what has been begun, but for rehearsals, and do nothing more."""
        for worker in self._all:
            if worker.rehearsing:
                end_now(worker.process)
            worker.process.shutdown(wait=wait, cancel_futures=True)

    def end_now(self) -> None:
        """End all processes without waiting for what they are doing."""
        for worker in self._all:
            end_now(worker.process)


def is_broken(process: ProcessPoolExecutor) -> bool:
    """Whether a process was killed."""
    return bool(getattr(process, "_broken", False))
