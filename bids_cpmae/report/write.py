"""Reports at the end of a run: what goes wrong with one is said, and stops nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from bids_cpmae.bids.lock import locked
from bids_cpmae.bids.verdicts import LOGS
from bids_cpmae.processes import bind, end_now, use_threads
from bids_cpmae.report.group import write_group
from bids_cpmae.report.participant import write_report

LOG = logging.getLogger("bids_cpmae")


def write_reports(
    output_dir: Path, participants: Iterable[str], *, nprocs: int = 1, drawings: Path | None = None
) -> list[Path]:
    """Write the pages of participants, and the dataset's page with what is known so far.

    Parameters
    ----------
    output_dir : Path
    participants : iterable of str
        Labels without ``sub-``.
    nprocs : int
        Pages at a time; each takes about 1 GB of memory where a scan of 1 mm has yet to be drawn.
    drawings : Path, optional
        Folder of what has been drawn already; see `bids_cpmae.report.drawing`.

    Returns
    -------
    list of Path
        Pages written. A page that cannot be made is warned of, and the page of an earlier run is taken away, since it
        may show what is not in the tree any more.
    """
    labels = sorted(set(participants))
    work = partial(write_report, output_dir, drawings=drawings)
    if nprocs > 1 and len(labels) > 1:
        # forked copies of threads of the numerical libraries would hang: workers come from a clean server process,
        # which after a run has those libraries at hand
        workers = min(nprocs, len(labels))
        with ProcessPoolExecutor(
            workers, mp_context=get_context("forkserver"), initializer=_start, initargs=(nprocs // workers,)
        ) as pool:
            try:
                futures = {_handed_over(pool, work, label): label for label in labels}
                written = [_tried(output_dir, futures[future], future.result) for future in as_completed(futures)]
            except KeyboardInterrupt:
                end_now(pool)
                raise
    else:
        written = [_tried(output_dir, label, partial(work, label)) for label in labels]
    return [*sorted(filter(None, written)), *filter(None, [write_overview(output_dir, refresh=False)])]


def _handed_over(pool: ProcessPoolExecutor, work, label: str) -> Future:
    try:
        return pool.submit(work, label)
    except Exception as error:
        # no worker can be started
        future = Future()
        future.set_exception(error)
        return future


def _start(threads: int) -> None:
    bind()
    use_threads(threads)


def write_overview(output_dir: Path, *, refresh: bool = True) -> Path | None:
    """`write_group` by one run at a time, or a warning."""
    logs = output_dir / LOGS
    try:
        # a folder that is no output tree stays as it is
        with locked(logs) if logs.is_dir() else nullcontext(True) as free:
            return write_group(output_dir, refresh=refresh) if free else None
    except Exception as error:
        LOG.warning("no group report: %s", error)
        return None


def _tried(output_dir: Path, label: str, work) -> Path | None:
    try:
        return work()
    except Exception as error:
        LOG.warning("sub-%s: no report (%s: %s)", label, type(error).__name__, error)
        LOG.debug("in full:", exc_info=error)
        stale = output_dir / f"sub-{label}.html"
        if stale.parent == output_dir:
            with suppress(OSError):
                stale.unlink(missing_ok=True)
        return None
