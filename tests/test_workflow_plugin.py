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
from functools import partial

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from nipype.utils.filemanip import loadpkl

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


def run(tmp_path, *nodes, plugin=SturdyMultiProcPlugin, chained=False, **arguments):
    workflow = pe.Workflow("killed", base_dir=str(tmp_path))
    workflow.config["execution"] = {"crashdump_dir": str(tmp_path / "crash"), "poll_sleep_duration": "0"}
    workflow.add_nodes(list(nodes))
    for before, after in zip(nodes, nodes[1:] if chained else ()):
        workflow.connect(before, "out", after, "marker_of_first")
    ended = []
    plugin = plugin(
        {"n_procs": 1, "memory_gb": 4, "n_gpu_procs": 0, "mp_context": "forkserver", "log_level": logging.CRITICAL,
         "status_callback": lambda node, status: ended.append((node.name, status)), **arguments}
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


def waits_for(path):
    """A job that ends when a file is there, and leaves word beside it whenever it begins."""
    import os
    import time

    with open(f"{path}.begun", "a") as file:
        file.write("x")
    for _ in range(600):
        if os.path.exists(path):
            return "done"
        time.sleep(0.1)
    raise TimeoutError(path)


def test_a_worker_that_is_killed_takes_no_other_job_with_it(tmp_path):
    beside = pe.Node(niu.Function(["path"], ["out"], waits_for), name="beside")
    beside.inputs.path = str(tmp_path / "again.txt")
    dies = node("dies", tmp_path / "dies.txt", 1)
    last = node("last", tmp_path / "again.txt", 0)
    inner = pe.Workflow("inner")
    inner.connect(dies, "out", last, "marker_of_first")
    ended, error = run(tmp_path, beside, inner, n_procs=2)
    assert error is None
    assert sorted(name for name, status in ended if status == "end") == ["beside", "dies", "last"]
    assert (tmp_path / "again.txt.begun").stat().st_size == 1


def leaves_its_number(path):
    """A rehearsal that says which process it was in."""
    path.write_text(str(os.getpid()))


def tells_its_number(marker_of_first=None):
    """The process that a job was done in."""
    import os

    return os.getpid()


def test_a_worker_that_rehearsed_goes_on_with_the_scan(tmp_path):
    wait = pe.Node(niu.Function(["path"], ["out"], waits_for), name="wait")
    wait.inputs.path = str(tmp_path / "rehearsed.txt")
    tell = pe.Node(niu.Function(["marker_of_first"], ["out"], tells_its_number), name="tell")
    rehearsal = (1, partial(leaves_its_number, tmp_path / "rehearsed.txt"))
    _, error = run(tmp_path, wait, tell, chained=True, n_procs=2, rehearsal=rehearsal)
    assert error is None
    told = loadpkl(next(tmp_path.rglob("result_tell.pklz"))).outputs.out
    assert str(told) == (tmp_path / "rehearsed.txt").read_text()


@pytest.mark.parametrize("rehearsal", [partial(time.sleep, 3600), os.abort, partial(int, "none")],
                         ids=["never ends", "is killed", "fails"])  # fmt: skip
def test_nothing_waits_for_a_rehearsal(tmp_path, rehearsal):
    ended, error = run(tmp_path, node("one", tmp_path / "1.txt", 0), node("two", tmp_path / "2.txt", 0), chained=True,
                       n_procs=2, rehearsal=(1, rehearsal))  # fmt: skip
    assert error is None and [name for name, status in ended if status == "end"] == ["one", "two"]


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
