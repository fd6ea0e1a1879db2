"""Workers that are killed: tried once more, and no run that waits for ever."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_cpmae.workflow.plugin import SturdyMultiProcPlugin, start_worker


def dies_until(marker, times, marker_of_first=None):
    """Killed, as by the kernel for want of memory, until a file has been written to a number of times."""
    import os
    import signal

    with open(marker, "a") as file:
        file.write("x")
    if os.path.getsize(marker) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def node(name, marker, times):
    made = pe.Node(niu.Function(["marker", "times", "marker_of_first"], ["out"], dies_until), name=name)
    made.inputs.marker, made.inputs.times = str(marker), times
    return made


def run(tmp_path, *nodes, plugin=SturdyMultiProcPlugin, chained=False):
    workflow = pe.Workflow("killed", base_dir=str(tmp_path))
    workflow.config["execution"] = {"crashdump_dir": str(tmp_path / "crash"), "poll_sleep_duration": "0"}
    workflow.add_nodes(list(nodes))
    for before, after in zip(nodes, nodes[1:] if chained else ()):
        workflow.connect(before, "out", after, "marker_of_first")
    ended = []
    plugin = plugin(
        {"n_procs": 1, "memory_gb": 4, "n_gpu_procs": 0, "mp_context": "forkserver", "log_level": logging.CRITICAL,
         "status_callback": lambda node, status: ended.append((node.name, status))}
    )  # fmt: skip
    error = None
    try:
        workflow.run(plugin=plugin)
    except RuntimeError as caught:
        error = caught
    return ended, error


@pytest.fixture(autouse=True)
def no_waiting_for_ever():
    timer = threading.Timer(300, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    yield
    timer.cancel()


def test_a_worker_killed_once_is_tried_again(tmp_path):
    ended, error = run(tmp_path, node("once", tmp_path / "once.txt", 1), node("never", tmp_path / "never.txt", 0))
    assert error is None
    assert {name for name, status in ended if status == "end"} == {"once", "never"}


def test_a_worker_killed_again_and_again_fails_alone(tmp_path):
    ended, error = run(tmp_path, node("always", tmp_path / "always.txt", 99), node("fine", tmp_path / "fine.txt", 0))
    assert error is not None
    assert ("always", "exception") in ended and ("fine", "end") in ended
    assert (tmp_path / "always.txt").stat().st_size == 2


def test_the_end_of_a_job_starts_the_next(tmp_path, monkeypatch):
    # one that waited to look for it would wait for longer than this takes
    monkeypatch.setattr("bids_cpmae.workflow.plugin.PATIENCE_S", 60)
    started = time.monotonic()
    ended, error = run(tmp_path, *(node(f"job{n}", tmp_path / f"{n}.txt", 0) for n in range(3)), chained=True)
    assert error is None and [name for name, status in ended if status == "end"] == ["job0", "job1", "job2"]
    assert time.monotonic() - started < 60


class BreaksAtOnce(ProcessPoolExecutor):
    """Its worker is killed while a job is handed over: the job is refused somewhere on its way, or lost."""

    def __init__(self, loses, *arguments, **options):
        super().__init__(*arguments, **options)
        self.loses = loses

    def _adjust_process_count(self):
        super()._adjust_process_count()
        if not self.loses:
            self._break()
            self._spawn_process()

    def submit(self, *arguments, **options):
        future = super().submit(*arguments, **options)
        if self.loses:
            self._break()
            future = Future()
        return future

    def _break(self):
        self._start_executor_manager_thread()
        for process in self._processes.values():
            process.kill()
        end = time.monotonic() + 60
        while self._executor_manager_thread.is_alive() and not self._call_queue._reader.closed:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("loses", [False, True], ids=["refuses", "loses"])
def test_a_worker_killed_while_a_job_is_handed_over(tmp_path, loses):
    class Plugin(SturdyMultiProcPlugin):
        made = 0

        def _new_process(self):
            self.made += 1
            if self.made > 1:
                return super()._new_process()
            return BreaksAtOnce(loses, max_workers=1, initializer=start_worker, initargs=(self._cwd, 50, 1),
                                mp_context=multiprocessing.get_context("forkserver"))  # fmt: skip

    ended, error = run(
        tmp_path, node("one", tmp_path / "one.txt", 0), node("two", tmp_path / "two.txt", 0), plugin=Plugin
    )
    assert error is None
    assert sorted(name for name, status in ended if status == "end") == ["one", "two"]


def test_a_participant_that_is_begun_is_ended_first(tmp_path):
    made = []
    for participant in ("one", "two"):
        first, then = (node(name, tmp_path / f"{participant}_{name}.txt", 0) for name in ("first", "then"))
        inner = pe.Workflow(participant)
        inner.connect(first, "out", then, "marker_of_first")
        made.append(inner)
    ended, error = run(tmp_path, *made)
    assert error is None
    assert [name for name, status in ended if status == "end"] == ["first", "then"] * 2


RUN = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bids_cpmae.processes import bind
if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver"), initializer=bind) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        # as deep in a library as ANTs: no other thread of Python gets a turn
        pool.submit(sum, range(10**12)).result()
"""


def test_a_worker_leaves_with_its_run(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    run = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], stdout=subprocess.PIPE, text=True)
    worker = int(run.stdout.readline())
    time.sleep(1)
    assert os.path.exists(f"/proc/{worker}") or not os.path.isdir("/proc")
    run.kill()
    run.wait()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker went on")
