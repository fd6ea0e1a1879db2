"""Signals that ask a run to end: exceptions, as Ctrl-C is one, so that what was done so far is written down first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bids_cpmae.errors import ExitCode

# Ctrl-C, and what schedulers, `kill`, `docker stop` and a machine that shuts down send some seconds before SIGKILL
ASKED = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class Stopped(KeyboardInterrupt):
    """The run was asked to end.

    Attributes
    ----------
    code : ExitCode
        128 and the signal's number, as a shell has it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = ASKED[number]


class _Waiting:
    """How many parts of the run let no signal in, and the signal that came meanwhile."""

    held = 0
    number: int | None = None


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in here at the first signal that asks to end; further ones change nothing.

    A signal that is ignored, as ``nohup`` and shells have it for what runs in the background, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKED}
    _Waiting.number = None
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _ask)
    try:
        yield
        if _Waiting.number is not None:
            # raised where Python lets nothing out, as in a destructor
            raise Stopped(_Waiting.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _ask(number: int, frame) -> None:
    if _Waiting.number is not None:
        return
    _Waiting.number = number
    if not _Waiting.held:
        raise Stopped(number)


@contextmanager
def unstopped() -> Iterator[None]:
    """Finish what is in here, which takes moments, before a signal that comes meanwhile counts.

    Raises
    ------
    Stopped
        At the end, if there was one.
    """
    asked = _Waiting.number
    _Waiting.held += 1
    try:
        yield
    finally:
        _Waiting.held -= 1
    if _Waiting.number != asked and not _Waiting.held:
        raise Stopped(_Waiting.number)
