"""How a run is asked to end, and what errors that nobody foresaw come to."""

import errno
import os
import signal

import pytest

from bids_cpmae.cli import guarded
from bids_cpmae.errors import ExitCode, OutputError
from bids_cpmae.signals import Stopped, stoppable, unstopped


def ask():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):  # Python looks for signals between steps
        pass


class Dies:
    def __del__(self):
        ask()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_swallows_counts_at_the_end():
    with pytest.raises(Stopped) as stopped, stoppable():
        Dies()
    assert stopped.value.code == 143


def test_what_takes_moments_is_finished_first():
    done = []
    with pytest.raises(Stopped), stoppable():
        with unstopped():
            ask()
            done.append(True)
        done.append(False)
    assert done == [True]


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "error, code",
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), ExitCode.CANNOT_CREATE),
        (MemoryError(), ExitCode.NO_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ExitCode.NO_MEMORY),
        (ValueError("cannot map label 3"), ExitCode.SOFTWARE),
        (OutputError("out: full"), ExitCode.CANNOT_CREATE),
    ],
)
def test_errors_and_their_codes(error, code):
    def fail():
        raise error

    assert guarded(fail) == code
