"""``--layout raw``: a complete raw dataset with the de-identified images in the place of the originals.

A participant is shared whole or not at all: one anatomical image that has not passed keeps all of a participant's
files out. Nothing is ever written to the input. Several calls may work on different participants at once, and a call
may be repeated: what a participant lost in the input, or by a new verdict, is taken away.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from bids_cpmae.bids.atomic import sweep
from bids_cpmae.bids.dataset import drop_pages, remove_outputs
from bids_cpmae.bids.leaks import find_leaks
from bids_cpmae.bids.lock import locked
from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.bids.rawfiles import COPY, LINKS
from bids_cpmae.bids.rawparticipant import DROP, SHIFT, Participant, write_participant
from bids_cpmae.bids.rawplan import Raw, is_anatomical, plan, summary
from bids_cpmae.bids.rawreport import LEFT_OUT, WITHDRAWN, RawReport, Row, merge_rows, write_rows
from bids_cpmae.bids.rawshared import start_raw, write_shared
from bids_cpmae.bids.verdicts import LOGS, PASS, REVIEW, verdict_rows
from bids_cpmae.errors import ExitCode, InputError, OutputError, UsageError

NO_VERDICT = "no verdict"
NOT_WRITTEN = "the refaced image is missing"


@dataclass(frozen=True)
class Job:
    """What the parts of `assemble_raw` share."""

    raw: Raw
    derivative: Path
    out: Path
    accept_review: bool
    link: str
    dates: str


def may_be_shared(row: dict | None, accept_review: bool = False) -> bool:
    """Whether an anatomical image with this line of the verdict table may be shared.

    PASS may, and REVIEW if it is accepted. SKIPPED may not: that there is no face in an image, somebody has to see.
    """
    return row is not None and (row["verdict"] == PASS or (row["verdict"] == REVIEW and accept_review))


def assemble_raw(
    bids_dir: Path, derivative_dir: Path, out: Path, *, participants: tuple[str, ...] | None = None,
    accept_review: bool = False, link: str = COPY, dates: str = SHIFT,
) -> RawReport:  # fmt: skip
    """Write the raw dataset that may be shared.

    Parameters
    ----------
    bids_dir : Path
        The input; only read.
    derivative_dir : Path
        This run's derivative: refaced images and ``logs/sub-X_desc-refacing_verdicts.tsv``. Tables of what became of
        each file are added to its ``logs/``. Where it lies below ``out``, images of a participant left out that may
        not be shared are taken away from it, and pages that show them.
    out : Path
        Root of the dataset to write: new, empty but for ``derivatives/``, or written by an earlier call.
    participants : tuple of str, optional
        Labels with or without ``sub-``; all if None. Those of other calls stay.
    accept_review : bool
        Whether REVIEW is good enough.
    link : {"copy", "hard"}
        How unchanged files get there. A hard link is the input's own file under a second name: it takes no room, but
        who edits it edits the input, and it keeps the time of the input's file.
    dates : {"shift", "drop"}
        Dates of scans and sessions: shifted by one random span a participant, or left out.

    Returns
    -------
    RawReport

    Raises
    ------
    OutputError
        When ``out`` is, holds or lies in the input, holds something else, or cannot be written.
    InputError
        When the input has no description, or none of its folders is that of a participant asked for.
    UsageError
        When ``link`` or ``dates`` is something else.
    """
    if link not in LINKS or dates not in (SHIFT, DROP):
        raise UsageError(f"link is one of {', '.join(LINKS)}, dates one of {SHIFT}, {DROP}; not {link}, {dates}")
    start_raw(bids_dir, out)
    job = Job(plan(bids_dir), derivative_dir, out, accept_review, link, dates)
    labels = job.raw.participants if participants is None else [name.removeprefix("sub-") for name in participants]
    if strangers := sorted(set(labels) - set(job.raw.participants)):
        raise InputError(f"{bids_dir}: no participant {', '.join(strangers)}", ExitCode.NOTHING_TO_DO)
    report = RawReport()
    for label in sorted(set(labels)):
        verdicts = verdict_rows(derivative_dir, label)
        reasons = reasons_against(job, label, verdicts)
        if reasons:
            report.left_out[label] = reasons
            rows = _withdraw(job, label, verdicts, reasons)
        else:
            one = Participant(bids_dir, derivative_dir, out, label, job.raw.of(label), verdicts, link, dates)
            rows = write_participant(one) + _left_out(job.raw, f"sub-{label}/", label)
            report.leaks += find_leaks(out, f"sub-{label}").findings
        write_rows(derivative_dir, f"sub-{label}", rows)
        report.rows += rows
    return _finish(job, report, whole=participants is None)


def finish_raw(bids_dir: Path, derivative_dir: Path, out: Path, *, link: str = COPY) -> RawReport:
    """Write what belongs to the dataset as a whole, after the calls for all participants."""
    start_raw(bids_dir, out)
    job = Job(plan(bids_dir), derivative_dir, out, False, link, SHIFT)
    return _finish(job, RawReport(), whole=True)


def _finish(job: Job, report: RawReport, *, whole: bool) -> RawReport:
    with locked(job.derivative / LOGS) as free:
        if free:
            sweep(job.out)
            if whole:
                _remove_strangers(job)
            shared = write_shared(job.raw, job.out, job.link) + _left_out(job.raw, "")
            write_rows(job.derivative, "dataset", shared)
            merge_rows(job.derivative)
            report.rows += shared
    report.shared = tuple(sorted(path.name.removeprefix("sub-") for path in job.out.glob("sub-*") if path.is_dir()))
    if whole:
        report.leaks = find_leaks(job.out).findings
    return report


def reasons_against(job: Job, label: str, verdicts: dict[str, dict]) -> tuple[str, ...]:
    """Why a participant cannot be shared; empty if nothing speaks against it."""
    reasons = []
    for image in filter(is_anatomical, job.raw.of(label)):
        row = verdicts.get(image)
        if row is None:
            reasons.append(f"{image}: {NO_VERDICT}")
        elif not may_be_shared(row, job.accept_review):
            reasons.append(f"{image}: {row['verdict']} ({row['reason']})")
        elif not (job.derivative / outputs_of(image).image).exists():
            reasons.append(f"{image}: {NOT_WRITTEN}")
    return tuple(reasons)


def _withdraw(job: Job, label: str, verdicts: dict[str, dict], reasons: tuple[str, ...]) -> list[Row]:
    """Take a participant's files away, and from a derivative inside the dataset the images that may not be shared.

    Pages that show them go, too: `write_reports` makes them anew from what is left.
    """
    _remove_folder(job.out / f"sub-{label}")
    if job.out.resolve() in job.derivative.resolve().parents:
        # the group level of another run may be writing the same pages
        with locked(job.derivative / LOGS):
            drop_pages(job.derivative, label)
            for source, row in verdicts.items():
                if not may_be_shared(row, job.accept_review):
                    remove_outputs(job.derivative, outputs_of(source))
    return [Row(f"sub-{label}/", WITHDRAWN, reason, label) for reason in reasons]


def _left_out(raw: Raw, below: str, label: str | None = None) -> list[Row]:
    """Lines for files left out by their names: a participant's, or with ``below`` empty those of nobody."""
    mine = {
        path: reason for path, reason in raw.left_out.items()
        if (path.startswith(below) if below else path.split("/")[0] not in _folders(raw))
    }  # fmt: skip
    return [Row(file, LEFT_OUT, reason, label, count) for (file, reason), count in sorted(summary(mine).items())]


def _folders(raw: Raw) -> set[str]:
    return {f"sub-{label}" for label in raw.participants}


def _remove_strangers(job: Job) -> None:
    """Participants that are not in the input any more."""
    for folder in job.out.glob("sub-*"):
        if folder.is_dir() and folder.name.removeprefix("sub-") not in job.raw.participants:
            _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    """Take away what may not be shared.

    Raises
    ------
    OutputError
        When any of it stays.
    """
    try:
        shutil.rmtree(folder)
    except OSError as error:
        # another run may have been quicker
        if folder.exists():
            raise OutputError(
                f"{folder}: may not be shared and cannot be removed ({error.strerror or error}); remove it by hand"
            ) from error
