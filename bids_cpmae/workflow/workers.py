"""The clean process that worker processes are forked from, made ready while the dataset is still being read."""

from __future__ import annotations

import multiprocessing
import resource
from multiprocessing import forkserver

from bids_cpmae.processes import keep_memory, tell_threads
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
