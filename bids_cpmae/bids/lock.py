"""A lock around what several runs share in one output tree, held for moments.

Every file is written in one step, so none is ever half there. But a table that is read, added to and written again
loses what another run has written in between; so this is done by one run at a time.

It is `flock`, not a marker file: batch jobs end by being killed, the kernel then frees the lock, and nobody could tell
that the marker of a job on another node, or in a container that numbers its own processes, stands for nothing any more.
NFS, Lustre mounted with ``flock`` and GPFS carry it from node to node. Where a mount keeps it to one node, a table may
lack lines until the group level, which comes last and alone, makes it whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = logging.getLogger("bids_cpmae")
LOCK = ".lock"
# a thousand jobs that end together wait for each other; many tries a second would burden a file server
PATIENCE_S, POLL_S = 600.0, 0.25


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

    folder.mkdir(parents=True, exist_ok=True)
    lock, held, go_on = FileLock(folder / LOCK), False, True
    try:
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
