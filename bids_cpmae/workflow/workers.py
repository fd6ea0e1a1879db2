"""The clean process that worker processes are forked from, made ready while the dataset is still being read."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver

from bids_cpmae.processes import keep_memory, tell_threads
from bids_cpmae.settings import Settings


def prepare_workers(settings: Settings, scans: int | None = None) -> None:
    """Set the threads of the numerical libraries, and start to import what all workers need; returns at once.

    Parameters
    ----------
    settings : Settings
    scans : int, optional
        How many there are, where it is known: few are given more threads each.
    """
    tell_threads(settings.threads(scans))
    keep_memory()
    if not settings.plugin:
        multiprocessing.set_forkserver_preload(["bids_cpmae.workflow.preload"])
        forkserver.ensure_running()
