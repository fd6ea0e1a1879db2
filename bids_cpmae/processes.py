"""Processes that a run starts: they end when it does, whatever ends it and whatever they are doing."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor

# glibc hands large arrays back as soon as they are freed, and every new one is paged in anew, which is a fifth of what
# networks and filters take: up to half a gigabyte is kept, for all threads together, since of what it keeps for one of
# them it hands back more
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**29), "MALLOC_ARENA_MAX": "1",
}  # fmt: skip


def keep_memory() -> None:
    """Have processes started from now on keep memory that they have freed, unless the environment says otherwise."""
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)


def bind() -> None:
    """Tie this process to the one that started it; what a worker process does first.

    A run that is killed can end nothing any more, and the worker would keep its memory and its cores. The worker holds
    one end of a pipe whose other end closes with the run: the kernel then sends it SIGIO, whose default is to end it.
    Nothing else would do while ANTs is at work, which lets no Python thread run for minutes.
    """
    # Ctrl-C reaches all processes; the run decides what becomes of its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = multiprocessing.parent_process()
    if run is None:
        return
    # where the kernel knows no such signal for pipes, as that of macOS
    threading.Thread(target=_leave_with, args=(run,), daemon=True).start()
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(run.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(run.sentinel, fcntl.F_SETFL, fcntl.fcntl(run.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if not run.is_alive():
        os._exit(1)


def use_threads(count: int) -> None:
    """Reckon in so many threads, whatever the process that this one was forked from was told."""
    import torch

    tell_threads(count)
    torch.set_num_threads(count)


def tell_threads(count: int) -> None:
    """Have processes started from now on reckon in so many threads, which wait for one another without using a core.

    Where two processes of two threads each share two cores, busy waiting takes half as long again.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(count)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def one_thread() -> None:
    """Reckon in one thread; what the processes of an evaluation do first, which are as many as there are cores."""
    use_threads(1)


def _leave_with(run) -> None:
    run.join()
    os._exit(1)


def end_now(pool: ProcessPoolExecutor) -> None:
    """End a pool without waiting for what its processes are doing."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
