"""The clean process that worker processes are forked from, made ready while the dataset is still being read."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

from bids_cpmae.processes import keep_memory
from bids_cpmae.settings import Settings


def prepare_workers(settings: Settings, scans: int | None = None) -> None:
    """Set the threads of the numerical libraries, and start to import what all workers need; returns at once.

    Parameters
    ----------
    settings : Settings
    scans : int, optional
        How many there are, where it is known: few are given more threads each.
    """
    _tell_threads(settings.threads(scans))
    keep_memory()
    if not settings.plugin:
        multiprocessing.set_forkserver_preload(["bids_cpmae.workflow.preload"])
        forkserver.ensure_running()


def use_threads(count: int) -> None:
    """Have a worker process, whose clean parent was started before the scans were known, reckon in so many threads."""
    import torch

    _tell_threads(count)
    torch.set_num_threads(count)


def _tell_threads(count: int) -> None:
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(count)
