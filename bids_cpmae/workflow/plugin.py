"""nipype's MultiProc plugin, made to outlive a worker that is killed."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from traceback import format_exception

import numpy as np
from nipype.interfaces.base import isdefined
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer, run_node

from bids_cpmae.processes import bind, use_threads
from bids_cpmae.workflow.workers import Workers, is_broken

KILLED = "a worker process was killed, most likely for want of memory"
LOST = "something is missing in the work folder; run again with --clean-workdir"
ATTEMPTS = 2
# how long a pool that broke may go unnoticed; the pause where there is nothing to wait for
PATIENCE_S, IDLE_S = 0.2, 0.01
# the step on which no other hangs
DRAWING = "draw_scan"


def quiet_nipype(level: int) -> None:
    """Hold nipype's own loggers, which it sets up anew in every process, to a level and off everybody else's."""
    for name in ("workflow", "interface", "utils", "filemanip"):
        logger = logging.getLogger(f"nipype.{name}")
        logger.setLevel(level)
        logger.propagate = False


def start_worker(cwd: str, level: int, threads: int) -> None:
    """What a worker process does first."""
    bind()
    use_threads(threads)
    process_initializer(cwd)
    quiet_nipype(level)


class SturdyMultiProcPlugin(MultiProcPlugin):
    """Workers started afresh after one was killed, where nipype's own plugin waits for ever.

    A node whose worker was killed is tried once more, and has failed when it meets the same end again. The end of a
    job wakes this plugin, so that nipype's ``poll_sleep_duration`` is to be 0; ``max_jobs`` is not heeded. Takes
    nipype's ``plugin_args``, ``log_level``, ``threads`` of a process, and ``rehearsal``: what so many workers that
    would be idle at first are to do meanwhile, a number and a callable, see `Workers.rehearse`.

    Attributes
    ----------
    causes : dict of str to str
        By the path of a scan below its dataset, the traceback of a node of it that failed, or `KILLED`.
    """

    def __init__(self, plugin_args: dict | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self._jobs: dict[int, tuple] = {}
        self.causes: dict[str, str] = {}
        self._news = threading.Event()
        # processes start with the first job: the pool made above has none yet
        self.pool.shutdown(wait=False)
        self.pool = Workers(self.processors, self._new_process)
        # there are no more than processes anyhow, and nipype would not come by where this plugin waits
        self.max_jobs = np.inf

    def run(self, graph, config, updatehash=False):
        """Run the graph; however that ends, no worker goes on behind the caller's back."""
        try:
            try:
                self.pool.rehearse(*self.plugin_args.get("rehearsal", (0, None)))
                super().run(graph, config, updatehash=updatehash)
            except KeyboardInterrupt:
                # a step may take minutes, and who asks to end does not wait as long
                self.pool.end_now()
                raise
            finally:
                self.pool.shutdown(wait=True)
        except KeyboardInterrupt:
            # asked while waiting for the steps that went on beside one that failed
            self.pool.end_now()
            raise

    def _send_procs_to_workers(self, updatehash=False, graph=None):
        """Hand over what can run, and wait until something of it has ended."""
        done = self._done()
        super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
        # where a step was found done, others may run
        if self._done() == done:
            self._news.wait(PATIENCE_S if self.pending_tasks else IDLE_S)
        # before results are looked at: what ends from now on is seen there, or wakes the next wait
        self._news.clear()

    def _done(self) -> int:
        """How many steps have ended."""
        return int(np.sum(self.proc_done & ~self.proc_pending))

    def _sort_jobs(self, jobids, scheduler="tsort"):
        """Participant by participant: what is begun is ended first, and the work folder does not hold all at once.

        What is drawn is for the page, and comes after what a scan waits for.
        """

        def place(job):
            *_, name = path = self.procs[job].fullname.split(".")[1:]
            return path[:-1], name == DRAWING, job

        return sorted(jobids, key=place)

    @property
    def unfinished(self) -> bool:
        """Whether a run ended before all that could run had run."""
        return self.proc_done is None or not np.all(self.proc_done) or bool(np.any(self.proc_pending))

    def _local_hash_check(self, jobid, graph):
        # nipype looks at it again, and where that raises, as for lost results of another node, the whole run would end
        try:
            self.procs[jobid].is_cached()
        except Exception as error:
            lines = [*format_exception(error), f"OSError: {LOST}\n"]
            self._clean_queue(jobid, graph, result={"result": None, "traceback": lines})
            self.proc_pending[jobid] = False
            return True
        return super()._local_hash_check(jobid, graph)

    def _report_crash(self, node, result=None):
        scan = getattr(node.inputs, "scan", None)
        if isdefined(scan) and scan:
            self.causes.setdefault(scan["source"], "".join((result or {}).get("traceback") or KILLED).strip())
        try:
            return super()._report_crash(node, result=result)
        except OSError as error:
            # a disk that is full: the other scans may need less
            return f"none, {error}"

    def _submit_job(self, node, updatehash=False):
        self._taskid += 1
        self._start(self._taskid, node, updatehash, attempt=1)
        return self._taskid

    def _start(self, taskid: int, node, updatehash: bool, *, attempt: int) -> None:
        """Hand a node over to a worker.

        Raises
        ------
        MemoryError
            No worker can be started.
        """
        scan = node.fullname.rpartition(".")[0]
        worker = self.pool.choose(scan)
        future = worker.submit(scan, run_node, node, updatehash, taskid)
        self._task_obj[taskid] = future
        self._jobs[taskid] = (node, updatehash, attempt, worker.process)
        future.add_done_callback(self._async_callback)

    def _async_callback(self, args):
        # runs in a thread where what is raised is lost: a worker that was killed is dealt with in _get_result
        if not args.cancelled() and args.exception() is None:
            super()._async_callback(args)
        self._news.set()

    def _get_result(self, taskid):
        future = self._task_obj[taskid]
        node, updatehash, attempt, process = self._jobs[taskid]
        # what was handed over to a worker while it was killed is never said to be done
        if not future.done() and not is_broken(process):
            return None
        if not future.done() or future.cancelled():
            error = BrokenProcessPool(KILLED)
        else:
            error = future.exception()
        if error is None:
            return super()._get_result(taskid)
        if not isinstance(error, BrokenProcessPool) or attempt >= ATTEMPTS:
            # with the worker's own traceback, which says more than nipype's error at looking for results
            lines = [f"{KILLED}\n"] if isinstance(error, BrokenProcessPool) else format_exception(error)
            return {"result": None, "traceback": lines, "taskid": taskid}
        try:
            self._start(taskid, node, updatehash, attempt=attempt + 1)
        except MemoryError as error:
            return {"result": None, "traceback": format_exception(error), "taskid": taskid}
        return None

    def _new_process(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1, initializer=start_worker,
            initargs=(
                self._cwd, self.plugin_args.get("log_level", logging.CRITICAL), self.plugin_args.get("threads", 1),
            ),
            mp_context=multiprocessing.get_context(self.plugin_args.get("mp_context")),
        )  # fmt: skip
