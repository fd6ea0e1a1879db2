"""Workers that are killed: tried once more, and no run that waits for ever."""

import logging
import os
import signal
import subprocess
import sys
import threading

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_cpmae.workflow.plugin import SturdyMultiProcPlugin


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


def run(tmp_path, *nodes):
    workflow = pe.Workflow("killed", base_dir=str(tmp_path))
    workflow.config["execution"] = {"crashdump_dir": str(tmp_path / "crash"), "poll_sleep_duration": "0.1"}
    workflow.add_nodes(list(nodes))
    ended = []
    plugin = SturdyMultiProcPlugin(
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


def test_a_worker_leaves_with_its_run():
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    code = f"from bids_cpmae.workflow.plugin import leave_with; leave_with({parent.pid})"
    worker = subprocess.Popen([sys.executable, "-c", code])
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(2)
    parent.kill()
    parent.wait()
    assert worker.wait(120) == 1
