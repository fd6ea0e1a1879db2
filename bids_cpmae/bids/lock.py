"""Locks: around what several runs share in one output tree, held for moments; and on what a run works on.

Every file is written in one step, so none is ever half there. But a table that is read, added to and written again
loses what another run has written in between; so this is done by one run at a time.

It is `flock`, not a marker file: batch jobs end by being killed, the kernel then frees the lock, and nobody could tell
that the marker of a job on another node, or in a container that numbers its own processes, stands for nothing any more.
NFS, Lustre mounted with ``flock`` and GPFS carry it from node to node. Where a mount keeps it to one node, a table may
lack lines until the group level, which comes last and alone, makes it whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bids_cpmae.errors import OutputError

LOG = logging.getLogger("bids_cpmae")
LOCK = ".lock"
# a thousand jobs that end together wait for each other; many tries a second would burden a file server
PATIENCE_S, POLL_S = 600.0, 0.25
CLAIMS = ".in-use"


@contextmanager
def locked(folder: Path, *, patience_s: float = PATIENCE_S) -> Iterator[bool]:
    """Hold the lock of a folder, made if it is not there; not to be nested.

    Parameters
    ----------
    folder : Path
    patience_s : float
        How long to wait for others.

    Yields
    ------
    bool
        False when others have held the lock all the time: what can be left to the group level should be. True also
        where the file system has no locks.
    """
    from filelock import FileLock, Timeout

    lock, held, go_on = FileLock(folder / LOCK), False, True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience_s, poll_interval=POLL_S)
        held = True
    except Timeout:
        go_on = False
        LOG.warning("other runs hold %s; tables of the dataset are left to the group level", folder / LOCK)
    except (OSError, NotImplementedError) as error:
        LOG.warning("%s cannot be locked (%s); run the group level when all runs have ended", folder, error)
    try:
        yield go_on
    finally:
        if held:
            lock.release()


@contextmanager
def claimed(
    work_dir: Path, participants: Iterable[str], *, empty: Callable[[Path], None] | None = None
) -> Iterator[None]:  # fmt: skip
    """Keep other runs off what this one works on in a work folder, where two would spoil each other's files.

    A participant is one byte of a file, locked; the system frees it when the run ends, however it does.

    Parameters
    ----------
    work_dir : Path
    participants : iterable of str
        Labels.
    empty : callable, optional
        Empties the folder first, which nobody else may then use.

    Raises
    ------
    OutputError
        When another run is there.
    """
    try:
        file = open(work_dir / CLAIMS, "ab")
    except OSError as error:
        raise OutputError(f"{work_dir / CLAIMS}: cannot be written ({error.strerror}); choose another -w") from error
    with file:
        way_out = "wait for its end, or choose another with -w"
        if empty:
            if not _lock(file, 0, 0):
                raise OutputError(f"{work_dir}: another run uses this work folder, so it cannot be emptied; {way_out}")
            empty(work_dir)
            _unlock(file)
        for label in sorted(participants):
            place = int.from_bytes(hashlib.sha256(label.encode()).digest()[:7], "big")
            if not _lock(file, place, 1):
                raise OutputError(f"{work_dir}: another run works on sub-{label} in this work folder; {way_out}")
        yield


def _lock(file, start: int, length: int) -> bool:
    """Whether a part of a file is ours now; also where the file system has no locks. From ``start`` on if 0 long."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        LOG.debug("%s cannot be locked (%s)", file.name, error)
    return True


def _unlock(file) -> None:
    with suppress(OSError):
        fcntl.lockf(file, fcntl.LOCK_UN)
