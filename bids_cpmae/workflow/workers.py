"""The clean process that worker processes are forked from, made ready while the dataset is still being read."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

from bids_cpmae.settings import Settings


def prepare_workers(settings: Settings) -> None:
    """Set the threads of the numerical libraries, and start to import what all workers need; returns at once."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(settings.omp_nthreads)
    if not settings.plugin:
        multiprocessing.set_forkserver_preload(["bids_cpmae.workflow.preload"])
        forkserver.ensure_running()
