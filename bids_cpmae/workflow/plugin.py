"""nipype's MultiProc plugin, made to outlive a worker that is killed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer, run_node

KILLED = "a worker process was killed, most likely for want of memory"
ATTEMPTS = 2
WATCH_S = 5


def quiet_nipype(level: int) -> None:
    """Hold nipype's own loggers, which it sets up anew in every process, to a level and off everybody else's."""
    for name in ("workflow", "interface", "utils", "filemanip"):
        logger = logging.getLogger(f"nipype.{name}")
        logger.setLevel(level)
        logger.propagate = False


def start_worker(cwd: str, level: int, parent: int) -> None:
    """What a worker process does first."""
    process_initializer(cwd)
    quiet_nipype(level)
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()


def leave_with(parent: int) -> None:
    """End this process when another is gone: the worker of a killed run would keep its memory and wait for ever."""
    while True:
        try:
            os.kill(parent, 0)
        except OSError:
            os._exit(1)
        time.sleep(WATCH_S)


class SturdyMultiProcPlugin(MultiProcPlugin):
    """Workers started afresh after one was killed, where nipype's own plugin waits for ever.

    A killed worker breaks the whole pool, and nobody knows whose node it was: all that ran are tried once more, and
    those that meet the same end again have failed. Takes nipype's ``plugin_args`` and ``log_level``.
    """

    def __init__(self, plugin_args: dict | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self._jobs: dict[int, tuple] = {}
        # processes start with the first job: the pool made above has none yet
        self.pool.shutdown(wait=False)
        self.pool = self._new_pool()

    def run(self, graph, config, updatehash=False):
        """Run the graph; however that ends, no worker goes on behind the caller's back."""
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _sort_jobs(self, jobids, scheduler="tsort"):
        """Participant by participant: what is begun is ended first, and the work folder does not hold all at once."""
        return sorted(jobids, key=lambda job: (self.procs[job].fullname.split(".")[1:-1], job))

    def _submit_job(self, node, updatehash=False):
        self._renew_pool()
        task = super()._submit_job(node, updatehash=updatehash)
        self._jobs[task] = (node, updatehash, 1)
        return task

    def _async_callback(self, args):
        # runs in the pool's own thread, where what is raised is lost: a broken pool is dealt with in _get_result
        if not args.cancelled() and args.exception() is None:
            super()._async_callback(args)

    def _get_result(self, taskid):
        future = self._task_obj[taskid]
        if not future.done():
            return None
        error = future.exception() if not future.cancelled() else BrokenProcessPool(KILLED)
        if error is None:
            return super()._get_result(taskid)
        node, updatehash, attempts = self._jobs[taskid]
        if not isinstance(error, BrokenProcessPool) or attempts >= ATTEMPTS:
            return {"result": None, "traceback": [f"{error}\n"], "taskid": taskid}
        self._renew_pool()
        self._jobs[taskid] = (node, updatehash, attempts + 1)
        self._task_obj[taskid] = self.pool.submit(run_node, node, updatehash, taskid)
        self._task_obj[taskid].add_done_callback(self._async_callback)
        return None

    def _renew_pool(self) -> None:
        if not getattr(self.pool, "_broken", False):
            return
        self.pool.shutdown(wait=False)
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=self.processors, initializer=start_worker,
            initargs=(self._cwd, self.plugin_args.get("log_level", logging.CRITICAL), os.getpid()),
            mp_context=multiprocessing.get_context(self.plugin_args.get("mp_context")),
        )  # fmt: skip
